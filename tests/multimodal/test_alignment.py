"""Licences, views, and the training of a connector on tiny parts and coloured pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmembed.backbones.composed import ComposedVLM
from mmembed.multimodal.alignment import Alignment, AlignmentConfig, measure
from mmembed.multimodal.captioned import Captioned, read_captioned
from mmembed.multimodal.feature_cache import cached_features
from mmembed.multimodal.licences import open_licence, without_credit
from mmembed.multimodal.views import VIEWS


@pytest.mark.parametrize(
    ("credit", "expected"),
    [
        ("", "CC BY (book)"),
        ("(credit: modification of work by NASA/JPL)", "public domain (US government)"),
        ("(credit: NASA/ESA)", None),
        ("(credit: Ann/Flickr, CC BY 2.0)", "CC BY"),
        ("(credit: Ann, CC BY-SA 3.0)", "CC BY-SA"),
        ("(credit: Ann, CC BY-NC 3.0)", None),
        ("(credit a: Ann, CC BY 2.0; credit b: Bob/Flickr)", None),
        ("(credit: used by permission of Bob)", None),
    ],
)
def test_only_clearly_open_figures(credit: str, expected: str | None) -> None:
    assert open_licence(credit) == expected


def test_credits_leave_captions() -> None:
    assert without_credit("A map of Rome. (credit: Ann, CC BY 2.0)") == "A map of Rome."


def test_views_are_the_same_in_every_run() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    for name, view in VIEWS.items():
        first, second = (np.asarray(view(image, "seed")) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert name == "full" or not np.array_equal(first, np.asarray(image))
    assert np.asarray(VIEWS["crop"](Image.new("RGB", (1, 1)), "s")).shape == (1, 1, 3)


def test_test_figures_are_never_trained_on(shared_data) -> None:  # type: ignore[no-untyped-def]
    rows = read_captioned("openstax_figures", shared_data("openstax_figures").parent)
    by_split = {s: {r.image for r in rows if r.split == s} for s in ("train", "dev", "test")}
    assert len(by_split["test"]) == 400
    assert len(by_split["dev"]) == 300
    assert not by_split["train"] & (by_split["test"] | by_split["dev"])
    test_alts = {r.description.lower() for r in rows if r.split == "test"}
    assert not test_alts & {r.description.lower() for r in rows if r.split == "train"}


COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> list[Captioned]:
    folder = tmp_path_factory.mktemp("coloured")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(36):
        name, colour = list(COLOURS.items())[i % 3]
        pixels = np.clip(rng.normal(colour, 25, (24, 24, 3)), 0, 255).astype(np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path)
        split = "dev" if i >= 30 else "train"
        rows.append(Captioned(path, "colours", split, "CC0", name))
    return rows


def model_for(landmarks: int) -> ComposedVLM:
    """Mini's own parts, which know colours and words, with a fresh connector."""
    from mmembed.backbones import model_folder
    from mmembed.multimodal.train_mini import fresh_model

    folder = model_folder("mini")
    assert folder is not None
    return fresh_model(folder, landmarks)


def test_training_teaches_what_pictures_show(coloured: list[Captioned], tmp_path: Path) -> None:
    train = [row for row in coloured if row.split == "train"]
    held_out = coloured[30:33]
    torch.manual_seed(0)
    model = model_for(len(train))
    config = AlignmentConfig(map_steps=5, decoder_steps=12, decoder_batch=24, tokens_kept=6)
    alignment = Alignment(model, train, tmp_path, config)
    before = measure(model, held_out, tmp_path).text_to_image.mrr
    alignment.regress()
    alignment.contrast()
    features = cached_features(tmp_path, model.vision, [row.image for row in held_out], "full")
    from mmembed.backbones.connector import pooled_features

    found = model.connector.place_in_space(
        pooled_features(torch.from_numpy(features.astype(np.float32)))
    )
    words = torch.stack([alignment.embeddings[alignment.text_ids[c]] for c in COLOURS])
    assert (found @ words.T).argmax(dim=1).tolist() == [0, 1, 2]
    alignment.teach_decoder()
    after = measure(model, held_out, tmp_path).text_to_image.mrr
    assert after > max(before, 0.6)
    assert not any(p.requires_grad for p in model.parameters())


def test_interrupted_features_go_on(coloured: list[Captioned], tmp_path: Path) -> None:
    model = model_for(3)
    images = [row.image for row in coloured[:3]]
    first = np.array(cached_features(tmp_path, model.vision, images, "full"))
    assert first.shape == (3, model.vision.patches, model.vision.channels)
    model.vision = None  # type: ignore[assignment]  # A second reading needs no tower's forward.
    files = list(tmp_path.glob("full-*.npy"))
    assert len(files) == 1
    np.testing.assert_array_equal(np.load(files[0]), first)
