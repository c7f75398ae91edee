"""Held-out data during training: rank correlation of labelled pairs, nDCG@10 of retrieval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmembed.errors import ConfigError
from mmembed.gpte.config import EvaluationConfig, EvaluationSet, SourceConfig
from mmembed.gpte.data.examples import Example, Report, examples_of
from mmembed.gpte.encoding import outputs_of
from mmembed.gpte.gradcache import join_outputs
from mmembed.gpte.metrics import ndcg, spearman
from mmembed.gpte.objectives.scoring import Score, all_scores, pair_scores
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["Evaluator", "Measured"]

_BATCH_TOKENS = 4096
_Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Measured:
    """What a set's number is made of, for intervals and paired tests.

    Attributes:
        values: ``(n,)`` nDCG@10 of each different query, or the score of each pair.
        labels: ``(n,)`` of the pairs, whose rank correlation with the scores is the number; None
            where it is the mean of the values.
    """

    values: _Array
    labels: _Array | None = None

    def number(self, picks: Sequence[int] | _Array | None = None) -> float:
        """The metric, of all rows or of ``picks`` (a bootstrap draws some several times).

        Raises:
            InputError: a rank correlation of values that are all equal.
        """
        if self.labels is None:
            return float((self.values if picks is None else self.values[picks]).mean())
        if picks is None:
            return spearman(self.values, self.labels)
        return spearman(self.values[picks], self.labels[picks])


class Evaluator:
    """Reads the sets once, and measures an encoder on all of them whenever called.

    Args:
        resolve: puts files in the place of ``stage://`` sources.

    Every process measures for itself, and all get the same numbers.

    Raises:
        ConfigError: ``best`` names no metric of these sets, or a set lacks labels.
        InputError: a set cannot be read.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        resolve: Callable[[SourceConfig], SourceConfig] = lambda source: source,
    ) -> None:
        self.sets = {_name(one): (one, _examples(resolve(one.source))) for one in config.sets}
        if len(self.sets) < len(config.sets):
            raise ConfigError("evaluation: give the sources of the sets different names")
        metrics = [f"{name}/{_KINDS[one.kind][0]}" for name, (one, _) in self.sets.items()]
        if config.best and config.best not in metrics:
            raise ConfigError(f"evaluation.best: {config.best!r} is none of {', '.join(metrics)}")
        for name, (one, examples) in self.sets.items():
            if one.kind == "sts" and any(example.label is None for example in examples):
                raise ConfigError(f"evaluation set {name}: sts needs the label column")

    def __call__(self, encoder: TextEncoder) -> dict[str, float]:
        """Metrics by ``SET/METRIC``; the encoder's mode is restored.

        Raises:
            ConfigError: the encoder lacks a head that a set measures.
        """
        return {name: measured.number() for name, measured in self.rows(encoder).items()}

    def rows(self, encoder: TextEncoder) -> dict[str, Measured]:
        """The same, query by query or pair by pair, in the order of the set.

        Raises:
            ConfigError: the encoder lacks a head that a set measures.
        """
        found = {}
        for name, (one, examples) in self.sets.items():
            metric, measure = _KINDS[one.kind]
            found[f"{name}/{metric}"] = measure(encoder, one, examples)
        return found


def _name(one: EvaluationSet) -> str:
    return one.source.name or one.source.path.rpartition("/")[2].partition(".")[0]


def _examples(source: SourceConfig) -> list[Example]:
    report = Report(source.name)
    found = list(examples_of(source, report, "raise"))
    if not found or any(example.positive is None for example in found):
        raise ConfigError(f"evaluation set {source.path}: needs rows with two texts")
    return found


def _sts(encoder: TextEncoder, one: EvaluationSet, examples: Sequence[Example]) -> Measured:
    """Scores and labels of the pairs, for Spearman's correlation."""
    documents = [str(example.positive) for example in examples]
    queries = _queries(encoder, one, examples)
    scores = np.empty(len(examples))
    for part, found in _documents(encoder, one, documents):
        pairs = pair_scores(_rows(queries, part), found, one.score)
        scores[part] = pairs[:, 0].double().cpu().numpy()
    labels = np.asarray([example.label for example in examples], dtype=np.float64)
    return Measured(scores, labels)


def _retrieval(encoder: TextEncoder, one: EvaluationSet, examples: Sequence[Example]) -> Measured:
    """nDCG@10 of each different query among all different documents."""
    firsts = {example.query: example for example in reversed(examples)}
    texts = [str(example.positive) for example in examples]
    documents = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    asked = {query: i for i, query in enumerate(firsts)}
    relevant = np.zeros((len(asked), len(documents)))
    for example in examples:
        relevant[asked[example.query], documents[str(example.positive)]] = 1.0
    queries = _queries(encoder, one, list(firsts.values()))
    scores = np.empty(relevant.shape)
    for part, found in _documents(encoder, one, list(documents)):
        scores[:, part] = all_scores(queries, found, one.score).double().cpu().numpy()
    return Measured(ndcg(scores, relevant, 10))


def _queries(encoder: TextEncoder, one: EvaluationSet, asked: Sequence[Example]) -> Outputs:
    """The queries' outputs of the head that is measured, in their order."""
    rows = encoder.tokenize(
        [example.query for example in asked],
        role=one.source.query_role,
        instruction=[example.instruction for example in asked],
    )
    order: list[int] = []
    made: list[Outputs] = []
    for part, outputs in outputs_of(encoder, rows, _BATCH_TOKENS):
        order += part
        made.append(_measured(outputs, one.score))
    places = torch.tensor(order).argsort().tolist()
    return _rows(join_outputs(made), places)


def _documents(
    encoder: TextEncoder, one: EvaluationSet, texts: Sequence[str]
) -> Iterator[tuple[list[int], Outputs]]:
    """The documents' outputs a batch at a time: sparse ones would fill the memory."""
    instruction = [one.source.document_instruction or None] * len(texts)
    rows = encoder.tokenize(texts, role=one.source.document_role, instruction=instruction)
    for part, outputs in outputs_of(encoder, rows, _BATCH_TOKENS):
        yield part, _measured(outputs, one.score)


def _measured(outputs: Outputs, score: Score) -> Outputs:
    """The one head that a score reads."""
    if score in ("maxsim", "mean_maxsim"):
        return Outputs(multi=outputs.multi, multi_mask=outputs.multi_mask)
    return Outputs(sparse=outputs.sparse) if score == "sparse" else Outputs(dense=outputs.dense)


def _rows(outputs: Outputs, places: Sequence[int]) -> Outputs:
    """The outputs of some rows."""

    def of(part: torch.Tensor | None) -> torch.Tensor | None:
        return None if part is None else part[places]

    return Outputs(of(outputs.dense), of(outputs.multi), of(outputs.multi_mask), of(outputs.sparse))


_Measure = Callable[[TextEncoder, EvaluationSet, Sequence[Example]], Measured]
_KINDS: Mapping[str, tuple[str, _Measure]] = {
    "sts": ("spearman", _sts),
    "retrieval": ("ndcg@10", _retrieval),
}
