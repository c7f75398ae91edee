"""Static token vectors from a model: what each token means to it alone.

After model2vec (Tulkens and van Dongen, 2024): every token of the vocabulary is read by the model
as a text, the vectors are centred and cut down to their principal components, and a token counts by
smooth inverse frequency, ``a / (a + p)`` (Arora et al., 2017). Frequencies are counted in a corpus,
or, where there is none, taken from Zipf's law over the order of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmembed.embedder import Embedder
from mmembed.errors import ConfigError
from mmembed.static_vectors import STATIC_NAME

__all__ = ["distill", "token_frequencies", "write_static"]

_SMOOTH = 1e-4
_BATCH = 1000


def distill(
    model: Embedder, tokenizer: Any, *, dim: int = 256, frequencies: npt.NDArray[Any] | None = None
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """The table of a :class:`mmembed.static_vectors.StaticVectors`.

    Args:
        model: Reads the tokens.
        tokenizer: The model's own, a ``tokenizers.Tokenizer``.
        dim: Length of the vectors, at most the model's.
        frequencies: ``(vocabulary,)`` counts of tokens in texts like those that will be read.

    Returns:
        ``(vocabulary, dim)`` int8, and what each row is multiplied by.

    Raises:
        ConfigError: dim is not between 1 and the model's.
    """
    if not 1 <= dim <= model.dim:
        raise ConfigError(f"dim {dim}: the model has {model.dim} dimensions")
    size = tokenizer.get_vocab_size()
    texts = [_text_of(tokenizer, token) for token in range(size)]
    rows = [row for row, text in enumerate(texts) if text]
    vectors = np.zeros((size, model.dim), np.float32)
    named = [texts[row] for row in rows]
    vectors[rows] = model.encode_document(named, show_progress=False)
    centred = vectors[rows] - vectors[rows].mean(axis=0)
    _, _, axes = np.linalg.svd(centred.T @ centred, hermitian=True)
    reduced = np.zeros((size, dim), np.float32)
    reduced[rows] = centred @ axes[:dim].T
    reduced *= _weights(size, frequencies)[:, None]
    scales = np.abs(reduced).max(axis=1) / 127
    table = np.rint(reduced / np.maximum(scales, 1e-12)[:, None]).astype(np.int8)
    return table, scales.astype(np.float16)


def token_frequencies(texts: Iterable[str], tokenizer: Any) -> npt.NDArray[np.int64]:
    """``(vocabulary,)``: how often each token occurs in the texts."""
    counts = np.zeros(tokenizer.get_vocab_size(), np.int64)
    source = iter(texts)
    while batch := list(islice(source, _BATCH)):
        for encoded in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            np.add.at(counts, encoded.ids, 1)
    return counts


def write_static(
    folder: Path,
    table: npt.NDArray[np.int8],
    scales: npt.NDArray[np.float16],
    about: dict[str, Any],
) -> Path:
    """Write ``static.safetensors``; ``about`` says what it was made of."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{STATIC_NAME}.partial"
    save_file({"table": table, "scales": scales}, partial, {"about": json.dumps(about)})
    return partial.replace(folder / STATIC_NAME)


def _text_of(tokenizer: Any, token: int) -> str:
    """What a token stands for; ``""`` for special ones."""
    text: str = tokenizer.decode([token], skip_special_tokens=True)
    return text.removeprefix("##").strip()


def _weights(size: int, frequencies: npt.NDArray[Any] | None) -> npt.NDArray[np.float32]:
    if frequencies is None:
        found = 1.0 / np.arange(2, size + 2)
    else:
        # Tokens that did not occur may still.
        found = np.asarray(frequencies, np.float64) + 0.5
    return np.asarray(_SMOOTH / (_SMOOTH + found / found.sum()), np.float32)
