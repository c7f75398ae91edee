"""Reading files of weights: every tensor finds its place, or it is an error naming the key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmembed.errors import ModelLoadError

__all__ = ["check_sha256", "load_exactly", "read_json", "read_safetensors", "write_tower"]


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelLoadError: the file is missing, or does not hold an object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelLoadError(f"{file} is missing") from None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{file}: {error}") from None
    if not isinstance(content, dict):
        raise ModelLoadError(f"{file} holds no object")
    return content


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors in a file.

    Raises:
        ModelLoadError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"{file}: {error}") from None


def check_sha256(file: Path, expected: str) -> None:
    """Read nothing but the very weights that a model was trained with.

    Raises:
        ModelLoadError: the file is missing, or is another one.
    """
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelLoadError(f"{file}: {error}") from None
    if found != expected:
        raise ModelLoadError(
            f"{file}: its SHA-256 is {found}, not {expected}: another version of the package?"
        )


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict that must fit key by key and shape by shape; types are converted.

    Raises:
        ModelLoadError: names the first tensor that is missing, left over, or of another shape.
    """
    own = module.state_dict()
    if missing := sorted(own.keys() - state.keys()):
        raise ModelLoadError(f"{source}: tensor {missing[0]!r} is missing ({len(missing)} in all)")
    if unexpected := sorted(state.keys() - own.keys()):
        raise ModelLoadError(
            f"{source}: tensor {unexpected[0]!r} has no place ({len(unexpected)} in all)"
        )
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            raise ModelLoadError(
                f"{source}: tensor {key!r} has shape {tuple(state[key].shape)}, "
                f"not {tuple(tensor.shape)}"
            )
    module.load_state_dict(dict(state))


def write_tower(folder: Path, config: Mapping[str, Any], network: nn.Module) -> None:
    """Write ``config.json`` and ``model.safetensors`` of a tower that has no format of its own."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
