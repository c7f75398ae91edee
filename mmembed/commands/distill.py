"""``mmembed distill``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mmembed.commands.output import EXIT_OK, Output
from mmembed.errors import ConfigError, InputError

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["distill"]

_READ_BYTES = 1 << 20


def distill(
    name: str,
    into: Path,
    /,
    *,
    dim: int = 256,
    corpus: Path | None = None,
    pattern: str = "*",
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Make static token vectors of a model, for search that cannot wait for it.

    For example:

        mmembed distill mini vectors

        mmembed distill ~/models/mine ~/models/mine --corpus ~/project --pattern "*.py"

    Args:
        name: 'mini', a folder, or a Hugging Face id.
        into: Folder of static.safetensors; the model's own, for codeembed to find it.
        dim: Length of the vectors.
        corpus: Folder of texts in which tokens are counted: frequent ones say less.
        pattern: Which of its files.
        json: Print what was made as JSON.
    """
    from mmembed.distilling import distill as make
    from mmembed.distilling import token_frequencies, write_static
    from mmembed.embedder import Embedder

    model = Embedder.from_pretrained(name)
    tokenizer = _tokenizer(model, name)
    frequencies = None
    if corpus is not None:
        if not corpus.is_dir():
            raise InputError(str(corpus), "is not a folder", "name one that holds texts")
        frequencies = token_frequencies(_texts(corpus, pattern), tokenizer)
    table, scales = make(model, tokenizer, dim=dim, frequencies=frequencies)
    about = {
        "model": name,
        "fingerprint": model.fingerprint,
        "tokens_counted": 0 if frequencies is None else int(frequencies.sum()),
    }
    file = write_static(into, table, scales, about)
    record = {"file": str(file), "tokens": len(table), "dim": dim, **about}
    Output(json=json).result(record, f"{len(table)} tokens x {dim} in {file}")
    return EXIT_OK


def _tokenizer(model: Embedder, name: str) -> Any:
    wrapped = getattr(model.backbone, "tokenizer", None)
    backend: Any = getattr(wrapped, "backend_tokenizer", wrapped)
    if not hasattr(backend, "encode_batch_fast"):
        raise ConfigError(f"{name}: has no fast tokenizer, and static vectors are rows of one")
    from tokenizers import Tokenizer

    copied = Tokenizer.from_str(backend.to_str())
    copied.no_truncation()
    copied.no_padding()
    return copied


def _texts(folder: Path, pattern: str) -> Iterator[str]:
    for file in sorted(folder.rglob(pattern)):
        if file.is_file():
            with file.open("rb") as stream:
                yield stream.read(_READ_BYTES).decode("utf-8", "replace")
