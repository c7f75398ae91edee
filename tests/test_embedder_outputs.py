"""Several outputs from one forward, over vision-language models and text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmembed import Embedder
from mmembed.backbones import load_backbone
from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.embedder import EmbedderConfig, heads_for
from mmembed.embeddings import Embeddings
from mmembed.errors import ConfigError, ModelLoadError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny_vlm("qwen2_vl", tmp_path_factory.mktemp("qwen2_vl"))
    return folder


def embedder(checkpoint: Path, **changes: Any) -> Embedder:
    torch.manual_seed(0)
    backbone = load_backbone(checkpoint)
    config = EmbedderConfig(pooling="last", prompts=dict(backbone.prompts), **changes)
    return Embedder(backbone, config)


def image(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


INPUTS = ["two dogs", image(1), {"text": "a bicycle", "image": image(2)}, "a", image(3)]


def test_all_outputs_come_from_one_forward(checkpoint: Path) -> None:
    model = embedder(checkpoint, multi_dim=8, lexical=True)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    model.backbone.register_forward_hook(count)  # type: ignore[attr-defined]
    assert model.outputs == ("dense", "multi", "sparse")
    forwards = []
    for output in ("dense", ("dense", "multi", "sparse")):
        calls = 0
        found = model.encode(INPUTS, output=output)
        forwards.append(calls)
    assert forwards[0] == forwards[1] > 0
    assert isinstance(found, Embeddings)
    assert found.dense is not None
    assert found.multi is not None
    assert found.sparse is not None
    assert found.dense.shape == (5, model.dim)
    np.testing.assert_allclose(np.linalg.norm(found.dense, axis=1), 1.0, atol=1e-5)
    assert [len(tokens) for tokens in found.multi] == [
        row.tokens for row in (model.backbone.prepare([d])[0] for d in decoded(model))
    ]
    assert all(tokens.shape[1] == 8 for tokens in found.multi)
    assert found.sparse.layout == torch.sparse_csr
    assert tuple(found.sparse.shape) == (5, len(model.backbone.tokenizer))  # type: ignore[attr-defined]
    assert (found.sparse.values() > 0).all()


def decoded(model: Embedder) -> list[Any]:
    from dataclasses import replace

    from mmembed.inputs.decode import decode_item

    items = [decode_item(one, model.backbone.media_budget) for one in INPUTS]
    return [replace(item, instruction=model.config.prompts[""]) for item in items]


def test_each_output_is_the_same_alone_and_in_any_company(checkpoint: Path) -> None:
    model = embedder(checkpoint, multi_dim=8, lexical=True)
    together = model.encode(INPUTS, output=("dense", "multi", "sparse"))
    for i, one in enumerate(INPUTS):
        np.testing.assert_allclose(model.encode(one), together.dense[i], atol=2e-6)
        np.testing.assert_allclose(model.encode(one, output="multi"), together.multi[i], atol=2e-5)
        alone = model.encode([one], output="sparse").to_dense()[0]
        torch.testing.assert_close(alone, together.sparse.to_dense()[i], atol=2e-5, rtol=1e-4)


def test_media_can_be_pooled_over_their_own_tokens(checkpoint: Path) -> None:
    model = embedder(checkpoint, media_pooling="mean", media_span="media", normalize=False)
    rows = model.backbone.prepare(decoded(model))
    with torch.inference_mode():
        states = [model.backbone.forward(model.backbone.collate([row])) for row in rows]
    vectors = model.encode(INPUTS)
    for row, state, vector in zip(rows, states, vectors, strict=True):
        if "media" in row.spans:
            ((start, stop),) = row.spans["media"]
            expected = state.hidden[start:stop].mean(dim=0)
        else:
            expected = state.hidden[-1]
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-4)


def test_the_instruction_can_be_left_out_of_every_output(checkpoint: Path) -> None:
    model = embedder(checkpoint, multi_dim=8, skip_instruction=True)
    row = model.backbone.prepare(decoded(model))[0]
    ((start, stop),) = row.spans["instruction"]
    tokens = model.encode("two dogs", output="multi")
    assert len(tokens) == row.tokens - (stop - start)


def test_an_output_that_is_not_there_is_an_error_naming_those_that_are(checkpoint: Path) -> None:
    model = embedder(checkpoint)
    with pytest.raises(ConfigError, match=r"no 'multi' output .*dense"):
        model.encode("a", output="multi")


def test_bad_inputs_are_raised_skipped_or_left_empty(checkpoint: Path, tmp_path: Path) -> None:
    from mmembed.errors import InputError

    model = embedder(checkpoint, multi_dim=8)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    inputs = ["a", broken, "b", tmp_path / "missing.png"]
    with pytest.raises(InputError, match=r"broken\.png") as caught:
        model.encode(inputs)
    assert caught.value.position == 1
    good = model.encode(["a", "b"])
    skipped = model.encode(inputs, output=("dense", "multi"), on_error="skip")
    np.testing.assert_allclose(skipped.dense, good, atol=1e-6)
    assert [error.position for error in skipped.errors] == [1, 3]
    kept = model.encode(inputs, output=("dense", "multi"), on_error="none")
    np.testing.assert_allclose(kept.dense[[0, 2]], good, atol=1e-6)
    assert np.isnan(kept.dense[[1, 3]]).all()
    assert [len(tokens) > 0 for tokens in kept.multi] == [True, False, True, False]
    assert np.isnan(model.encode(broken, on_error="skip")).all()


def test_an_item_that_does_not_fit_harms_no_other(checkpoint: Path) -> None:
    """Found while preparing, with its whole batch at hand, and not while decoding."""
    from mmembed.errors import InputError

    whole = embedder(checkpoint, multi_dim=8, lexical=True)
    longest = max(row.tokens for row in whole.backbone.prepare(decoded(whole)))
    whole.backbone = whole.backbone.with_settings(max_tokens=longest)  # type: ignore[attr-defined]
    album = {"image": [image(seed) for seed in range(9)]}
    inputs = [*INPUTS[:2], album, *INPUTS[2:], album]
    outputs = ("dense", "multi", "sparse")
    expected = whole.encode(INPUTS, output=outputs)
    kept = whole.encode(inputs, output=outputs, on_error="none")
    good = [0, 1, 3, 4, 5]
    assert [error.position for error in kept.errors] == [2, 6]
    assert all(f"and {longest} fit" in str(error) for error in kept.errors)
    np.testing.assert_allclose(kept.dense[good], expected.dense, atol=2e-6)
    assert np.isnan(kept.dense[[2, 6]]).all()
    for place, tokens in zip(good, expected.multi, strict=True):
        np.testing.assert_allclose(kept.multi[place], tokens, atol=2e-5)
    sparse = kept.sparse.to_dense()
    torch.testing.assert_close(sparse[good], expected.sparse.to_dense(), atol=2e-5, rtol=1e-4)
    assert not sparse[[2, 6]].any()
    skipped = whole.encode(inputs, on_error="skip")
    np.testing.assert_allclose(skipped, expected.dense, atol=2e-6)
    with pytest.raises(InputError) as caught:
        whole.encode(inputs)
    assert caught.value.position == 2


def test_a_saved_model_gives_the_same_outputs(checkpoint: Path, tmp_path: Path) -> None:
    model = embedder(checkpoint, multi_dim=8, lexical=True)
    model.save_pretrained(tmp_path)
    again = Embedder.from_pretrained(tmp_path)
    assert again.fingerprint.rpartition("-")[2] == model.fingerprint.rpartition("-")[2]
    a, b = (each.encode(INPUTS, output=("dense", "multi")) for each in (model, again))
    np.testing.assert_allclose(a.dense, b.dense, atol=1e-6)
    np.testing.assert_allclose(a.multi[1], b.multi[1], atol=1e-6)
    (tmp_path / "heads.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"heads\.safetensors"):
        Embedder.from_pretrained(tmp_path)


def test_text_encoders_give_their_own_heads(tmp_path: Path) -> None:
    from mmembed.gpte.text_encoder import TextEncoder
    from mmembed.gpte.text_settings import TextSettings
    from mmembed.gpte.tiny import tiny_model

    settings = TextSettings(heads=("dense", "multi", "lexical"), multi_dim=8)
    folder = tiny_model("bert", tmp_path / "bert")
    TextEncoder.from_pretrained(folder, settings).save_pretrained(tmp_path / "encoder")
    model = Embedder.from_pretrained(tmp_path / "encoder")
    assert model.outputs == ("dense", "multi", "sparse")
    found = model.encode(["a text", "another"], output=("dense", "multi", "sparse"))
    assert found.multi[0].shape[1] == 8
    assert found.sparse.shape[0] == 2


def test_heads_of_a_config_need_what_they_read(checkpoint: Path) -> None:
    model = embedder(checkpoint)
    heads = heads_for(model.backbone, EmbedderConfig(multi_dim=4, lexical=True))
    assert set(heads.state_dict()) == {
        "multi.linear.weight",
        "lexical.linear.weight",
        "lexical.linear.bias",
    }
