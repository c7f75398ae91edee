"""CoCa's decoder: its captioning loss is open_clip's, it trains, and it reranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

pytest.importorskip("open_clip", reason="open_clip is not installed")
pytest.importorskip("torchvision", reason="torchvision is not installed")

from mmembed import Embedder
from mmembed.backbones.towers.coca import CocaTowers
from mmembed.backbones.towers.tiny import tiny_towers
from mmembed.errors import ModelLoadError
from mmembed.gpte.objectives import PairLikelihood
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.inputs.decoded import DecodedItem
from mmembed.multimodal.config import MediaEncoderConfig
from mmembed.multimodal.reranking.encoder import start_pair_encoder
from mmembed.reranker import Reranker
from mmembed.rerankers.base import Pair

TEXTS = ("two dogs in the snow", "a map")
PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    for seed in (1, 2)
]
PAIRS: list[Pair] = [
    (DecodedItem((text,)), DecodedItem((picture,)))
    for text, picture in zip(TEXTS, PICTURES, strict=True)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_towers("coca", tmp_path_factory.mktemp("coca") / "model")


def test_random_towers_hold_nothing_that_was_left_in_memory(tmp_path: Path) -> None:
    states = []
    for name in ("one", "other"):
        torch.manual_seed(0)
        towers = Embedder.from_pretrained(tiny_towers("coca", tmp_path / name)).backbone
        states.append(towers.model.state_dict())  # type: ignore[attr-defined]
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key]), key


def test_the_captioning_loss_is_the_cross_entropy_of_open_clip(folder: Path) -> None:
    encoder = start_pair_encoder(MediaEncoderConfig(str(folder), "coca", train="all")).eval()
    batch = encoder.collate(encoder.scorer.prepare(PAIRS))
    with torch.no_grad():
        outputs = encoder(batch)
        loss = PairLikelihood()(Columns(Outputs(dense=outputs.dense), None, None)).total
        towers = encoder.scorer.backbone  # type: ignore[attr-defined]
        assert isinstance(towers, CocaTowers)
        theirs = towers.model(batch.media["image"], batch.ids)
        each = [
            F.cross_entropy(logits, labels, ignore_index=0)  # as open_clip's CoCaLoss
            for logits, labels in zip(theirs["logits"], theirs["labels"], strict=True)
        ]
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_a_caption_is_learned_and_ranks_its_picture_first(folder: Path, tmp_path: Path) -> None:
    encoder = start_pair_encoder(MediaEncoderConfig(str(folder), "coca", train="all"))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    rows = encoder.scorer.prepare(PAIRS)
    losses = []
    for _ in range(40):
        loss = PairLikelihood()(Columns(encoder(encoder.collate(rows)), None, None)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    encoder.save_pretrained(tmp_path / "saved")
    reranker = Reranker.from_pretrained(tmp_path / "saved", device="cpu")
    for text, picture in zip(TEXTS, PICTURES, strict=True):
        best = reranker.rank(text, PICTURES)[0]
        assert PICTURES[best.index] is picture
    assert Embedder.from_pretrained(tmp_path / "saved", device="cpu").encode("a map").shape == (32,)


def test_towers_without_a_decoder_are_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no matching head, and no decoder"):
        Reranker.from_pretrained(tiny_towers("clip", tmp_path / "clip"), device="cpu")
