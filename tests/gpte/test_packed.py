from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModel, PreTrainedModel

from mmembed.gpte.packed import Layout, packed_forward, packing_of

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 120,
}
DECODER = {**TINY, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
LENGTHS = [4, 4, 1, 9, 6, 6]


def tiny(family: str, **options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**options)
    return AutoModel.from_config(config).eval()


CASES = [
    ("Bert", TINY),
    ("Roberta", {**TINY, "pad_token_id": 1}),
    ("XLMRoberta", {**TINY, "pad_token_id": 1}),
    ("ModernBert", {**TINY, "pad_token_id": 0, "local_attention": 4}),
    ("Qwen2", DECODER),
    ("Qwen3", DECODER),
    ("Llama", DECODER),
    ("Mistral", {**DECODER, "sliding_window": 3}),
    ("Gemma", DECODER),
    ("Gemma3Text", {**DECODER, "sliding_window": 3}),
    ("GPTNeoX", TINY),
]


@pytest.mark.parametrize(("family", "options"), CASES, ids=[name for name, _ in CASES])
def test_packed_rows_equal_rows_alone(family: str, options: dict[str, Any]) -> None:
    model = tiny(family, **options)
    rows = [torch.randint(10, 120, (length,)) for length in LENGTHS]
    with torch.no_grad():
        # Before packing is looked into: the model's own, untouched attention.
        alone = [model(input_ids=row[None]).last_hidden_state[0] for row in rows]
        packing = packing_of(model)
        assert packing is not None
        together = packed_forward(model, Layout(LENGTHS), packing, input_ids=torch.cat(rows))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("family", ["Bert", "Llama"])
def test_model_still_runs_padded_after_packing(family: str) -> None:
    options = TINY if family == "Bert" else DECODER
    model = tiny(family, **options)
    ids = torch.randint(10, 120, (2, 7))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert packing_of(model) is not None
        after = model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(after[mask.bool()], before[mask.bool()])


def test_gradients_equal_those_of_the_rows_alone() -> None:
    model = tiny("Bert", **TINY)
    packing = packing_of(model)
    assert packing is not None
    rows = [torch.randint(10, 120, (length,)) for length in LENGTHS]
    weights = torch.randn(sum(LENGTHS), 32)
    packed = packed_forward(model, Layout(LENGTHS), packing, input_ids=torch.cat(rows))
    (packed * weights).sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    alone = torch.cat([model(input_ids=row[None]).last_hidden_state[0] for row in rows])
    (alone * weights).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["MPNet", "Bloom"])
def test_models_with_relative_bias_are_not_packed(family: str) -> None:
    options = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 120}
    model = tiny(family, **(TINY if family == "MPNet" else options))
    ids = torch.randint(10, 120, (2, 7))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert packing_of(model) is None
        after = model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(after[mask.bool()], before[mask.bool()])


def test_causal_override_makes_a_decoder_bidirectional() -> None:
    model = tiny("Llama", **DECODER)
    packing = packing_of(model)
    assert packing is not None
    ids = torch.randint(10, 120, (6,))
    other = ids.clone()
    other[-1] = (other[-1] - 9) % 100 + 10
    with torch.no_grad():
        causal = [packed_forward(model, Layout([6]), packing, input_ids=x) for x in (ids, other)]
        both = [
            packed_forward(model, Layout([6], causal=False), packing, input_ids=x)
            for x in (ids, other)
        ]
    assert torch.equal(causal[0][0], causal[1][0])
    assert not torch.allclose(both[0][0], both[1][0])
