"""Tiny random backbones of real architectures, a fresh copy for every test."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, SiglipVisionConfig, SiglipVisionModel

from mmembed.backbones.composed import ComposedSettings, ComposedVLM
from mmembed.backbones.connector import Connector, ConnectorShape
from mmembed.backbones.text import TextBackbone
from mmembed.backbones.vision import TransformersTower
from mmembed.backbones.vlm.loading import load_vision_language
from mmembed.gpte.text_loading import load_text_encoder
from mmembed.gpte.tiny import tiny_model

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "backbones" / "vlm"))
from tiny_vlm import TINY


def text(family: str, folder: Path) -> TextBackbone:
    return TextBackbone(load_text_encoder(tiny_model(family, folder / family))).eval()


def composed(folder: Path) -> ComposedVLM:
    torch.manual_seed(0)
    vision = TransformersTower(
        SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=32,
                patch_size=8,
            )
        ).eval()
    )
    tokenizer = load_text_encoder(tiny_model("bert", folder / "words")).tokenizer
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    shape = ConnectorShape(vision.channels, vision.patches, 32, landmarks=5, hidden=16, groups=3)
    model = BertModel(config, add_pooling_layer=False).eval()
    return ComposedVLM(
        vision, Connector(shape), model, tokenizer, ComposedSettings(max_tokens=64)
    ).eval()


MAKERS: dict[str, Callable[[Path], Any]] = {
    "bert": lambda folder: text("bert", folder),
    "qwen2": lambda folder: text("qwen2", folder),
    "mpnet, padded": lambda folder: text("mpnet", folder),
    "composed": composed,
    "qwen2_vl": lambda folder: load_vision_language(TINY["qwen2_vl"](folder / "qwen2_vl")),
    "qwen2_5_vl": lambda folder: load_vision_language(TINY["qwen2_5_vl"](folder / "qwen2_5_vl")),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """``made("bert")``: a new copy of that backbone."""
    first: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name not in first:
            first[name] = MAKERS[name](tmp_path_factory.mktemp("backbone"))
        return copy.deepcopy(first[name])

    return make


@pytest.fixture(params=sorted(MAKERS))
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def backbone(made: Callable[[str], Any], family: str) -> Any:
    return made(family)
