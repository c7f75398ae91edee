"""Metrics against pytrec_eval and scikit-learn on random judgements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmembed.errors import InputError
from mmembed.evaluation.labels import accuracy, v_measure
from mmembed.gpte.metrics import (
    average_precision,
    exponential_gains,
    hit,
    mrr,
    ndcg,
    recall,
    spearman,
)


def random_case(seed: int, queries: int = 20, documents: int = 60) -> tuple[Any, Any]:
    """Scores without ties, and grades 0 to 3 with at least one relevant document a query."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(queries * documents).reshape(queries, documents) / 7.0
    grades = rng.choice(4, size=scores.shape, p=[0.85, 0.05, 0.05, 0.05])
    grades[np.arange(queries), rng.integers(0, documents, queries)] = 2
    return scores, grades


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_retrieval_metrics_equal_trec_eval(seed: int) -> None:
    trec = pytest.importorskip("pytrec_eval")
    scores, grades = random_case(seed)
    judged = {f"q{i}": {f"d{j}": int(g) for j, g in enumerate(row)} for i, row in enumerate(grades)}
    run = {f"q{i}": {f"d{j}": float(s) for j, s in enumerate(row)} for i, row in enumerate(scores)}
    wanted = {"ndcg_cut.5,10", "map", "map_cut.10", "recip_rank", "recall.1,10", "success.1,5"}
    found = trec.RelevanceEvaluator(judged, wanted).evaluate(run)

    def theirs(name: str) -> list[float]:
        return [found[f"q{i}"][name] for i in range(len(scores))]

    relevant = grades > 0
    ours = {
        "ndcg_cut_5": ndcg(scores, grades, 5),
        "ndcg_cut_10": ndcg(scores, grades, 10),
        "map": average_precision(scores, relevant),
        "map_cut_10": average_precision(scores, relevant, 10),
        "recip_rank": mrr(scores, relevant),
        "recall_1": recall(scores, relevant, 1),
        "recall_10": recall(scores, relevant, 10),
        "success_1": hit(scores, relevant, 1),
        "success_5": hit(scores, relevant, 5),
    }
    for name, values in ours.items():
        assert values.tolist() == pytest.approx(theirs(name)), name


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, grades = random_case(seed)
    for k in (3, 10):
        linear = [metrics.ndcg_score([g], [s], k=k) for g, s in zip(grades, scores, strict=True)]
        assert ndcg(scores, grades, k).tolist() == pytest.approx(linear)
        gains = exponential_gains(grades)
        assert gains.max() == 7.0
        steep = [metrics.ndcg_score([g], [s], k=k) for g, s in zip(gains, scores, strict=True)]
        assert ndcg(scores, gains, k).tolist() == pytest.approx(steep)
        assert steep != pytest.approx(linear)
    precision = [
        metrics.average_precision_score(g > 0, s) for g, s in zip(grades, scores, strict=True)
    ]
    assert average_precision(scores, grades > 0).tolist() == pytest.approx(precision)
    rng = np.random.default_rng(seed)
    labels, clusters = rng.integers(0, 5, 80).tolist(), rng.integers(0, 7, 80).tolist()
    assert v_measure(labels, clusters) == pytest.approx(metrics.v_measure_score(labels, clusters))
    assert v_measure(labels, labels) == pytest.approx(1.0)
    assert v_measure(labels, [0] * 80) == pytest.approx(metrics.v_measure_score(labels, [0] * 80))
    assert accuracy(labels, clusters).mean() == metrics.accuracy_score(labels, clusters)


@pytest.mark.parity
def test_spearman_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 200), rng.random(200)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0])


def test_labels_must_fit() -> None:
    with pytest.raises(InputError, match="3 labels and 2 predictions"):
        accuracy([1, 2, 3], [1, 2])
    with pytest.raises(InputError):
        v_measure([], [])
