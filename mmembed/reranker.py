"""Reranking: score a query against documents of any modality, in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mmembed.embedder import default_device
from mmembed.encoding import token_budget_batches
from mmembed.errors import ConfigError, InputError, ModelLoadError
from mmembed.gpte.rows import Row
from mmembed.inputs.decode import Decoded, decode_stream
from mmembed.inputs.decoded import DecodedItem
from mmembed.inputs.items import ItemLike
from mmembed.rerankers.base import Pair, PairScorer

__all__ = ["Ranked", "Reranker", "log_odds"]

# Pairs that are sorted by length together: so many, or fewer with many pixels.
_WINDOW = 64
_WINDOW_PIXELS = 32_000_000


@dataclass(frozen=True, slots=True)
class Ranked:
    """One document of a ranking.

    Attributes:
        index: its place among the documents that were given.
        score: probability of relevance, 0 to 1.
    """

    index: int
    score: float


class Reranker:
    """A model that reads query and document together.

    Example:
        >>> from mmembed import Reranker
        >>> model = Reranker.from_pretrained("Qwen/Qwen3-VL-Reranker-2B")  # doctest: +SKIP
        >>> model.rank("a red bicycle", [Path("a.jpg"), "a text"])  # doctest: +SKIP
        [Ranked(index=0, score=0.98), Ranked(index=1, score=0.03)]
    """

    def __init__(
        self, scorer: PairScorer, *, name: str = "custom", batch_tokens: int = 8192
    ) -> None:
        self.scorer = scorer
        self.name = name
        self.batch_tokens = batch_tokens
        _module(scorer).eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        preset: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Reranker:
        """Load a yes/no vision-language reranker, a matching head, a CoCa, or a cross-encoder.

        Args:
            name: a folder or a Hugging Face id.
            preset: name of the conventions to read a published checkpoint by; found by the
                checkpoint's name by default, and ``"none"`` for none. See :mod:`mmembed.presets`.
            device: where it runs; CUDA where there is one, else Apple's GPU, else the CPU.
            dtype: type of the weights; float32 by default.

        Raises:
            ModelLoadError: there is no such model, or no reranker reads it.
            ConfigError: there is no such preset, or it is none of a reranker.
        """
        scorer = load_scorer(name, preset, dtype=dtype)
        _module(scorer).to(device or default_device())
        return cls(scorer, name=str(name))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that stands alone."""
        self.scorer.save_pretrained(str(folder))

    def score(
        self,
        query: ItemLike,
        documents: Iterable[ItemLike],
        *,
        instruction: str | None = None,
        on_error: Literal["raise", "none"] = "raise",
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Probability that each document answers the query.

        Args:
            query: any input.
            documents: any inputs.
            instruction: what a match is; replaces the model's own.
            on_error: ``"raise"`` the error of a document that cannot be read, or leave a NaN.

        Returns:
            ``(n,)`` float32 in the order of the documents.

        Raises:
            InputError: the query, or a document, cannot be read; ``position`` says which document.
        """
        return self.score_pairs(
            ((query, document) for document in documents),
            instruction=instruction,
            on_error=on_error,
        )

    def score_pairs(
        self,
        pairs: Iterable[tuple[ItemLike, ItemLike]],
        *,
        instruction: str | None = None,
        on_error: Literal["raise", "none"] = "raise",
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """:meth:`score` for pairs of query and document; a repeated query is decoded once."""
        scores: list[float] = []
        for window in _windows(self._decoded(pairs, instruction)):
            good = [(i, pair) for i, pair in enumerate(window) if not isinstance(pair, InputError)]
            found = [float("nan")] * len(window)
            for i, pair in enumerate(window):
                if isinstance(pair, InputError) and on_error == "raise":
                    raise pair.at(len(scores) + i)
            for (i, _), score in zip(
                good, self._scores([pair for _, pair in good], len(scores), on_error), strict=True
            ):
                found[i] = score
            scores += found
        return np.array(scores, dtype=np.float32)

    def rank(
        self, query: ItemLike, documents: Sequence[ItemLike], k: int | None = None, **options: Any
    ) -> list[Ranked]:
        """The ``k`` best documents, or all of them, best first; ties keep their order.

        Documents that cannot be read (with ``on_error="none"``) are left out.
        """
        scores = self.score(query, documents, **options)
        order = np.argsort(-scores, kind="stable")
        ranked = [Ranked(int(i), float(scores[i])) for i in order if not np.isnan(scores[i])]
        return ranked if k is None else ranked[:k]

    def _decoded(
        self, pairs: Iterable[tuple[ItemLike, ItemLike]], instruction: str | None
    ) -> Iterator[Pair | InputError]:
        """Pairs in order; neighbours with the same query share one decoded object."""
        fresh: deque[bool] = deque()
        before: object = _NOTHING

        def items() -> Iterator[ItemLike]:
            nonlocal before
            for query, document in pairs:
                fresh.append(query is not before)
                if query is not before:
                    before = query
                    yield query
                yield document

        ahead = decode_stream(items(), self.scorer.media_budget, pixels=_WINDOW_PIXELS)
        stream = (decoded for _, decoded in ahead)
        asked: Decoded | None = None
        for first in stream:
            document = first
            if fresh.popleft():
                asked = _told(first, instruction)
                document = next(stream)
            assert asked is not None
            failed = next(
                (each for each in (asked, document) if isinstance(each, InputError)), None
            )
            yield failed or (asked, document)  # type: ignore[misc]

    @torch.inference_mode()
    def _scores(self, pairs: list[Pair], first: int, on_error: str) -> list[float]:
        places = list(range(len(pairs)))
        scores = [float("nan")] * len(pairs)
        if not pairs:
            return scores
        try:
            rows = self.scorer.prepare(pairs)
        except InputError as error:
            if error.position is None:
                raise
            if on_error == "raise":
                raise error.at(first + error.position) from None
            places, rows = self._readable(pairs)
        for batch in token_budget_batches([row.tokens for row in rows], self.batch_tokens):
            logits = self.scorer(self.scorer.collate([rows[i] for i in batch]))
            for i, score in zip(batch, torch.sigmoid(logits.float()).tolist(), strict=True):
                scores[places[i]] = score
        return scores

    def _readable(self, pairs: list[Pair]) -> tuple[list[int], list[Row]]:
        """Rows of the pairs that can be prepared, and their numbers; each is tried once."""
        places: list[int] = []
        rows: list[Row] = []
        for i, pair in enumerate(pairs):
            try:
                rows += self.scorer.prepare([pair])
            except InputError:
                continue
            places.append(i)
        return places, rows


_NOTHING = object()


def _windows(stream: Iterator[Pair | InputError]) -> Iterator[list[Pair | InputError]]:
    """Runs of pairs small enough to hold; a query that many pairs share weighs nothing."""
    window: list[Pair | InputError] = []
    pixels = 0
    for pair in stream:
        window.append(pair)
        pixels += 0 if isinstance(pair, InputError) else pair[1].pixels
        if len(window) >= _WINDOW or pixels >= _WINDOW_PIXELS:
            yield window
            window, pixels = [], 0
    if window:
        yield window


def log_odds(
    probabilities: np.ndarray[Any, np.dtype[np.float32]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The logits of a reranker's probabilities; finite where float32 has rounded them to 0 or 1."""
    inside = np.clip(probabilities.astype(np.float64), 1e-7, 1.0 - 1e-7)
    odds: np.ndarray[Any, np.dtype[np.float64]] = np.log(inside / (1.0 - inside))
    return odds


def load_scorer(
    name: str | Path, preset: str | None = None, *, dtype: torch.dtype | None = None
) -> PairScorer:
    """The model behind a reranker.

    Raises:
        ModelLoadError: no reranker reads this checkpoint.
        ConfigError: there is no such preset, or it is none of a reranker.
    """
    from mmembed.backbones.towers.loading import tower_family_of
    from mmembed.backbones.towers.open_clip_towers import CONFIG_NAME, OPEN_CLIP
    from mmembed.backbones.vlm.loading import family_of
    from mmembed.backbones.weights import read_json
    from mmembed.gpte.text_loading import hub_folder
    from mmembed.presets import find_preset
    from mmembed.rerankers.cross_encoder import CrossEncoderReranker
    from mmembed.rerankers.matching import MatchingReranker
    from mmembed.rerankers.yes_no import SETTINGS_NAME, YesNoReranker

    if str(name).startswith(OPEN_CLIP):
        return MatchingReranker.from_name(name, dtype=dtype)
    folder = hub_folder(name)
    if (folder / CONFIG_NAME).exists():
        return MatchingReranker.from_name(folder, dtype=dtype)
    config = read_json(folder / "config.json")
    # What was saved here says by itself how it is read.
    ours = (folder / SETTINGS_NAME).exists() and preset is None
    known = None if ours else find_preset(name, preset)
    if preset is not None and known is not None and known.yes_no is None:
        raise ConfigError(f"preset {preset!r} is of an embedder: load it by Embedder")
    if family_of(config) is not None:
        if known is not None and known.yes_no is not None:
            return YesNoReranker.from_folder(folder, known.yes_no, limits=known.vlm, dtype=dtype)
        return YesNoReranker.from_folder(folder, dtype=dtype)
    if tower_family_of(config) is not None:
        return MatchingReranker.from_name(folder, dtype=dtype)
    kinds = config.get("architectures") or [""]
    if kinds[0].endswith("ForSequenceClassification"):
        return CrossEncoderReranker.from_folder(folder, dtype=dtype)
    raise ModelLoadError(f"{folder}: no reranker reads a {kinds[0] or 'model of no architecture'}")


def _told(item: Decoded, instruction: str | None) -> Decoded:
    if instruction is None or not isinstance(item, DecodedItem) or item.instruction:
        return item
    return replace(item, instruction=instruction)


def _module(scorer: PairScorer) -> nn.Module:
    assert isinstance(scorer, nn.Module)
    return scorer
