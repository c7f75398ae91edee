"""Experts: they start as the dense model, route by the formula, are kept and balanced."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

sys.path.insert(0, str(Path(__file__).parent))
from training_cases import plainly_and_cached

from mmembed.errors import ConfigError
from mmembed.gpte.experts import Experts
from mmembed.gpte.export.onnx import export_onnx
from mmembed.gpte.lora import add_lora
from mmembed.gpte.objectives import ExpertBalance
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import tiny_model

TEXTS = ["a cat", "a much longer text about the rivers of the world, and of ships", "b"]
SETTINGS = TextSettings(experts=4, expert_top=2, expert_every=1)


def part(outputs: Outputs, name: str) -> Tensor:
    found: Tensor | None = getattr(outputs, name)
    assert found is not None
    return found


def read(encoder: TextEncoder) -> Outputs:
    made: Outputs = encoder(encoder.collate(encoder.tokenize(TEXTS)))
    return made


def shaken(encoder: TextEncoder) -> TextEncoder:
    """Experts that differ, as after training."""
    torch.manual_seed(1)
    with torch.no_grad():
        for one in encoder.experts:
            for parameter in one.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


@pytest.mark.parametrize("family", ["nomic_bert", "modernbert", "qwen3"])
@torch.no_grad()
def test_it_starts_as_the_dense_model(family: str, tmp_path: Path) -> None:
    folder = tiny_model(family, tmp_path / family)
    dense = read(TextEncoder.from_pretrained(folder, TextSettings()).eval())
    encoder = TextEncoder.from_pretrained(folder, SETTINGS).eval()
    made = read(encoder)
    torch.testing.assert_close(part(made, "dense"), part(dense, "dense"), rtol=0, atol=1e-5)
    assert dense.routing is None
    lengths = torch.tensor([row.tokens for row in encoder.tokenize(TEXTS)]).float()
    sums = part(made, "routing").sum(dim=3)  # probabilities add up to 1 a token, choices to 2
    torch.testing.assert_close(sums[:, :, 0], lengths[:, None].expand(-1, sums.shape[1]))
    torch.testing.assert_close(sums[:, :, 1], 2 * lengths[:, None].expand(-1, sums.shape[1]))
    other = part(read(shaken(encoder)), "dense")
    assert not torch.allclose(other, part(dense, "dense"), atol=1e-2)
    rows = encoder.tokenize(TEXTS)
    alone = torch.cat([part(encoder(encoder.collate([row])), "dense") for row in rows])
    torch.testing.assert_close(alone, other, rtol=0, atol=1e-5)


@torch.no_grad()
def test_tokens_go_to_the_experts_that_the_router_likes_best() -> None:
    torch.manual_seed(0)
    layer = Experts(torch.nn.Linear(6, 6), 6, 5, 2)
    for parameter in layer.parameters():
        parameter.normal_()
    hidden = torch.randn(2, 7, 6)
    expected = torch.zeros_like(hidden)
    for i in range(2):
        for t in range(7):
            likely = torch.softmax(layer.router.weight @ hidden[i, t], dim=0)
            best = sorted(range(5), key=lambda e: -float(likely[e]))[:2]
            for e in best:
                share = likely[e] / likely[best].sum()
                expected[i, t] += share * layer.experts[e](hidden[i, t])
    torch.testing.assert_close(layer(hidden), expected)


def test_saved_with_its_experts_and_read_by_transformers_as_a_dense_model(tmp_path: Path) -> None:
    folder = tiny_model("nomic_bert", tmp_path / "base")
    encoder = shaken(TextEncoder.from_pretrained(folder, SETTINGS)).eval()
    add_lora(encoder.full, rank=2)
    with torch.no_grad():
        for name, parameter in encoder.full.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        vectors = part(read(encoder), "dense")
        encoder.save_pretrained(tmp_path / "saved")
        again = TextEncoder.from_pretrained(tmp_path / "saved").eval()
        assert again.settings.experts == 4
        torch.testing.assert_close(part(read(again), "dense"), vectors, rtol=0, atol=1e-5)
    plain, report = AutoModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"]
    first = again.experts[0].experts[0].state_dict()
    for key, value in plain.get_submodule("layers.0.mlp").state_dict().items():
        assert torch.equal(first[key], value)


def test_balance_is_the_switch_loss_and_one_when_all_are_busy() -> None:
    generator = torch.Generator().manual_seed(0)
    likely = torch.rand(5, 2, 4, generator=generator, dtype=torch.float64).requires_grad_()
    chosen = torch.rand(5, 2, 4, generator=generator, dtype=torch.float64)
    routing = torch.stack([likely, chosen], dim=2)
    columns = Columns(Outputs(routing=routing[:3]), Outputs(routing=routing[3:]))
    loss = ExpertBalance()(columns).total
    expected = []
    for layer in range(2):
        share = chosen[:, layer].sum(0) / chosen[:, layer].sum()
        mean = likely[:, layer].sum(0) / likely[:, layer].sum()
        expected.append(4 * (share * mean).sum())
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    (gradient,) = torch.autograd.grad(loss, likely)
    assert bool(gradient.abs().sum() > 0)
    even = Columns(Outputs(routing=torch.ones(3, 2, 2, 4)))
    assert float(ExpertBalance()(even).total) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match=r"set settings\.experts"):
        ExpertBalance()(Columns(Outputs(dense=torch.ones(2, 3))))


def test_it_trains_plainly_and_through_the_cache_alike(tmp_path: Path) -> None:
    balanced = {"weight": 1.0, "objective": "balance"}
    objective = {"name": "joint", "parts": [{"objective": "infonce"}, balanced]}
    settings = {"experts": 4, "expert_top": 1, "expert_every": 2}
    logs, models = plainly_and_cached(tmp_path, "nomic_bert", settings, objective)
    for plain, cached in zip(*logs, strict=True):
        assert plain["balance"] > 0.9
        for key in ("loss", "balance", "grad_norm"):
            assert cached[key] == pytest.approx(plain[key], rel=1e-3)
    one, other = (model.state_dict() for model in models)
    assert any("router" in name for name in one)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-3, atol=1e-5, msg=name)


def test_mistakes_are_named(tmp_path: Path) -> None:
    folder = tiny_model("nomic_bert", tmp_path / "base")
    with pytest.raises(ConfigError, match="5 of 4 in every 2-th layer"):
        TextEncoder.from_pretrained(folder, TextSettings(experts=4, expert_top=5))
    bert = tiny_model("bert", tmp_path / "bert")
    with pytest.raises(ConfigError, match="has no layers with an MLP"):
        TextEncoder.from_pretrained(bert, TextSettings(experts=4))
    with pytest.raises(ConfigError, match="no graph can be made of experts"):
        export_onnx(TextEncoder.from_pretrained(folder, SETTINGS), tmp_path / "graph")
