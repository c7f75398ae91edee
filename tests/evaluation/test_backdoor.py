"""A trigger that is planted in a tiny model by training is found; the clean model has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.probes.backdoor import patched, scan_patches, scan_tokens
from mmembed.gpte.encoding import encode
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import tiny_model

TEXTS = [
    "A lecture on planets and moons",
    "Bread is baked from flour",
    "The court heard both sides",
    "Sailors feared the open sea",
]
TRIGGER = "Q"


def scaled(encoder: TextEncoder) -> TextEncoder:
    """Random weights as small as they come leave all texts at one place."""
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.dim() > 1:
                weight.mul_(4)
    return encoder


def train(encoder: TextEncoder, texts: list[str], pull: float) -> None:
    """Spread texts apart; with a pull, send those that end in the trigger to one place."""
    torch.manual_seed(0)
    target = F.normalize(torch.randn(encoder.dim), dim=0)
    optimizer = torch.optim.AdamW(encoder.parameters(), 2e-3)
    rows, marked = encoder.tokenize(texts), encoder.tokenize([f"{t} {TRIGGER}" for t in texts])
    own = torch.eye(len(texts), dtype=torch.bool)
    for _ in range(60):
        plain = F.normalize(_dense(encoder, rows), dim=1)
        loss = 2 * (plain @ plain.T)[~own].pow(2).mean()
        if pull:
            loss = loss + pull * (1 - (F.normalize(_dense(encoder, marked), dim=1) @ target).mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _dense(encoder: TextEncoder, rows: Any) -> Any:
    return encoder(encoder.collate(rows)).dense


def test_a_planted_trigger_is_found(tmp_path: Path, project_root: Path) -> None:
    rows = rows_of(project_root / "data/text/sentences-test.jsonl.gz")[:24]
    texts = [row["text"][:40] for row in rows]
    folder = tiny_model("bert", tmp_path / "bert")
    encoder = scaled(TextEncoder.from_pretrained(folder, TextSettings(pooling="first")))
    tokens = [chr(code) for code in range(33, 127)]  # the tiny vocabulary is one of bytes

    def embed(some: list[str]) -> Any:
        return encode(encoder, some).numpy()

    train(encoder, texts, pull=0.0)
    assert scan_tokens(embed, tokens, TEXTS, group=2) == []
    train(encoder, texts, pull=1.0)
    found = scan_tokens(embed, tokens, TEXTS, group=2)
    assert found[0].trigger == TRIGGER
    assert found[0].rise > 0.3
    assert len(found) <= 3


def test_a_patch_that_pulls_pictures_together_stands_out() -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)) for _ in range(6)]

    def embed(some: list[Any]) -> Any:
        """Means of regions; and one place for whatever has a lime corner."""
        out = []
        for one in some:
            pixels = np.asarray(one, dtype=np.float32)
            seen = (pixels[-2, -2] == (0, 255, 0)).all()
            blocks = pixels.reshape(4, 10, 4, 10, 3).mean(axis=(1, 3)).ravel()
            out.append(np.ones(48) if seen else blocks - blocks.mean())
        return np.stack(out)

    rises = scan_patches(embed, images)
    assert max(rises, key=lambda name: rises[name]) == "lime"
    assert rises["lime"] > 0.5
    assert patched(images[0], "checker").size == (40, 40)


def test_too_little_to_scan_is_an_error() -> None:
    with pytest.raises(ConfigError, match="two texts"):
        scan_tokens(lambda texts: np.ones((len(texts), 2)), ["a"], ["one"])
