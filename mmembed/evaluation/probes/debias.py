"""Taking languages or groups out of vectors after training, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmembed.errors import ConfigError
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.registry import read_benchmark
from mmembed.evaluation.benchmarks.tasks import Array
from mmembed.evaluation.probes.bias import group_pull, language_rows
from mmembed.evaluation.probes.finding import Finding, Instructable, Probe, unit
from mmembed.evaluation.probes.social import TESTS, association_test
from mmembed.gpte.calibration import fit_whitening
from mmembed.gpte.metrics import spearman

__all__ = ["PROBES", "Changed", "project_out", "whiten"]

_DIRECTIONS = 4
_PAIRS = (
    ("he", "she"), ("man", "woman"), ("his", "her"), ("father", "mother"), ("boy", "girl"),
    ("king", "queen"), ("uncle", "aunt"), ("husband", "wife"),
)  # fmt: skip


def project_out(vectors: Array, groups: Sequence[str], directions: int) -> Callable[[Array], Array]:
    """A map that takes out the directions in which groups differ most.

    The groups' mean vectors, less the mean of all, span them (Bolukbasi et al., 2016, for pairs of
    words; Yang et al., 2021, for languages). The result has unit rows and the same width.

    Args:
        vectors: ``(n, d)`` to learn from, not those that are measured.
        groups: the group of each.
        directions: how many are taken out.

    Raises:
        ConfigError: there are fewer groups than directions and one.
    """
    names = sorted(set(groups))
    if len(names) <= directions:
        raise ConfigError(f"{len(names)} groups differ in {len(names) - 1} directions at most")
    held, found = np.array(groups), unit(vectors)
    means = np.stack([found[held == name].mean(axis=0) for name in names])
    basis = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)[2][:directions]

    def change(some: Array) -> Array:
        return unit(unit(some) - unit(some) @ basis.T @ basis)

    return change


def whiten(vectors: Array, dim: int | None = None) -> Callable[[Array], Array]:
    """Whitening fitted to vectors ``(n, d)``: :func:`mmembed.gpte.calibration.fit_whitening`."""
    fitted = fit_whitening([torch.from_numpy(unit(vectors))], dim, shrinkage=0.1)

    def change(some: Array) -> Array:
        return np.asarray(fitted(torch.from_numpy(unit(some))).numpy())

    return change


class Changed:
    """A model whose vectors go through a map; what it has read once it keeps."""

    def __init__(self, model: Instructable, change: Callable[[Array], Array]) -> None:
        self.model = model
        self.change = change
        self._held: dict[tuple[str, str], Array] = {}

    def with_change(self, change: Callable[[Array], Array]) -> Changed:
        """The same model and memory under another map."""
        found = Changed(self.model, change)
        found._held = self._held
        return found

    def encode_query(self, inputs: Any, **options: Any) -> Array:
        return self._encode("query", self.model.encode_query, list(inputs))

    def encode_document(self, inputs: Any, **options: Any) -> Array:
        return self._encode("document", self.model.encode_document, list(inputs))

    def _encode(self, role: str, encode: Callable[[Any], Any], texts: list[str]) -> Array:
        new = [text for text in dict.fromkeys(texts) if (role, text) not in self._held]
        if new:
            for text, vector in zip(new, np.asarray(encode(new)), strict=True):
                self._held[role, text] = vector
        return self.change(np.stack([self._held[role, text] for text in texts]))


def _run(model: Instructable, data: Path) -> Finding:
    plain = Changed(model, lambda vectors: unit(vectors))
    train = rows_of(data / "text/translations-train.jsonl.gz")[::3]
    texts = [row["query"] for row in train] + [row["positive"] for row in train]
    groups = [row["lang"] for row in train] + ["eng"] * len(train)
    vectors = plain.encode_document(texts)
    gendered = plain.encode_document([word for pair in _PAIRS for word in pair])
    # A pair's middle is taken out first, so that what is left is the difference alone.
    halves = gendered.reshape(len(_PAIRS), 2, -1)
    centred = (halves - halves.mean(axis=1, keepdims=True)).reshape(2 * len(_PAIRS), -1)
    sentences = [row["text"] for row in rows_of(data / "text/sentences-train.jsonl.gz")]
    changes: Mapping[str, Callable[[Array], Array]] = {
        "as it is": plain.change,
        "languages taken out": project_out(vectors, groups, _DIRECTIONS),
        "gender taken out": project_out(centred, ["m", "f"] * len(_PAIRS), 1),
        "whitening": whiten(plain.encode_document(sentences)),
    }
    table = {name: _measured(plain.with_change(change), data) for name, change in changes.items()}
    before, figures = table["as it is"], {}
    for name in list(changes)[1:]:
        figures[f"{name}: quality"] = table[name]["terms_ndcg@10"] - before["terms_ndcg@10"]
    figures["languages taken out: pull"] = (
        table["languages taken out"]["language_pull"] - before["language_pull"]
    )
    figures["gender taken out: effect"] = (
        table["gender taken out"]["gender_effect"] - before["gender_effect"]
    )
    return Finding(figures, {"by method": table})


def _measured(model: Changed, data: Path) -> dict[str, float]:
    rows = language_rows(data)
    asked, others = rows[::2], rows[1::2]
    groups = [one for one, _, _ in asked] + ["eng"] * len(others)
    documents = model.encode_document(
        [text for _, text, _ in asked] + [english for _, _, english in others]
    )
    english = model.encode_query([english for _, _, english in asked])
    pull = group_pull(english, documents, ["eng"] * len(asked), groups)["eng"]
    first = (english @ documents.T).argmax(axis=1)
    terms = read_benchmark("books", data)["terms"]
    related = rows_of(data / "text/related-test.jsonl.gz")
    a, b = (model.encode_document([row[side] for row in related]) for side in ("query", "positive"))
    gender = [test for test in TESTS if "male/female" in test]
    return {
        "language_pull": pull,
        "translation_first": float((first == np.arange(len(asked))).mean()),
        "gender_effect": float(np.mean([abs(association_test(model, one)[0]) for one in gender])),
        "terms_ndcg@10": terms.score(terms.encode(model)).score,
        "related_spearman": spearman(
            (a * b).sum(axis=1), np.array([row["score"] for row in related])
        ),
    }


PROBES = (
    Probe(
        "debias",
        "what projection and whitening after training take away, of bias and of quality",
        "Bolukbasi et al., 2016 (NeurIPS); Yang et al., 2021 (EMNLP); Su et al., 2021",
        "the table has each bias and each quality, before and after each method",
        ("text/translations-train.jsonl.gz", "text/related-test.jsonl.gz"),
        _run,
    ),
)
