"""Is this document of that query? A head over a decoder that reads one beside the other.

CodeT5+ (Wang et al. 2023) after ALBEF and BLIP (Li et al. 2021, 2022): the query is the source, and
the document, behind a token of its own, is read as what follows it; the state of its last token
gives one logit. Every pair is judged beside two wrong ones, whose partners are drawn from the batch
by their cosines to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.gradcache import join_outputs
from mmembed.gpte.objectives.base import dense_of, unit, wide
from mmembed.gpte.objectives.tokens import rtd_loss
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.reading import TextBatch, batch_of
from mmembed.gpte.rows import Row
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.token_tasks import Chunks, TokenTask, Work
from mmembed.gpte.writing import WriteWork, flat, follow

__all__ = ["MatchedPairs", "hard_partners", "match_logits", "pair_logits"]

_BATCH = 32


def pair_logits(encoder: TextEncoder, queries: TextBatch, documents: TextBatch) -> Tensor:
    """``(n,)`` float32 log-odds of pairs.

    Args:
        documents: with the match token ahead of each.
    """
    assert encoder.match is not None
    states = follow(encoder, queries, documents)
    last = states.hidden[states.offsets[1:] - 1]
    return wide(encoder.match(last.to(encoder.match.weight.dtype))).squeeze(1)


@torch.inference_mode()
def match_logits(encoder: TextEncoder, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Log-odds that documents belong to queries, in the order of the pairs.

    Raises:
        ConfigError: the encoder has no matching head.
        InputError: a text cannot be tokenised.
    """
    _check(encoder)
    found: list[float] = []
    for start in range(0, len(pairs), _BATCH):
        queries, documents = zip(*pairs[start : start + _BATCH], strict=True)
        batches = _batches(
            encoder, encoder.tokenize(queries, "query"), encoder.tokenize(documents, "document")
        )
        found += pair_logits(encoder, *batches).tolist()
    return found


class MatchedPairs(TokenTask):
    """Binary cross-entropy of pairs, and of the pairs with a wrong document or a wrong query.

    Raises:
        ConfigError: the encoder has no matching head, or the task reads another column.
    """

    def __init__(self, config: TokenTaskConfig, encoder: TextEncoder) -> None:
        super().__init__(config)
        _check(encoder)
        if config.column != "query":
            raise ConfigError("task match reads queries beside their positives: leave column out")

    def chunks(
        self, encoder: TextEncoder, columns: Mapping[str, Chunks], generator: torch.Generator
    ) -> Chunks:
        """As :meth:`TokenTask.chunks`: of each query its pair and up to two wrong ones."""
        queries, documents = (flat(columns, name, "match") for name in ("query", "positive"))
        sides = [
            unit(dense_of(join_outputs([encoder(encoder.collate(rows)) for rows in columns[name]])))
            for name in ("query", "positive")
        ]
        same = _equal(queries) | _equal(documents)
        logits = (sides[0] @ sides[1].T).cpu() / self.config.temperature
        logits = logits.masked_fill(same, -torch.inf)
        wrong = list(
            zip(hard_partners(logits, generator), hard_partners(logits.T, generator), strict=True)
        )
        chunks: list[list[Row]] = []
        start = 0
        for rows in columns["query"]:
            own = range(start, start + len(rows))
            start = own.stop
            pairs = [(i, i) for i in own]
            pairs += [(i, document) for i in own if (document := wrong[i][0]) is not None]
            pairs += [(query, i) for i in own if (query := wrong[i][1]) is not None]
            chunks.append([_judged(queries[i], documents[j], i == j) for i, j in pairs])
        return chunks

    def work(self, encoder: TextEncoder, rows: Sequence[Row], generator: torch.Generator) -> Work:
        """As :meth:`TokenTask.work`."""
        documents = [Row(ids := row.extras["other"].tolist(), len(ids)) for row in rows]
        queries, documents_ = _batches(encoder, rows, documents)
        labels = torch.stack([row.extras["label"] for row in rows]).to(encoder.device)
        return WriteWork(queries, labels, targets=documents_)

    def forward(self, encoder: TextEncoder, work: Work, outputs: Outputs | None) -> Tensor:
        """As :meth:`TokenTask.forward`."""
        assert isinstance(work, WriteWork)
        return rtd_loss(pair_logits(encoder, work.batch, work.targets), work.labels, work.factor)


def hard_partners(logits: Tensor, generator: torch.Generator) -> list[int | None]:
    """A column for every row, drawn by the softmax of its logits; None where all are ``-inf``."""
    possible = (logits > -torch.inf).any(dim=1)
    shares = logits.masked_fill(~possible[:, None], 0.0).softmax(dim=1)
    drawn = torch.multinomial(shares, 1, generator=generator).squeeze(1).tolist()
    return [at if fine else None for at, fine in zip(drawn, possible.tolist(), strict=True)]


def _judged(query: Row, document: Row, right: bool) -> Row:
    """A query that carries a document, and whether it is its own."""
    held = {"other": torch.tensor(document.input_ids), "label": torch.tensor(int(right))}
    return Row(query.input_ids, query.tokens, extras=held)


def _equal(rows: Sequence[Row]) -> Tensor:
    """``(n, n)`` bool: which rows hold the same tokens."""
    numbers: dict[tuple[int, ...], int] = {}
    known = [numbers.setdefault(tuple(row.input_ids), len(numbers)) for row in rows]
    ids = torch.tensor(known)
    return ids[:, None] == ids[None, :]


def _batches(
    encoder: TextEncoder, queries: Sequence[Row], documents: Sequence[Row]
) -> tuple[TextBatch, TextBatch]:
    """Queries as they are, and documents behind the match token."""
    begun = [Row([encoder.match_id, *row.input_ids], row.tokens + 1) for row in documents]
    read = [Row(row.input_ids, row.tokens) for row in queries]
    return batch_of(read, encoder.device), batch_of(begun, encoder.device)


def _check(encoder: TextEncoder) -> None:
    if encoder.match is None:
        raise ConfigError("the encoder has no matching head: set settings.match_token")
