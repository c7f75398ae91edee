"""The sentence-transformers folder layout: what its files say, in our terms.

Reading and writing (:mod:`mmembed.gpte.export`) share these names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmembed.errors import ModelLoadError
from mmembed.gpte.prompts import Prompt
from mmembed.gpte.text_settings import ProjectionSettings, TextSettings

__all__ = ["ACTIVATIONS", "POOLING_MODES", "StFolder", "read_st_folder"]

# Our pooling by the name it has there.
POOLING_MODES = {
    "cls": "first",
    "lasttoken": "last",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "position_weighted",
}
# Files of before version 6 hold one boolean a mode.
_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Our activation by the name of its class there.
ACTIVATIONS = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
}


@dataclass(frozen=True, slots=True)
class StFolder:
    """What a sentence-transformers folder holds.

    Attributes:
        model: folder of the transformers model and tokenizer.
        settings: pooling, projections, prompts and limits.
        projections: safetensors file of each projection, in order.
        lower_case: lower-case every text before the tokenizer sees it.
    """

    model: Path
    settings: TextSettings
    projections: tuple[Path, ...]
    lower_case: bool


def read_st_folder(folder: Path) -> StFolder:
    """Read ``modules.json`` and what it names.

    Raises:
        ModelLoadError: a module of a kind that has no equal here; the message names it.
    """
    modules = _read(folder / "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelLoadError(f"{folder}: modules {kinds} do not start with Transformer, Pooling")
    model = folder / modules[0]["path"]
    about = _optional(model / "sentence_bert_config.json")
    pooling, include_prompt = _pooling(folder / modules[1]["path"])
    normalize = False
    projections: list[ProjectionSettings] = []
    files: list[Path] = []
    for kind, module in zip(kinds[2:], modules[2:], strict=True):
        path = folder / module["path"]
        if kind == "Normalize":
            normalize = True
        elif kind == "Dense" and not normalize:
            projections.append(_dense(path))
            files.append(path / "model.safetensors")
        else:
            raise ModelLoadError(
                f"{folder}: module {module['name']!r} ({kind}) has no equal in this encoder"
            )
    settings = TextSettings(
        pooling=pooling,
        projections=tuple(projections),
        normalize=normalize,
        max_tokens=about.get("max_seq_length"),
        prompts=_prompts(_optional(folder / "config_sentence_transformers.json"), include_prompt),
    )
    return StFolder(model, settings, tuple(files), bool(about.get("do_lower_case")))


def _pooling(folder: Path) -> tuple[str | tuple[str, ...], bool]:
    config = _read(folder / "config.json")
    modes = config.get("pooling_mode") or [
        mode for key, mode in _OLD_MODES.items() if config.get(key)
    ]
    modes = [modes] if isinstance(modes, str) else modes
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown or not modes:
        raise ModelLoadError(f"{folder}: pooling mode {unknown or modes} is not known")
    ours = tuple(POOLING_MODES[mode] for mode in modes)
    return ours[0] if len(ours) == 1 else ours, config.get("include_prompt", True)


def _dense(folder: Path) -> ProjectionSettings:
    config = _read(folder / "config.json")
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS or config.get("use_residual"):
        what = "a residual" if config.get("use_residual") else f"activation {activation}"
        raise ModelLoadError(f"{folder}: a dense layer with {what} has no equal in this encoder")
    return ProjectionSettings(
        out=config["out_features"],
        bias=config.get("bias", True),
        activation=ACTIVATIONS[activation],
    )


def _prompts(config: dict[str, Any], include_prompt: bool) -> dict[str, Prompt]:
    pooled = "all" if include_prompt else "text"
    there = config.get("prompts") or {}
    named = {name: Prompt.prefix(prefix, pooled) for name, prefix in there.items() if prefix}
    default = config.get("default_prompt_name")
    if default in named:
        named["default"] = named[default]
    for name in ("passage", "corpus"):  # what else documents are called there
        if name in named and "document" not in there:
            named.setdefault("document", named[name])
    return named


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelLoadError(f"{path} is missing") from None
    except ValueError as error:
        raise ModelLoadError(f"{path} is not JSON: {error}") from None


def _optional(path: Path) -> dict[str, Any]:
    return _read(path) if path.exists() else {}
