"""Checkpoints that name their tensors in their own way: where each tensor belongs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mmembed.backbones.weights import read_json
from mmembed.errors import ConfigError, ModelLoadError

__all__ = [
    "CheckpointLayout",
    "head_tensors",
    "model_config",
    "tensor_files",
    "tensor_shapes",
    "tensors_of",
]


@dataclass(frozen=True, slots=True)
class CheckpointLayout:
    """How a published checkpoint's files differ from a plain transformers folder.

    Attributes:
        config: key of ``config.json`` under which the vision-language model's own configuration
            stands, e.g. ``vlm_config``; ``""`` for the whole file.
        model_type: family of the model where ``config.json`` has a name of its own for it.
        rename: regular expressions of tensor names, each with what it becomes in the transformers
            model. The first that matches a name renames it; none needs to.
        heads: modules of the checkpoint that are heads here, with their names here, e.g.
            ``custom_text_proj: multi.linear``.
        left_out: beginnings of tensor names that an encoder does not need.
        adapter_targets: regular expression of the backbone's modules that an adapter folder of
            this family changes; ``""`` takes the language model's linear layers.
    """

    config: str = ""
    model_type: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)
    heads: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    adapter_targets: str = ""

    def __post_init__(self) -> None:
        for pattern in (*self.rename, self.adapter_targets):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"no regular expression: {pattern!r}: {error}") from None

    def renamed(self, key: str) -> str:
        """The transformers model's name of a tensor."""
        for pattern, replacement in self.rename.items():
            name, times = re.subn(pattern, replacement, key)
            if times:
                return name
        return key

    def head(self, key: str) -> str | None:
        """The name of a head's tensor here, or None for a tensor of the model."""
        module, _, leaf = key.rpartition(".")
        return f"{self.heads[module]}.{leaf}" if module in self.heads else None


def model_config(folder: Path, layout: CheckpointLayout) -> dict[str, Any]:
    """What describes the vision-language model in a folder's ``config.json``.

    Raises:
        ModelLoadError: the file, or the part of it, is missing.
    """
    config = read_json(folder / "config.json")
    if layout.config:
        if not isinstance(config.get(layout.config), dict):
            raise ModelLoadError(f"{folder / 'config.json'}: {layout.config!r} is missing")
        config = config[layout.config]
    return {**config, "model_type": layout.model_type} if layout.model_type else config


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, all shards of its index.

    Raises:
        ModelLoadError: there is none, or a shard is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.exists():
            raise ModelLoadError(f"{file} is missing")
    return files


def tensors_of(folder: Path, layout: CheckpointLayout) -> dict[str, Tensor]:
    """The model's tensors by the transformers model's names, heads left out.

    Raises:
        ModelLoadError: a file is missing or damaged, or two tensors get one name.
    """
    found: dict[str, Tensor] = {}
    for key, read in _entries(folder):
        if layout.head(key) is not None or key.startswith(layout.left_out):
            continue
        name = layout.renamed(key)
        if name in found:
            raise ModelLoadError(f"{folder}: tensor {key!r} is a second {name!r}")
        found[name] = read()
    return found


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by its own name; no values are read.

    Raises:
        ModelLoadError: a file is missing or damaged.
    """
    found: dict[str, tuple[int, ...]] = {}
    for file in tensor_files(folder):
        with _opened(file) as stream:
            for key in stream.keys():  # noqa: SIM118 (not a mapping)
                found[key] = tuple(stream.get_slice(key).get_shape())
    return found


def head_tensors(folder: Path, layout: CheckpointLayout) -> dict[str, Tensor]:
    """The heads' tensors by their names here.

    Raises:
        ModelLoadError: a file is missing or damaged.
    """
    entries = ((layout.head(key), read) for key, read in _entries(folder))
    return {name: read() for name, read in entries if name is not None}


def _entries(folder: Path) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Every tensor's name and how to read it, so that only what is wanted comes from the disk."""
    for file in tensor_files(folder):
        with _opened(file) as stream:
            for key in stream.keys():  # noqa: SIM118 (not a mapping)
                yield key, lambda key=key, stream=stream: stream.get_tensor(key)  # type: ignore[misc]


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as stream:
            yield stream
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"{file}: {error}") from None
