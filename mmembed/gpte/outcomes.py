"""What stages leave behind, and how later stages name it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmembed.errors import ConfigError
from mmembed.gpte.config import DataConfig, SourceConfig
from mmembed.gpte.recipe import Recipe, TrainStage

if TYPE_CHECKING:
    from mmembed.gpte.trainer import Step

__all__ = ["Context", "Outcome"]

_Source = TypeVar("_Source", bound="SourceConfig | Any")
_REFERENCE = re.compile(r"stage://([^@]+)(?:@(\d+|all))?")


@dataclass(frozen=True)
class Outcome:
    """What a stage left behind.

    Attributes:
        folder: the stage's.
        model: a folder that a text encoder is loaded from.
        rows: a JSONL file of training rows.
        metrics: measured at the end, by name.
        start: the same before training.
    """

    folder: Path
    model: Path | None = None
    rows: Path | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a stage may ask for while it runs.

    Attributes:
        folder: where this stage writes.
        before: outcomes of the stages before it, by name, in order.
        on_step: called after every training step.
        stop_after: training steps after which the stage stops early, with a checkpoint.
    """

    recipe: Recipe
    folder: Path
    before: Mapping[str, Outcome] = field(default_factory=dict)
    on_step: Callable[[Step], None] | None = None
    stop_after: int | None = None

    def model(self, reference: str) -> str:
        """The folder or hub name that a stage's ``start`` or ``model`` means.

        Raises:
            ConfigError: no such stage has run, or it left no model.
        """
        (found,) = self.models(reference)
        return found

    def models(self, reference: str) -> list[str]:
        """As :meth:`model`, and all kept models of a stage for ``stage://NAME@all``."""
        if reference == "previous":
            made = [one.model for one in self.before.values() if one.model is not None]
            return [str(made[-1])] if made else self.models("base")
        if reference == "base":
            bases = [s.encoder.backbone for s in self.recipe.stages if isinstance(s, TrainStage)]
            if not bases:
                raise ConfigError("no training stage says what the base is: name a folder")
            return [bases[0]]
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            return [reference]
        outcome = self._outcome(match[1])
        if match[2] is None:
            if outcome.model is None:
                raise ConfigError(f"{reference}: that stage leaves no model")
            return [str(outcome.model)]
        kept = sorted((outcome.folder / "models").glob("step-*"))
        if match[2] != "all":
            kept = [path for path in kept if int(path.name.removeprefix("step-")) == int(match[2])]
        if not kept:
            raise ConfigError(
                f"{reference}: no such model was kept; set checkpoint.every and checkpoint.models"
            )
        return [str(path) for path in kept]

    def data(self, config: DataConfig) -> DataConfig:
        """The config with files in the place of ``stage://`` sources and guides."""
        guide = config.guide
        if guide is not None:
            guide = replace(guide, model=self.model(guide.model))
        return replace(config, sources=tuple(map(self.source, config.sources)), guide=guide)

    def source(self, source: _Source) -> _Source:
        """The source, of this package's kind or another's, with the file that a stage wrote."""
        match = _REFERENCE.fullmatch(source.path)
        if match is None:
            return source
        rows = self._outcome(match[1]).rows
        if rows is None:
            raise ConfigError(f"{source.path}: that stage writes no rows")
        return replace(source, path=str(rows), name=source.name or match[1])

    def _outcome(self, name: str) -> Outcome:
        if name not in self.before:
            known = ", ".join(self.before) or "none"
            raise ConfigError(f"stage://{name}: no stage of that name comes before ({known} do)")
        return self.before[name]
