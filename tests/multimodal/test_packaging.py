"""Packing trained adapters beside the packaged parts of mini."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmembed import Embedder
from mmembed.backbones import model_folder
from mmembed.backbones.weights import read_safetensors
from mmembed.errors import ConfigError
from mmembed.multimodal.packaging import pack


@pytest.fixture(scope="module")
def packaged() -> Path:
    folder = model_folder("mini")
    assert folder is not None
    return folder


def test_a_packed_adapter_is_half_as_large_and_does_what_it_did(
    packaged: Path, tmp_path: Path
) -> None:
    model = Embedder.from_pretrained("mini")
    model.adapters.add("own", rank=4)
    with model.adapters.trainable("own") as parameters, torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0.0, 0.05)
    trained = tmp_path / "trained"
    model.adapters.save_all(trained / "adapters")
    folder = tmp_path / "mini"
    shutil.copytree(packaged, folder)
    pack(trained, "own", into=folder)
    file = Path("adapters/own/adapter_model.safetensors")
    assert {one.dtype for one in read_safetensors(folder / file).values()} == {torch.float16}
    assert (folder / file).stat().st_size < 0.6 * (trained / file).stat().st_size
    again = Embedder.from_pretrained(folder)
    assert set(again.adapters.names) == {"code", "own", "text-matching"}
    for task in ("own", "code", None):
        ours, theirs = (one.encode(["a map"], task=task) for one in (again, model))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    plain, adapted = (again.encode(["a map"], task=task) for task in (None, "own"))
    assert np.abs(plain - adapted).max() > 1e-2


def test_an_adapter_that_is_not_there_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"other has no adapter_model\.safetensors"):
        pack(tmp_path, "other", into=tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_the_package_carries_at_most_40_megabytes_of_mini(packaged: Path) -> None:
    assert sum(file.stat().st_size for file in packaged.rglob("*") if file.is_file()) <= 40e6
