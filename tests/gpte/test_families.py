"""Every architecture that the text trainer promises: rows are read alike anywhere, and it learns.

The vectors of encoders and decoders are compared with transformers' own in test_text_encoder.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))
from training_cases import plainly_and_cached

from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import tiny_model

ENCODERS = [
    "bert",
    "roberta",
    "xlm-roberta",
    "mpnet",
    "modernbert",
    "nomic_bert",
    "gte",
    "eurobert",
]
DECODERS = ["qwen2", "qwen3", "mistral", "llama", "gemma", "gemma2", "bloom", "gpt_neox"]
SEQ2SEQ = ["t5", "mt5", "m2m_100"]
LAST: dict[str, Any] = {"pooling": "last", "end_token": "<|endoftext|>"}
BOTH_WAYS: dict[str, Any] = {"pooling": "mean", "bidirectional": True}
FIRST: dict[str, Any] = {"pooling": "first", "decoder_first": True}
CASES = (
    [(family, {"pooling": "mean"}) for family in (*ENCODERS, *SEQ2SEQ)]
    + [(family, settings) for family in DECODERS for settings in (LAST, BOTH_WAYS)]
    + [(family, FIRST) for family in SEQ2SEQ]
)
NAMES = [f"{family}-{'-'.join(map(str, settings))}" for family, settings in CASES]


@pytest.mark.parametrize(("family", "settings"), CASES, ids=NAMES)
def test_it_learns_plainly_and_through_the_cache_alike(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    infonce = {"name": "infonce", "temperature": 0.05}
    logs, models = plainly_and_cached(tmp_path, family, settings, infonce)
    for plain, cached in zip(*logs, strict=True):
        assert plain["grad_norm"] > 0
        assert cached["loss"] == pytest.approx(plain["loss"], rel=1e-4)
        assert cached["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-3)
    start = TextEncoder.from_pretrained(tmp_path / family, TextSettings(**settings)).state_dict()
    one, other = (model.state_dict() for model in models)
    moved = {name for name in start if not torch.equal(start[name], one[name])}
    layers = {name for name in start if "layer" in name or "block" in name or ".h." in name}
    assert len(moved & layers) > len(layers) / 2
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-3, atol=1e-5, msg=name)


TEXTS = ["a cat", "a much longer text about the rivers of the world, and of ships", "b", "the end"]
# Families that can be told positions, or need none: the others know padding on the right alone.
EITHER_SIDE = ["qwen2", "qwen3", "mistral", "llama", "gemma", "gemma2", "bloom", "gpt_neox"]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", EITHER_SIDE)
@torch.no_grad()
def test_transformers_padded_on_either_side_gives_our_vectors(
    family: str, side: str, tmp_path: Path
) -> None:
    """Left, right and no padding: the same vectors, of causal models by their last token."""
    folder = tiny_model(family, tmp_path / family)
    settings = TextSettings(pooling="last", end_token="<|endoftext|>", max_tokens=192)
    encoder = TextEncoder.from_pretrained(folder, settings).eval()
    rows = encoder.tokenize(TEXTS)
    ours = encoder(encoder.collate(rows)).dense
    alone = torch.cat([encoder(encoder.collate([row])).dense for row in rows])
    torch.testing.assert_close(normalize(ours), normalize(alone), rtol=0, atol=1e-6)

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    batch = tokenizer.pad({"input_ids": [row.input_ids for row in rows]}, return_tensors="pt")
    # An end token may be the pad token, so the mask is of the lengths.
    steps = torch.arange(batch["input_ids"].shape[1])
    lengths = torch.tensor([row.tokens for row in rows])[:, None]
    mask = steps < lengths if side == "right" else steps >= len(steps) - lengths
    positions = (mask.long().cumsum(1) - 1).clamp_min(0)
    told = {} if family == "bloom" else {"position_ids": positions}
    model = AutoModel.from_pretrained(folder).eval()
    hidden = model(input_ids=batch["input_ids"], attention_mask=mask.long(), **told)
    last = mask.long().cumsum(1).argmax(1)
    theirs = hidden.last_hidden_state[torch.arange(len(rows)), last]
    torch.testing.assert_close(normalize(ours), normalize(theirs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ENCODERS)
@torch.no_grad()
def test_a_padded_forward_gives_the_packed_vectors(family: str, tmp_path: Path) -> None:
    encoder = TextEncoder.from_pretrained(tiny_model(family, tmp_path / family)).eval()
    batch = encoder.collate(encoder.tokenize(TEXTS))
    packed = encoder(batch).dense
    encoder.packing = None
    torch.testing.assert_close(
        normalize(encoder(batch).dense), normalize(packed), rtol=0, atol=1e-6
    )
