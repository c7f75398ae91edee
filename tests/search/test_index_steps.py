"""Three steps in one call: candidates, MaxSim, a reranker; filters hold before each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hash_model import HashModel
from token_model import TokenModel

from mmembed.errors import ConfigError, IndexMismatchError, InputError
from mmembed.inputs.items import Item, ItemLike, parse_item
from mmembed.search.index import Index, LateInteraction
from mmembed.search.maxsim import maxsim

WORDS = list("abcdefghijklm")  # few, so that texts share them
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, 6)) + f" n{i}" for i in range(300)]
QUERY = "a b c"


class Judge:
    """Prefers long texts; ``asked`` is what it was given."""

    def __init__(self) -> None:
        self.asked: list[Item] = []

    def score(
        self, query: ItemLike, documents: Iterable[ItemLike], *, on_error: str = "raise"
    ) -> np.ndarray:
        self.asked = [parse_item(each) for each in documents]
        scores = [float(len(each.parts[0].text)) for each in self.asked]  # type: ignore[union-attr]
        return np.asarray(scores, np.float32)


@pytest.fixture(scope="module")
def model() -> TokenModel:
    return TokenModel()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, model: TokenModel) -> Iterator[Index]:
    path = tmp_path_factory.mktemp("late") / "index"
    with Index.open(path, model, late=LateInteraction(codec="float16")) as opened:
        opened.add(TEXTS, metadata=[{"number": i} for i in range(300)])
        yield opened


def exact(model: TokenModel, texts: list[str], query: str = QUERY) -> dict[str, float]:
    tokens = [model.tokens(parse_item(text)) for text in texts]
    scores = maxsim([model.tokens(parse_item(query))], tokens)[0].tolist()
    return dict(zip(texts, scores, strict=True))


@pytest.mark.parametrize("where", [None, "number < 40", "number in [7]"])
def test_a_number_that_reaches_all_is_brute_force(
    index: Index, model: TokenModel, where: str | None
) -> None:
    limit = {None: 300, "number < 40": 40, "number in [7]": 8}[where]
    texts = [text for i, text in enumerate(TEXTS) if i < limit and (limit != 8 or i == 7)]
    wanted = sorted(exact(model, texts).values(), reverse=True)[:10]
    for mode in ("dense", "hybrid"):
        hits = index.search(QUERY, 10, filter=where, mode=mode, maxsim=300)
        assert [hit.score for hit in hits] == pytest.approx(wanted, abs=2e-3)
        for hit in hits:
            assert hit.scores["maxsim"] == hit.score
            assert hit.score == pytest.approx(exact(model, [hit.text])[hit.text], abs=2e-3)
            assert "dense" in hit.scores


def test_fewer_candidates_are_ranked_by_their_exact_scores(index: Index, model: TokenModel) -> None:
    hits = index.search(QUERY, 10, maxsim=60)
    scores = exact(model, TEXTS)
    assert [hit.score for hit in hits] == pytest.approx([scores[h.text] for h in hits], abs=2e-3)
    best = sorted(scores.values(), reverse=True)[:10]
    assert sum(hit.score > best[-1] - 2e-3 for hit in hits) >= 9
    assert any("summary" in hit.scores for hit in hits)


def test_filters_hold_before_the_candidates_are_taken(index: Index) -> None:
    hits = index.search(QUERY, 10, filter="number >= 200", maxsim=20)
    assert len(hits) == 10
    assert all(hit.metadata["number"] >= 200 for hit in hits)  # type: ignore[operator]


def test_a_reranker_judges_the_best_and_its_order_holds(index: Index) -> None:
    judge = Judge()
    hits = index.search(QUERY, 5, maxsim=60, reranker=judge, rerank=12)
    assert len(judge.asked) == 12
    assert (
        [hit.scores["rerank"] for hit in hits]
        == sorted(
            (float(len(each.parts[0].text)) for each in judge.asked),  # type: ignore[union-attr]
            reverse=True,
        )[:5]
    )
    for hit in hits:
        assert hit.score == hit.scores["rerank"]
        assert {"rerank", "maxsim", "dense"} <= set(hit.scores)
    without = index.search(QUERY, 5, mode="text", reranker=Judge(), rerank=3)
    assert len(without) == 3
    assert set(without[0].scores) == {"rerank", "text"}


def test_what_a_reranker_cannot_read_comes_last(tmp_path: Path, model: TokenModel) -> None:
    class Half(Judge):
        def score(self, query: ItemLike, documents: Iterable[ItemLike], **how: str) -> np.ndarray:
            scores = super().score(query, documents)
            scores[0] = np.nan
            return scores

    index = Index.open(tmp_path / "index", model)
    index.add(["red dog", "red dog snow in the house", "red"])
    first = index.search("red dog", 3)[0].text
    hits = index.search("red dog", 3, reranker=Half())
    assert hits[-1].text == first
    assert "rerank" not in hits[-1].scores


def test_a_reranker_gets_the_file_and_not_its_name(tmp_path: Path, model: TokenModel) -> None:
    photo = tmp_path / "photos" / "dog.png"
    photo.parent.mkdir()
    photo.write_bytes(b"pixels")
    index = Index.open(tmp_path / "photos", model)
    index.add(tmp_path / "photos")

    class Eyes:
        def score(self, query: ItemLike, documents: Iterable[ItemLike], **how: str) -> np.ndarray:
            (item,) = [parse_item(each) for each in documents]
            assert str(item.parts[0].source) == str(photo)  # type: ignore[union-attr]
            return np.ones(1, np.float32)

    assert index.search("dog", mode="dense", reranker=Eyes())[0].scores["rerank"] == 1


def test_the_minimum_is_a_similarity_whatever_the_steps(index: Index) -> None:
    hits = index.search(QUERY, 20, maxsim=300, min_score=0.6)
    assert 0 < len(hits) < 20
    assert all(hit.scores["dense"] >= 0.6 for hit in hits)


def test_tokens_outlive_updates_and_copies(tmp_path: Path, model: TokenModel) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("red dog in the snow")
    late = LateInteraction(pool=2, codec="int8")
    index = Index.open(folder, model, late=late)
    index.add(folder)
    (folder / "b.txt").write_text("red dog in the snow")
    index.add(folder)
    index.update({"seen": True}, filter="id like 'a*'")
    hits = Index.open(folder, model, create=False).search("red dog", 5, maxsim=5)
    assert [round(hit.score, 4) for hit in hits] == [round(hits[0].score, 4)] * 2
    assert "maxsim" in hits[1].scores
    with pytest.raises(IndexMismatchError, match="pool=3"):
        Index.open(folder, model, late=LateInteraction(pool=3))


def test_what_cannot_be_done_is_said(tmp_path: Path, model: TokenModel) -> None:
    plain = Index.open(tmp_path / "plain", model)
    plain.add(["a text"])
    with pytest.raises(ConfigError, match="no token vectors"):
        plain.search("text", maxsim=5)
    with pytest.raises(ConfigError, match="'hash' gives no vector a token"):
        Index.open(tmp_path / "other", HashModel(), late=LateInteraction()).add(["a"])
    with pytest.raises(ConfigError, match="codec"):
        LateInteraction(codec="float8")
    with pytest.raises(InputError, match="mode"):
        plain.search("text", mode="best")  # type: ignore[arg-type]


def test_shorter_vectors_rank_like_the_first_dimensions(tmp_path: Path, model: TokenModel) -> None:
    late = LateInteraction(codec="float16")
    with Index.open(tmp_path / "short", model, dim=24, late=late) as index:
        index.add(TEXTS)
        assert index.stats().store.dim == 24  # type: ignore[union-attr]
    index = Index.open(tmp_path / "short", model)  # it knows by itself
    matrix = np.stack([model.vector(parse_item(text))[:24] for text in TEXTS])
    query = model.vector(parse_item(QUERY))[:24]
    cosine = matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)
    hits = index.search(QUERY, 10, mode="dense")
    assert [hit.text for hit in hits] == [TEXTS[i] for i in np.argsort(-cosine)[:10]]
    assert index.search(QUERY, 3, maxsim=300)[0].scores["maxsim"] > 0
    with pytest.raises(ConfigError, match="65"):
        Index.open(tmp_path / "long", model, dim=65).add(["a"])
    with pytest.raises(IndexMismatchError, match="24"):
        Index.open(tmp_path / "short", model, dim=32)
