"""Late chunking, trees of vectors, and explanations of matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmembed import Embedder
from mmembed.backbones.text import TextBackbone
from mmembed.documents import (
    document_tree,
    explain,
    explain_tokens,
    late_chunks,
    search_trees,
    sections_of,
)
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import tiny_model
from mmembed.search.maxsim import maxsim

BERLIN = (
    "Berlin is the capital and largest city of Germany. "
    "Its more than three million inhabitants make it the most populous city of the Union. "
    "The city is also one of the states of the country."
)


def spans(text: str) -> list[tuple[int, int]]:
    """The sentences of a text."""
    out, at = [], 0
    for sentence in text.split(". "):
        start = text.index(sentence, at)
        at = start + len(sentence)
        out.append((start, at))
    return out


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder.from_pretrained("mini")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = tiny_model("bert", tmp_path_factory.mktemp("late") / "bert")
    settings = TextSettings(heads=("dense", "multi"), multi_dim=16, max_tokens=64)
    return Embedder(TextBackbone(TextEncoder.from_pretrained(folder, settings)))


def test_chunks_know_what_stands_around_them(model: Embedder) -> None:
    """The claim of the paper, on its own example."""
    chunks = spans(BERLIN)
    query = model.encode_query("Berlin")
    late = late_chunks(model, BERLIN, chunks) @ query
    alone = model.encode_document([BERLIN[a:b] for a, b in chunks]) @ query
    assert (late[1:] > alone[1:] + 0.1).all()
    assert np.allclose(np.linalg.norm(late_chunks(model, BERLIN, chunks), axis=1), 1, atol=1e-5)


def test_one_chunk_of_all_tokens_is_nearly_the_document(model: Embedder) -> None:
    whole = late_chunks(model, BERLIN, [(0, len(BERLIN))])[0]
    assert whole @ model.encode_document(BERLIN) > 0.98  # which has special tokens in its mean


def test_windows_join_where_a_text_is_too_long(tiny: Embedder) -> None:
    words = " ".join(f"word{i}" for i in range(40))
    assert len(words) > 4 * tiny.max_tokens
    places = [(i, i + 20) for i in range(0, len(words) - 20, 20)]
    found = late_chunks(tiny, words, places, overlap=16)
    assert found.shape == (len(places), tiny.dim)
    first = late_chunks(tiny, words[: tiny.max_tokens - 2], places[:1], overlap=16)
    assert np.allclose(found[0], first[0], atol=1e-5)  # the first window is the text's beginning
    other = late_chunks(tiny, words, places, overlap=30)
    assert not np.allclose(found[8], other[8], atol=1e-5)  # more before it, another state


def test_what_late_chunking_cannot_do_is_said(tiny: Embedder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chunk 1: is characters 3 to 99 of 5"):
        late_chunks(tiny, "abcde", [(0, 2), (3, 99)])
    with pytest.raises(InputError, match="overlap"):
        late_chunks(tiny, "abcde", [(0, 2)], overlap=400)
    assert late_chunks(tiny, "abcde", []).shape == (0, tiny.dim)
    folder = tiny_model("bert", tmp_path / "bert")
    first = Embedder(
        TextBackbone(TextEncoder.from_pretrained(folder, TextSettings(pooling="first")))
    )
    with pytest.raises(ConfigError, match="mean pooling"):
        late_chunks(first, "abcde", [(0, 2)])


DOCUMENT = """Opening words about nothing in particular.

# Animals

Dogs are loyal companions and bark at strangers.

Cats sleep most of the day and purr.

## Birds

Sparrows sing in the morning and build nests.

# Machines

## Engines

Diesel engines compress air until the fuel ignites.

## Empty

# Money

Banks lend money and ask for interest.
"""


def test_sections_and_paragraphs_of_a_text() -> None:
    root = sections_of(DOCUMENT, "All")
    assert [child.title for child in root.children[1:]] == ["Animals", "Machines", "Money"]
    animals = root.children[1]
    assert [child.section for child in animals.children] == [False, False, True]
    assert [child.title for child in root.children[2].children] == ["Engines"]  # without the empty
    texts = [DOCUMENT[a:b] for a, b in (leaf.span for leaf in root.leaves())]
    assert texts[1] == "Dogs are loyal companions and bark at strangers."
    assert len(texts) == 6
    assert DOCUMENT[slice(*animals.span)].endswith("build nests.")


def test_a_tree_is_searched_from_the_top(model: Embedder) -> None:
    tree = document_tree(model, DOCUMENT)
    query = model.encode_query("how does a diesel engine ignite its fuel")
    (score, best), *_ = search_trees(query, [tree], k=1, beam=1)
    assert best.title.startswith("Diesel engines")
    everywhere = search_trees(query, [tree], k=20, beam=99)
    assert len(everywhere) == 6
    assert everywhere[0][0] == pytest.approx(score)
    machines = tree.children[2]
    animals = tree.children[1]
    assert machines.vector @ query > animals.vector @ query
    assert np.linalg.norm(tree.vector) == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match="has no paragraph"):
        document_tree(model, "# Only\n\n## Headings\n")


def test_explanations_add_up_to_maxsim(tiny: Embedder) -> None:
    found = explain(tiny, "red bus", "a bus that is red")
    query = tiny.encode_query("red bus", output="multi")
    document = tiny.encode_document("a bus that is red", output="multi")
    assert found.score == pytest.approx(float(maxsim([query], [document])[0, 0]), abs=1e-4)
    assert found.share.sum() == pytest.approx(found.score, abs=1e-4)
    assert len(found.matches) == len(query)
    assert found.matches[0].query == "[CLS]"
    assert str(found).startswith("MaxSim")


def test_explanations_by_hand() -> None:
    eye = np.eye(3, dtype=np.float32)
    found = explain_tokens(eye[[0, 2]], eye, ["a", "c"], ["x", "y", "z"])
    assert [(one.query, one.document, one.place) for one in found.matches] == [
        ("a", "x", 0),
        ("c", "z", 2),
    ]
    assert found.share.tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(InputError, match="2 vectors and 1 words"):
        explain_tokens(eye[:2], eye, ["a"])
    with pytest.raises(InputError, match="no token vectors"):
        explain_tokens(eye[:0], eye)


def test_models_without_token_vectors_say_so(model: Embedder) -> None:
    with pytest.raises(ConfigError, match="no token vectors"):
        explain(model, "a", "b")
    anything: Any = model
    assert "multi" not in anything.outputs
