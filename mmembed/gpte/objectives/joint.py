"""Several objectives at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.base import Learnable, loss_of
from mmembed.gpte.protocols import Columns, Loss, Objective

__all__ = ["Joint", "Part"]


@dataclass(frozen=True)
class Part:
    """One term of a weighted sum.

    Attributes:
        label: names the term in the log; the objective's own name by default.
    """

    objective: Objective
    weight: float = 1.0
    label: str = ""

    @property
    def key(self) -> str:
        """The term's name."""
        return self.label or str(getattr(self.objective, "name", type(self.objective).__name__))


@dataclass(frozen=True)
class Joint:
    """``sum_k weight_k * L_k``, each term normalised by its own global count.

    Parts are logged before weighting, as ``term/part``; a learned parameter of a term is called
    ``term__parameter``.
    """

    parts: tuple[Part, ...]

    name: ClassVar[str] = "joint"

    def __post_init__(self) -> None:
        keys = [part.key for part in self.parts]
        if not keys:
            raise ConfigError("a joint objective needs at least one part")
        if len(set(keys)) < len(keys):
            raise ConfigError(f"parts of a joint objective need different labels, not {keys}")

    def parameters(self, width: int) -> dict[str, Tensor]:
        """Those of all parts."""
        return {
            f"{part.key}__{name}": value
            for part in self.parts
            if isinstance(part.objective, Learnable)
            for name, value in part.objective.parameters(width).items()
        }

    def __call__(self, columns: Columns) -> Loss:
        """The weighted sum."""
        total: Tensor | None = None
        logged: dict[str, Tensor] = {}
        for part in self.parts:
            own = f"{part.key}__"
            mine = {k[len(own) :]: v for k, v in columns.shared.items() if k.startswith(own)}
            loss = part.objective(replace(columns, shared={**columns.shared, **mine}))
            weighted = part.weight * loss.total
            total = weighted if total is None else total + weighted
            for name, value in loss.parts.items():
                logged[part.key if name == part.key else f"{part.key}/{name}"] = value
        assert total is not None
        return loss_of(self.name, total, logged)
