"""Tasks through the embedder's own door."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapter_cases import WORDS, picture, shake

from mmembed import Embedder
from mmembed.embedder import EmbedderConfig
from mmembed.errors import ConfigError, ModelLoadError

TASKS = ["code", "", "retrieval", "code", "", "retrieval"]


def model_of(made: Callable[[str], Any], family: str) -> Embedder:
    model = Embedder(made(family), EmbedderConfig(batch_tokens=60))
    model.adapters.add("code", rank=4)
    model.adapters.add("retrieval", rank=2, dora=True)
    for seed, name in enumerate(model.adapters.names):
        shake(model.adapters, name, seed)
    return model


def inputs_of(model: Embedder) -> list[Any]:
    return [picture(0), *WORDS[1:5], picture(1)] if "image" in model.modalities else list(WORDS)


FAMILIES = ["bert", "composed", "qwen2_vl"]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_input_has_the_vector_of_its_task(made: Callable[[str], Any], family: str) -> None:
    plain = Embedder(made(family)).encode(inputs_of(Embedder(made(family))))
    model = model_of(made, family)
    inputs = inputs_of(model)
    mixed = model.encode(inputs, task=TASKS)
    by_task = {name: model.encode(inputs, task=name) for name in ("code", "retrieval")}
    for i, name in enumerate(TASKS):
        expected = by_task[name][i] if name else plain[i]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-6)
        assert name == "" or abs(mixed[i] - plain[i]).max() > 1e-3
    for found in (model.encode(inputs), model.encode(inputs, task=[""] * 6)):
        np.testing.assert_allclose(found, plain, atol=1e-6)
    one = model.encode(inputs[2], task="code")
    np.testing.assert_allclose(one, by_task["code"][2], atol=1e-6)


def test_unknown_tasks_and_too_few_are_named(made: Callable[[str], Any]) -> None:
    model = model_of(made, "bert")
    with pytest.raises(ConfigError, match="unknown task 'coed', did you mean 'code'"):
        model.encode(WORDS, task="coed")
    with pytest.raises(ConfigError, match="unknown task 'x'"):
        model.encode(WORDS, task=[*TASKS[:5], "x"])
    with pytest.raises(ConfigError, match="2 tasks, and more inputs"):
        model.encode(WORDS, task=["code", ""])
    bare = Embedder(made("bert"))
    with pytest.raises(ConfigError, match=r"unknown task 'code' \(this model has: none\)"):
        bare.encode(WORDS, task="code")


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_saved_and_loaded_with_the_model(
    made: Callable[[str], Any], family: str, tmp_path: Path
) -> None:
    bare = Embedder(made(family))
    bare.save_pretrained(tmp_path / "bare")
    model = model_of(made, family)
    inputs = inputs_of(model)
    model.save_pretrained(tmp_path / "model")
    expected = model.encode(inputs, task=TASKS)
    again = Embedder.from_pretrained(tmp_path / "model", device="cpu")
    assert set(again.adapters.names) == {"code", "retrieval"}
    np.testing.assert_allclose(again.encode(inputs, task=TASKS), expected, atol=1e-6)
    # The model's own weights are those without adapters, to the byte.
    for file in (tmp_path / "bare").rglob("*.safetensors"):
        other = tmp_path / "model" / file.relative_to(tmp_path / "bare")
        assert other.read_bytes() == file.read_bytes()
    for name in again.adapters.names:
        again.adapters.remove(name)
    again.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "adapters").exists()


def test_a_broken_adapter_is_named_when_the_model_is_loaded(
    made: Callable[[str], Any], tmp_path: Path
) -> None:
    model_of(made, "bert").save_pretrained(tmp_path)
    (tmp_path / "adapters" / "code" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"adapters.code.adapter_model\.safetensors"):
        Embedder.from_pretrained(tmp_path, device="cpu")


def test_the_fingerprint_is_of_the_base_and_follows_merges(made: Callable[[str], Any]) -> None:
    bare, model = Embedder(made("bert")), model_of(made, "bert")
    model.config = bare.config
    assert model.fingerprint == bare.fingerprint
    model.adapters.remove("retrieval")
    assert model.fingerprint == bare.fingerprint
    expected = model.encode(WORDS, task="code")
    model.adapters.merge("code")
    assert model.fingerprint != bare.fingerprint
    np.testing.assert_allclose(model.encode(WORDS), expected, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "qwen2_vl"])
def test_eight_threads_with_different_tasks_give_the_serial_vectors(
    made: Callable[[str], Any], family: str, tmp_path: Path
) -> None:
    model = model_of(made, family)
    inputs = inputs_of(model)
    jobs = [TASKS[i % 6 :] + TASKS[: i % 6] for i in range(16)]
    serial = [model.encode(inputs, task=tasks) for tasks in jobs]
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(model.encode, inputs, task=tasks) for tasks in jobs]
        # Meanwhile adapters come, the model is saved, and adapters go.
        model.adapters.clone("code", "late")
        model.save_pretrained(tmp_path)
        assert model.fingerprint
        model.adapters.remove("late")
        for job, expected in zip(running, serial, strict=True):
            np.testing.assert_allclose(job.result(), expected, atol=1e-6)


def test_a_change_waits_for_a_batch_that_knew_of_no_adapters(made: Callable[[str], Any]) -> None:
    model = Embedder(made("qwen2_vl"))
    inside, leave = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        inside.set()
        assert leave.wait(240)

    hook = model.backbone.register_forward_pre_hook(hold)  # type: ignore[attr-defined]
    with ThreadPoolExecutor(2) as pool:
        encoding = pool.submit(model.encode, WORDS)
        try:
            assert inside.wait(240)
            adding = pool.submit(model.adapters.add, "code")
            gate = model._gate
            while not (adding.done() or (gate._writers and not gate._writing)):
                wait([adding], timeout=0.05)
            assert not adding.done()
        finally:
            leave.set()
        adding.result()
        encoding.result()
    hook.remove()
    assert model.adapters.names == ("code",)


def test_an_adapter_can_be_trained_while_the_model_is_saved(
    made: Callable[[str], Any], tmp_path: Path
) -> None:
    model = model_of(made, "bert")
    inside, leave = threading.Event(), threading.Event()

    def save() -> None:
        with model.adapters.detached():
            inside.set()
            assert leave.wait(240)

    with ThreadPoolExecutor(2) as pool:
        saving = pool.submit(save)
        assert inside.wait(240)
        asking = pool.submit(model.adapters.parameters, "code")
        wait([asking], timeout=0.2)
        leave.set()
        assert len(asking.result()) == 2 * len(model.adapters.modules("code"))
        saving.result()
