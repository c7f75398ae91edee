"""What a recipe says of heads over the tokens of code, and of their augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmembed.errors import ConfigError

__all__ = ["AugmentConfig", "CodeTaskConfig", "GraphConfig"]


@dataclass(frozen=True)
class CodeTaskConfig:
    """A token-level head.

    Attributes:
        head: ``identifier`` (SynCoBERT), ``edge`` from parent to child in the tree's sequence
            (SynCoBERT; see :class:`codeembed.training.edges.TreeEdges`), ``type`` of a token
            (Code-MVP), type of its ``parent`` node (CONCORD), ``names``: identifiers that are
            masked wherever they stand (CodeSage); or, of a stage with a ``graph``, its ``flow``
            between variables and their ``alignment`` with the code (GraphCodeBERT).
        column: Whose texts it reads; they must be code.
        language: Of that code.
        weight: Times its loss.
        classes: Types are counted by hash into so many classes.
    """

    head: Literal["identifier", "edge", "type", "parent", "names", "flow", "alignment"]
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
    prefix: ClassVar[str] = ""

    @property
    def task(self) -> str:
        """The same, as the trainer asks for it."""
        return self.label


@dataclass(frozen=True)
class AugmentConfig:
    """Soft augmentation of what a momentum encoder reads (CoCoSoDa, Shi et al., 2023).

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


@dataclass(frozen=True)
class GraphConfig:
    """Variables of the code behind it, with attention along its data flow (GraphCodeBERT, Guo et
    al., 2021); see :mod:`codeembed.training.graph`.

    Attributes:
        nodes: The first so many of a code; they take no positions.
        code: Columns of code.
        joined: Read query and positive as one row, ``[CLS] query [SEP] positive [SEP]``: the
            column ``query`` of token tasks.
        language: Of the code.
    """

    nodes: int = 64
    code: tuple[Literal["query", "positive"], ...] = ("positive",)
    joined: bool = False
    language: str = "python"

    def __post_init__(self) -> None:
        if self.nodes < 1 or (self.joined and self.code != ("positive",)):
            raise ConfigError("graph: nodes >= 1, and joined rows end in the positive's code")
