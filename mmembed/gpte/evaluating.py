"""Held-out data during training: rank correlation of labelled pairs, nDCG@10 of retrieval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.config import EvaluationConfig, EvaluationSet, SourceConfig
from mmembed.gpte.data.examples import Example, Report, examples_of
from mmembed.gpte.encoding import encode
from mmembed.gpte.metrics import ndcg, spearman
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["Evaluator"]


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
        """Metrics by ``SET/METRIC``; the encoder's mode is restored."""
        found = {}
        for name, (one, examples) in self.sets.items():
            metric, measure = _KINDS[one.kind]
            found[f"{name}/{metric}"] = measure(encoder, one.source, examples)
        return found


def _name(one: EvaluationSet) -> str:
    return one.source.name or one.source.path.rpartition("/")[2].partition(".")[0]


def _examples(source: SourceConfig) -> list[Example]:
    report = Report(source.name)
    found = list(examples_of(source, report, "raise"))
    if not found or any(example.positive is None for example in found):
        raise ConfigError(f"evaluation set {source.path}: needs rows with two texts")
    return found


def _vectors(
    encoder: TextEncoder, texts: Sequence[str], role: str, instruction: Sequence[str | None]
) -> torch.Tensor:
    dense = encode(encoder, texts, role=role, instruction=list(instruction))
    return F.normalize(dense, dim=1)


def _sts(encoder: TextEncoder, source: SourceConfig, examples: Sequence[Example]) -> float:
    """Spearman's correlation of cosines and labels."""
    queries, documents = _both(encoder, source, examples, [str(e.positive) for e in examples])
    labels = np.asarray([example.label for example in examples], dtype=np.float64)
    return spearman((queries * documents).sum(dim=1).double().numpy(), labels)


def _retrieval(encoder: TextEncoder, source: SourceConfig, examples: Sequence[Example]) -> float:
    """Mean nDCG@10 of each different query among all different documents."""
    firsts = {example.query: example for example in reversed(examples)}
    texts = [str(example.positive) for example in examples]
    documents = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    asked = {query: i for i, query in enumerate(firsts)}
    relevant = np.zeros((len(asked), len(documents)))
    for example in examples:
        relevant[asked[example.query], documents[str(example.positive)]] = 1.0
    queries, keys = _both(encoder, source, list(firsts.values()), list(documents))
    return float(ndcg((queries @ keys.T).double().numpy(), relevant, 10).mean())


def _both(
    encoder: TextEncoder, source: SourceConfig, asked: Sequence[Example], documents: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    queries = _vectors(
        encoder, [e.query for e in asked], source.query_role, [e.instruction for e in asked]
    )
    instruction = [source.document_instruction or None] * len(documents)
    return queries, _vectors(encoder, documents, source.document_role, instruction)


_Measure = Callable[[TextEncoder, SourceConfig, Sequence[Example]], float]
_KINDS: Mapping[str, tuple[str, _Measure]] = {
    "sts": ("spearman", _sts),
    "retrieval": ("ndcg@10", _retrieval),
}
