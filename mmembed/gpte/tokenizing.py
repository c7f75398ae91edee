"""Texts to rows: one batched call to the tokenizer, then cuts that only ever fall on text slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmembed.errors import ConfigError, InputError, ModelLoadError
from mmembed.gpte.prompts import Prompt, Rendered, Slot
from mmembed.gpte.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Tokenizing", "summary_tokens"]


def summary_tokens(count: int) -> list[str]:
    """The names of so many learned tokens for ``{summary}`` slots."""
    return [f"<|summary_{i}|>" for i in range(count)]


class Tokenizing:
    """Makes rows of texts with one tokenizer.

    A row is never longer than ``max_tokens``: the text is cut at its end, in every slot it fills,
    and whatever the template or the tokenizer puts around it stays, so the mask token, the tail of
    a template and the end token are always there.

    Rows with a prompt carry these spans: ``"instruction"``, every token ahead of the text where
    the prompt puts words there, special tokens included; ``"text"``, one range a copy;
    ``"unpooled"``, what the prompt leaves out of pooling; and for denoising prompts ``"bare"``, all
    but the text.

    Args:
        tokenizer: a fast tokenizer.
        max_tokens: longest row, special tokens included.
        end_id: token appended to every row that does not end with it, after the cut.
        summary_tokens: what fills a ``{summary}`` slot.

    Raises:
        ModelLoadError: the tokenizer has no Rust backend.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        max_tokens: int,
        end_id: int | None = None,
        summary_tokens: Sequence[str] = (),
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelLoadError(
                f"{type(tokenizer).__name__} has no fast version, and spans need its offsets: "
                "save the tokenizer with a tokenizer.json"
            )
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.end_id = end_id
        self.fillers: dict[str, str] = {}
        if tokenizer.mask_token is not None:
            self.fillers["mask"] = tokenizer.mask_token
        if summary_tokens:
            self.fillers["summary"] = "".join(summary_tokens)

    def rows(
        self, prompt: Prompt, texts: Sequence[str], instructions: Sequence[str | None]
    ) -> list[Row]:
        """One row a text, in order.

        Raises:
            InputError: a text is no string, or its row has no token to read or to pool; or its
                template and instruction alone fill ``max_tokens``. ``position`` tells which.
        """
        rendered = []
        for i, (text, instruction) in enumerate(zip(texts, instructions, strict=True)):
            if not isinstance(text, str):
                kind = type(text).__name__
                raise InputError("text", f"is a {kind}, not a string", "pass str", position=i)
            rendered.append(prompt.render(text, instruction, self.fillers))
        backend: Any = self.tokenizer.backend_tokenizer
        # Cuts and padding are made here; a tokenizer.json may carry its own from training.
        backend.no_truncation()
        backend.no_padding()
        strings = [one.string for one in rendered]
        try:
            encodings = backend.encode_batch(strings, add_special_tokens=True)
        except (TypeError, UnicodeEncodeError) as error:
            raise _not_unicode(strings) or error from None
        rows = []
        for i, (one, encoding) in enumerate(zip(rendered, encodings, strict=True)):
            try:
                rows.append(self._row(prompt, one, encoding))
            except InputError as error:
                raise error.at(i) from None
        return rows

    def _row(self, prompt: Prompt, rendered: Rendered, encoding: Any) -> Row:
        ids: list[int] = encoding.ids
        lead, tail = _content(encoding.special_tokens_mask)
        # A text may itself end in the end token, and that one can be cut.
        ended = tail < len(ids) and ids[-1] == self.end_id
        append = [] if self.end_id is None or ended else [self.end_id]
        plain = prompt.template == "{text}" and not prompt.denoise
        if plain:
            slots = [Slot("text", lead, tail)]
        else:
            slots = [_in_tokens(slot, encoding.offsets, lead, tail) for slot in rendered.slots]
        excess = len(ids) + len(append) - self.max_tokens
        if excess > 0:
            drops = self._drops([slot for slot in slots if slot.name == "text"], excess)
            edges = [0, *(edge for drop in drops for edge in drop), len(ids)]
            pieces = zip(edges[::2], edges[1::2], strict=True)
            ids = [token for start, stop in pieces for token in ids[start:stop]]
            slots = [Slot(name, _moved(a, drops), _moved(b, drops)) for name, a, b in slots]
            tail = _moved(tail, drops)
        ids = [*ids, *append]
        if not ids:
            raise InputError("text", "has no tokens", "leave empty texts out, or set an end token")
        spans = {} if plain else _spans(prompt, slots, lead, tail, len(ids))
        return Row(ids, len(ids), spans=spans)

    def _drops(self, copies: list[Slot], excess: int) -> list[tuple[int, int]]:
        """Token ranges to drop: the ends of the copies, which keep equally many tokens each."""
        available = sum(copy.stop - copy.start for copy in copies)
        each = (available - excess) // len(copies)
        if each < 1:
            around = self.max_tokens + excess - available
            raise InputError(
                "text",
                f"prompt and instruction take {around} of {self.max_tokens} tokens",
                "shorten the instruction or raise max_tokens",
            )
        return [(one.start + each, one.stop) for one in copies if one.stop - one.start > each]


