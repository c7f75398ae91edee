"""Only the chosen adapters learn, and each from its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from adapter_cases import encode, rows_of, shake
from torch import Tensor

from mmembed.adapters import TaskAdapters, checkpoint_contexts
from mmembed.errors import ConfigError

TASKS = ["code", "", "retrieval", "code", "retrieval", "code"]


@pytest.fixture
def adapters(backbone: Any) -> TaskAdapters:
    found = TaskAdapters(backbone)
    found.add("code", rank=4)
    found.add("retrieval", rank=2, dora=True)
    found.add("idle", rank=2)
    for seed, name in enumerate(found.names):
        shake(found, name, seed)
    return found


def loss_of(states: Sequence[Tensor]) -> Tensor:
    """A sum over rows, so that gradients of batches add up."""
    return torch.stack([row.float().mean(dim=0).sin().sum() for row in states]).sum()


def gradients(backbone: Any) -> dict[str, Tensor]:
    found = {
        name: parameter.grad.clone()
        for name, parameter in backbone.named_parameters()
        if parameter.grad is not None
    }
    backbone.zero_grad()
    return found


def test_a_mixed_batch_gives_the_values_and_gradients_of_its_tasks_alone(
    backbone: Any, adapters: TaskAdapters
) -> None:
    rows = rows_of(backbone)
    with adapters.trainable("code", "retrieval"):
        mixed = loss_of(encode(backbone, adapters, rows, TASKS, grad=True))
        mixed.backward()
        together = gradients(backbone)
        value = torch.zeros(())
        for name in set(TASKS):
            mine = [row for row, task in zip(rows, TASKS, strict=True) if task == name]
            alone = loss_of(encode(backbone, adapters, mine, [name] * len(mine), grad=True))
            value = value + alone.detach()
            if name:  # without an adapter nothing can learn
                alone.backward()
            else:
                assert not alone.requires_grad
        apart = gradients(backbone)
    torch.testing.assert_close(mixed.detach(), value)
    assert together.keys() == apart.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, apart[name], rtol=1e-4, atol=2e-5, msg=name)
    learned = {
        name.rsplit(".", 2)[1] if "magnitude" not in name else "retrieval" for name in together
    }
    assert learned == {"code", "retrieval"}
    assert len(together) == 2 * len(adapters.modules("code")) + 3 * len(adapters.modules("code"))


def test_one_adapter_learns_and_the_rest_stays(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    adapters.add("code", rank=4)
    adapters.add("retrieval", rank=4)
    shake(adapters, "retrieval", 0)
    flags = {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
    before = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    rows = rows_of(backbone)
    target = encode(backbone, adapters, rows, ["retrieval"] * 6)
    losses = []
    with adapters.trainable("code") as parameters:
        assert sum(p.requires_grad for p in backbone.parameters()) == len(parameters) == 24
        optimizer = torch.optim.AdamW(parameters, lr=0.02)
        for _ in range(30):
            states = encode(backbone, adapters, rows, ["code"] * 6, grad=True)
            pairs = zip(states, target, strict=True)
            loss = torch.stack([(one - other).square().mean() for one, other in pairs]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    changed = {n for n, p in backbone.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {name for name in before if ".code." in name}
    assert {name: p.requires_grad for name, p in backbone.named_parameters()} == flags


def test_adding_or_loading_does_not_freeze_or_free_anything(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    adapters.add("code")
    with adapters.trainable("code"):
        before = {name: p.requires_grad for name, p in backbone.named_parameters()}
        adapters.clone("code", "other")
        adapters.add("third", dora=True)
        after = {name: p.requires_grad for name, p in backbone.named_parameters()}
        assert {name: after[name] for name in before} == before
        assert not any(after[name] for name in after.keys() - before.keys())
        with pytest.raises(ConfigError, match="unknown task 'x'"), adapters.trainable("x"):
            pass


def test_dropout_is_on_in_training_only(made: Callable[[str], Any]) -> None:
    backbone = made("qwen2")
    adapters = TaskAdapters(backbone)
    adapters.add("code", dropout=0.5)
    shake(adapters, "code", 0)
    rows = rows_of(backbone)
    tasks = ["code"] * 6
    first = encode(backbone, adapters, rows, tasks)
    assert torch.equal(first[0], encode(backbone, adapters, rows, tasks)[0])
    backbone.train()
    adapters.clone("code", "late")
    for name in adapters.names:
        one, other = (encode(backbone, adapters, rows, [name] * 6)[0] for _ in range(2))
        assert not torch.equal(one, other)
    backbone.eval()
    assert torch.equal(first[0], encode(backbone, adapters, rows, ["late"] * 6)[0])


def test_a_clone_goes_its_own_way(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    adapters.add("shared", rank=4, dora=True)
    shake(adapters, "shared", 0)
    rows = rows_of(backbone)
    expected = encode(backbone, adapters, rows, ["shared"] * 6)
    adapters.clone("shared", "code")
    assert torch.equal(encode(backbone, adapters, rows, ["code"] * 6)[0], expected[0])
    shake(adapters, "code", 1)
    assert torch.equal(encode(backbone, adapters, rows, ["shared"] * 6)[0], expected[0])
    assert not torch.allclose(encode(backbone, adapters, rows, ["code"] * 6)[0], expected[0])


@pytest.mark.parametrize("context_fn", [checkpoint_contexts, None])
def test_checkpointed_layers_find_their_route_again(
    made: Callable[[str], Any], context_fn: Any
) -> None:
    from torch.utils.checkpoint import CheckpointError

    backbone = made("qwen2")
    adapters = TaskAdapters(backbone)
    adapters.add("code", rank=4)
    adapters.add("retrieval", rank=2, dora=True)
    for seed, name in enumerate(adapters.names):
        shake(adapters, name, seed)
    rows = rows_of(backbone)
    backbone.train()
    model = backbone.encoder.full
    with adapters.trainable("code", "retrieval"):
        loss_of(encode(backbone, adapters, rows, TASKS, grad=True)).backward()
        expected = gradients(backbone)
        options = {"use_reentrant": False}
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={**options, "context_fn": context_fn}
            if context_fn
            else options
        )
        loss = loss_of(encode(backbone, adapters, rows, TASKS, grad=True))
        if context_fn is None:  # the batch's route is gone when backward runs the layers again
            with pytest.raises(CheckpointError):
                loss.backward()
            return
        loss.backward()
        found = gradients(backbone)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_kept_lengths_follow_every_change(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    adapters.add("dora", rank=4, dora=True)
    adapters.add("other", rank=4)
    shake(adapters, "other", 7)
    rows = rows_of(backbone)

    def forgetting() -> list[Tensor]:
        for layer in adapters.modules("dora"):
            backbone.get_submodule(layer)._shares.clear()
        return encode(backbone, adapters, rows, ["dora"] * 6)

    def changes() -> Iterator[None]:
        yield
        shake(adapters, "dora", 1)
        yield
        with adapters.trainable("dora") as parameters:
            optimizer = torch.optim.SGD(parameters, lr=0.1)
            loss_of(encode(backbone, adapters, rows, ["dora"] * 6, grad=True)).backward()
            optimizer.step()
        yield
        adapters.merge("other")
        yield
        adapters.remove("dora")
        adapters.add("dora", rank=4, dora=True)
        shake(adapters, "dora", 2)
        yield

    earlier = None
    for _ in changes():
        found = encode(backbone, adapters, rows, ["dora"] * 6)
        assert all(torch.equal(a, b) for a, b in zip(found, forgetting(), strict=True))
        assert earlier is None or not torch.allclose(found[0], earlier)
        earlier = found[0]


def test_adapters_made_in_inference_mode_can_learn(made: Callable[[str], Any]) -> None:
    backbone = made("bert")
    adapters = TaskAdapters(backbone)
    with torch.inference_mode():
        adapters.add("code", dora=True)
        adapters.clone("code", "copy")
    rows = rows_of(backbone)
    for name in adapters.names:
        encode(backbone, adapters, rows, [name] * 6)
        with adapters.trainable(name) as parameters:
            loss_of(encode(backbone, adapters, rows, [name] * 6, grad=True)).backward()
            assert any(bool(p.grad.any()) for p in parameters if p.grad is not None)
