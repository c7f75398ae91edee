"""``mmembed embed``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.commands.output import EXIT_NOTHING, EXIT_OK, Output
from mmembed.embedder import Embedder, Role, truncate
from mmembed.errors import InputError
from mmembed.inputs.folder import items_of, scan
from mmembed.inputs.items import ItemLike

__all__ = ["embed_inputs"]


def embed_inputs(
    texts: list[str],
    files: list[Path],
    model_name: str,
    role: Role,
    dim: int | None,
    output_file: Path | None,
    output: Output,
) -> int:
    """Embed texts and files; JSON lines, or an array with its names beside it."""
    errors: list[InputError] = []
    names: list[str] = []

    def inputs() -> Iterator[ItemLike]:
        for name, item in _inputs(texts, files, errors):
            names.append(name)
            yield item

    model = Embedder.from_pretrained(model_name)
    done = False
    kept: list[str] = []
    vectors: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    for encoded in model.encode_stream(inputs(), role=role):
        name = names[encoded.position]
        if encoded.vector is None:
            assert encoded.error is not None
            errors.append(encoded.error)
            continue
        done = True
        vector = truncate(encoded.vector, dim)
        if output_file is None:
            record = {"input": name, "embedding": [float(f"{x:.7g}") for x in vector]}
            Output(json=True).result(record, "")
        else:
            kept.append(name)
            vectors.append(vector)
    if output_file is not None and vectors:
        _write(output_file, np.stack(vectors), kept)
        output.say(f"wrote {len(kept)} x {len(vectors[0])} float32 to {output_file}")
    output.skipped(errors)
    return EXIT_OK if done else EXIT_NOTHING


def _inputs(
    texts: list[str], files: list[Path], errors: list[InputError]
) -> Iterator[tuple[str, ItemLike]]:
    for text in texts:
        if text == "-":
            for line in sys.stdin:
                stripped = line.rstrip("\n")
                yield stripped, stripped
        else:
            yield text, text
    if files:
        for source in scan(files, on_error=errors.append):
            try:
                for suffix, item in items_of(source):
                    yield f"{source.path}{suffix}", item
            except InputError as error:
                errors.append(error)


def _write(path: Path, array: np.ndarray[Any, Any], names: list[str]) -> None:
    partial = path.with_name(path.name + ".tmp")
    with partial.open("wb") as stream:
        np.save(stream, array)
    partial.replace(path)
    lines = "".join(name.replace("\n", " ") + "\n" for name in names)
    path.with_name(path.name + ".names.txt").write_text(lines, encoding="utf-8")
