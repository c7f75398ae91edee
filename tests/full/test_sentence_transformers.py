"""sentence-transformers reads the same tiny weights, and gives the same vectors.

Its image processors need torchvision, so pictures are resized by another library there than here:
they are made of the size that the models want.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

st = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
pytest.importorskip("torchvision", reason="torchvision is not installed")

from mmembed import Embedder  # noqa: E402
from mmembed.backbones.towers.tiny import tiny_towers  # noqa: E402
from mmembed.backbones.vlm.loading import load_vision_language  # noqa: E402
from mmembed.backbones.vlm.qwen2_vl import INSTRUCTIONS  # noqa: E402
from mmembed.backbones.vlm.qwen2_vl import WORDING as QWEN2_WORDING  # noqa: E402
from mmembed.backbones.vlm.tiny import tiny_vlm  # noqa: E402
from mmembed.embedder_config import EmbedderConfig  # noqa: E402

TEXTS = ["two dogs", "a red bicycle leans on a wall", "x"]
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
)


def picture(height: int, width: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parity
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_two_towers(family: str, tmp_path: Path) -> None:
    import transformers as hf

    folder = tiny_towers(family, tmp_path)
    images = hf.AutoImageProcessor.from_pretrained(folder, backend="torchvision")
    words = hf.AutoTokenizer.from_pretrained(folder)
    make = {"clip": hf.CLIPProcessor, "siglip": hf.SiglipProcessor}[family]
    make(images, words).save_pretrained(folder)
    theirs = st.SentenceTransformer(str(folder), device="cpu")
    ours = Embedder.from_pretrained(folder, device="cpu")
    pictures = [picture(32, 32, seed) for seed in range(3)]
    found = theirs.encode(pictures, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(ours.encode(pictures), found, atol=1e-5)
    if family == "clip":  # SigLIP's texts are not padded to their full length there
        texts = theirs.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
        np.testing.assert_allclose(ours.encode(TEXTS), texts, atol=1e-5)


# Side of a token, and the peer's processor of images and clips together.
FAMILIES = {
    "qwen2_vl": (28, "Qwen2VLProcessor", "Qwen2VLVideoProcessor"),
    "qwen2_5_vl": (28, "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
    "qwen3_vl": (32, "Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
}


@pytest.mark.parity
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_vision_language_model(family: str, tmp_path: Path) -> None:
    import transformers as hf
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    side, processor, videos = FAMILIES[family]
    folder = tiny_vlm(family, tmp_path)
    limits = {"min_pixels": side**2, "max_pixels": side**2 * 64}
    backbone = load_vision_language(folder).with_settings(
        **limits, wording=QWEN2_WORDING, instructions=INSTRUCTIONS
    )
    getattr(hf, processor)(
        image_processor=Qwen2VLImageProcessor(patch_size=side // 2, **limits),
        tokenizer=backbone.tokenizer,
        video_processor=getattr(hf, videos)(patch_size=side // 2),
        chat_template=CHAT,
    ).save_pretrained(folder)
    modules: list[Any] = [
        Transformer(str(folder)),
        Pooling(backbone.hidden_size, pooling_mode="lasttoken"),
        Normalize(),
    ]
    theirs = st.SentenceTransformer(modules=modules, device="cpu")
    config = EmbedderConfig(pooling="last", prompts=dict(backbone.prompts))
    ours = Embedder(backbone.eval(), config)
    inputs: list[Any] = [
        *TEXTS,
        {"image": picture(2 * side, 3 * side, 1)},
        {"image": picture(4 * side, 2 * side, 2), "text": "red"},
    ]
    expected = theirs.encode(inputs, batch_size=2, show_progress_bar=False)
    np.testing.assert_allclose(ours.encode(inputs), expected, atol=2e-5)
