"""Which part of a picture each token vector was made of, in the families of late interaction."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from mmembed import Embedder
from mmembed.backbones.base import module_of
from mmembed.backbones.vlm.tiny import TINY
from mmembed.embedder_config import EmbedderConfig

FAMILIES = ("paligemma", "qwen2_vl", "qwen2_5_vl", "idefics3", "modernvbert")
# Where attention is added to what a token already is, in any of the families.
ATTENDED = re.compile(r"attn\.(o_proj|out_proj|proj|Wo)\.")
CORNERS = {"upper left": (0, 0), "upper right": (1, 0), "lower left": (0, 3), "lower right": (1, 3)}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """Tiny and random, with a vector a token, which no other token has a share in."""
    folder = TINY[request.param](tmp_path_factory.mktemp(request.param))
    model = Embedder.from_pretrained(folder, device="cpu").configured(EmbedderConfig(multi_dim=16))
    attention = [
        one for name, one in module_of(model.backbone).named_parameters() if ATTENDED.search(name)
    ]
    assert attention
    for weights in attention:
        weights.data.zero_()
    return model


def test_a_corner_that_is_painted_changes_the_vectors_that_lie_there(model: Embedder) -> None:
    width, height = 56, 56  # of a corner, of a picture of two by four
    plain = Image.new("RGB", (2 * width, 4 * height), (90, 90, 90))
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    painted = []
    for column, row in CORNERS.values():
        picture = plain.copy()
        picture.paste(Image.fromarray(noise), (column * width, row * height))
        painted.append(picture)
    before, *after = model.encode_stream([plain, *painted], role="document", output=("multi",))
    assert before.multi is not None
    assert before.boxes is not None
    assert before.boxes.shape == (len(before.multi), 4)
    placed = ~np.isnan(before.boxes[:, 0])
    assert 0 < placed.sum() < len(before.multi)  # the prompt is no part of the picture
    left, top, right, bottom = before.boxes[placed].T
    assert min(left.min(), top.min()) == 0
    assert max(right.max(), bottom.max()) == 1
    near = 0.05  # resizing blurs the edge
    for (name, (column, row)), found in zip(CORNERS.items(), after, strict=True):
        assert found.multi is not None
        changed = np.linalg.norm(found.multi - before.multi, axis=1)[placed]
        x, y = column / 2, row / 4
        inside = (left >= x) & (right <= x + 1 / 2) & (top >= y) & (bottom <= y + 1 / 4)
        beside = (right <= x - near) | (left >= x + 1 / 2 + near)
        outside = beside | (bottom <= y - near) | (top >= y + 1 / 4 + near)
        assert inside.any(), name
        assert outside.any(), name
        assert changed[inside].min() > 1e-3, name
        assert changed[outside].max() < 1e-5, name


def test_no_place_without_exactly_one_picture(model: Embedder) -> None:
    picture = Image.new("RGB", (64, 64), (10, 200, 10))
    items = ["words alone", {"text": "two", "image": [picture, picture]}]
    for found in model.encode_stream(items, output=("multi",)):
        assert found.error is None
        assert found.multi is not None
        assert found.boxes is None
