"""BM25 against its formula, and the words of identifiers."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from codeembed.columns import load_columns, save_columns
from codeembed.lexical import BM25
from codeembed.tokenize import words

VOCABULARY = [f"w{n}" for n in range(30)]


def reference(documents: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    average = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for term in query:
            df = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            tf = document.count(term)
            score += idf * tf / (tf + k1 * (1 - b + b * len(document) / average))
        scores.append(score)
    return scores


def some_documents(seed: int, count: int = 40) -> list[list[str]]:
    rng = random.Random(seed)
    return [rng.choices(VOCABULARY, k=rng.randint(1, 60)) for _ in range(count)]


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (1.2, 0.75), (0.9, 0.0)])
def test_scores_are_those_of_the_formula(k1: float, b: float) -> None:
    documents = some_documents(0)
    index = BM25(k1, b)
    index.add(documents)
    for query in (["w1"], ["w1", "w2", "w1"], ["w3", "absent"], []):
        np.testing.assert_allclose(index.scores(query), reference(documents, query, k1, b))


def test_after_any_changes_scores_are_those_of_a_fresh_index(tmp_path: Path) -> None:
    rng = random.Random(1)
    documents: list[list[str] | None] = []
    index = BM25()
    for step in range(60):
        action = rng.random()
        alive = [number for number, each in enumerate(documents) if each is not None]
        if action < 0.6 or len(alive) < 3:
            new = some_documents(step, 4)
            index.add(new)
            documents.extend(new)
        elif action < 0.9:
            number = rng.choice(alive)
            index.remove(number)
            documents[number] = None
        else:
            save_columns(tmp_path, index.arrays())
            arrays = load_columns(tmp_path)
            assert arrays is not None
            index = BM25.from_arrays(arrays)
        left = [each for each in documents if each is not None]
        query = rng.choices(VOCABULARY, k=3)
        found = index.scores(query)
        expected = iter(reference(left, query, 1.5, 0.75))
        for number, each in enumerate(documents):
            assert found[number] == pytest.approx(0.0 if each is None else next(expected))
        assert len(index) == len(left)


def test_a_document_is_removed_once() -> None:
    index = BM25()
    index.add([["a"]])
    index.remove(0)
    for number in (0, 1, -1):
        with pytest.raises(KeyError):
            index.remove(number)
    assert index.scores(["a"]).tolist() == [0.0]


def test_an_empty_index_has_no_scores() -> None:
    assert BM25().scores(["a"]).shape == (0,)
    again = BM25.from_arrays(BM25().arrays())
    again.add([["a"], []])
    assert np.count_nonzero(again.scores(["a"])) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parse", "parse"),
        ("parse_args", "parse_args parse args"),
        ("parseArgs", "parseargs parse args"),
        ("HTTPServer2", "httpserver2 http server 2"),
        ("MAX_SIZE", "max_size max size"),
        ("utf8", "utf8 utf 8"),
        ("__init__", "__init__ init"),
        ("a.b->c(d)", "a b c d"),
        ("größeÄndern", "größeändern"),
        ("日本語", "日本語"),
        ("x" * 100, ""),
        ("", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words(text) == expected.split()


def test_a_part_is_found_in_any_spelling() -> None:
    for text in ("readFile", "read_file", "ReadFile", "READ_FILE"):
        assert {"read", "file"} <= Counter(words(text)).keys()
