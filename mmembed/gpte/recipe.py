"""Recipes: typed stages read from YAML, each naming its data, objective, schedule and start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from mmembed.errors import ConfigError
from mmembed.gpte.config import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    MomentumConfig,
    ScheduleConfig,
)
from mmembed.gpte.objectives import build_objective
from mmembed.gpte.objectives.building import construct
from mmembed.gpte.task_config import TokenTaskConfig

__all__ = [
    "CalibrateStage",
    "MergeStage",
    "MineStage",
    "Recipe",
    "Stage",
    "TrainStage",
    "load_recipe",
    "recipe_from",
    "to_yaml",
]


@dataclass(frozen=True)
class TrainStage:
    """One run of the trainer.

    Attributes:
        start: ``base``, ``previous``, ``stage://NAME`` or a folder of a saved encoder.
        objective: name and options of a sentence objective; None trains token tasks alone.
        precision: the forward pass's type; weights stay in float32.
        trackers: accelerate's, such as tensorboard, besides the metrics file.
        verify_cache: compare both passes of the gradient cache at every step.
    """

    kind: ClassVar[str] = "train"

    name: str
    data: DataConfig
    encoder: EncoderConfig
    objective: Mapping[str, Any] | str | None = None
    tasks: tuple[TokenTaskConfig, ...] = ()
    batch: BatchConfig = field(default_factory=BatchConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    momentum: MomentumConfig | None = None
    evaluation: EvaluationConfig | None = None
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    start: str = "previous"
    precision: Literal["no", "bf16", "fp16"] = "no"
    trackers: tuple[str, ...] = ()
    log_every: int = 1
    verify_cache: bool = False

    def __post_init__(self) -> None:
        if self.objective is None and not self.learns_tokens:
            raise ConfigError(f"stage {self.name}: give an objective or a token task")
        own = any(source.objective for source in self.data.sources)
        if own and self.batch.order != "homogeneous":
            raise ConfigError(
                f"stage {self.name}: sources with objectives of their own need homogeneous batches"
            )

    @property
    def learns_tokens(self) -> bool:
        """Whether it has a loss over tokens."""
        return bool(self.tasks)


@dataclass(frozen=True)
class MineStage:
    """Hard negatives for a source, as a JSONL file that later stages read by ``stage://NAME``.

    Attributes:
        model: ``previous``, ``stage://NAME``, a folder or a hub name.
        negatives: how many to keep for a query.
        ranks: first and last rank, from 0, that may be a negative.
        margin: a negative scores below the positive by this much...
        relative: ...or below this share of the positive's score (0.95 in NV-Retriever).
        sample: draw among the candidates in place of taking the best.
        reranker: folder or hub name of a cross-encoder that must score a negative below
            ``reranker_share`` of the positive.
    """

    kind: ClassVar[str] = "mine"

    name: str
    data: DataConfig
    model: str = "previous"
    negatives: int = 7
    ranks: tuple[int, int] = (0, 100)
    margin: float | None = None
    relative: float | None = None
    sample: bool = False
    reranker: str | None = None
    reranker_share: float = 0.95

    def __post_init__(self) -> None:
        if self.negatives < 1 or not 0 <= self.ranks[0] < self.ranks[1]:
            raise ConfigError(f"stage {self.name}: negatives >= 1, and ranks rise from 0")
        if self.data.streaming:
            raise ConfigError(f"stage {self.name}: mining ranks all rows: not with data.streaming")


@dataclass(frozen=True)
class MergeStage:
    """A weighted mean of models (linear), or spherical interpolation (slerp).

    Attributes:
        models: ``base``, folders, ``stage://NAME``, ``stage://NAME@STEP`` or ``stage://NAME@all``.
        weights: one a model; equal by default.
    """

    kind: ClassVar[str] = "merge"

    name: str
    models: tuple[str, ...]
    method: Literal["linear", "slerp"] = "linear"
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class CalibrateStage:
    """Whitening or a flow, fitted to the texts of ``data`` and saved with the model.

    See :mod:`mmembed.gpte.calibration`.

    Attributes:
        model: ``previous``, ``base``, ``stage://NAME``, a folder or a hub name.
        dim: dimensions that whitening keeps; all by default.
        shrinkage: of the covariance.
        epochs: of the flow.
    """

    kind: ClassVar[str] = "calibrate"

    name: str
    data: DataConfig
    method: Literal["whitening", "flow"] = "whitening"
    model: str = "previous"
    dim: int | None = None
    shrinkage: float = 0.0
    epochs: int = 1
    evaluation: EvaluationConfig | None = None


Stage = TrainStage | MineStage | MergeStage | CalibrateStage


@dataclass(frozen=True)
class Recipe:
    """A system: one or more stages, in order.

    Attributes:
        output: folder of the run; ``runs/NAME`` by default.
        size: ``tiny`` swaps every model for a tiny random one of its architecture, cuts batches
            down, and stops each stage after a few steps: the whole recipe in seconds.
    """

    name: str
    stages: tuple[Stage, ...]
    about: str = ""
    seed: int = 42
    output: str = ""
    size: Literal["full", "tiny"] = "full"

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names:
            raise ConfigError("a recipe needs at least one stage")
        if len(set(names)) < len(names):
            raise ConfigError(f"stages need different names, not {names}")


_STAGES: tuple[type[Stage], ...] = (TrainStage, MineStage, MergeStage, CalibrateStage)


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), more: Sequence[type[Stage]] = ()
) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file.
        overrides: ``key.sub=value`` with YAML values; list items by number or, for stages, by
            name: ``stages.pretrain.schedule.steps=1000``.
        more: kinds of stages beside those of this module.

    Raises:
        ConfigError: the file, an override or a value is wrong; the message names the file and the
            key, and the nearest known key.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is no YAML: {error}") from error
    try:
        if not isinstance(values, dict):
            raise ConfigError("a recipe is a mapping with name and stages")
        values.setdefault("name", path.stem)
        for override in overrides:
            _override(values, override)
        return recipe_from(values, more)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def recipe_from(values: Mapping[str, Any], more: Sequence[type[Stage]] = ()) -> Recipe:
    """A recipe from plain values. The recipe's ``encoder`` is what its stages' add to.

    Raises:
        ConfigError: as :func:`load_recipe`.
    """
    values = dict(values)
    shared = values.pop("encoder", {})
    stages = values.get("stages", [])
    if not isinstance(stages, list):
        raise ConfigError("stages: give a list")
    kinds = {stage.kind: stage for stage in (*_STAGES, *more)}
    values["stages"] = [
        _stage(stage, shared, kinds, f"stages[{i}]") for i, stage in enumerate(stages)
    ]
    made: Recipe = construct(Recipe, values, {}, "recipe")
    return made


def to_yaml(config: Any) -> str:
    """YAML of a recipe or stage with every default filled in; :func:`load_recipe` reads it back."""
    values = dataclasses.asdict(config)
    stages = getattr(config, "stages", (config,))
    for stage, plain in zip(stages, values.get("stages", (values,)), strict=True):
        plain["kind"] = stage.kind
    text: str = yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True)
    return text


def _stage(
    values: Any, shared: Mapping[str, Any], kinds: Mapping[str, type[Stage]], where: str
) -> Stage:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: give a mapping, not {values!r}")
    values = dict(values)
    kind = values.pop("kind", "train")
    if kind not in kinds:
        raise ConfigError(f"{where}: unknown kind {kind!r} (known: {', '.join(kinds)})")
    where = f"{where} {values.get('name', '')!r}"
    if issubclass(kinds[kind], TrainStage):
        values["encoder"] = _merged(shared, values.get("encoder") or {})
    made: Stage = construct(kinds[kind], values, {}, where)
    if isinstance(made, TrainStage):
        for config in (made.objective, *(source.objective for source in made.data.sources)):
            if config is not None:
                try:
                    build_objective(config)
                except ConfigError as error:
                    raise ConfigError(f"{where}: {error}") from None
    return made


def _merged(base: Any, changes: Any) -> Any:
    """``changes`` over ``base``, mapping by mapping; anything else is replaced whole."""
    if not isinstance(base, Mapping) or not isinstance(changes, Mapping):
        return changes
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = _merged(base[key], value) if key in base else value
    return merged


def _override(values: dict[str, Any], text: str) -> None:
    """Set ``a.b.c=value`` in nested mappings and lists."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {text!r}: write key.sub=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {text!r}: the value is no YAML: {error}") from error
    at: Any = values
    *path, last = key.split(".")
    for i, part in enumerate(path):
        if isinstance(at, list):
            at = at[_index(at, part, text)]
        elif isinstance(at, dict):
            if at.get(part) is None:
                at[part] = {}
            at = at[part]
        else:
            raise ConfigError(f"override {text!r}: {'.'.join(path[:i])} has no parts")
    if isinstance(at, list):
        at[_index(at, last, text)] = parsed
    elif isinstance(at, dict):
        at[last] = parsed
    else:
        raise ConfigError(f"override {text!r}: {'.'.join(path)} has no parts")


def _index(items: list[Any], part: str, text: str) -> int:
    """A position in a list, by number or by the ``name`` of the item."""
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    known = ", ".join(str(name) for name in names if name) or "none"
    raise ConfigError(f"override {text!r}: no item {part!r} in a list of {len(items)} ({known})")


def _plain(value: Any) -> Any:
    """Tuples as lists, mappings as dicts: what YAML can hold."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
