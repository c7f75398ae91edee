"""What a recipe says of heads over the tokens of code, and of their augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmembed.errors import ConfigError

__all__ = ["AugmentConfig", "CodeTaskConfig"]


@dataclass(frozen=True)
class CodeTaskConfig:
    """A token-level head.

    Attributes:
        head: ``identifier`` (SynCoBERT), ``edge`` between tokens of one parent (SynCoBERT),
            ``type`` of a token (Code-MVP), type of its ``parent`` node (CONCORD), or ``names``:
            identifiers that are masked wherever they stand (CodeSage).
        column: Whose texts it reads; they must be code.
        language: Of that code.
        weight: Times its loss.
        classes: Types are counted by hash into so many classes.
    """

    head: Literal["identifier", "edge", "type", "parent", "names"]
    column: Literal["query", "positive"] = "positive"
    language: str = "python"
    weight: float = 1.0
    classes: int = 256

    def __post_init__(self) -> None:
        if self.classes < 2 or not self.weight > 0:
            raise ConfigError(f"head {self.head}: classes >= 2, and a weight above 0")

    @property
    def label(self) -> str:
        """What its loss is logged under."""
        return f"code-{self.head}"

    # What the trainer asks of a token task's configuration.
    @property
    def task(self) -> str:
        """The same, as the trainer calls it."""
        return self.label


@dataclass(frozen=True)
class AugmentConfig:
    """Soft augmentation of every row of a batch (CoCoSoDa, Shi et al., 2023).

    Attributes:
        probability: Share of tokens that are masked, or replaced by their types.
        code: Columns of code; the others are text, which has no types.
        language: Of that code.
    """

    probability: float = 0.15
    code: tuple[Literal["query", "positive"], ...] = ("positive",)
    language: str = "python"

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise ConfigError("augment: probability lies between 0 and 1")
