"""Tasks whose dense vectors go through a map of their own, beside adapters and without any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_cases import WORDS, picture, shake
from safetensors.torch import load_file, save_file

from mmembed import Embedder
from mmembed.embedder import EmbedderConfig
from mmembed.errors import ConfigError, ModelLoadError
from mmembed.vector_cache import VectorCache

FAMILIES = ["composed", "qwen2_vl"]
INPUTS = [picture(0), *WORDS[1:5], picture(1)]
TASKS = ["turned", "", "code", "turned", "both", "code"]


def model_of(made: Callable[[str], Any], family: str) -> Embedder:
    """Adapters ``code`` and ``both``; maps ``turned`` and ``both``, which are rotations."""
    model = Embedder(made(family), EmbedderConfig(batch_tokens=60, dense_tasks=("turned", "both")))
    for seed, name in enumerate(("code", "both")):
        model.adapters.add(name, rank=4)
        shake(model.adapters, name, seed)
        torch.manual_seed(seed)
        head = model.heads.task_dense[("turned", "both")[seed]]
        torch.nn.init.orthogonal_(head.weight)
    return model


def mapped(model: Embedder, task: str, vectors: Any) -> Any:
    return vectors @ model.heads.task_dense[task].weight.detach().numpy().T


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_batch_go_through_the_maps_of_their_tasks(
    made: Callable[[str], Any], family: str
) -> None:
    model = model_of(made, family)
    plain = Embedder(made(family)).encode(INPUTS)
    np.testing.assert_allclose(model.encode(INPUTS), plain, atol=1e-6)
    # What the adapters alone do: the same model, read without maps.
    alone = model.configured(EmbedderConfig(batch_tokens=60))
    code, both = (alone.encode(INPUTS, task=task) for task in ("code", "both"))
    wanted = {
        "": plain,
        "code": code,
        "turned": mapped(model, "turned", plain),
        "both": mapped(model, "both", both),
    }
    mixed = model.encode(INPUTS, task=TASKS)
    for i, task in enumerate(TASKS):
        np.testing.assert_allclose(mixed[i], wanted[task][i], atol=1e-5)
    for task, expected in wanted.items():
        np.testing.assert_allclose(model.encode(INPUTS, task=task), expected, atol=1e-5)
    assert np.abs(wanted["turned"] - plain).max() > 1e-2


def test_a_model_without_adapters_has_the_task_and_may_have_it_by_default(
    made: Callable[[str], Any],
) -> None:
    model = Embedder(made("composed"), EmbedderConfig(dense_tasks=("turned",)))
    turned = mapped(model, "turned", model.encode(WORDS))
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode(WORDS, task="turned"), turned, atol=1e-5)
    short = turned[:, :4] / np.linalg.norm(turned[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode(WORDS, task="turned", dim=4), short, atol=1e-5)
    always = model.configured(EmbedderConfig(dense_tasks=("turned",), task="turned"))
    np.testing.assert_allclose(always.encode(WORDS), turned, atol=1e-5)
    with pytest.raises(ConfigError, match=r"unknown task 'turn', did you mean 'turned'\?"):
        model.encode(WORDS, task="turn")


def test_maps_are_saved_and_a_missing_one_is_named(
    made: Callable[[str], Any], tmp_path: Path
) -> None:
    model = model_of(made, "composed")
    model.save_pretrained(tmp_path)
    again = Embedder.from_pretrained(tmp_path, device="cpu")
    expected = model.encode(INPUTS, task=TASKS)
    np.testing.assert_allclose(again.encode(INPUTS, task=TASKS), expected, atol=1e-6)
    file = tmp_path / "heads.safetensors"
    tensors = load_file(file)
    del tensors["task_dense.turned.weight"]
    save_file(tensors, file)
    with pytest.raises(ModelLoadError, match=r"'task_dense\.turned\.weight' is missing"):
        Embedder.from_pretrained(tmp_path, device="cpu")


def test_a_backbone_that_makes_its_vectors_itself_is_refused(made: Callable[[str], Any]) -> None:
    with pytest.raises(ConfigError, match="no place for a head of turned"):
        Embedder(made("bert"), EmbedderConfig(dense_tasks=("turned",)))


def test_kept_vectors_are_of_their_task(made: Callable[[str], Any], tmp_path: Path) -> None:
    model = model_of(made, "composed")
    wanted = [model.encode(WORDS, task=task) for task in ("", "turned", "both")]
    model.cache = VectorCache(tmp_path / "vectors.sqlite")
    for _ in range(2):
        for task, expected in zip(("", "turned", "both"), wanted, strict=True):
            np.testing.assert_allclose(model.encode(WORDS, task=task), expected, atol=1e-6)
    assert len(model.cache) == 3 * len(WORDS)
