"""Hard negatives: documents that a model ranks high for a query and that do not answer it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.config import SourceConfig
from mmembed.gpte.data.examples import Example, Report, examples_of
from mmembed.gpte.encoding import encode
from mmembed.gpte.long_context import positions_of
from mmembed.gpte.onednn import matmul_nt
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.recipe import MineStage
from mmembed.gpte.text_encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "CrossEncoder",
    "MinedRow",
    "Reranker",
    "candidates",
    "mine_negatives",
    "run_mine",
    "write_mined",
]

_log = logging.getLogger(__name__)
_QUERIES = 256
_OWN = -1  # the positive, among numbers of documents


class Reranker(Protocol):
    """Scores pairs of texts: the higher, the more relevant."""

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class MinedRow:
    """A query with its positive and mined negatives, best ranked first.

    Attributes:
        scores: cosines of the positive and then of each negative.
        reranker_scores: the reranker's log-odds of the same; empty without one.
    """

    example: Example
    negatives: tuple[str, ...]
    scores: tuple[float, ...]
    reranker_scores: tuple[float, ...] = ()


def run_mine(stage: MineStage, context: Context) -> Outcome:
    """Mine every source, and write ``rows.jsonl``: query, positive, negatives, scores.

    With a reranker there are ``reranker_scores`` too, for a later stage to be taught (``teacher``).

    Raises:
        ConfigError: the sources give no row with a negative.
        InputError, ModelLoadError: a source or a model cannot be read.
    """
    encoder = TextEncoder.from_pretrained(context.model(stage.model)).eval()
    reranker = None if stage.reranker is None else CrossEncoder(context.model(stage.reranker))
    records = (
        _record(row)
        for source in context.data(stage.data).sources
        for row in mine_negatives(
            encoder,
            list(examples_of(source, Report(source.name), stage.data.bad_rows)),
            source,
            stage,
            reranker,
        )
    )
    return write_mined(stage, context.folder, records)


def write_mined(stage: MineStage, folder: Path, records: Iterable[Mapping[str, Any]]) -> Outcome:
    """Write the records that have ``negatives`` to ``rows.jsonl``, whole or not at all.

    Raises:
        ConfigError: none has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "rows.jsonl"
    partial = folder / ".rows.jsonl.partial"
    kept = asked = 0
    with partial.open("w", encoding="utf-8") as stream:
        for record in records:
            asked += 1
            if record["negatives"]:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
                kept += 1
    if not kept:
        partial.unlink()
        raise ConfigError(
            f"stage {stage.name}: none of {asked} queries has a negative between ranks "
            f"{stage.ranks[0]} and {stage.ranks[1]} that passes the margins"
        )
    partial.replace(file)
    _log.info("stage %s: negatives for %d of %d queries", stage.name, kept, asked)
    return Outcome(folder, rows=file, metrics={"rows": kept, "queries": asked})


def mine_negatives(
    encoder: TextEncoder,
    examples: Sequence[Example],
    source: SourceConfig,
    stage: MineStage,
    reranker: Reranker | None = None,
) -> Iterator[MinedRow]:
    """Negatives for every example, from the positives and negatives of all of them.

    A document is no negative of a query if it is a positive of an equal query, or equals the query.
    The margins are those of NV-Retriever (Moreira et al. 2024): ``score < positive - margin`` and
    ``score < relative * positive``, for positives of positive score.

    Raises:
        ConfigError: an example has no positive.
    """
    if any(example.positive is None for example in examples):
        raise ConfigError(f"stage {stage.name}: {source.path} has rows without a positive")
    texts = [text for example in examples for text in example.texts[1:]]
    corpus = list(dict.fromkeys(texts))
    number = {text: i for i, text in enumerate(corpus)}
    answers: dict[str, set[int]] = {}
    for example in examples:
        found = answers.setdefault(example.query, set())
        found.add(number[str(example.positive)])
        if example.query in number:
            found.add(number[example.query])
    instruction = source.document_instruction or None
    documents = F.normalize(
        encode(encoder, corpus, role=source.document_role, instruction=instruction), dim=1
    )
    rng = np.random.default_rng(0)
    for start in range(0, len(examples), _QUERIES):
        part = examples[start : start + _QUERIES]
        queries = F.normalize(
            encode(
                encoder,
                [example.query for example in part],
                role=source.query_role,
                instruction=[example.instruction for example in part],
            ),
            dim=1,
        )
        scores = matmul_nt(queries, documents)
        for example, row in zip(part, scores, strict=True):
            own = float(row[number[str(example.positive)]])
            picked = candidates(row, answers[example.query], own, stage)
            judged: dict[int, float] = {}
            if reranker is not None and picked:
                judged = _judged(reranker, example, picked, corpus, stage.reranker_share)
                picked = [i for i in picked if i in judged]
            if stage.sample and len(picked) > stage.negatives:
                chosen = rng.choice(len(picked), stage.negatives, replace=False)
                picked = [picked[i] for i in sorted(chosen)]
            picked = picked[: stage.negatives]
            yield MinedRow(
                example,
                tuple(corpus[i] for i in picked),
                (own, *(float(row[i]) for i in picked)),
                tuple(judged[i] for i in (_OWN, *picked)) if judged else (),
            )


