"""Compiled blocks give the same states, and few lengths of batches mean few compilations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmembed.backbones.vlm.buckets import bucket_of
from mmembed.backbones.vlm.compiling import compile_blocks
from mmembed.backbones.vlm.loading import load_vision_language
from mmembed.errors import ConfigError
from mmembed.inputs.decoded import DecodedItem


@given(st.integers(1, 1_000_000))
def test_a_bucket_holds_the_batch_and_wastes_little(tokens: int) -> None:
    size = bucket_of(tokens)
    assert size >= tokens
    assert size <= max(64, 1.5 * tokens)
    assert bucket_of(size) == size


@pytest.mark.slow
def test_compiled_states_are_the_same(
    checkpoints: dict[str, Path], items: list[DecodedItem]
) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    plain, compiled = (load_vision_language(checkpoints["qwen3_vl"]) for _ in range(2))
    assert compile_blocks(compiled, backend="eager") == 2
    rows = plain.prepare(items)
    graphs = []
    for chosen in (rows, rows[::-1], rows[:3], rows[:2]):
        with torch.inference_mode():
            expected = plain(plain.collate(chosen)).hidden
            found = compiled(compiled.collate(chosen)).hidden
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[1] == graphs[0]
    same = bucket_of(sum(r.tokens for r in rows[:3])) == bucket_of(sum(r.tokens for r in rows[:2]))
    assert (graphs[3] == graphs[2]) == same
    torch._dynamo.reset()


def test_padded_families_are_not_compiled(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="padded batches"):
        compile_blocks(load_vision_language(checkpoints["gemma3"]))
