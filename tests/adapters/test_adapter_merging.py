"""Merged weights give the routed vectors, and are as exact as their type allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from adapter_cases import encode, rows_of, shake

from mmembed.adapters import TaskAdapters
from mmembed.errors import ConfigError


@pytest.fixture
def adapters(backbone: Any) -> TaskAdapters:
    found = TaskAdapters(backbone)
    found.add("code", rank=4)
    found.add("retrieval", rank=2, dora=True)
    found.add("matching", rank=3, rslora=True)
    for seed, name in enumerate(found.names):
        shake(found, name, seed)
    return found


@pytest.mark.parametrize("name", ["code", "retrieval", "matching"])
def test_a_merged_model_gives_the_routed_states(
    made: Callable[[str], Any], backbone: Any, adapters: TaskAdapters, family: str, name: str
) -> None:
    rows = rows_of(backbone)
    expected = encode(backbone, adapters, rows, [name] * 6)
    adapters.merge(name)
    assert name not in adapters.names
    for task in set(adapters.names):
        adapters.remove(task)
    for found in (encode(backbone, None, rows, []), encode(backbone, adapters, rows, [""] * 6)):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    # Plain layers are back, under their own names.
    plain = made(family)
    assert backbone.state_dict().keys() == plain.state_dict().keys()
    assert [type(m) for m in backbone.modules()] == [type(m) for m in plain.modules()]


def test_several_adapters_merge_with_weights(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    adapters.add("code", rank=4, alpha=8)
    adapters.add("query", rank=4, targets=r".*query", alpha=2)
    for seed, name in enumerate(adapters.names):
        shake(adapters, name, seed)
    layer = "encoder.full.encoder.layer.0.attention.self.query"
    weights = {
        name: value.double() for name, value in backbone.state_dict().items() if layer in name
    }
    changes = {
        name: scale
        * weights[f"{layer}.lora_B.{name}.weight"]
        @ weights[f"{layer}.lora_A.{name}.weight"]
        for name, scale in (("code", 2.0), ("query", 0.5))
    }
    expected = weights[f"{layer}.base_layer.weight"] + 0.25 * changes["code"] - changes["query"]
    adapters.merge({"code": 0.25, "query": -1.0})
    assert adapters.names == ()
    merged = backbone.get_submodule(layer).weight
    torch.testing.assert_close(merged.double(), expected, rtol=0, atol=1e-6)


def test_merging_is_in_float32_whatever_the_weights_are(made: Callable[[str], Any]) -> None:
    backbone = made("qwen2").to(torch.bfloat16)
    adapters = TaskAdapters(backbone)
    for seed in range(8):  # each change too small for bfloat16, their sum not
        adapters.add(f"step{seed}", rank=4, alpha=0.02)
        shake(adapters, f"step{seed}", 0)
    layer = "encoder.full.layers.0.mlp.up_proj"
    base = backbone.get_submodule(layer).base_layer.weight.clone()
    state = {key: value.double() for key, value in backbone.state_dict().items() if layer in key}
    exact = base.double()
    coarse = base.clone()
    for name in adapters.names:
        change = 0.005 * (
            state[f"{layer}.lora_B.{name}.weight"] @ state[f"{layer}.lora_A.{name}.weight"]
        )
        exact = exact + change
        coarse = coarse + change.to(torch.bfloat16)
    adapters.merge(dict.fromkeys(adapters.names, 1.0))
    merged = backbone.get_submodule(layer).weight
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, exact.float().to(torch.bfloat16))
    wrong = (coarse.double() - exact).abs().mean()
    assert (merged.double() - exact).abs().mean() < 0.6 * wrong


def test_adapters_that_stay_change_the_new_base(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    adapters.add("first", rank=4)
    adapters.add("second", rank=4)
    adapters.add("both", rank=8, alpha=16)
    for seed, name in enumerate(adapters.names[:2]):
        shake(adapters, name, seed)
    # Two adapters side by side are one of both ranks.
    with torch.no_grad():
        for one in adapters.modules("both"):
            layer = backbone.get_submodule(one)
            down, up = layer.lora_A, layer.lora_B
            pairs = [down[name].weight for name in ("first", "second")]
            down["both"].weight.copy_(torch.cat(pairs))
            up["both"].weight.copy_(torch.cat([up[n].weight for n in ("first", "second")], dim=1))
    rows = rows_of(backbone)
    expected = encode(backbone, adapters, rows, ["both"] * 6)
    adapters.merge("first")
    assert adapters.names == ("second", "both")
    found = encode(backbone, adapters, rows, ["second"] * 6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_merged_is_refused_and_nothing_changes(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    adapters.add("good")
    adapters.add("broken")
    shake(adapters, "good", 0)
    last = backbone.get_submodule(adapters.modules("broken")[-1])
    with torch.no_grad():
        last.lora_A["broken"].weight[0, 0] = float("nan")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ConfigError, match=r"'broken': .*lora_A\.weight is not finite"):
        adapters.merge({"good": 1.0, "broken": 0.5})
    with pytest.raises(ConfigError, match="weight nan is not finite"):
        adapters.merge({"good": float("nan")})
    with pytest.raises(ConfigError, match="unknown task 'god', did you mean 'good'"):
        adapters.merge({"good": 1.0, "god": 1.0})
    assert adapters.names == ("good", "broken")
    after = backbone.state_dict()
    assert all(torch.equal(after[k], v) or v.isnan().any() for k, v in before.items())
