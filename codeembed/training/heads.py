"""Heads over the tokens of code, whose labels come from the syntax tree of the very tokens read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from codeembed.languages import language as find_language
from codeembed.pairs.pair import digest
from codeembed.training.config import CodeTaskConfig
from codeembed.training.objectives import IGNORE, edge_loss, identifier_loss, type_loss
from codeembed.transform.lexemes import lexemes
from codeembed.transform.syntaxes import SYNTAXES
from codeembed.transform.tree import Code
from codeembed.views.align import IGNORED, align, token_labels
from mmembed.errors import ConfigError
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.reading import TextBatch
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.token_tasks import TokenTask, Work

__all__ = ["CodeHead", "head_of", "labels_of"]

_DISTANCES = (1, 4)


class CodeHead(TokenTask):
    """A token task whose labels are read off the tree.

    The text of a row is what its tokens decode to, so labels fit what the model reads, cut off or
    not. A code that was cut off has errors at its end; the tree before them is sound.
    """

    def __init__(self, config: CodeTaskConfig, width: int) -> None:
        nn.Module.__init__(self)
        self.config: Any = config
        outputs = {"identifier": 1, "edge": 0}.get(config.head, config.classes)
        self.output = nn.Linear(width, outputs) if outputs else None
        language = find_language(config.language)
        if language is None or language.name not in SYNTAXES:
            raise ConfigError(f"head {config.head}: {config.language!r} has no syntax trees here")
        self._language = language

    def asked(
        self, encoder: TextEncoder, batch: TextBatch, generator: torch.Generator
    ) -> tuple[TextBatch, Tensor]:
        """The batch as it is, and a class a token."""
        labels = [
            label
            for row in batch.ids.cpu().split(batch.lengths)
            for label in self._row(encoder.tokenizer, row.tolist())
        ]
        return batch, torch.tensor(labels, device=batch.ids.device)

    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """As :meth:`TokenTask.forward`."""
        hidden = encoder.read(work.batch).hidden
        if self.config.head == "edge":
            return _edges(hidden, work)
        assert self.output is not None
        logits = self.output(hidden)
        if self.config.head == "identifier":
            return identifier_loss(logits.squeeze(1), work.labels, work.factor)
        return type_loss(logits, work.labels, work.factor)

    def _row(self, tokenizer: Any, ids: list[int]) -> list[int]:
        special = set(tokenizer.all_special_ids)
        pieces = [
            b"" if token in special else _bytes(raw)
            for token, raw in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)
        ]
        spans = []
        end = 0
        for piece in pieces:
            spans.append((end, end + len(piece)))
            end += len(piece)
        return labels_of(self.config, Code(b"".join(pieces), self._language, b"", b""), spans)


def labels_of(config: CodeTaskConfig, code: Code, spans: Sequence[tuple[int, int]]) -> list[int]:
    """A class for every subword; -100 for those in no token of code.

    The class of an ``edge`` head is the token's parent node: two tokens of one parent have an edge.

    Args:
        spans: Byte spans of the subwords in the code; empty ones are special tokens.
    """
    tokens = token_labels(code)
    parents = [each.node.parent for each in lexemes(code, comments=True)]
    found = []
    for place in align(tokens, spans):
        if place == IGNORED:
            found.append(IGNORE)
        elif config.head == "identifier":
            found.append(int(tokens[place].is_identifier))
        elif config.head == "edge":
            parent = parents[place]
            found.append(0 if parent is None else parent.index)
        else:
            kind = tokens[place].type if config.head == "type" else tokens[place].parent
            found.append(digest(kind) % config.classes)
    return found


def _edges(hidden: Tensor, work: Work) -> Tensor:
    """Pairs of tokens of one row, near and farther: is the parent the same node?"""
    lengths = torch.tensor(work.batch.lengths, device=hidden.device)
    rows = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths)
    places = torch.arange(len(rows), device=hidden.device)
    pairs = torch.cat([torch.stack([places[:-by], places[by:]], dim=1) for by in _DISTANCES])
    first, second = pairs[:, 0], pairs[:, 1]
    kept = (work.labels[first] != IGNORE) & (work.labels[second] != IGNORE)
    pairs = pairs[kept & (rows[first] == rows[second])]
    labels = (work.labels[pairs[:, 0]] == work.labels[pairs[:, 1]]).long()
    # Dot products of wide states would saturate the sigmoid.
    scaled = hidden / hidden.shape[1] ** 0.25
    return edge_loss(scaled, pairs, labels, work.factor / len(_DISTANCES))


@cache
def _byte_of() -> dict[str, int]:
    """The bytes that the characters of byte-level BPE stand for (Radford et al., 2019)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    found = {chr(byte): byte for byte in shown}
    return found | {chr(256 + at): byte for at, byte in enumerate(hidden)}


def _bytes(token: str) -> bytes:
    known = _byte_of()
    try:
        return bytes(known[character] for character in token)
    except KeyError:
        raise ConfigError(
            f"token {token!r}: heads over code need a byte-level tokenizer, such as CodeBERT's, "
            "whose tokens give the source back"
        ) from None


def head_of(config: CodeTaskConfig, encoder: TextEncoder) -> CodeHead:
    """The head of this configuration, for this encoder."""
    return CodeHead(config, encoder.hidden_size)
