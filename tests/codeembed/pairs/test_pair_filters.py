"""Filters over vectors: consistency, curriculum, matchers and soft labels."""

from __future__ import annotations

import numpy as np
import pytest

from codeembed.pairs.consistency import consistent, positive_ranks
from codeembed.pairs.matchers import Judge, match_documentation, match_names
from codeembed.pairs.soft_labels import soft_labelled
from codeembed.training.views import VIEWS
from codeembed.transform.tree import Code
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.curriculum import Curriculum


def _unit(rows: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, 8))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_ranks_equal_a_sort() -> None:
    queries, documents = _unit(40, 0), _unit(40, 1)
    scores = queries @ documents.T
    order = np.argsort(-scores, axis=1)
    wanted = [int(np.flatnonzero(order[i] == i)[0]) + 1 for i in range(40)]
    assert positive_ranks(queries, documents).tolist() == wanted
    kept = consistent(queries, documents, rank=2, least=0.1)
    assert kept.tolist() == [wanted[i] <= 2 and scores[i, i] >= 0.1 for i in range(40)]
    assert 0 < kept.sum() < 40


def test_equal_documents_do_not_count_against_each_other() -> None:
    document = _unit(1, 0)
    assert positive_ranks(np.repeat(document, 3, 0), np.repeat(document, 3, 0)).tolist() == [1] * 3


def test_a_curriculum_gets_harder() -> None:
    curriculum = Curriculum(first=1.0, last=0.01, steps=101)
    assert curriculum.temperature(0) == pytest.approx(1.0)
    assert curriculum.temperature(50) == pytest.approx(0.1)
    assert curriculum.temperature(500) == pytest.approx(0.01)
    scores = [0.9, 0.5, -np.inf, 0.1]
    early, late = curriculum.probabilities(scores, 0), curriculum.probabilities(scores, 100)
    by_hand = np.exp([0.9, 0.5, -np.inf, 0.1])
    assert np.allclose(early, by_hand / by_hand.sum())
    assert late[0] > 0.999 > early[0]
    drawn = [tuple(curriculum.draw(scores, 1, 0, [seed])) for seed in range(3000)]
    share = [drawn.count((i,)) / 3000 for i in range(4)]
    assert np.abs(np.array(share) - early).max() < 0.04
    assert curriculum.draw(scores, 5, 0, [0]) == [0, 1, 3]
    with pytest.raises(ConfigError, match="first >= last"):
        Curriculum(first=0.1, last=1.0)


def test_names_match_in_any_order() -> None:
    names = ["readFile", "file_read", "run", "run", "write_file"]
    assert match_names(names) == [(0, 1)]
    assert match_names(["read_file"] * 30) == []


def test_documentation_matches_by_cosine() -> None:
    vectors = np.array([[1.0, 0.0], [0.99, np.sqrt(1 - 0.99**2)], [0.0, 1.0]])
    assert match_documentation(vectors) == [(0, 1)]


def test_the_judge_learns_what_a_pair_looks_like() -> None:
    random = np.random.default_rng(0)
    true = np.c_[np.ones(100), random.normal(0.8, 0.1, 100), random.normal(0.4, 0.1, 100)]
    false = np.c_[np.ones(100), random.normal(0.2, 0.1, 100), random.normal(0.1, 0.1, 100)]
    features, labels = np.r_[true, false], np.r_[np.ones(100), np.zeros(100)]
    judge = Judge().fit(features, labels)
    assert ((judge(features) > 0.5) == labels).mean() > 0.98
    linear_model = pytest.importorskip("sklearn.linear_model")
    peer = linear_model.LogisticRegression(C=100, fit_intercept=False, tol=1e-10, max_iter=5000)
    peer.fit(features, labels)
    assert np.allclose(judge(features), peer.predict_proba(features)[:, 1], atol=1e-4)


def test_soft_labels_follow_the_candidates() -> None:
    rows = [{"query": "q", "positive": "aaa", "negatives": ["a", "aa"]}]
    (row,) = soft_labelled(rows, lambda pairs: [float(len(text)) for _, text in pairs])
    assert row["teacher"] == [3.0, 1.0, 2.0]
    with pytest.raises(InputError, match="no negatives"):
        list(soft_labelled([{"query": "q", "positive": "p"}], lambda pairs: []))


def test_a_subtree_and_its_context_make_the_function() -> None:
    source = b"def f(xs):\n    total = 0\n    for x in xs:\n        total += x\n    return total\n"
    code = Code.read(source, "python")
    assert VIEWS["subtree"](code, 0) == "for x in xs:\n        total += x"
    context = VIEWS["context"](code, 0)
    assert context is not None
    assert "for x" not in context
    assert "return total" in context
