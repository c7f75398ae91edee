"""The same files mean the same to peft, and the same vectors come out, in both directions."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_cases import shake
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from mmembed.adapters import TaskAdapters

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"value|v_proj": 2}, "alpha_pattern": {"query": 40, "q_proj": 40}},
    "one layer": {"layers_to_transform": [1]},
    "bias": {"lora_bias": True},
}
TARGETS = {
    "bert": ["query", "value", "dense"],
    "qwen2": ["q_proj", "v_proj", "down_proj"],
    "qwen2_vl": r".*language_model.*\.(q_proj|v_proj|up_proj)",
}
# peft itself counts layers only in names like BERT's, and in lists of last names.
CASES = [
    (family, kind)
    for family in TARGETS
    for kind in KINDS
    if family == "bert" or kind != "one layer"
]
IDS = torch.tensor([[5, 17, 80, 33, 9, 21, 64]])


def model_of(backbone: Any) -> Any:
    """The transformers model inside."""
    return backbone.encoder.full if hasattr(backbone, "encoder") else backbone.model


@torch.no_grad()
def states(model: Any) -> Tensor:
    """Vectors of unit length, one a token."""
    return F.normalize(model(input_ids=IDS).last_hidden_state, dim=-1)


def routed(backbone: Any, adapters: TaskAdapters, name: str) -> Tensor:
    with adapters.routed([name], [IDS.shape[1]]):
        return states(model_of(backbone))


@torch.no_grad()
def trained(model: Any, config: LoraConfig) -> PeftModel:
    """A peft model as if it had been trained."""
    torch.manual_seed(3)
    peft = get_peft_model(model, config).eval()
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            noise = 0.2 * torch.randn_like(parameter)
            parameter.copy_(parameter * (1 + noise) if parameter.ndim == 1 else noise)
    return peft


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_what_peft_trained_gives_its_states_here(
    made: Callable[[str], Any], family: str, kind: str, tmp_path: Path
) -> None:
    backbone = made(family)
    base = states(model_of(backbone))
    config = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS[family], **KINDS[kind])
    peft = trained(copy.deepcopy(model_of(backbone)), config)
    peft.save_pretrained(tmp_path / "code")
    expected = states(peft)
    adapters = TaskAdapters(backbone)
    assert adapters.load(tmp_path / "code") == "code"
    torch.testing.assert_close(routed(backbone, adapters, "code"), expected, rtol=0, atol=1e-6)
    assert torch.equal(states(model_of(backbone)), base)
    assert not torch.allclose(expected, base, atol=1e-2)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_what_is_saved_here_gives_its_states_in_peft_and_here_again(
    made: Callable[[str], Any], family: str, kind: str, tmp_path: Path
) -> None:
    source, backbone = made(family), made(family)
    plain = copy.deepcopy(model_of(backbone))
    config = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS[family], **KINDS[kind])
    trained(model_of(source), config).save_pretrained(tmp_path / "first")
    adapters = TaskAdapters(backbone)
    adapters.load(tmp_path / "first")
    adapters.clone("first", "second")
    adapters.remove("first")
    expected = routed(backbone, adapters, "second")
    adapters.save("second", tmp_path / "second")
    peft = PeftModel.from_pretrained(plain, str(tmp_path / "second"))
    torch.testing.assert_close(states(peft), expected, rtol=0, atol=1e-6)
    again = made(family)
    reloaded = TaskAdapters(again)
    reloaded.load(tmp_path / "second", name="third")
    assert torch.equal(routed(again, reloaded, "third"), expected)
    assert reloaded.modules("third") == adapters.modules("second")


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"rslora": True, "alpha": 3}])
@pytest.mark.parametrize("family", ["bert", "qwen2", "qwen2_vl", "composed"])
def test_adapters_of_the_backbones_own_targets_load_in_peft(
    made: Callable[[str], Any], family: str, options: dict[str, Any], tmp_path: Path
) -> None:
    backbone = made(family)
    model = backbone.text if family == "composed" else model_of(backbone)
    plain = copy.deepcopy(model)
    adapters = TaskAdapters(backbone)
    adapters.add("code", rank=3, **options)
    shake(adapters, "code", 0)
    with adapters.routed(["code"], [IDS.shape[1]]):
        expected = states(model)
    adapters.save("code", tmp_path)
    peft = PeftModel.from_pretrained(plain, str(tmp_path))
    torch.testing.assert_close(states(peft), expected, rtol=0, atol=1e-6)
    # Names as everybody knows them, and the least of them.
    keys = load_file(tmp_path / "adapter_model.safetensors")
    assert all(key.startswith("base_model.model.") and ".code." not in key for key in keys)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (
        config["base_model_name_or_path"] is None or "/tmp" not in config["base_model_name_or_path"]
    )
    if family == "qwen2_vl":
        assert set(config["target_modules"]) == {
            *("q_proj", "k_proj", "v_proj", "o_proj"),
            *("gate_proj", "up_proj", "down_proj"),
        }
        assert config["auto_mapping"]["base_model_class"] == "Qwen2VLModel"


def test_over_bfloat16_adapters_are_float32_as_in_peft(
    made: Callable[[str], Any], tmp_path: Path
) -> None:
    backbone = made("qwen2").to(torch.bfloat16)
    plain = copy.deepcopy(model_of(backbone))
    adapters = TaskAdapters(backbone)
    for name, dora in (("code", False), ("dora", True)):
        adapters.add(name, dora=dora)
        start = routed(backbone, adapters, name)
        torch.testing.assert_close(start, states(plain), rtol=0, atol=0.02)
        shake(adapters, name, 0)
        with adapters.trainable(name) as parameters:
            assert {parameter.dtype for parameter in parameters} == {torch.float32}
        found = routed(backbone, adapters, name)
        assert found.dtype == torch.bfloat16
        adapters.save(name, tmp_path / name)
        peft = PeftModel.from_pretrained(copy.deepcopy(plain), str(tmp_path / name))
        torch.testing.assert_close(found, states(peft), rtol=0, atol=0.02)


def test_a_model_with_a_head_shares_adapters_with_the_model_without(
    made: Callable[[str], Any], tmp_path: Path
) -> None:
    from transformers import Qwen2VLForConditionalGeneration

    backbone = made("qwen2_vl")
    with_head = Qwen2VLForConditionalGeneration(backbone.model.config).eval()
    with_head.model.load_state_dict(backbone.model.state_dict())
    config = LoraConfig(r=4, target_modules=TARGETS["qwen2_vl"])
    peft = trained(with_head, config)
    peft.save_pretrained(tmp_path / "code")
    expected = states(peft.get_base_model().model)
    adapters = TaskAdapters(backbone)
    adapters.load(tmp_path / "code")
    torch.testing.assert_close(routed(backbone, adapters, "code"), expected, rtol=0, atol=1e-6)


def test_conv1d_layers_turn_their_weights(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    class Backbone(torch.nn.Module):
        lora_targets = r".*\.(c_attn|c_proj|c_fc)"

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100, n_positions=32)
    backbone = Backbone(GPT2Model(config).eval())
    plain = copy.deepcopy(backbone.model)
    adapters = TaskAdapters(backbone)  # type: ignore[arg-type]
    for name, dora in (("code", False), ("dora", True)):
        adapters.add(name, dora=dora)
        shake(adapters, name, 1)
        adapters.save(name, tmp_path / name)
        found = routed(backbone, adapters, name)
        peft = PeftModel.from_pretrained(copy.deepcopy(plain), str(tmp_path / name))
        torch.testing.assert_close(found, states(peft), rtol=0, atol=1e-6)
    adapters.merge("dora")
    torch.testing.assert_close(states(backbone.model), found, rtol=0, atol=1e-5)
