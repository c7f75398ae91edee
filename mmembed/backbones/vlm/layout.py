"""From the segments of a prompt to token ids: visual tokens counted out, text cut to fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmembed.backbones.vlm.wording import Segment, SegmentKind
from mmembed.errors import InputError
from mmembed.gpte.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["PromptLayout"]


class PromptLayout:
    """Tokenises prompts so that truncation takes words only, never media or the template.

    Args:
        tokenizer: a fast tokenizer.
        placeholders: token of an image and of a clip, as they stand in prompts, with their ids.
        max_tokens: tokens of a row, visual ones included.
        special_tokens: let the tokenizer put its own special tokens around the prompt.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        placeholders: Mapping[str, int],
        max_tokens: int,
        *,
        special_tokens: bool = True,
    ) -> None:
        self._backend: Any = tokenizer.backend_tokenizer
        # Cuts are made here, where media tokens are known; tokenizer.json may carry its own.
        self._backend.no_truncation()
        self._backend.no_padding()
        self._visual_ids = frozenset(placeholders.values())
        self._max_tokens = max_tokens
        self._special_tokens = special_tokens
        # Words that look like a placeholder would be read as one: they get a space inside.
        self._look_alike = (
            re.compile("|".join(map(re.escape, placeholders))) if placeholders else None
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the tokenizer's own special ones included."""
        texts = [self._harmless(text) for text in texts]
        encoded = self._backend.encode_batch_fast(texts, add_special_tokens=self._special_tokens)
        return [len(one.ids) for one in encoded]

    def rows(self, prompts: Sequence[Sequence[Segment]], labels: Sequence[str]) -> list[Row]:
        """One row a prompt, with spans ``"instruction"``, ``"media"`` and ``"visual"``.

        ``"media"`` covers what stands for a medium, its markers included; ``"visual"`` the visual
        tokens alone.

        Raises:
            InputError: media and template alone do not fit; ``position`` is the prompt's index.
        """
        prompts = [[self._safe(segment) for segment in prompt] for prompt in prompts]
        texts = ["".join(segment.text for segment in prompt) for prompt in prompts]
        # One call for the whole batch, because the tokenizer works in parallel within a call.
        encoded = self._backend.encode_batch(texts, add_special_tokens=self._special_tokens)
        rows = []
        for position, (prompt, one, label) in enumerate(zip(prompts, encoded, labels, strict=True)):
            try:
                rows.append(self._row(prompt, one, label))
            except InputError as error:
                raise error.at(position) from None
        return rows

    def _row(self, prompt: Sequence[Segment], encoded: Any, label: str) -> Row:
        kinds = _kinds(prompt, encoded.offsets)
        counts = iter([n for s in prompt if s.visual is not None for n in s.visual.counts])
        pieces: list[tuple[SegmentKind, bool, int, int]] = []  # kind, is visual token, id, repeats
        for token, kind in zip(encoded.ids, kinds, strict=True):
            placed = kind == "visual" and token in self._visual_ids
            pieces.append((kind, placed, token, next(counts) if placed else 1))
        if next(counts, None) is not None:
            raise ValueError(
                f"{label}: fewer placeholders than runs of visual tokens in its prompt"
            )
        total = sum(repeats for *_, repeats in pieces)
        excess = total - self._max_tokens
        if excess > 0:
            pieces = _without_last_words(pieces, excess, total, self._max_tokens, label)
        return _row_of(pieces)

    def _safe(self, segment: Segment) -> Segment:
        if segment.kind not in ("text", "instruction"):
            return segment
        return Segment(self._harmless(segment.text), segment.kind)

    def _harmless(self, text: str) -> str:
        if self._look_alike is None:
            return text
        return self._look_alike.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _kinds(prompt: Sequence[Segment], offsets: Sequence[tuple[int, int]]) -> list[SegmentKind]:
    """The kind of segment that each token ends in; the tokenizer's own tokens are template.

    A token may begin with a space that belongs to the segment before its own.
    """
    ends: list[int] = []
    for segment in prompt:
        ends.append((ends[-1] if ends else 0) + len(segment.text))
    kinds: list[SegmentKind] = []
    at = 0
    for start, stop in offsets:
        if start == stop:
            kinds.append("template")
            continue
        while stop > ends[at]:
            at += 1
        kinds.append(prompt[at].kind)
    return kinds


def _without_last_words(
    pieces: list[tuple[SegmentKind, bool, int, int]],
    excess: int,
    total: int,
    limit: int,
    label: str,
) -> list[tuple[SegmentKind, bool, int, int]]:
    words = [i for i, piece in enumerate(pieces) if piece[0] == "text"]
    if excess > len(words):
        raise InputError(
            label,
            f"takes {total - len(words)} tokens without its text, and {limit} fit",
            "lower max_pixels or max_frames, shorten its instruction, or raise max_tokens",
        )
    gone = set(words[len(words) - excess :])
    return [piece for i, piece in enumerate(pieces) if i not in gone]


def _row_of(pieces: Sequence[tuple[SegmentKind, bool, int, int]]) -> Row:
    ids: list[int] = []
    spans: dict[str, list[tuple[int, int]]] = {}
    for kind, placed, token, repeats in pieces:
        start = len(ids)
        ids += [token] * repeats
        if placed:
            _extend(spans.setdefault("visual", []), start, len(ids), join=False)
        if kind == "visual":
            _extend(spans.setdefault("media", []), start, len(ids), join=True)
        elif kind == "instruction":
            _extend(spans.setdefault("instruction", []), start, len(ids), join=True)
    return Row(ids, len(ids), spans=spans)


def _extend(ranges: list[tuple[int, int]], start: int, stop: int, *, join: bool) -> None:
    if join and ranges and ranges[-1][1] == start:
        ranges[-1] = (ranges[-1][0], stop)
    else:
        ranges.append((start, stop))
