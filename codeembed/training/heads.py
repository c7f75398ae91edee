"""Heads over the tokens of code, whose labels come from the syntax tree of the very tokens read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from codeembed.pairs.pair import digest
from codeembed.training.config import CodeTaskConfig
from codeembed.training.edges import TreeEdges
from codeembed.training.graph_heads import GraphHead
from codeembed.training.objectives import IGNORE, identifier_loss, type_loss
from codeembed.training.reading import Remembered, code_of, parsed_language
from codeembed.transform.tree import Code
from codeembed.views.align import IGNORED, align, token_labels
from mmembed.errors import ConfigError
from mmembed.gpte.objectives.tokens import mlm_loss
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.reading import TextBatch
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.token_tasks import LabelledTokens, TokenTask, Work

__all__ = ["CodeHead", "MaskedNames", "head_of", "labels_of"]


class CodeHead(LabelledTokens):
    """A token task whose labels are read off the tree.

    The text of a row is what its tokens decode to, so labels fit what the model reads, cut off or
    not. A code that was cut off has errors at its end; the tree before them is sound.
    """

    def __init__(self, config: CodeTaskConfig, width: int) -> None:
        nn.Module.__init__(self)
        self.config: Any = config
        self.output = nn.Linear(width, 1 if config.head == "identifier" else config.classes)
        self._language = parsed_language(config.language)
        self._labels: Remembered[list[int]] = Remembered()

    def asked(
        self, encoder: TextEncoder, batch: TextBatch, generator: torch.Generator
    ) -> tuple[TextBatch, Tensor]:
        """The batch as it is, and a class a token."""
        labels = [
            label
            for row in batch.ids.cpu().split(batch.lengths)
            for label in self._labels.get(row.tolist(), partial(self._row, encoder.tokenizer))
        ]
        return batch, torch.tensor(labels, device=batch.ids.device)

    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """As :meth:`TokenTask.forward`."""
        logits = self.output(encoder.read(work.batch).hidden)
        if self.config.head == "identifier":
            return identifier_loss(logits.squeeze(1), work.labels, work.factor)
        return type_loss(logits, work.labels, work.factor)

    def _row(self, tokenizer: Any, ids: list[int]) -> list[int]:
        return labels_of(self.config, *code_of(tokenizer, ids, self._language))


def labels_of(config: CodeTaskConfig, code: Code, spans: Sequence[tuple[int, int]]) -> list[int]:
    """A class for every subword; -100 for those in no token of code.

    Args:
        spans: Byte spans of the subwords in the code; empty ones are special tokens.
    """
    tokens = token_labels(code)
    found = []
    for place in align(tokens, spans):
        if place == IGNORED:
            found.append(IGNORE)
        elif config.head == "identifier":
            found.append(int(tokens[place].is_identifier))
        else:
            kind = tokens[place].type if config.head == "type" else tokens[place].parent
            found.append(digest(kind) % config.classes)
    return found


class MaskedNames(LabelledTokens):
    """Deobfuscation (CodeSage, Zhang et al., 2024): half of a code's identifiers are masked, each
    wherever it stands, and their tokens predicted by the language model's head.

    Every subword has a mask of its own, so that a name's length is known.
    """

    def __init__(self, config: CodeTaskConfig, mask: int) -> None:
        nn.Module.__init__(self)
        self.config: Any = config
        self._language, self._mask = parsed_language(config.language), mask
        self._names: Remembered[list[bytes]] = Remembered()

    def asked(
        self, encoder: TextEncoder, batch: TextBatch, generator: torch.Generator
    ) -> tuple[TextBatch, Tensor]:
        """The batch with masks, and what stood there."""
        hidden = torch.cat(
            [
                self._hidden(encoder.tokenizer, row.tolist(), generator)
                for row in batch.ids.cpu().split(batch.lengths)
            ]
        ).to(batch.ids.device)
        ids = batch.ids.masked_fill(hidden, self._mask)
        return replace(batch, ids=ids), batch.ids.masked_fill(~hidden, IGNORE)

    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """As :meth:`TokenTask.forward`."""
        return mlm_loss(encoder.read(work.batch), work.labels, encoder.lm_head, work.factor)

    def _hidden(self, tokenizer: Any, ids: list[int], generator: torch.Generator) -> Tensor:
        """``(t,)`` bool: subwords of the identifiers that are masked."""
        names = self._names.get(ids, partial(self._row, tokenizer))
        different = sorted(set(names) - {b""})
        drawn = torch.rand(len(different), generator=generator) < 0.5
        chosen = {name for name, kept in zip(different, drawn.tolist(), strict=True) if kept}
        return torch.tensor([name in chosen for name in names])

    def _row(self, tokenizer: Any, ids: list[int]) -> list[bytes]:
        """The identifier that every subword lies in; empty elsewhere."""
        code, spans = code_of(tokenizer, ids, self._language)
        tokens = token_labels(code)
        names = [code.text[each.start : each.end] * each.is_identifier for each in tokens]
        return [b"" if at == IGNORED else names[at] for at in align(tokens, spans)]


def head_of(config: CodeTaskConfig, encoder: TextEncoder) -> TokenTask:
    """The head of this configuration, for this encoder.

    Raises:
        ConfigError: the language has no syntax trees, or names shall be masked and the model has no
            language-model head or no mask token.
    """
    if config.head in ("flow", "alignment"):
        return GraphHead(config)
    if config.head == "edge":
        return TreeEdges(config)
    if config.head != "names":
        return CodeHead(config, encoder.hidden_size)
    _ = encoder.lm_head
    mask = encoder.tokenizer.mask_token_id
    if mask is None:
        raise ConfigError("head names: the tokenizer has no mask token")
    return MaskedNames(config, int(mask))
