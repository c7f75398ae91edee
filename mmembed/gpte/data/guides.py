"""Vectors of a frozen model for every text of a source, computed once, and clusters of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.config import SourceConfig
from mmembed.gpte.data.examples import Example, Report, examples_of
from mmembed.gpte.data.tokenised import TokenisedSource
from mmembed.gpte.encoding import encode
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.onednn import matmul_nt
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["GuideVectors", "clusters_of", "corpus_sample", "guide_vectors", "pair_vectors"]

_CHUNK = 2048


class GuideVectors:
    """Memory-mapped ``(texts, g)`` float32 vectors, which other processes map for themselves."""

    def __init__(self, file: Path, shape: tuple[int, int]) -> None:
        self._file, self._shape = file, shape
        self.values: npt.NDArray[np.float32] = np.memmap(file, np.float32, "r", shape=shape)

    def __reduce__(self) -> tuple[type[GuideVectors], tuple[Path, tuple[int, int]]]:
        return GuideVectors, (self._file, self._shape)


def guide_vectors(
    guide: TextEncoder, name: str, source: SourceConfig, rows: TokenisedSource, role: str | None
) -> GuideVectors:
    """The vectors of a source's texts, kept beside its tokens.

    Args:
        guide: the frozen model, on its device.
        name: what it was loaded from.
        role: whose prompt dresses every text; None gives queries and documents their own.
    """
    weights = next(iter(guide.parameters()))
    facts = repr((name, role, guide.settings, guide.max_tokens, weights.float().sum().item()))
    digest = hashlib.blake2b(facts.encode(), digest_size=8).hexdigest()
    folder = rows.folder.with_name(f"{rows.folder.name}-guide-{digest}")
    shape = (len(rows.hashes), guide.dim)
    if not folder.exists():
        with whole_folder(folder) as partial:
            out = np.memmap(partial / "vectors.bin", np.float32, "w+", shape=shape)
            at = 0
            stream = _same_examples(source, rows)
            while chunk := list(islice(stream, _CHUNK)):
                vectors = _encoded(guide, source, chunk, role)
                out[at : at + len(vectors)] = vectors
                at += len(vectors)
            out.flush()
    return GuideVectors(folder / "vectors.bin", shape)


def _same_examples(source: SourceConfig, rows: TokenisedSource) -> Iterator[Example]:
    """The examples that became rows, in their order."""
    row = 0
    for example in examples_of(source, Report(source.name), "skip"):
        if row < len(rows) and example.place == rows.place(row):
            row += 1
            yield example


def _encoded(
    guide: TextEncoder, source: SourceConfig, examples: Sequence[Example], role: str | None
) -> npt.NDArray[np.float32]:
    """The vectors of all texts, example by example."""
    texts = [text for example in examples for text in example.texts]
    is_query = np.asarray([i == 0 for example in examples for i in range(len(example.texts))])
    out = np.empty((len(texts), guide.dim), np.float32)
    for mine, own in ((is_query, source.query_role), (~is_query, source.document_role)):
        at = np.flatnonzero(mine)
        if len(at):
            out[at] = encode(guide, [texts[i] for i in at], role=role or own).numpy()
    return out


def pair_vectors(sources: Sequence[TokenisedSource], guides: Sequence[GuideVectors]) -> Tensor:
    """``(rows, d)`` unit vectors of rows: query and positive side by side, as CDE clusters them."""
    parts = []
    for source, vectors in zip(sources, guides, strict=True):
        first = source.text_ends[:-1]
        columns = [vectors.values[first]]
        if source.has_positive:
            columns.append(vectors.values[first + 1])
        parts.append(np.concatenate(columns, axis=1))
    return torch.nn.functional.normalize(torch.from_numpy(np.concatenate(parts)), dim=1)


def corpus_sample(
    sources: Sequence[TokenisedSource], guides: Sequence[GuideVectors], count: int, seed: int
) -> Tensor:
    """``(count, g)`` vectors of documents of the training data, at most.

    Raises:
        ConfigError: there are no documents, or no first stage has read them.
    """
    parts = [
        vectors.values[source.text_ends[:-1] + 1]
        for source, vectors in zip(sources, guides, strict=False)
        if source.has_positive
    ]
    if not parts:
        raise ConfigError("settings.context needs data.guide, which reads the documents first")
    documents = np.concatenate(parts)
    picks = np.random.default_rng(seed).permutation(len(documents))[:count]
    return torch.from_numpy(documents[picks])


def clusters_of(
    vectors: Tensor, rows: int, *, seed: int = 0, rounds: int = 20
) -> npt.NDArray[np.int64]:
    """``(n,)`` cluster of each vector, by spherical k-means with ``n / rows`` clusters.

    Args:
        vectors: ``(n, d)`` unit float32.
        rows: mean number of rows of a cluster; the plan cuts and joins clusters to batches.
    """
    n = len(vectors)
    k = max(1, round(n / rows))
    generator = torch.Generator().manual_seed(seed)
    centres = vectors[torch.randperm(n, generator=generator)[:k]].clone()
    found = torch.zeros(n, dtype=torch.int64)
    for _ in range(rounds):
        before = found
        found = torch.cat([matmul_nt(part, centres).argmax(dim=1) for part in vectors.split(4096)])
        if torch.equal(found, before):
            break
        sums = torch.zeros_like(centres).index_add_(0, found, vectors)
        empty = sums.norm(dim=1) == 0
        # An empty cluster takes a random row, or it would stay empty for ever.
        sums[empty] = vectors[torch.randint(n, (int(empty.sum()),), generator=generator)]
        centres = torch.nn.functional.normalize(sums, dim=1)
    labels: npt.NDArray[np.int64] = found.numpy()
    return labels
