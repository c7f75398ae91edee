"""Token-level losses beside, or in place of, a sentence objective.

Every task prepares its inputs for a whole step first, because its loss is divided by the number of
labelled tokens of all chunks and processes. What is drawn comes from the generator that the trainer
seeds by (seed, step, process), so that a resumed run masks the same tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.tokens import (
    IGNORE,
    mask_tokens,
    mlm_loss,
    mntp_loss,
    next_token_labels,
    ntp_loss,
    rtd_loss,
    token_factor,
)
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.reading import TextBatch
from mmembed.gpte.rows import Row
from mmembed.gpte.states import padded
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.text_encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Chunks",
    "GatheredTokens",
    "LabelledTokens",
    "MaskedTokens",
    "NextTokens",
    "ReplacedTokens",
    "TokenTask",
    "Work",
    "behind",
    "content_of",
    "dressed",
]

Chunks = Sequence[Sequence[Row]]
"""Rows that are read together, one list after another."""


@dataclass(frozen=True, slots=True)
class Work:
    """One chunk's share of a task.

    Attributes:
        batch: the rows as the task reads them.
        labels: ``(tokens,)`` int64, -100 where nothing is asked.
        factor: what the sum of token losses is multiplied by.
    """

    batch: TextBatch
    labels: Tensor
    factor: float = 1.0


class TokenTask(nn.Module, ABC):
    """A loss over the tokens of one column; a module, as some tasks learn parts of their own.

    Attributes:
        config: its options.
    """

    def __init__(self, config: TokenTaskConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def prepare(
        self, encoder: TextEncoder, columns: Mapping[str, Chunks], generator: torch.Generator
    ) -> list[Work]:
        """The work of every chunk of this process; a collective call.

        Args:
            columns: the batch's rows in chunks, by column.
        """
        chunks = self.chunks(encoder, columns, generator)
        works = [self.work(encoder, rows, generator) for rows in chunks]
        factor = token_factor((work.labels for work in works), encoder.device)
        return [replace(work, factor=factor) for work in works]

    def chunks(
        self, encoder: TextEncoder, columns: Mapping[str, Chunks], generator: torch.Generator
    ) -> Chunks:
        """The rows of every chunk: the task's own column."""
        return columns[self.config.column]

    @abstractmethod
    def work(self, encoder: TextEncoder, rows: Sequence[Row], generator: torch.Generator) -> Work:
        """The work of one chunk, before its factor is known."""

    @abstractmethod
    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """0-d share of the mean loss over all labelled tokens of the step.

        Args:
            outputs: what the encoder gave for the same chunk, where a task depends on it.
        """


class LabelledTokens(TokenTask):
    """A task that asks something of the tokens of the rows themselves."""

    def work(self, encoder: TextEncoder, rows: Sequence[Row], generator: torch.Generator) -> Work:
        """As :meth:`TokenTask.work`."""
        rows = [dressed(encoder, row, self.config.prefix) for row in rows]
        batch = replace(encoder.collate(rows), bare=None, bare_rows=None)
        return Work(*self.asked(encoder, batch, generator))

    @abstractmethod
    def asked(
        self, encoder: TextEncoder, batch: TextBatch, generator: torch.Generator
    ) -> tuple[TextBatch, Tensor]:
        """The batch to read, and the labels."""

    def masked(
        self, encoder: TextEncoder, batch: TextBatch, generator: torch.Generator, first: bool
    ) -> tuple[TextBatch, Tensor]:
        """A corrupted batch and its labels; ``first`` says whether first tokens may be masked.

        Tokens in a span named ``"given"`` never are.
        """
        config = self.config
        ids = batch.ids.cpu()
        special = torch.tensor(sorted(encoder.tokenizer.all_special_ids))
        maskable = ~torch.isin(ids, special)
        if "given" in batch.spans:
            maskable &= ~batch.spans["given"].cpu()
        if not first:
            starts = torch.tensor([0, *batch.lengths[:-1]]).cumsum(0)
            maskable[starts] = False
        corrupted, labels = mask_tokens(
            ids,
            maskable,
            self._mask_id(encoder),
            len(encoder.tokenizer),
            probability=config.probability,
            keep=config.keep,
            random=config.random,
            generator=generator,
        )
        return replace(batch, ids=corrupted.to(batch.ids.device)), labels.to(batch.ids.device)

    def _mask_id(self, encoder: TextEncoder) -> int:
        token = self.config.mask_token or encoder.tokenizer.mask_token
        found = None if token is None else encoder.tokenizer.get_vocab().get(token)
        if found is None:
            raise ConfigError(
                f"task {self.config.task}: the tokenizer has no mask token {token or ''!r}; name "
                "one of its tokens as mask_token"
            )
        return int(found)


