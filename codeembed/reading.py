"""What can be known of a model without loading it: how it counts, and its static vectors.

Loading a model takes seconds. Cutting files, counting tokens and answering the first query need
none of its weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from codeembed.counting import fast_counter
from codeembed.tokens import CodeModel, portable_counter
from mmembed.static_vectors import STATIC_NAME, StaticVectors, read_tokenizer

__all__ = ["Reading", "reading_of", "reading_of_model", "static_of"]


@dataclass(frozen=True)
class Reading:
    """How a model reads.

    Attributes:
        name: Of the model.
        max_tokens: Longest text that it reads whole, special tokens included.
        count_tokens: Its own count.
        portable: Whether the counter can be sent to another process.
        static: Vectors of its words alone, or None where there are none.
    """

    name: str
    max_tokens: int
    count_tokens: Callable[[list[str]], list[int]]
    portable: bool
    static: StaticVectors | None


def reading_of(name: str) -> Reading | None:
    """How a model reads, without loading it; None where only the model itself can tell.

    Raises:
        ModelLoadError: the files of ``mini`` are not those of this release.
    """
    if name != "mini":
        return None
    counter = fast_counter(read_tokenizer(_mini_tokenizer()))
    tokens = int(_mini_config()["settings"]["max_tokens"])
    return Reading(name, tokens, counter, True, static_of(name))


def reading_of_model(model: CodeModel) -> Reading:
    """How a loaded model reads."""
    static = static_of(model.name)
    counter = portable_counter(model)
    if counter is None:
        counts: Any = model.count_tokens
        return Reading(model.name, model.max_tokens, counts, False, static)
    return Reading(model.name, model.max_tokens, counter, True, static)


def static_of(name: str) -> StaticVectors | None:
    """The static vectors of a model: ``mini``'s, or what ``mmembed distill`` put in its folder."""
    if name == "mini":
        return StaticVectors.read(_mini_folder() / STATIC_NAME, _mini_tokenizer())
    file = Path(name).expanduser() / STATIC_NAME
    return StaticVectors.read(file, file.with_name("tokenizer.json")) if file.is_file() else None


def _mini_folder() -> Path:
    return Path(str(files("mmembed"))) / "models" / "mini"


def _mini_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((_mini_folder() / "config.json").read_text("utf-8"))
    return config


def _mini_tokenizer() -> Path:
    text = _mini_config()["text"]
    package = import_module(text["package"])
    return (Path(str(package.__file__)).parent / text["file"]).with_name("tokenizer.json")
