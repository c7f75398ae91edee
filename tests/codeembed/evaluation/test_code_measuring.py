"""Metrics against other people's, sets as they are, and robustness curves."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from codeembed.cli import app
from codeembed.evaluation.measuring import bm25_scores, map_at_r, measure, vector_scores
from codeembed.evaluation.robustness import renamed, robustness
from codeembed.evaluation.sets import RetrievalSet, read_set, set_names
from codeembed.transform.tree import Code
from mmembed.commands.output import run
from mmembed.errors import InputError
from mmembed.gpte.metrics import mrr, ndcg


def _random(queries: int = 20, documents: int = 50) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    relevant = random.random((queries, documents)) < 0.1
    relevant[:, 0] = True
    return random.random((queries, documents)), relevant


def test_map_at_r_by_hand() -> None:
    scores = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])
    relevant = np.array([[True, False, True, False, True]])
    assert map_at_r(scores, relevant)[0] == pytest.approx((1 / 1 + 2 / 3) / 3)
    with pytest.raises(InputError, match="no relevant"):
        map_at_r(scores, np.zeros((1, 5), dtype=bool))


def test_constant_scores_get_the_worst_value() -> None:
    relevant = np.array([[True, False, False, True]])
    assert map_at_r(np.ones((1, 4)), relevant)[0] == 0.0


def test_map_at_r_is_average_precision_where_nothing_lies_behind_r() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(1)
    for _ in range(10):
        relevant = np.arange(30) < 8
        scores = random.random(30) + relevant  # every hit is among the first R
        assert map_at_r(scores[None], relevant[None])[0] == pytest.approx(
            metrics.average_precision_score(relevant, scores)
        )


def test_ndcg_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, relevant = _random()
    ours = ndcg(scores, relevant, 10).mean()
    assert ours == pytest.approx(metrics.ndcg_score(relevant, scores, k=10))


def test_all_three_equal_trec_eval() -> None:
    trec = pytest.importorskip("pytrec_eval")
    scores, relevant = _random()
    names = {"recip_rank", "ndcg_cut_10", "map_cut_1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"}
    judged = {f"q{i}": {f"d{j}": int(r) for j, r in enumerate(x)} for i, x in enumerate(relevant)}
    runs = {f"q{i}": {f"d{j}": float(s) for j, s in enumerate(x)} for i, x in enumerate(scores)}
    found = trec.RelevanceEvaluator(judged, names).evaluate(runs)
    for i in range(len(scores)):
        theirs, one = found[f"q{i}"], slice(i, i + 1)
        assert mrr(scores[one], relevant[one])[0] == pytest.approx(theirs["recip_rank"])
        assert ndcg(scores[one], relevant[one], 10)[0] == pytest.approx(theirs["ndcg_cut_10"])
        count = int(relevant[i].sum())
        # MAP cut at R divides by all relevant documents, which are R: that is MAP@R.
        assert map_at_r(scores[one], relevant[one])[0] == pytest.approx(theirs[f"map_cut_{count}"])


def test_a_program_does_not_find_itself_and_equal_documents_are_one() -> None:
    answers = (frozenset({1}), frozenset({0}), frozenset({3}), frozenset({2}))
    clones = RetrievalSet("clones", tuple("aabb"), tuple("aabb"), answers, own=True)

    def equal(queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        return np.array([[float(q == d) for d in documents] for q in queries])

    assert measure(clones, equal).mrr == 1.0
    repeated = RetrievalSet("cosqa", ("x",), ("x", "x", "y"), (frozenset({1}),))
    found = measure(repeated, equal)
    assert (found.mrr, found.mrr_distinct) == (0.5, 1.0)


def test_one_long_document_makes_no_array_of_its_length_for_all() -> None:
    texts = ("x" * 200_000, *(str(number) for number in range(99)))
    long = RetrievalSet("long", ("q",), texts, (frozenset({0}),))
    tracemalloc.start()
    try:
        measure(long, lambda queries, documents: np.ones((len(queries), len(documents))))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


def test_sets_are_read_and_deduplicated(tmp_path: Path) -> None:
    (tmp_path / "concode_java").mkdir()
    rows = [("add numbers", "a + b"), ("sum numbers", "a + b"), ("take one away", "a - b")]
    with gzip.open(tmp_path / "concode_java" / "pairs.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps({"nl": nl, "code": code}) + "\n" for nl, code in rows)
    found = read_set("concode", tmp_path)
    assert found.documents == ("a + b", "a - b")
    assert found.relevant == (frozenset({0}), frozenset({0}), frozenset({1}))
    assert run(app, ["eval", "concode", "--data", str(tmp_path), "--model", "bm25"]) == 0
    with pytest.raises(InputError, match="not here"):
        read_set("poj104", tmp_path)
    with pytest.raises(InputError, match="no set"):
        read_set("unknown", tmp_path)
    (tmp_path / "concode_java" / "pairs.jsonl.gz").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be read"):
        read_set("concode", tmp_path)


@pytest.mark.parametrize("name", set_names())
def test_every_set_answers_each_query(name: str, shared_data: Callable[[str], Path]) -> None:
    found = read_set(name, shared_data("cosqa").parent)
    assert len(found.queries) == len(found.relevant) > 30
    assert all(answers for answers in found.relevant)
    assert max(max(answers) for answers in found.relevant) < len(found.documents)
    assert all(query.strip() for query in found.queries)


def test_bm25_finds_code_by_its_identifiers() -> None:
    found = bm25_scores(["read file"], ["def readFile(): ...", "def send(): ...", "x"])
    assert found.argmax() == 0


FUNCTIONS = [
    "def f(a, b):\n    total = a + b\n    if total < 3:\n        return total\n    return b\n",
    "def g(items):\n    best = 0\n    for item in items:\n        best = best + item\n"
    "    return best\n",
    "def h(text, mark):\n    found = text.split(mark)\n    return found[1:]\n",
]


def test_renames_are_as_many_as_asked() -> None:
    code = Code.read(FUNCTIONS[1].encode(), "python")
    assert renamed(code, 0).text == code.text
    once, all_ = renamed(code, 1).text, renamed(code, 8).text
    assert once != code.text
    assert b"best" not in all_ or b"item" not in all_


def test_a_model_of_words_loses_by_renames_and_one_of_shapes_does_not() -> None:
    def shapes(texts: Sequence[str]) -> np.ndarray:
        nodes = ["+", "<", "for", "return", "[", ".", "if"]
        return np.array([[text.count(node) + 0.1 for node in nodes] for text in texts])

    found = robustness(FUNCTIONS, "python", shapes, counts=(0, 8))
    assert found.functions == 3
    assert found.renames == {0: 1.0, 8: 1.0}
    assert found.deviants > 0

    def letters(texts: Sequence[str]) -> np.ndarray:
        return np.array([[text.count(chr(code)) for code in range(32, 127)] for text in texts])

    found = robustness(FUNCTIONS, "python", letters, counts=(0, 8))
    assert found.before_bugs[0] == 1.0 > found.before_bugs[8]
    constant = robustness(FUNCTIONS, "python", lambda texts: np.ones((len(texts), 2)), counts=(0,))
    assert constant.renames[0] == pytest.approx(1 / 3)
    assert constant.deviant_accuracy == 0.0
    assert constant.before_bugs == {0: 0.0}
    with pytest.raises(InputError, match="none of them parses"):
        robustness(["def f(:"], "python", shapes)


def test_the_command_tells_the_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cosqa").mkdir()
    with gzip.open(tmp_path / "cosqa" / "codes.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps({"code": code}) + "\n" for code in FUNCTIONS)
    with gzip.open(tmp_path / "cosqa" / "retrieval_dev.jsonl.gz", "wt") as stream:
        stream.write(json.dumps({"query": "add", "retrieval_idx": 0}) + "\n")

    class Lengths:
        def encode_document(self, texts: list[str], task: str, show_progress: bool) -> np.ndarray:
            assert task == "code"
            return np.array([[len(text), text.count(" ")] for text in texts], float)

    monkeypatch.setattr("mmembed.embedder.Embedder.from_pretrained", lambda _: Lengths())
    options = ["--data", str(tmp_path), "--task", "code", "--json"]
    assert run(app, ["eval", "robustness", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["functions"] == 3
    assert told["renames"]["0"] == 1.0
    assert run(app, ["eval", "robustness", *options, "--model", "bm25"]) == 2


def test_a_set_that_is_its_own_queries_is_read_once_where_prompts_are_alike() -> None:
    calls = []

    class Counting:
        def __init__(self, **prompts: str) -> None:
            self.config = SimpleNamespace(prompts=prompts)

        def encode_document(self, texts: list[str], **_: object) -> np.ndarray:
            calls.append("document")
            return np.eye(len(texts))

        def encode_query(self, texts: list[str], **_: object) -> np.ndarray:
            calls.append("query")
            return np.eye(len(texts))[::-1]

    assert (vector_scores(Counting())(("a", "b"), ("a", "b")) == np.eye(2)).all()
    assert calls == ["document"]
    alike = vector_scores(Counting(query="find: "))(("a", "b"), ("a", "b"))
    assert (alike == np.eye(2)[::-1]).all()