def _not_unicode(strings: Sequence[str]) -> InputError | None:
    """The error of the first string that no UTF-8 can hold."""
    for i, string in enumerate(strings):
        try:
            string.encode()
        except UnicodeEncodeError as error:
            hint = "decode the source with errors='replace'"
            return InputError("text", f"is not Unicode: {error.reason}", hint, position=i)
    return None


def _content(specials: list[int]) -> tuple[int, int]:
    """The token range between the special tokens that the tokenizer put at both ends."""
    if 0 not in specials:
        return len(specials), len(specials)
    return specials.index(0), len(specials) - specials[::-1].index(0)


def _in_tokens(slot: Slot, offsets: list[tuple[int, int]], lead: int, tail: int) -> Slot:
    """A slot in tokens; one across a border belongs to the slot, not to the template."""
    start = lead
    # Some tokens, as a lone metaspace, have no width.
    while start < tail and max(offsets[start][1], offsets[start][0] + 1) <= slot.start:
        start += 1
    stop = start
    while stop < tail and offsets[stop][0] < slot.stop:
        stop += 1
    return Slot(slot.name, start, stop if slot.start < slot.stop else start)


def _moved(at: int, drops: list[tuple[int, int]]) -> int:
    """Where a token index lies once these ranges are dropped."""
    return at - sum(min(at, stop) - start for start, stop in drops if start < at)


def _spans(
    prompt: Prompt, slots: list[Slot], lead: int, tail: int, tokens: int
) -> dict[str, list[tuple[int, int]]]:
    texts = [(start, stop) for name, start, stop in slots if name == "text"]
    start, stop = texts[-1]
    spans: dict[str, list[tuple[int, int]]] = {
        "instruction": [(0, start)] if start > lead else [],
        "text": [one for one in texts if one[0] < one[1]],
        "unpooled": [],
    }
    if prompt.denoise:
        spans["bare"] = _gaps(spans["text"], tokens)
    if prompt.pooled == "text":
        if start == stop and spans["instruction"]:
            raise InputError("text", "has no tokens to pool", "leave empty texts out")
        spans["unpooled"] = [*spans["instruction"], *([(stop, tail)] if stop < tail else [])]
    elif prompt.pooled != "all":
        pooled = next((a, b) for name, a, b in slots if name == prompt.pooled)
        if pooled[0] == pooled[1]:
            raise ConfigError(f"the tokenizer makes no token of {{{prompt.pooled}}}")
        spans["unpooled"] = _gaps([pooled], tokens)
    return spans


def _gaps(ranges: list[tuple[int, int]], stop: int) -> list[tuple[int, int]]:
    """What these ranges, in order, leave of ``0..stop``."""
    edges = [0, *(edge for one in ranges for edge in one), stop]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
