"""Published folders that hold an adapter alone, written by peft itself."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmembed import Embedder
from mmembed.errors import ModelLoadError

sys.path.insert(0, str(Path(__file__).parent))
from published import copy_of, last, picture, qwen_states

IMAGE = picture(60, 90, 1)
# VLM2Vec's own list of layers.
TARGETS = "qkv_proj o_proj gate_up_proj down_proj k_proj q_proj out_proj v_proj up_proj gate_proj"


def published(root: Path, *, dora: bool) -> tuple[Path, Path]:
    """The adapter's folder, and the same model merged by peft."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2VLForConditionalGeneration

    base = copy_of("qwen2_vl", root / "base", root / "cache")
    folder, merged = root / "VLM2Vec-V2.0", root / "merged"
    model = Qwen2VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=4, lora_alpha=16, target_modules=TARGETS.split(), use_dora=dora, init_lora_weights=False
    )
    torch.manual_seed(3)
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(folder)
    shutil.copytree(base, merged)
    adapted.merge_and_unload().save_pretrained(merged)
    return folder, merged


@pytest.mark.parity
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_is_merged_into_the_model_it_names(dora: bool, tmp_path: Path) -> None:
    folder, merged = published(tmp_path, dora=dora)
    model = Embedder.from_pretrained(folder)
    assert model.adapters.names == ()
    vector = model.encode(IMAGE)
    prompt = "<|image_pad|> Represent the given image."
    states = qwen_states(merged, prompt, [IMAGE], pixels=(3136, 1003520), flat=True)
    np.testing.assert_allclose(vector, last(states).numpy(), atol=2e-5)
    model.save_pretrained(tmp_path / "mine")
    np.testing.assert_allclose(
        Embedder.from_pretrained(tmp_path / "mine").encode(IMAGE), vector, atol=1e-6
    )


def test_a_base_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder, _ = published(tmp_path, dora=False)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ModelLoadError, match="base' is no folder, and no hub model"):
        Embedder.from_pretrained(folder)
