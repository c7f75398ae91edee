"""The rotation of mini's task ``retrieval``: how it is learned, and what the packaged one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmembed import Embedder, Index
from mmembed.backbones.weights import read_safetensors
from mmembed.embedder_config import EmbedderConfig
from mmembed.embeddings import truncate
from mmembed.multimodal.rotation import (
    Pairs,
    RotationConfig,
    common_axes,
    learn_rotation,
    write_rotation,
)

WIDTH, SHARED = 24, 6
WORDS = ("maps", "laws", "stars", "songs", "rivers", "taxes")
PLACES = ("China", "the Andes", "old Rome", "the moon", "Texas")
FAST = RotationConfig(dims=(SHARED, WIDTH), steps=40, batch=32)


def hidden_pairs(seed: int) -> Pairs:
    """Queries and answers that share six directions, which no coordinate shows, and are noise."""
    draw = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(9)))[0]
    meant = torch.randn(200, SHARED, generator=draw)
    sides = []
    for _ in range(2):
        noise = 0.6 * torch.randn(200, WIDTH - SHARED, generator=draw)
        sides.append(F.normalize(torch.cat([meant, noise], dim=1) @ axes, dim=1))
    numbers = torch.arange(200)
    return Pairs(sides[0], sides[1], numbers, numbers + 200)


def found(pairs: Pairs, rotation: torch.Tensor, dim: int) -> float:
    """Share of queries whose answer comes first."""
    queries, answers = (
        F.normalize((x @ rotation.T)[:, :dim]) for x in (pairs.queries, pairs.answers)
    )
    return float(((queries @ answers.T).argmax(dim=1) == torch.arange(len(pairs))).float().mean())


def test_cut_vectors_find_more_and_whole_ones_the_same() -> None:
    train, test = hidden_pairs(0), hidden_pairs(1)
    rotation = learn_rotation([train], FAST)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(WIDTH), atol=1e-5, rtol=0)
    plain = torch.eye(WIDTH)
    assert found(test, common_axes([train]), SHARED) > found(test, plain, SHARED) + 0.3
    assert found(test, rotation, SHARED) > found(test, plain, SHARED) + 0.3
    assert found(test, rotation, WIDTH) == found(test, plain, WIDTH)


def test_learning_is_repeatable_and_changes_the_start() -> None:
    train = hidden_pairs(0)
    first, again = (learn_rotation([train, hidden_pairs(2)], FAST) for _ in range(2))
    assert torch.equal(first, again)
    assert (first - common_axes([train, hidden_pairs(2)])).abs().max() > 1e-3


def test_pairs_of_one_answer_are_no_negatives_of_each_other() -> None:
    train = hidden_pairs(0)
    same = Pairs(train.queries, train.answers, train.asked, torch.zeros(200, dtype=torch.int64))
    assert not torch.equal(learn_rotation([train], FAST), learn_rotation([same], FAST))


@pytest.fixture(scope="module")
def mini() -> Embedder:
    return Embedder.from_pretrained("mini", device="cpu")


class TestMini:
    TEXTS = ("two dogs in the snow", "a dog", "the tax on sugar", "def area(r): return r * r")

    def test_whole_vectors_keep_their_cosines(self, mini: Embedder, samples: Path) -> None:
        photo = next((samples / "photos").rglob("*.jpg"))
        items = [*self.TEXTS, photo]
        plain, turned = mini.encode(items), mini.encode(items, task="retrieval")
        assert np.abs(plain - turned).max() > 0.05
        np.testing.assert_allclose(turned @ turned.T, plain @ plain.T, atol=2e-6)

    def test_a_cut_vector_is_the_start_of_the_whole_one(self, mini: Embedder) -> None:
        whole = mini.encode(self.TEXTS, task="retrieval")
        for dim in (256, 128, 64):
            cut = mini.encode(self.TEXTS, task="retrieval", dim=dim)
            np.testing.assert_allclose(cut, truncate(whole, dim), atol=1e-6)

    def test_cut_vectors_stay_nearer_to_the_whole_ones(self, mini: Embedder) -> None:
        texts = [f"{thing} of {place}" for thing in WORDS for place in PLACES]
        plain, turned = mini.encode(texts), mini.encode(texts, task="retrieval")
        wanted = plain @ plain.T
        for dim in (128, 64):
            lost = [
                np.abs(truncate(one, dim) @ truncate(one, dim).T - wanted).mean()
                for one in (plain, turned)
            ]
            assert lost[1] < lost[0]

    def test_an_index_of_short_vectors_searches_through_the_task(
        self, mini: Embedder, tmp_path: Path
    ) -> None:
        short = mini.configured(replace(mini.config, task="retrieval"))
        with Index.open(tmp_path, model=short, dim=64) as index:
            index.add(self.TEXTS)
            (hit,) = index.search("huskies in winter", k=1, mode="dense")
        asked, told = (
            mini.encode(text, task="retrieval", dim=64)
            for text in ("huskies in winter", self.TEXTS[0])
        )
        assert hit.text == self.TEXTS[0]
        assert hit.score == pytest.approx(float(asked @ told), abs=1e-3)


def test_a_rotation_is_written_beside_what_a_model_has(tmp_path: Path) -> None:
    (tmp_path / "embedder.json").write_text('{"batch_tokens": 99}', "utf-8")
    write_rotation(torch.eye(4), tmp_path)
    config = EmbedderConfig.read(tmp_path / "embedder.json")
    assert (config.batch_tokens, config.dense_tasks) == (99, ("retrieval",))
    (name,) = read_safetensors(tmp_path / "heads.safetensors")
    assert name == "task_dense.retrieval.weight"
