"""Longer positions, symmetric ALiBi, soft prefixes: against plain forms on tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModel
from transformers import PreTrainedTokenizerFast as Fast

from mmembed.errors import ConfigError
from mmembed.gpte import long_context
from mmembed.gpte.packed import Layout, packed_forward, packing_of
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings

TINY: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 18,
}
LONG = "the quick brown fox jumps over the lazy dog " * 4


def model_of(family: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**TINY, **options})
    return AutoModel.from_config(config).eval()


@torch.no_grad()
def dense(encoder: TextEncoder, texts: list[str]) -> torch.Tensor:
    vectors = encoder(encoder.collate(encoder.tokenize(texts))).dense
    assert vectors is not None
    return vectors


@pytest.mark.parametrize("family", ["Bert", "Roberta", "MPNet"])
@pytest.mark.parametrize(
    "lengthen", [long_context.tile_positions, long_context.interpolate_positions]
)
def test_tables_grow(
    family: str, lengthen: Callable[[Any, int], None], wordpiece: Fast, tmp_path: Path
) -> None:
    model = model_of(family, pad_token_id=1)
    before = long_context.positions_of(model)
    assert before == (18 if family == "Bert" else 16)
    table = model.embeddings.position_embeddings.weight.detach()[-before:]
    with pytest.raises(ConfigError, match=r"mmembed\.gpte\.long_context"):
        TextEncoder(model, wordpiece, TextSettings(max_tokens=40))
    lengthen(model, 40)
    assert long_context.positions_of(model) == 40
    new = model.embeddings.position_embeddings.weight.detach()[-40:]
    if lengthen is long_context.tile_positions:
        assert torch.equal(new[:before], table)
        assert torch.equal(new[before : 2 * before], table)
    else:
        torch.testing.assert_close(new[[0, -1]], table[[0, -1]])
        ratio = 20 * (before - 1) / 39  # where row 20 falls in the old table
        low = int(ratio)
        expected = table[low] + (ratio - low) * (table[low + 1] - table[low])
        torch.testing.assert_close(new[20], expected)
    encoder = TextEncoder(model, wordpiece, TextSettings(max_tokens=40)).eval()
    (row,) = encoder.tokenize([LONG])
    assert row.tokens > before
    vector = dense(encoder, [LONG, "fox"])
    encoder.save_pretrained(tmp_path / "model")
    again = TextEncoder.from_pretrained(tmp_path / "model")
    assert torch.equal(dense(again, [LONG, "fox"]), vector)
    with pytest.raises(ConfigError, match="reads 40 tokens already"):
        lengthen(model, 40)


def test_only_new_positions_are_trained(wordpiece: Fast) -> None:
    model = model_of("Roberta", pad_token_id=1)
    long_context.tile_positions(model, 40)
    long_context.train_new_positions(model, before=16)
    encoder = TextEncoder(model, wordpiece)
    dense_out = encoder(encoder.collate(encoder.tokenize([LONG]))).dense
    dense_out.sum().backward()
    grad = model.embeddings.position_embeddings.weight.grad
    assert not grad[:18].any()
    assert grad[18:].any()
    others = [n for n, p in model.named_parameters() if p.grad is not None]
    assert others == ["embeddings.position_embeddings.weight"]


def test_interpolated_rope_divides_positions(wordpiece: Fast) -> None:
    plain, scaled = (
        model_of("Qwen3", num_key_value_heads=2),
        model_of("Qwen3", num_key_value_heads=2),
    )
    long_context.interpolate_rope(scaled, 36)
    ids = torch.arange(10, 26)[None]
    halves = torch.arange(16)[None] * 0.5
    with torch.no_grad():
        expected = plain(input_ids=ids, position_ids=halves).last_hidden_state
        got = scaled(input_ids=ids).last_hidden_state
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_ntk_keeps_the_fastest_and_interpolates_the_slowest_dimension() -> None:
    plain, scaled = model_of("Llama"), model_of("Llama")
    long_context.ntk_rope(scaled, 36)
    before, after = plain.rotary_emb.inv_freq, scaled.rotary_emb.inv_freq
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[-1], before[-1] / 2)


@pytest.mark.parametrize("family", ["Qwen3", "ModernBert", "NomicBert", "EuroBert", "GPTNeoX"])
@pytest.mark.parametrize(
    "scale", [long_context.interpolate_rope, long_context.ntk_rope, long_context.yarn_rope]
)
def test_scaled_rope_is_saved(
    family: str, scale: Callable[[Any, int], None], wordpiece: Fast, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"pad_token_id": 0, "initializer_range": 0.5}
    if family in ("Qwen3", "EuroBert"):
        options["num_key_value_heads"] = 2
    if family == "GPTNeoX":
        options["rope_parameters"] = {"rope_theta": 1e4, "partial_rotary_factor": 0.5}
    short = ["the quick brown fox jumps"]
    plain = dense(TextEncoder(model_of(family, **options), wordpiece).eval(), short)
    model = model_of(family, **options)
    scale(model, 64)
    encoder = TextEncoder(model, wordpiece).eval()
    assert encoder.max_tokens == 64
    assert not torch.allclose(dense(encoder, short), plain, rtol=0, atol=1e-5)
    vectors = dense(encoder, [LONG, "fox"])
    torch.testing.assert_close(vectors[:1], dense(encoder, [LONG]), rtol=0, atol=1e-6)
    encoder.save_pretrained(tmp_path / "model")
    again = TextEncoder.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(dense(again, [LONG, "fox"]), vectors, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="already"):
        scale(model, 64)


def test_models_without_the_right_positions_are_refused() -> None:
    with pytest.raises(ConfigError, match="BertModel has no rotary positions"):
        long_context.yarn_rope(model_of("Bert"), 64)
    with pytest.raises(ConfigError, match="LlamaModel has no learned table"):
        long_context.tile_positions(model_of("Llama"), 64)


@pytest.mark.parametrize(("heads", "first"), [(8, 0.5), (4, 0.25), (12, 0.5)])
def test_alibi_slopes(heads: int, first: float) -> None:
    slopes = long_context.alibi_slopes(heads)
    assert len(slopes) == heads
    assert slopes[0] == first
    if heads == 12:  # the paper's rule: 8 slopes of 8 heads, then every other one of 16
        torch.testing.assert_close(slopes[8:], long_context.alibi_slopes(16)[:8:2])


def test_symmetric_alibi(wordpiece: Fast, tmp_path: Path) -> None:
    settings = TextSettings(alibi=True, max_tokens=40)
    encoder = TextEncoder(model_of("Bert"), wordpiece, settings).eval()
    vectors = dense(encoder, [LONG, "fox", "the fox"])  # LONG has more tokens than the old table
    alone = torch.cat([dense(encoder, [text]) for text in (LONG, "fox", "the fox")])
    torch.testing.assert_close(vectors, alone, rtol=0, atol=1e-6)
    # The plain form: no positions, and the bias as an additive attention mask.
    model = model_of("Bert")
    torch.nn.init.zeros_(model.embeddings.position_embeddings.weight)
    ids = torch.tensor([encoder.tokenize(["the quick brown fox"])[0].input_ids])
    steps = torch.arange(ids.shape[1])
    distance = (steps[:, None] - steps[None, :]).abs()
    slopes = torch.tensor([2**-2, 2**-4, 2**-6, 2**-8])
    bias = -slopes[None, :, None, None] * distance
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=bias).last_hidden_state.mean(dim=1)
    got = dense(encoder, ["the quick brown fox"])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    encoder.save_pretrained(tmp_path / "model")
    again = TextEncoder.from_pretrained(tmp_path / "model")
    assert torch.equal(dense(again, [LONG]), dense(encoder, [LONG]))


def test_what_does_not_pack_takes_no_alibi_and_no_prefix(wordpiece: Fast) -> None:
    for settings in (TextSettings(alibi=True), TextSettings(prefix_tokens=2)):
        with pytest.raises(ConfigError, match="MPNetModel does not pack"):
            TextEncoder(model_of("MPNet"), wordpiece, settings)


@pytest.mark.parametrize("family", ["Bert", "Qwen3"])
def test_soft_prefix_equals_a_cached_past(family: str, wordpiece: Fast, tmp_path: Path) -> None:
    options = {"is_decoder": True} if family == "Bert" else {"num_key_value_heads": 2}
    settings = TextSettings(pooling="last", prefix_tokens=5)
    encoder = TextEncoder(model_of(family, **options), wordpiece, settings).eval()
    assert encoder.prefix is not None
    torch.nn.init.normal_(encoder.prefix.weight)
    vectors = dense(encoder, ["the quick brown fox", "fox"])
    alone = torch.cat([dense(encoder, [text]) for text in ("the quick brown fox", "fox")])
    torch.testing.assert_close(vectors, alone, rtol=1e-6, atol=1e-6)
    # The form of P-tuning v2: keys and values handed over as an attention cache.
    model = model_of(family, **options)
    past = transformers.DynamicCache()
    for layer, (key, value) in enumerate(encoder.prefix()):
        past.update(key[None], value[None], layer)
    ids = torch.tensor([encoder.tokenize(["the quick brown fox"])[0].input_ids])
    with torch.no_grad():
        out = model(
            input_ids=ids,
            past_key_values=past,
            attention_mask=torch.ones(1, 5 + ids.shape[1]),
            use_cache=True,
        )
    torch.testing.assert_close(vectors[:1], out.last_hidden_state[:, -1], rtol=0, atol=1e-5)
    encoder.save_pretrained(tmp_path / "model")
    again = TextEncoder.from_pretrained(tmp_path / "model")
    assert torch.equal(dense(again, ["fox"]), dense(encoder, ["fox"]))
    assert encoder.max_tokens == 18 - 5


def test_only_the_prefix_is_trained(wordpiece: Fast) -> None:
    encoder = TextEncoder(model_of("Bert"), wordpiece, TextSettings(prefix_tokens=3))
    encoder.full.requires_grad_(False)
    dense_out = encoder(encoder.collate(encoder.tokenize(["fox", "the dog"]))).dense
    dense_out.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.requires_grad] == ["prefix.weight"]
    assert encoder.prefix is not None
    grad = encoder.prefix.weight.grad
    assert grad is not None
    assert grad.flatten(1).any(dim=1).all()


@pytest.mark.parametrize("causal", [False, True])
def test_windows_bias_and_prefix_go_together(causal: bool) -> None:
    """All three at once in the packed attention, against one dense masked softmax."""
    from mmembed.gpte.packed import attention

    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 7, 4, dtype=torch.float64) for _ in range(3))
    prefix = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    slopes = torch.tensor([0.5, 0.25], dtype=torch.float64)
    module = torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]
    layout = Layout([7], causal, prefix=[prefix], slopes=slopes)
    got, _ = attention(module, q, k, v, None, sliding_window=3, layout=layout)
    keys = torch.cat([prefix[0][None], k], dim=2)
    values = torch.cat([prefix[1][None], v], dim=2)
    steps = torch.arange(7)
    distance = steps[:, None] - steps[None, :]
    outside = (distance.abs() >= 3) | (causal & (distance < 0))
    bias = (-slopes[:, None, None] * distance.abs()).masked_fill(outside, -torch.inf)
    bias = torch.nn.functional.pad(bias, (3, 0))
    scores = (q @ keys.transpose(2, 3)) / 2 + bias
    expected = (scores.softmax(-1) @ values).transpose(1, 2)
    torch.testing.assert_close(got, expected)


def test_packed_forward_is_unchanged_without_extras() -> None:
    model = model_of("Mistral", num_key_value_heads=2, sliding_window=3)
    ids = torch.arange(20, 31)
    with torch.no_grad():
        alone = model(input_ids=ids[None]).last_hidden_state[0]
        packing = packing_of(model)
        assert packing is not None
        got = packed_forward(model, Layout([11]), packing, input_ids=ids)
    torch.testing.assert_close(got, alone, rtol=0, atol=1e-6)
