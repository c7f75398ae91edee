"""What ``encode`` returns when more than dense vectors are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mmembed.encoded import Encoded, SparseVector
from mmembed.errors import InputError

__all__ = ["Embeddings", "Vectors", "one_output", "truncate"]

Vectors: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(slots=True)
class Embeddings:
    """Embeddings of ``n`` inputs, in their order; what was not asked for is None.

    Attributes:
        dense: ``(n, d)`` float32.
        multi: for each input ``(t, k)`` float32 unit vectors, one a token.
        sparse: ``(n, vocab)`` float32 lexical weights as a torch CSR tensor.
        errors: what went wrong with inputs that could not be read; each knows its ``position``.
    """

    dense: Vectors | None = None
    multi: list[Vectors] | None = None
    sparse: Tensor | None = None
    errors: list[InputError] = field(default_factory=list)

    @classmethod
    def collect(
        cls,
        rows: Sequence[Encoded],
        wanted: Sequence[str],
        width: int,
        vocab: int,
        multi_dim: int,
    ) -> Embeddings:
        """One value out of single rows; a row with an error is NaN, no vectors, or no weights.

        Args:
            rows: the encoded inputs.
            wanted: outputs to collect.
            width: size of a dense vector.
            vocab: size of a sparse one.
            multi_dim: size of a token's vector.
        """
        out = cls(errors=[row.error for row in rows if row.error is not None])
        if "dense" in wanted:
            out.dense = np.full((len(rows), width), np.nan, dtype=np.float32)
            for i, row in enumerate(rows):
                if row.vector is not None:
                    out.dense[i] = row.vector
        if "multi" in wanted:
            nothing = np.empty((0, multi_dim), dtype=np.float32)
            out.multi = [nothing if row.multi is None else row.multi for row in rows]
        if "sparse" in wanted:
            out.sparse = _csr([row.sparse for row in rows], vocab)
        return out


def truncate(vectors: Vectors, dim: int | None) -> Vectors:
    """The first ``dim`` dimensions of each row, normalised again; unchanged for None."""
    if dim is None or dim == vectors.shape[-1]:
        return vectors
    cut = vectors[..., :dim]
    norms = np.linalg.norm(cut, axis=-1, keepdims=True)
    return np.asarray(cut / np.maximum(norms, 1e-12), dtype=np.float32)


def _csr(rows: Sequence[SparseVector | None], vocab: int) -> Tensor:
    empty = SparseVector(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    filled = [row or empty for row in rows]
    starts = np.cumsum([0, *(len(row.indices) for row in filled)])
    return torch.sparse_csr_tensor(
        torch.from_numpy(starts.astype(np.int64)),
        torch.from_numpy(np.concatenate([empty.indices, *(row.indices for row in filled)])),
        torch.from_numpy(np.concatenate([empty.weights, *(row.weights for row in filled)])),
        size=(len(rows), vocab),
    )


def one_output(found: Embeddings, output: str, *, single: bool, as_torch: bool) -> Any:
    """The one output that was asked for, or its only row."""
    if output == "multi":
        assert found.multi is not None
        return found.multi[0] if single else found.multi
    if output == "sparse":
        assert found.sparse is not None
        return found.sparse[0] if single else found.sparse
    assert found.dense is not None
    dense = found.dense[0] if single else found.dense
    return torch.from_numpy(dense) if as_torch else dense