def candidates(scores: Tensor, answers: set[int], own: float, stage: MineStage) -> list[int]:
    """Documents in the wanted ranks, among those that are no answer, and below the margins."""
    first, last = stage.ranks
    count = min(len(scores), last + len(answers))
    order = [i for i in scores.topk(count).indices.tolist() if i not in answers][first:last]
    limit = np.inf
    if stage.margin is not None:
        limit = own - stage.margin
    if stage.relative is not None:
        # A share of a negative score would be a higher one.
        limit = min(limit, stage.relative * own if own > 0 else own)
    return [i for i in order if float(scores[i]) < limit]


def _judged(
    reranker: Reranker, example: Example, picked: list[int], corpus: list[str], share: float
) -> dict[int, float]:
    """Log-odds of the positive, under ``_OWN``, and of those that the reranker gives clearly lower
    probabilities."""
    pairs = [(example.query, str(example.positive))]
    pairs += [(example.query, corpus[i]) for i in picked]
    own, *others = reranker(pairs)
    kept = {i: score for i, score in zip(picked, others, strict=True) if score < share * own}
    return {i: _log_odds(score) for i, score in {_OWN: own, **kept}.items()}


def _log_odds(probability: float) -> float:
    inside = min(max(probability, 1e-12), 1.0 - 1e-12)
    return math.log(inside / (1.0 - inside))


def _record(row: MinedRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        "query": row.example.query,
        "positive": row.example.positive,
        "negatives": list(row.negatives),
        "scores": list(row.scores),
    }
    if row.reranker_scores:
        found["reranker_scores"] = list(row.reranker_scores)
    if row.example.instruction is not None:
        found["instruction"] = row.example.instruction
    return found


class CrossEncoder:
    """A sequence classifier with one output, read as the probability of relevance.

    Args:
        name_or_path: folder or hub name.

    Raises:
        ModelLoadError: it cannot be loaded, or has more than one output.
    """

    def __init__(self, name_or_path: str | Path, *, max_tokens: int = 512) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name_or_path)
            model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
                name_or_path, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"{name_or_path}: {error}") from error
        if model.config.num_labels != 1:
            raise ModelLoadError(f"{name_or_path}: has {model.config.num_labels} outputs, not one")
        self.model = model.eval()
        room = positions_of(model.base_model)
        self.max_tokens = max_tokens if room is None else min(max_tokens, room)

    @torch.inference_mode()
    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Probabilities of relevance, in the order of the pairs."""
        found: list[float] = []
        for start in range(0, len(pairs), 32):
            queries, documents = zip(*pairs[start : start + 32], strict=True)
            batch = self.tokenizer(
                list(queries),
                list(documents),
                padding=True,
                truncation="longest_first",
                max_length=self.max_tokens,
                return_tensors="pt",
            )
            logits = self.model(**batch.to(self.model.device)).logits
            found += torch.sigmoid(logits.double().squeeze(1)).tolist()
        return found
