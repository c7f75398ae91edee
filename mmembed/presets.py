"""The conventions of published checkpoints: prompt, pooling, limits, heads and tensor names.

One YAML file a family of checkpoints, in ``configs/models`` of the repository and
``mmembed/preset_files`` of an installation. A file that is ``like`` another says what differs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from mmembed.backbones.towers.model import TowerSettings
from mmembed.backbones.vlm.checkpoint import CheckpointLayout
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.wording import Wording
from mmembed.embedder_config import EmbedderConfig
from mmembed.errors import ConfigError
from mmembed.rerankers.yes_no import YesNoSettings

__all__ = ["NO_PRESET", "Preset", "find_preset", "preset_names", "read_preset"]

#: As a preset's name: load the checkpoint without one.
NO_PRESET = "none"

_INSTALLED = Path(__file__).parent / "preset_files"
_CHECKOUT = Path(__file__).resolve().parents[1] / "configs" / "models"


@dataclass(frozen=True, slots=True)
class Preset:
    """How the checkpoints of one family are loaded and read.

    Attributes:
        name: of the file.
        sources: addresses of the documentation and code that the conventions were taken from.
        license: of the weights.
        checkpoints: shell patterns of repository names, e.g. ``Alibaba-NLP/gme-Qwen2-VL-*``; a
            local folder is known by the part after the slash. Case does not matter.
        model_types: of ``config.json``, those that the conventions are for.
        vlm: prompt and limits.
        towers: likewise of two towers; None for a vision-language model.
        yes_no: prompt and answers of a reranker; None for an embedder.
        embedder: pooling, heads and instructions.
        layout: names of tensors.
        adapters: folder of task adapters inside the checkpoint; ``""`` for none.
        tasks: those adapters.
        notes: what else to know, and where the sources differ.
    """

    name: str
    sources: tuple[str, ...]
    license: str
    checkpoints: tuple[str, ...]
    model_types: tuple[str, ...]
    vlm: VlmSettings
    embedder: EmbedderConfig
    towers: TowerSettings | None = None
    yes_no: YesNoSettings | None = None
    layout: CheckpointLayout = field(default_factory=CheckpointLayout)
    adapters: str = ""
    tasks: tuple[str, ...] = ()
    notes: str = ""

    def covers(self, checkpoint: str) -> bool:
        """Whether a repository of this name, or a folder, is one of the family's."""
        return _covers(self.checkpoints, checkpoint)


def preset_names() -> tuple[str, ...]:
    """The names of all presets, sorted."""
    return tuple(sorted(file.stem for file in _folder().glob("*.yaml")))


def find_preset(checkpoint: str | Path, preset: str | None = None) -> Preset | None:
    """The preset of this name, or the one whose family a checkpoint belongs to.

    Args:
        checkpoint: name of a repository, or a folder, also one of the hub's cache.
        preset: a name; ``"none"`` for no preset at all. None looks for the checkpoint's own.

    Raises:
        ConfigError: there is no preset of this name; names the nearest.
    """
    if preset == NO_PRESET:
        return None
    if preset is not None:
        return read_preset(preset)
    name = _known_as(checkpoint)
    found = next((one for one in preset_names() if _covers(_patterns(one), name)), None)
    return None if found is None else read_preset(found)


def read_preset(name: str, folder: Path | None = None) -> Preset:
    """The preset in a file of this name.

    Raises:
        ConfigError: there is none, a key is unknown (names the nearest) or missing, or a value is
            of the wrong kind.
    """
    folder = folder or _folder()
    content = _content(name, folder)
    try:
        return _preset(name, content)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{folder / name}.yaml: {error}") from None


def _content(name: str, folder: Path) -> dict[str, Any]:
    """What a file says, and before it what the preset says that it is ``like``."""
    import yaml

    file = folder / f"{name}.yaml"
    if not file.exists():
        known = preset_names()
        raise ConfigError(f"no preset {name!r}{_nearest(name, known)} (known: {', '.join(known)})")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: holds no mapping")
    if "like" not in content:
        return content
    return _over(_content(str(content.pop("like")), folder), content)


def _over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes in it, mapping by mapping."""
    found = dict(base)
    for key, value in changes.items():
        before = base.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        found[key] = _over(before, value) if both else value  # type: ignore[arg-type]
    return found


def _preset(name: str, content: Mapping[str, Any]) -> Preset:
    values = _checked(Preset, content, "", without=("name",))
    vlm = _checked(VlmSettings, values.pop("vlm", {}), "vlm")
    if "wording" in vlm:
        vlm["wording"] = Wording(**_checked(Wording, vlm["wording"], "vlm.wording"))
    embedder = _checked(EmbedderConfig, values.pop("embedder", {}), "embedder")
    settings = VlmSettings(**vlm)
    # Instructions by role are what the embedder puts ahead of items that bring none.
    towers = None
    if "towers" in values:
        towers = TowerSettings(**_checked(TowerSettings, values.pop("towers"), "towers"))
    embedder.setdefault("prompts", dict((towers or settings).instructions))
    yes_no = None
    if "yes_no" in values:
        yes_no = YesNoSettings(**_checked(YesNoSettings, values.pop("yes_no"), "yes_no"))
    layout = _checked(CheckpointLayout, values.pop("layout", {}), "layout")
    for key in ("sources", "license", "checkpoints", "model_types"):
        if not values.get(key):
            raise ConfigError(f"{key!r} is missing")
    return Preset(
        name=name,
        vlm=settings,
        towers=towers,
        yes_no=yes_no,
        embedder=EmbedderConfig(**embedder),
        layout=CheckpointLayout(**layout),
        **values,
    )


def _checked(
    kind: type[Any], content: Any, where: str, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values of a section, lists as tuples; every key is a field of the dataclass."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where!r} holds no mapping")
    known = [one.name for one in fields(kind) if one.name not in without]
    for key in content:
        if key not in known:
            full = f"{where}.{key}" if where else str(key)
            raise ConfigError(f"unknown key {full!r}{_nearest(str(key), known)}")
    return {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ""


def _known_as(checkpoint: str | Path) -> str:
    """The repository's name; the folder's, where it is no folder of the hub's cache."""
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        return str(checkpoint)
    folder = folder.resolve()
    if folder.parent.name == "snapshots":
        return folder.parents[1].name.removeprefix("models--").replace("--", "/")
    return folder.name


def _covers(patterns: Iterable[str], checkpoint: str) -> bool:
    wanted = checkpoint.lower()
    return any(
        fnmatchcase(wanted, pattern.lower() if "/" in wanted else _last(pattern).lower())
        for pattern in patterns
    )


def _last(pattern: str) -> str:
    return pattern.rpartition("/")[2]


@cache
def _patterns(name: str) -> tuple[str, ...]:
    """The checkpoints of one preset; a file broken elsewhere is no other model's concern."""
    import yaml

    try:
        content = yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
        return tuple(map(str, content["checkpoints"]))
    except (yaml.YAMLError, KeyError, TypeError):
        return ()


def _folder() -> Path:
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
