"""What a stage starts from, where the model has task adapters already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmembed.embedder import Embedder
from mmembed.gpte.config import LoraSettings
from mmembed.multimodal.config import MediaEncoderConfig
from mmembed.multimodal.encoder import start_media_encoder

WORDS = ["two dogs in the snow", "a chart"]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mini with a task adapter that changes something."""
    folder = tmp_path_factory.mktemp("adapted")
    model = Embedder.from_pretrained("mini", device="cpu")
    model.adapters.add("mine")
    with model.adapters.trainable("mine") as parameters, torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0.0, 0.05)
    model.save_pretrained(folder)
    return folder


def test_a_new_head_leaves_the_adapters(adapted: Path, tmp_path: Path) -> None:
    config = MediaEncoderConfig(str(adapted), "bert", settings={"multi_dim": 8}, train="none")
    encoder = start_media_encoder(config)
    learning = [name for name, one in encoder.named_parameters() if one.requires_grad]
    assert learning == ["heads.multi.linear.weight"]
    encoder.save_pretrained(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")
    before = Embedder.from_pretrained(adapted, device="cpu")
    for task in ("", "mine"):
        expected = before.encode(WORDS, task=task)
        np.testing.assert_allclose(again.encode(WORDS, task=task), expected, atol=1e-6)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_a_base_that_learns_loses_its_adapters(
    lora: LoraSettings | None, adapted: Path, tmp_path: Path
) -> None:
    train = "language" if lora is None else "none"
    config = MediaEncoderConfig(str(adapted), "bert", lora=lora, train=train)  # type: ignore[arg-type]
    encoder = start_media_encoder(config)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            assert "mine" not in name
            if parameter.requires_grad and ("lora_B" in name or "query.weight" in name):
                parameter.normal_(0.0, 0.05)
    expected = encoder.eval().embedder.encode(WORDS)
    assert (
        abs(expected - Embedder.from_pretrained(adapted, device="cpu").encode(WORDS)).max() > 0.01
    )
    encoder.save_pretrained(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")
    assert not again.adapted
    np.testing.assert_allclose(again.encode(WORDS), expected, atol=1e-5)
