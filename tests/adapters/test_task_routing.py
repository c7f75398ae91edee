"""Rows of different tasks in one batch are read as if each task were alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_cases import close, encode, rows_of, shake

from mmembed.adapters import TaskAdapters
from mmembed.encoding import token_budget_batches
from mmembed.errors import ConfigError

TASKS = ["code", "", "retrieval", "code", "matching", "retrieval"]


@pytest.fixture
def adapters(backbone: Any) -> TaskAdapters:
    found = TaskAdapters(backbone)
    found.add("code", rank=4)
    found.add("retrieval", rank=2, dora=True)
    found.add("matching", rank=3, rslora=True, dropout=0.5)
    for seed, name in enumerate(found.names):
        shake(found, name, seed)
    return found


def test_a_mixed_batch_is_its_tasks_alone(
    backbone: Any, family: str, adapters: TaskAdapters
) -> None:
    rows = rows_of(backbone)
    if "padded" in family:
        assert backbone.encoder.packing is None
    together = encode(backbone, adapters, rows, TASKS)
    for name in ("", *adapters.names):
        mine = [i for i, task in enumerate(TASKS) if task == name]
        alone = encode(backbone, adapters, [rows[i] for i in mine], [name] * len(mine))
        close([together[i] for i in mine], alone)
    single = [
        encode(backbone, adapters, [row], [task])[0] for row, task in zip(rows, TASKS, strict=True)
    ]
    close(together, single)
    # The tasks do something, and not the same.
    base = encode(backbone, None, rows, [])
    for i, name in enumerate(TASKS):
        assert (name == "") == torch.allclose(together[i], base[i], atol=1e-6)
    other = encode(backbone, adapters, rows, ["matching"] * 6)
    assert not torch.allclose(other[0], together[0], atol=1e-3)


def test_order_and_batch_size_do_not_matter(backbone: Any, adapters: TaskAdapters) -> None:
    rows = rows_of(backbone)
    expected = encode(backbone, adapters, rows, TASKS)
    order = random.Random(0).sample(range(6), 6)
    shuffled = encode(backbone, adapters, [rows[i] for i in order], [TASKS[i] for i in order])
    close(shuffled, [expected[i] for i in order])
    for batch in token_budget_batches([row.tokens for row in rows], 30):
        found = encode(backbone, adapters, [rows[i] for i in batch], [TASKS[i] for i in batch])
        close(found, [expected[i] for i in batch])


def test_without_a_task_nothing_changes_by_a_bit(made: Callable[[str], Any], family: str) -> None:
    plain, adapted = made(family), made(family)
    rows = rows_of(plain)
    before = encode(plain, None, rows, [])
    adapters = TaskAdapters(adapted)
    adapters.add("code", rank=4)
    shake(adapters, "code", 0)
    for found in (encode(adapted, adapters, rows, [""] * 6), encode(adapted, None, rows, [])):
        assert all(torch.equal(a, b) for a, b in zip(found, before, strict=True))
    # Padding apart, a row beside adapted ones is the very same row.
    mixed = encode(adapted, adapters, rows, ["", *["code"] * 5])
    assert torch.equal(mixed[0], before[0])


def test_a_new_adapter_changes_nothing_yet(made: Callable[[str], Any]) -> None:
    for dora in (False, True):
        backbone = made("bert")
        rows = rows_of(backbone)
        before = encode(backbone, None, rows, [])
        adapters = TaskAdapters(backbone)
        adapters.add("code", dora=dora)
        close(encode(backbone, adapters, rows, ["code"] * 6), before)


def test_adapters_of_different_layers_share_a_batch(made: Callable[[str], Any]) -> None:
    backbone = made("qwen2")
    adapters = TaskAdapters(backbone)
    adapters.add("queries", targets=r".*\.q_proj")
    adapters.add("mlp", targets=r".*layers\.1\.mlp\.(up|down)_proj")
    for seed, name in enumerate(adapters.names):
        shake(adapters, name, seed)
    tasks = ["mlp", "queries", "", "queries", "mlp", "mlp"]
    rows = rows_of(backbone)
    together = encode(backbone, adapters, rows, tasks)
    alone = [
        encode(backbone, adapters, [row], [task])[0] for row, task in zip(rows, tasks, strict=True)
    ]
    close(together, alone)


def _linear(backbone: Any, inside: str) -> set[str]:
    return {
        name
        for name, module in backbone.named_modules()
        if isinstance(module, torch.nn.Linear) and inside in name
    }


@pytest.mark.parametrize(
    ("family", "inside"),
    [
        ("bert", ".layer."),
        ("qwen2", ".layers."),
        ("composed", "text.encoder.layer."),
        # Qwen2.5-VL's vision tower has layers of the same names (gate, up, down): not those.
        ("qwen2_vl", "language_model.layers."),
        ("qwen2_5_vl", "language_model.layers."),
    ],
)
def test_the_targets_are_every_linear_layer_of_the_blocks_and_no_other(
    backbone: Any, inside: str
) -> None:
    expected = _linear(backbone, inside)
    adapters = TaskAdapters(backbone)
    adapters.add("code")
    assert set(adapters.modules("code")) == expected
    assert len(expected) == 2 * (6 if "layer." in inside else 7)
    assert adapters.by_rows("code")


def test_patches_are_not_taken_for_rows(made: Callable[[str], Any]) -> None:
    backbone = made("qwen2_5_vl")
    adapters = TaskAdapters(backbone)
    adapters.add("all", targets=r".*\.(q_proj|gate_proj)")
    shake(adapters, "all", 0)
    assert any("visual" in name for name in adapters.modules("all"))
    assert not adapters.by_rows("all")
    rows = rows_of(backbone)
    alone = [encode(backbone, adapters, [row], ["all"])[0] for row in rows]
    close(encode(backbone, adapters, rows, ["all"] * 6), alone)
    with pytest.raises(ConfigError, match=r"visual.*in a call of their own"):
        encode(backbone, adapters, rows, ["all", *[""] * 5])


def test_states_that_are_no_rows_are_refused(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    adapters.add("code")
    rows = rows_of(backbone)
    batch = backbone.collate(rows)
    with (
        pytest.raises(ConfigError, match=r"neither 9 packed tokens nor 2 padded rows"),
        adapters.routed(["code", ""], [5, 4]),
    ):
        backbone.forward(batch)
    with pytest.raises(ConfigError, match="2 tasks and 1 rows"), adapters.routed(["", ""], [1]):
        pass


def test_unknown_tasks_are_named_with_the_nearest(made: Callable[[str], Any]) -> None:
    adapters = TaskAdapters(made("bert"))
    with pytest.raises(ConfigError, match=r"unknown task 'code' \(this model has: none\)"):
        adapters.check("code")
    adapters.add("retrieval")
    adapters.add("text-matching")
    adapters.check("")
    expected = r"'retreival', did you mean 'retrieval'\? \(this model has: 'retrieval', 'text-m"
    with pytest.raises(ConfigError, match=expected), adapters.routed(["retreival"], [3]):
        pass
    for call in (adapters.remove, adapters.merge, adapters.modules):
        with pytest.raises(ConfigError, match="unknown task 'x'"):
            call("x")
    with pytest.raises(ConfigError, match="unknown task 'x'"), adapters.trainable("x"):
        pass


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "../a", "keys", "training", "retrieval"])
def test_names_that_cannot_be_are_refused(made: Callable[[str], Any], name: str) -> None:
    adapters = TaskAdapters(made("bert"))
    adapters.add("retrieval")
    with pytest.raises(ConfigError, match=r"name of an adapter|already"):
        adapters.add(name)
    assert adapters.names == ("retrieval",)


def test_targets_that_match_nothing_or_no_linear_layer_are_refused(
    made: Callable[[str], Any],
) -> None:
    backbone = made("bert")
    before = list(backbone.state_dict())
    adapters = TaskAdapters(backbone)
    with pytest.raises(ConfigError, match=r"matches 'nothing'"):
        adapters.add("code", targets="nothing")
    with pytest.raises(ConfigError, match=r"word_embeddings is a Embedding.*linear"):
        adapters.add("code", targets=r".*(word_embeddings|query)")
    with pytest.raises(ConfigError, match="not supported"):
        adapters.add("code", targets=r".*LayerNorm")
    assert adapters.names == ()
    assert list(backbone.state_dict()) == before


def test_removed_adapters_leave_no_trace(made: Callable[[str], Any]) -> None:
    backbone = made("qwen2")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    kinds = [type(module) for module in backbone.modules()]
    adapters = TaskAdapters(backbone)
    adapters.add("code")
    adapters.add("mlp", targets=r".*\.up_proj", dora=True)
    shake(adapters, "mlp", 0)
    rows = rows_of(backbone)
    expected = encode(backbone, adapters, rows, ["mlp"] * 6)
    adapters.remove("code")
    close(encode(backbone, adapters, rows, ["mlp"] * 6), expected)
    adapters.remove("mlp")
    assert adapters.names == ()
    assert backbone.state_dict().keys() == before.keys()
    assert [type(module) for module in backbone.modules()] == kinds
    assert all(torch.equal(backbone.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("family", ["bert", "qwen2_vl"])
def test_threads_with_different_tasks_are_the_serial_run(
    backbone: Any, adapters: TaskAdapters
) -> None:
    rows = rows_of(backbone)
    jobs = []
    for seed in range(32):
        tasks = random.Random(seed).choices(["", *adapters.names], k=6)
        jobs.append(tasks if seed % 2 else [tasks[0]] * 6)
    serial = [encode(backbone, adapters, rows, tasks) for tasks in jobs]
    start = threading.Barrier(8)

    def work(i: int) -> list[list[torch.Tensor]]:
        start.wait()
        return [encode(backbone, adapters, rows, tasks) for tasks in jobs[i::8]]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    for i, results in enumerate(found):
        for result, expected in zip(results, serial[i::8], strict=True):
            for a, b in zip(result, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_adapters_come_and_go_while_threads_encode(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    adapters.add("stays", rank=4)
    shake(adapters, "stays", 0)
    tasks = ["stays", "", "stays", "", "stays", "stays"]
    rows = rows_of(backbone)
    expected = encode(backbone, adapters, rows, tasks)
    alone = encode(backbone, adapters, rows[:1], ["stays"])[0]
    stop = threading.Event()
    all_run = threading.Barrier(5)

    def check_once() -> None:
        found = encode(backbone, adapters, rows, tasks)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        if "comes" in adapters.names:
            try:
                one = encode(backbone, adapters, rows[:1], ["comes"])[0]
            except ConfigError:  # gone again in between
                return
            # Never half there: either the copy of the one that stays, or unknown.
            assert torch.equal(one, alone)

    def work() -> None:
        all_run.wait()
        while not stop.is_set():
            check_once()

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(work) for _ in range(4)]
        all_run.wait()
        try:
            for _ in range(12):
                adapters.clone("stays", "comes")
                adapters.add("other", dora=True)
                adapters.remove("comes")
                adapters.remove("other")
        finally:
            stop.set()
        for job in running:
            job.result()


def test_changes_inside_a_batch_are_refused_instead_of_waiting_forever(
    made: Callable[[str], Any],
) -> None:
    adapters = TaskAdapters(made("bert"))
    adapters.add("code")
    with adapters.routed(["code"], [3]):
        for change in (lambda: adapters.add("new"), lambda: adapters.remove("code")):
            with pytest.raises(ConfigError, match="inside a routed batch"):
                change()
        with pytest.raises(ConfigError, match="already routed"), adapters.routed([""], [1]):
            pass
    adapters.add("new")
    assert adapters.names == ("code", "new")


def test_loading_leaves_other_threads_and_the_random_state_alone(
    made: Callable[[str], Any], tmp_path: Path
) -> None:
    backbones = [made("bert") for _ in range(4)]
    for i, backbone in enumerate(backbones):
        adapters = TaskAdapters(backbone)
        adapters.add("code", rank=2, dora=True)
        shake(adapters, "code", i)
        adapters.save("code", tmp_path / str(i))
        adapters.remove("code")
    stop = threading.Event()

    def load(i: int) -> list[torch.Tensor]:
        adapters = TaskAdapters(backbones[i])
        for _ in range(5):
            adapters.load(tmp_path / str(i), "code")
            state = adapters._adapters.layers("code")
            found = [p for layer in state.values() for p in layer.tensors("code").values()]
            adapters.remove("code")
        return found

    def make() -> set[str]:
        devices = set()
        while not stop.is_set():
            devices.add(torch.nn.Linear(2, 2).weight.device.type)
        return devices

    state = torch.get_rng_state()
    alone = [load(i) for i in range(4)]
    assert torch.equal(torch.get_rng_state(), state)
    with ThreadPoolExecutor(5) as pool:
        making = pool.submit(make)
        together = list(pool.map(load, range(4)))
        stop.set()
        assert making.result() == {"cpu"}
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
