"""Puts task adapters that a recipe trained beside the packaged ``mini``, in half the bytes.

    python -m mmembed.multimodal.packaging RUN/STAGE/model code --into mmembed/models/mini

Weights are kept in float16, and are float32 again once they are loaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from cyclopts import App
from safetensors.torch import save_file
from torch import Tensor, float16

from mmembed.backbones.weights import read_safetensors
from mmembed.errors import ConfigError

__all__ = ["pack", "save_halved"]

app = App(help=__doc__)

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


@app.default
def pack(model: Path, adapter: str, *, into: Path) -> None:
    """Copy an adapter.

    Args:
        model: the folder that a stage saved.
        adapter: its name.
        into: the folder of the packaged model.

    Raises:
        ConfigError: the model has no such adapter.
    """
    source, target = (folder / "adapters" / adapter for folder in (model, into))
    for name in (_WEIGHTS, _CONFIG):
        if not (source / name).exists():
            raise ConfigError(f"{source} has no {name}: was that adapter trained?")
    target.mkdir(parents=True, exist_ok=True)
    save_halved(read_safetensors(source / _WEIGHTS), target / _WEIGHTS)
    shutil.copyfile(source / _CONFIG, target / _CONFIG)


def save_halved(state: Mapping[str, Tensor], file: Path) -> None:
    """Write a state in float16."""
    save_file({key: value.to(float16).contiguous() for key, value in state.items()}, file)


if __name__ == "__main__":
    app()
