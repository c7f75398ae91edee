"""Writing one text after another has been read both ways: spans, a rest, or the pair's other side.

The text that is read is the source, what is written the target. A model of one stack reads both as
one row, by a mask under which all see the source and the target sees itself from left to right
(UniLM, Dong et al. 2019; UniXcoder, Guo et al. 2022); an encoder-decoder reads the source by its
encoder and writes by its decoder (T5, CodeT5+).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.long_context import positions_of
from mmembed.gpte.objectives.tokens import next_token_labels, ntp_loss
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.reading import TextBatch, batch_of
from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates, offsets_of, padded
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.token_tasks import Chunks, TokenTask, Work, behind, content_of, dressed

__all__ = [
    "ContinuedText",
    "DenoisedText",
    "OtherText",
    "WriteWork",
    "WrittenText",
    "beside",
    "flat",
    "follow",
    "random_spans",
]


def follow(encoder: TextEncoder, sources: TextBatch, targets: TextBatch) -> TokenStates:
    """States of the targets' tokens, each of which saw its source and what is ahead of itself.

    Raises:
        ConfigError: the model has neither a decoder nor an attention whose mask can be set.
    """
    if encoder.decoder is None:
        return _in_one_stack(encoder, sources, targets)
    memory, seen = padded(encoder.read(sources).hidden, sources.lengths)
    ids, mask = padded(targets.ids, targets.lengths)
    decoded = encoder.decoder(
        input_ids=ids,
        attention_mask=mask.long(),
        encoder_hidden_states=memory,
        encoder_attention_mask=seen.long(),
        use_cache=False,
    )
    return _states(decoded.last_hidden_state[mask], targets)


def _in_one_stack(encoder: TextEncoder, sources: TextBatch, targets: TextBatch) -> TokenStates:
    sides = zip(sources.ids.split(sources.lengths), targets.ids.split(targets.lengths), strict=True)
    parts = [part for pair in sides for part in pair]
    written = [torch.full_like(part, i % 2, dtype=torch.bool) for i, part in enumerate(parts)]
    both = list(zip(sources.lengths, targets.lengths, strict=True))
    seen = [behind(read + told, read, sources.ids.device) for read, told in both]
    batch = TextBatch(torch.cat(parts), [read + told for read, told in both], {}, seen=seen)
    return _states(encoder.read(batch).hidden[torch.cat(written)], targets)


def _states(hidden: Tensor, targets: TextBatch) -> TokenStates:
    offsets = offsets_of(targets.lengths).to(hidden.device)
    return TokenStates(hidden, offsets, targets.spans, targets.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteWork(Work):
    """Sources in ``batch``, and what is written behind them; labels are those of its tokens."""

    targets: TextBatch


class WrittenText(TokenTask):
    """Cross-entropy of the target's tokens, each told from what is ahead of it.

    Raises:
        ConfigError: the encoder has no language-model head, or no token of the given name.
    """

    def __init__(self, config: TokenTaskConfig, encoder: TextEncoder) -> None:
        super().__init__(config)
        end = encoder.tokenizer.eos_token_id
        self._end = encoder.tokenizer.sep_token_id if end is None else end
        self._begin: list[int] = []
        if config.begin:
            self._begin = [_token(encoder, config.begin, "begin")]
        elif encoder.decoder is not None:
            self._begin = [int(encoder.base.config.decoder_start_token_id or 0)]
        self._room = None if encoder.decoder is not None else positions_of(encoder.base)

    def work(self, encoder: TextEncoder, rows: Sequence[Row], generator: torch.Generator) -> Work:
        """As :meth:`TokenTask.work`."""
        sources, targets = [], []
        for row in rows:
            source, written = self.texts(encoder, row, generator)
            target = [*self._begin, *written, self._end]
            if self._room is not None and len(source) + len(target) > self._room:
                target = target[: max(self._room // 2, self._room - len(source))]
                source = source[: self._room - len(target)]
            sources.append(Row(source, len(source)))
            targets.append(Row(target, len(target)))
        read, written_ = batch_of(sources, encoder.device), batch_of(targets, encoder.device)
        labels = next_token_labels(written_.ids, written_.lengths)
        return WriteWork(read, labels, targets=written_)

    @abstractmethod
    def texts(
        self, encoder: TextEncoder, row: Row, generator: torch.Generator
    ) -> tuple[list[int], list[int]]:
        """The tokens to read, and those to write, without the token that ends them."""

    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """As :meth:`TokenTask.forward`."""
        assert isinstance(work, WriteWork)
        states = follow(encoder, work.batch, work.targets)
        return ntp_loss(states, work.labels, encoder.lm_head, work.factor)


class DenoisedText(WrittenText):
    """Spans that were cut out, each behind the sentinel that stands in its place (T5).

    Raises:
        ConfigError: the tokenizer has no sentinels.
    """

    def __init__(self, config: TokenTaskConfig, encoder: TextEncoder) -> None:
        super().__init__(config, encoder)
        vocabulary = encoder.tokenizer.get_vocab()
        self._sentinels: list[int] = []
        while (name := config.sentinel.format(len(self._sentinels))) in vocabulary:
            self._sentinels.append(vocabulary[name])
        if not self._sentinels:
            raise ConfigError(
                f"task denoise: the tokenizer has no {config.sentinel.format(0)!r}: name sentinels "
                "in settings.tokens, or as they are called in sentinel"
            )

    def texts(
        self, encoder: TextEncoder, row: Row, generator: torch.Generator
    ) -> tuple[list[int], list[int]]:
        """As :meth:`WrittenText.texts`."""
        row = dressed(encoder, row, self.config.prefix)
        first, stop = content_of(encoder, row)
        spans = random_spans(
            stop - first,
            self.config.probability,
            self.config.span,
            len(self._sentinels),
            generator,
        )
        ids = row.input_ids
        source, target, at = [], [], 0
        for sentinel, (a, b) in zip(self._sentinels, spans, strict=False):
            source += [*ids[at : first + a], sentinel]
            target += [sentinel, *ids[first + a : first + b]]
            at = first + b
        return [*source, *ids[at:]], target


class ContinuedText(WrittenText):
    """The rest of a text from a random place on (CodeT5+'s causal language modelling)."""

    def texts(
        self, encoder: TextEncoder, row: Row, generator: torch.Generator
    ) -> tuple[list[int], list[int]]:
        """As :meth:`WrittenText.texts`."""
        row = dressed(encoder, row, self.config.prefix)
        first, stop = content_of(encoder, row)
        at = first
        if stop - first > 1:
            at += int(torch.randint(1, stop - first, (), generator=generator))
        return [*row.input_ids[:at], *row.input_ids[stop:]], row.input_ids[at:stop]


class OtherText(WrittenText):
    """The other text of the pair: documentation of code, or code of documentation."""

    def chunks(
        self, encoder: TextEncoder, columns: Mapping[str, Chunks], generator: torch.Generator
    ) -> Chunks:
        """As :meth:`TokenTask.chunks`; rows carry their partners.

        Raises:
            ConfigError: rows have no partners.
        """
        others = iter(flat(columns, self.config.other, self.config.key))
        return [
            [beside(encoder, row, next(others)) for row in rows]
            for rows in columns[self.config.column]
        ]

    def texts(
        self, encoder: TextEncoder, row: Row, generator: torch.Generator
    ) -> tuple[list[int], list[int]]:
        """As :meth:`WrittenText.texts`."""
        read = dressed(encoder, row, self.config.prefix)
        return list(read.input_ids), row.extras["other"].tolist()


def flat(columns: Mapping[str, Chunks], name: str, task: str) -> list[Row]:
    """All rows of a column.

    Raises:
        ConfigError: the batch has no such column.
    """
    if name not in columns:
        raise ConfigError(f"task {task} needs pairs, and the rows have no {name}")
    return [row for rows in columns[name] for row in rows]


def beside(encoder: TextEncoder, row: Row, other: Row) -> Row:
    """A row that carries the text of another, without its prompt."""
    first, stop = content_of(encoder, other)
    text = torch.tensor(other.input_ids[first:stop], dtype=torch.int64)
    return replace(row, extras={**row.extras, "other": text})


def random_spans(
    tokens: int, share: float, mean: float, most: int, generator: torch.Generator
) -> list[tuple[int, int]]:
    """Spans that hold a share of a text's tokens, none of which touch (Raffel et al. 2020).

    Args:
        tokens: of the text.
        share: of them that spans hold, rounded, but one at least.
        mean: length of a span.
        most: spans.

    Returns:
        ``(start, stop)`` of each, in order; the text begins with a token outside of them.
    """
    cut = min(max(1, round(tokens * share)), tokens - 1)
    if cut < 1:
        return []
    count = min(max(1, round(cut / mean)), most, tokens - cut)
    held = _parts(cut, count, generator)
    left = _parts(tokens - cut, count, generator)
    spans, at = [], 0
    for skipped, length in zip(left, held, strict=True):
        spans.append((at + skipped, at + skipped + length))
        at += skipped + length
    return spans


def _parts(whole: int, count: int, generator: torch.Generator) -> list[int]:
    """``count`` lengths of 1 or more that make up the whole, every way as likely."""
    edges = (torch.randperm(whole - 1, generator=generator)[: count - 1] + 1).sort().values
    bounds = [0, *edges.tolist(), whole]
    return [b - a for a, b in pairwise(bounds)]


def _token(encoder: TextEncoder, name: str, what: str) -> int:
    found = encoder.tokenizer.get_vocab().get(name)
    if found is None:
        raise ConfigError(f"{what} {name!r} is no token: name it in settings.tokens")
    return int(found)
