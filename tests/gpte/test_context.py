"""Context tokens: texts read by a sample of their corpus (CDE)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from training_cases import recipe

from mmembed import Embedder
from mmembed.errors import ConfigError
from mmembed.gpte.context import neighbours
from mmembed.gpte.encoding import encode
from mmembed.gpte.recipe import Recipe
from mmembed.gpte.run import run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import ContextSettings, TextSettings
from mmembed.gpte.tiny import tiny_model

TEXTS = ["a fox", "the dog sleeps here", "rivers fall"]
CONTEXT = {"documents": 3, "width": 32, "soft": 2, "dropout": 0.1}


@pytest.fixture(params=["bert", "nomic_bert", "qwen3"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> TextEncoder:
    torch.manual_seed(0)
    folder = tiny_model(request.param, tmp_path / request.param)
    settings = TextSettings(context=ContextSettings(**CONTEXT))  # type: ignore[arg-type]
    return TextEncoder.from_pretrained(folder, settings)


def test_texts_are_read_by_their_corpus(encoder: TextEncoder, tmp_path: Path) -> None:
    assert encoder.context is not None
    unknown = encode(encoder, TEXTS)
    corpus = torch.randn(2, 32)
    encoder.context.remember(corpus)
    known = encode(encoder, TEXTS)
    assert (known - unknown).abs().max() > 1e-4
    alone = torch.cat([encode(encoder, [text]) for text in TEXTS])
    torch.testing.assert_close(known, alone, rtol=0.0, atol=1e-6)
    encoder.save_pretrained(tmp_path / "saved")
    again = TextEncoder.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(encode(again, TEXTS), known, rtol=0.0, atol=1e-6)
    embedded = Embedder.from_pretrained(tmp_path / "saved").encode(TEXTS)
    torch.testing.assert_close(torch.as_tensor(embedded), known, rtol=0.0, atol=1e-5)
    # Places without a document say nothing, as before any is known.
    encoder.context.remember(corpus[:0])
    torch.testing.assert_close(encode(encoder, TEXTS), unknown, rtol=0.0, atol=1e-6)


def test_states_are_the_texts_own(encoder: TextEncoder) -> None:
    rows = encoder.tokenize(TEXTS)
    states = encoder.read(encoder.collate(rows))
    assert states.lengths.tolist() == [row.tokens for row in rows]
    assert len(states.hidden) == sum(row.tokens for row in rows)


def test_batches_are_met_in_training_alone_and_some_documents_dropped(
    encoder: TextEncoder,
) -> None:
    context = encoder.context
    assert context is not None
    context.remember(torch.randn(3, 32))
    before = context(2)
    context.meet(torch.randn(3, 32))
    assert torch.equal(context(2), before)
    context.train()
    torch.manual_seed(0)
    met = context(200)
    assert met.shape == (200, 5, context.null.numel())
    dropped = (met[:, :3] == context.null).all(dim=2).float().mean()
    assert 0.05 < dropped < 0.15
    assert not torch.isclose(met[:, :3], before[0, :3]).all(dim=2).any()
    with pytest.raises(ConfigError, match=r"settings\.context\.width"):
        context.meet(torch.randn(3, 31))


def test_neighbours_do_not_depend_on_the_order_of_rows() -> None:
    guide = {"positive": torch.randn(6, 4)}
    meta = {"positive_hash": torch.tensor([5, 3, 9, 1, 7, 2])}
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    found = neighbours(guide, meta, 4, (1, 2), "cpu")
    other = neighbours(
        {"positive": guide["positive"][order]},
        {"positive_hash": meta["positive_hash"][order]},
        4,
        (1, 2),
        "cpu",
    )
    assert torch.equal(found, other)
    assert found.shape == (4, 4)
    assert not torch.equal(found, neighbours(guide, meta, 4, (1, 3), "cpu"))
    with pytest.raises(ConfigError, match=r"give a positive and data\.guide"):
        neighbours({}, meta, 4, (1, 2), "cpu")


def contextual(folder: Path, **batch: int) -> Recipe:
    guide = {"model": str(tiny_model("bert", folder / "guide", seed=5))}
    stage: dict[str, Any] = {
        "encoder": {"settings": {"context": CONTEXT}, "dropout": 0.0},
        "data": {"guide": guide},
        "batch": {"size": 4, "order": "contextual", **batch},
        "schedule": {"steps": 6, "lr": 1e-3},
    }
    return recipe(folder, stage)


def test_a_stopped_run_ends_alike_and_the_corpus_is_saved(tmp_path: Path) -> None:
    whole = contextual(tmp_path, chunk_rows=3)
    run_recipe(whole)
    parted = replace(whole, output=str(tmp_path / "parted"))
    assert run_recipe(parted, stop_after=3) == {}
    run_recipe(parted)
    folders = [Path(one.output) / "only/model" for one in (whole, parted)]
    for name in ("model.safetensors", "heads.safetensors"):
        ours, theirs = (load_file(folder / name) for folder in folders)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    saved = TextEncoder.from_pretrained(folders[0])
    assert saved.context is not None
    assert saved.context.known.all()
    start = tiny_model("bert", tmp_path / "bert")
    torch.manual_seed(1)
    fresh = TextEncoder.from_pretrained(start, saved.settings)
    assert fresh.context is not None
    assert not torch.equal(fresh.context.projection.weight, saved.context.projection.weight)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda stage: stage["data"].pop("guide"), r"data\.guide"),
        (lambda stage: stage["encoder"]["settings"].update(alibi=True), "goes with no ALiBi"),
        (lambda stage: stage.update(data={"streaming": True}), r"not with data\.streaming"),
    ],
)
def test_what_a_context_needs(
    spoil: Callable[[dict[str, Any]], Any], told: str, tmp_path: Path
) -> None:
    guide = {"model": str(tiny_model("bert", tmp_path / "guide", seed=5))}
    stage: dict[str, Any] = {
        "encoder": {"settings": {"context": CONTEXT}},
        "data": {"guide": guide},
    }
    spoil(stage)
    with pytest.raises(ConfigError, match=told):
        run_recipe(recipe(tmp_path, stage))
