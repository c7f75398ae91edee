"""Texts to rows: one batched call to the tokenizer, then cuts that only ever fall on text slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmembed.errors import ConfigError, InputError, ModelLoadError
from mmembed.gpte.prompts import Prompt, Rendered
from mmembed.gpte.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Tokenizing"]


class Tokenizing:
    """Makes rows of texts with one tokenizer.

    A row is never longer than ``max_tokens``: the text is cut at its end, in every slot it fills,
    and whatever the template or the tokenizer puts around it stays, so the mask token, the tail of
    a template and the end token are always there.

    Rows carry these spans: ``"instruction"``, every token ahead of the text, special tokens
    included, where the prompt puts words there; ``"text"``, one range a copy; ``"unpooled"``, what
    the prompt leaves out of pooling; and for denoising prompts ``"bare"``, all but the text.

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
        # A text may itself end in the end token, and that one can be cut.
        ended = bool(ids) and ids[-1] == self.end_id and encoding.special_tokens_mask[-1]
        append = [] if self.end_id is None or ended else [self.end_id]
        excess = len(ids) + len(append) - self.max_tokens
        slots = _token_slots(rendered, encoding)
        keep = list(range(len(ids)))
        if excess > 0:
            cut = self._cut([slot for name, slot in slots if name == "text"], excess)
            keep = [i for i in keep if i not in cut]
        where = {old: new for new, old in enumerate(keep)}
        slots = [(name, [where[i] for i in slot if i in where]) for name, slot in slots]
        specials = [bool(encoding.special_tokens_mask[i]) for i in keep]
        specials += [True] * len(append)
        ids = [*(ids[i] for i in keep), *append]
        spans = _spans(prompt, slots, specials)
        return Row(_not_empty(ids), len(ids), spans=spans)

    def _cut(self, copies: list[list[int]], excess: int) -> set[int]:
        """Token indices to drop: the ends of the copies, which keep equally many tokens each."""
        available = sum(len(copy) for copy in copies)
        each = (available - excess) // len(copies)
        if each < 1:
            around = self.max_tokens + excess - available
            raise InputError(
                "text",
                f"prompt and instruction take {around} of {self.max_tokens} tokens",
                "shorten the instruction or raise max_tokens",
            )
        drop: set[int] = set()
        for copy in copies:
            drop.update(copy[each:])
        return drop


def _not_unicode(strings: Sequence[str]) -> InputError | None:
    """The error of the first string that no UTF-8 can hold."""
    for i, string in enumerate(strings):
        try:
            string.encode()
        except UnicodeEncodeError as error:
            hint = "decode the source with errors='replace'"
            return InputError("text", f"is not Unicode: {error.reason}", hint, position=i)
    return None


def _not_empty(ids: list[int]) -> list[int]:
    if not ids:
        raise InputError("text", "has no tokens", "leave empty texts out, or set an end token")
    return ids


def _token_slots(rendered: Rendered, encoding: Any) -> list[tuple[str, list[int]]]:
    """The tokens of every slot; one across a border belongs to the slot, not to the template."""
    tokens = [
        (start, max(stop, start + 1), i)  # some tokens, as a lone metaspace, have no width
        for i, ((start, stop), special) in enumerate(
            zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        )
        if not special
    ]
    return [
        (slot.name, [i for start, stop, i in tokens if stop > slot.start and start < slot.stop])
        for slot in rendered.slots
    ]


def _spans(
    prompt: Prompt, slots: list[tuple[str, list[int]]], specials: list[bool]
) -> dict[str, list[tuple[int, int]]]:
    texts = [slot for name, slot in slots if name == "text"]
    lead = next((i for i, special in enumerate(specials) if not special), len(specials))
    tail = len(specials)
    while tail > lead and specials[tail - 1]:
        tail -= 1
    start = texts[-1][0] if texts[-1] else tail
    spans = {
        "instruction": [(0, start)] if start > lead else [],
        "text": [(copy[0], copy[-1] + 1) for copy in texts if copy],
        "unpooled": [],
    }
    if prompt.denoise:
        spans["bare"] = _gaps(spans["text"], len(specials))
    if prompt.pooled == "text":
        if not texts[-1] and start > lead:
            raise InputError("text", "has no tokens to pool", "leave empty texts out")
        stop = texts[-1][-1] + 1 if texts[-1] else tail
        spans["unpooled"] = [*spans["instruction"], *([(stop, tail)] if stop < tail else [])]
    elif prompt.pooled != "all":
        pooled = next(slot for name, slot in slots if name == prompt.pooled)
        if not pooled:
            raise ConfigError(f"the tokenizer makes no token of {{{prompt.pooled}}}")
        spans["unpooled"] = _gaps([(pooled[0], pooled[-1] + 1)], len(specials))
    return spans


def _gaps(ranges: list[tuple[int, int]], stop: int) -> list[tuple[int, int]]:
    """What these ranges, in order, leave of ``0..stop``."""
    edges = [0, *(edge for one in ranges for edge in one), stop]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
