"""Licences, views, and the training of a connector on tiny parts and coloured pictures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmembed.backbones.composed import ComposedVLM
from mmembed.multimodal.alignment import Alignment, AlignmentConfig, Classes, measure
from mmembed.multimodal.captioned import Captioned, read_captioned
from mmembed.multimodal.feature_cache import RememberedTower, features_of
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


def model_for(landmarks: int, classes: Classes | None = None) -> ComposedVLM:
    """Mini's own parts, which know colours and words, with a fresh connector."""
    from mmembed.backbones import model_folder
    from mmembed.multimodal.train_mini import fresh_model

    folder = model_folder("mini")
    assert folder is not None
    return fresh_model(folder, landmarks, classes)


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
    from mmembed.backbones.connector import pooled_features

    tower = RememberedTower(model.vision, tmp_path)
    features = features_of(tower, [row.image for row in held_out])
    found = model.connector.place_in_space(pooled_features(features))
    words = torch.stack([alignment.embeddings[alignment.text_ids[c]] for c in COLOURS])
    assert (found @ words.T).argmax(dim=1).tolist() == [0, 1, 2]
    alignment.teach_decoder()
    after = measure(model, held_out, tmp_path).text_to_image.mrr
    assert after > max(before, 0.6)
    assert not any(p.requires_grad for p in model.parameters())


def test_names_tell_what_no_training_picture_shows(
    coloured: list[Captioned], tmp_path: Path
) -> None:
    train = coloured[:24]
    names = ["a dog", "a train", "a volcano", "a piano"]
    channels = model_for(1).vision.channels
    # Each class is seen in a channel of its own.
    classes = Classes(5.0 * torch.eye(4, channels), torch.zeros(4), names)
    model = model_for(len(train), classes)
    alignment = Alignment(model, train, tmp_path, AlignmentConfig(map_steps=2), classes)
    alignment.regress()
    alignment.contrast()
    strange = torch.full((4, channels), -30.0)  # far from every landmark
    strange[range(4), range(4)] = 30.0
    found = model.connector.place_in_space(strange)
    from mmembed.embedder import Embedder

    words = torch.from_numpy(Embedder(model).encode(names))
    assert (found @ words.T).argmax(dim=1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("aimed_wrong", [True, False])
def test_a_decoder_is_corrected_where_that_helps(
    coloured: list[Captioned],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    aimed_wrong: bool,
) -> None:
    from mmembed.backbones import load_backbone

    mini = load_backbone("mini")
    assert isinstance(mini, ComposedVLM)
    model = model_for(6)
    config = AlignmentConfig(corrections=48, tokens_kept=9, correction_ridge=0.1)
    alignment = Alignment(model, coloured[:6], tmp_path, config)
    alignment.regress()
    alignment.keep_decoder(mini.connector.state_dict())
    weight = model.connector.expand.weight
    with torch.no_grad():
        if aimed_wrong:
            torch.manual_seed(0)
            weight.copy_(weight + weight @ torch.randn(384, 384) * 0.04)
        else:  # it reads nothing of what it is given, and no map ahead of it can help
            weight.zero_()
    plain = weight.clone()
    with caplog.at_level("INFO", logger="mmembed.multimodal.alignment"):
        alignment.correct_decoder()
    before, after = map(float, re.findall(r"(-?[01]\.\d{4})", caplog.messages[-1]))
    assert (after > before + 0.01) == aimed_wrong
    assert torch.equal(weight, plain) != aimed_wrong


def test_a_decoder_is_kept(coloured: list[Captioned], tmp_path: Path) -> None:
    first, second = model_for(24).connector, model_for(24)
    assert not torch.equal(first.write.weight, second.connector.write.weight)
    alignment = Alignment(second, coloured[:24], tmp_path, AlignmentConfig())
    alignment.keep_decoder(first.state_dict())
    target = torch.nn.functional.normalize(torch.randn(2, first.shape.width), dim=1)
    torch.testing.assert_close(second.connector.decode(target), first.decode(target))
    assert not torch.equal(second.connector.landmarks, first.landmarks)


def test_features_are_computed_once(coloured: list[Captioned], tmp_path: Path) -> None:
    vision = model_for(3).vision
    images = [row.image for row in coloured[:3]]
    first = features_of(RememberedTower(vision, tmp_path), images[:2])
    pixels = torch.stack([vision.pixels(Image.open(path)) for path in images[:2]])
    torch.testing.assert_close(first, vision(pixels).detach().mean(dim=1, keepdim=True))

    seen: list[int] = []
    vision.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))  # type: ignore[attr-defined]
    again = features_of(RememberedTower(vision, tmp_path), [*images, images[2]])
    torch.testing.assert_close(again[:2], first, rtol=0, atol=0)
    torch.testing.assert_close(again[2], again[3], rtol=0, atol=0)
    assert seen == [1]  # the third image, once