class MaskedTokens(LabelledTokens):
    """Masked language modelling, or masked next-token prediction (LLM2Vec)."""

    def asked(
        self, encoder: TextEncoder, batch: TextBatch, generator: torch.Generator
    ) -> tuple[TextBatch, Tensor]:
        """As :meth:`LabelledTokens.asked`."""
        return self.masked(encoder, batch, generator, first=self.config.task == "mlm")

    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """As :meth:`TokenTask.forward`."""
        states = encoder.read(work.batch)
        loss = mlm_loss if self.config.task == "mlm" else mntp_loss
        return loss(states, work.labels, encoder.lm_head, work.factor)


class NextTokens(LabelledTokens):
    """Next-token prediction under the causal mask (GritLM's generative half, UniXcoder's ULM)."""

    def asked(
        self, encoder: TextEncoder, batch: TextBatch, generator: torch.Generator
    ) -> tuple[TextBatch, Tensor]:
        """As :meth:`LabelledTokens.asked`; instructions are read but not learned."""
        if encoder.packing is not None:
            batch = replace(batch, seen=[behind(n, device=batch.ids.device) for n in batch.lengths])
        labels = next_token_labels(batch.ids, batch.lengths)
        return batch, labels.masked_fill(torch.roll(batch.spans["instruction"], -1), IGNORE)

    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """As :meth:`TokenTask.forward`."""
        with _causal(encoder.base) if encoder.packing is None else nullcontext():
            states = encoder.read(work.batch)
        return ntp_loss(states, work.labels, encoder.lm_head, work.factor)


class GatheredTokens(NextTokens):
    """Next-token prediction through a prompt's summary tokens (GEM, Zhang et al. 2025).

    In a share of the texts the summary tokens stand at a random place, and what is behind them does
    not see what is ahead of them: they have to hold what the rest of the text follows from. The
    other texts are read as they are, so that the model goes on to speak. No summary token is itself
    predicted.
    """

    def asked(
        self, encoder: TextEncoder, batch: TextBatch, generator: torch.Generator
    ) -> tuple[TextBatch, Tensor]:
        """As :meth:`LabelledTokens.asked`."""
        instructions = batch.spans["instruction"].cpu().split(batch.lengths)
        summaries = encoder.gathers(batch).cpu().split(batch.lengths)
        cut = torch.rand(len(batch), generator=generator) < self.config.probability
        where = torch.rand(len(batch), generator=generator).tolist()
        rows = list(batch.ids.cpu().split(batch.lengths))
        for i in cut.nonzero().squeeze(1).tolist():
            summary, told = summaries[i], int(instructions[i].sum())
            if not summary.any():
                raise ConfigError("task gem: its column's prompt has no {summary} slot")
            text = int(summary.int().argmax()) - told  # tokens ahead of the summary
            if text > 1:
                at = told + 1 + int(where[i] * (text - 1))
                rest = rows[i][~summary]
                rows[i] = torch.cat([rest[:at], rows[i][summary], rest[at:]])
        batch, labels = super().asked(
            encoder, replace(batch, ids=torch.cat(rows).to(batch.ids.device)), generator
        )
        return batch, labels.masked_fill(torch.isin(labels, encoder.summary_ids), IGNORE)


class ReplacedTokens(LabelledTokens):
    """Which tokens did a frozen generator replace, given the sentence's vector (DiffCSE)?

    Chuang et al. 2022: the discriminator reads the corrupted sentence with the vector of the
    original one in the place of its first token's embedding, so the vector must tell what changed.
    The generator fills masks in by its best guess.

    Args:
        generator: a masked language model with the encoder's vocabulary; frozen.
        discriminator: an encoder of the vector's width; trained along, and thrown away.

    Raises:
        ConfigError: vocabularies or widths do not match.
    """

    def __init__(
        self,
        config: TokenTaskConfig,
        encoder: TextEncoder,
        generator: PreTrainedModel,
        discriminator: PreTrainedModel,
    ) -> None:
        super().__init__(config)
        vocab = len(encoder.tokenizer)
        for name, model in (("generator", generator), ("discriminator", discriminator)):
            if model.get_input_embeddings().weight.shape[0] < vocab:
                raise ConfigError(f"task rtd: the {name} has another vocabulary than the encoder")
        if discriminator.config.hidden_size != encoder.dim:
            raise ConfigError(
                f"task rtd: vectors have {encoder.dim} dimensions and the discriminator "
                f"{discriminator.config.hidden_size}"
            )
        # In a list, the frozen generator is no submodule: neither trained, wrapped nor saved.
        self._generator = [generator.requires_grad_(False).eval()]
        self.discriminator = discriminator
        self.judge = nn.Linear(discriminator.config.hidden_size, 1)

    def asked(
        self, encoder: TextEncoder, batch: TextBatch, generator: torch.Generator
    ) -> tuple[TextBatch, Tensor]:
        """As :meth:`LabelledTokens.asked`; the label of every token is whether it was replaced."""
        masked, labels = self.masked(encoder, batch, generator, first=False)
        model = self._generator[0].to(batch.ids.device)
        ids, mask = padded(masked.ids, masked.lengths)
        guesses = model(input_ids=ids, attention_mask=mask.long()).logits.argmax(dim=-1)[mask]
        filled = torch.where(labels == IGNORE, batch.ids, guesses)
        return replace(batch, ids=filled), (filled != batch.ids).long()

    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """As :meth:`TokenTask.forward`."""
        assert outputs is not None
        assert outputs.dense is not None
        ids, mask = padded(work.batch.ids, work.batch.lengths)
        embeds = self.discriminator.get_input_embeddings()(ids)
        vector = outputs.dense.unsqueeze(1).to(embeds.dtype)
        embeds = torch.cat([vector, embeds[:, 1:]], dim=1)
        hidden = self.discriminator(inputs_embeds=embeds, attention_mask=mask.long())
        logits = self.judge(hidden.last_hidden_state[mask]).squeeze(1)
        return rtd_loss(logits, work.labels, work.factor)


@contextmanager
def _causal(model: PreTrainedModel) -> Iterator[None]:
    """The causal mask on, as long as the block lasts."""
    config: Any = model.config
    before = getattr(config, "is_causal", True)
    config.is_causal = True
    try:
        yield
    finally:
        config.is_causal = before


def behind(length: int, source: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """``(length, length)`` bool by query and key: all see the source, the rest is seen from itself
    on (UniLM, Dong et al. 2019); without a source that is the causal mask."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    seen[:, :source] = True
    return seen


def content_of(encoder: TextEncoder, row: Row) -> tuple[int, int]:
    """Where a row's text lies: behind its prompt, ahead of what the tokenizer ends rows with."""
    special = encoder.tokenizer.all_special_ids
    ends = [stop for _, stop in row.spans.get("instruction", ())]
    start = max(ends) if ends else _lead(encoder)
    stop = row.tokens
    while stop > start and row.input_ids[stop - 1] in special:
        stop -= 1
    return start, stop


def dressed(encoder: TextEncoder, row: Row, prefix: str) -> Row:
    """A row with another text in the place of its prompt; as it is where the text is empty."""
    if not prefix:
        return row
    lead, (start, _) = _lead(encoder), content_of(encoder, row)
    ahead = encoder.tokenizer(prefix, add_special_tokens=False)["input_ids"]
    ids = [*row.input_ids[:lead], *ahead, *row.input_ids[start:]]
    return Row(ids, len(ids), spans={"instruction": [(0, lead + len(ahead))]})


def _lead(encoder: TextEncoder) -> int:
    """Tokens that the tokenizer puts ahead of every text."""
    backend: Any = encoder.tokenizer.backend_tokenizer
    mask: list[int] = backend.encode("x").special_tokens_mask
    return mask.index(0)
