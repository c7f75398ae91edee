"""The model inside what wraps it: prepared for its processes, read through it, and seen whole.

Plain data parallelism needs no wrapper: gradients are averaged once a step, where wrappers that
count forwards (DDP) stumble over token tasks and the gradient cache. Sharding (FSDP2) goes through
accelerate, and so does DeepSpeed, which :mod:`mmembed.gpte.zero` drives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import average_gradients, fill_gradients
from mmembed.gpte.protocols import Outputs, TrainableEncoder
from mmembed.gpte.states import TokenStates
from mmembed.gpte.zero import (
    gradients_in_parts,
    partitioned,
    prepare_zero,
    zero_backward,
    zero_step,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = [
    "Wrapped",
    "backward",
    "descend",
    "prepare",
    "replicated",
    "sharded",
    "waits_in_backward",
    "whole_weights",
]


def replicated(accelerator: Accelerator) -> bool:
    """Whether every process holds the whole model and nothing averages its gradients."""
    return bool(accelerator.distributed_type.value.startswith("MULTI_"))


def sharded(accelerator: Accelerator) -> bool:
    """Whether a process may hold no more than a part of the model."""
    return bool(accelerator.distributed_type.value == "FSDP")


def waits_in_backward(accelerator: Accelerator) -> bool:
    """Whether all processes have to make the same number of backward passes."""
    return sharded(accelerator) or gradients_in_parts(accelerator)


def prepare(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    apart: nn.Module,
    clip: float = 0.0,
) -> tuple[nn.Module, Any]:
    """The model and its optimiser, ready for the accelerator's processes.

    Args:
        apart: a part of ``model`` that stays whole on every process, because it is read outside
            the model's forward: what the objectives learn.
        clip: the largest gradient norm, for wrappers that clip inside their step; 0 leaves it.

    Raises:
        ConfigError: a kind of sharding that the trainer does not run.
    """
    if replicated(accelerator):
        prepared = accelerator.prepare_model(model, evaluation_mode=True)
        return prepared, accelerator.prepare_optimizer(optimizer)
    if partitioned(accelerator):
        return prepare_zero(accelerator, model, optimizer, clip)
    if sharded(accelerator):
        if not accelerator.is_fsdp2:
            raise ConfigError(
                "training under the first FSDP is not supported: use FSDP version 2 "
                "(configs/accelerate/fsdp2.yaml), or plain data parallelism"
            )
        _open_outputs()
        plugin = accelerator.state.fsdp_plugin
        # Every process has read the weights already, and a part stays whole.
        plugin.cpu_ram_efficient_loading = False
        plugin.ignored_modules = [apart]
        if plugin.mixed_precision_policy is not None:  # gradients are added up in float32
            policy = plugin.mixed_precision_policy
            plugin.mixed_precision_policy = replace(policy, reduce_dtype=torch.float32)
    model, prepared_optimizer = accelerator.prepare(model, optimizer)
    return model, prepared_optimizer


def backward(accelerator: Accelerator, model: nn.Module, loss: torch.Tensor) -> None:
    """Add a loss's gradient to what the next step descends; a collective call under wrappers."""
    if partitioned(accelerator):
        zero_backward(model, loss)
    else:
        accelerator.backward(loss)


def descend(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    own: Iterable[torch.Tensor],
    clip: float,
) -> float:
    """Average gradients over processes, clip, step, and forget them; a collective call.

    Args:
        model, optimizer: as prepared.
        own: parameters that stay whole on every process; see :func:`prepare`.
        clip: the largest gradient norm; 0 leaves it.

    Returns:
        The gradient's norm before clipping.
    """
    if partitioned(accelerator):
        return zero_step(model)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    fill_gradients(parameters)
    average_gradients(own if sharded(accelerator) else parameters)
    if sharded(accelerator):  # accelerate compares this list with the model's own
        parameters = list(model.parameters())
    norm = accelerator.clip_grad_norm_(parameters, clip or math.inf)
    optimizer.step()
    optimizer.zero_grad()
    return float(norm) if norm is not None else math.nan


def _open_outputs() -> None:
    """Let wrappers find the tensors in an encoder's outputs, where they hook the backward pass."""
    from torch.utils import _pytree

    for kind in (Outputs, TokenStates):
        if kind not in _pytree.SUPPORTED_NODES:
            _pytree.register_dataclass(kind)


class Wrapped:
    """An encoder whose forward goes through its wrapper, which gathers what it has sharded.

    Everything but the call is the encoder's own.
    """

    def __init__(self, encoder: TrainableEncoder, model: nn.Module) -> None:
        self._encoder, self._model = encoder, model

    def __call__(self, batch: Any) -> Outputs:
        made: Outputs = self._model(batch)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)


@contextmanager
def whole_weights(
    accelerator: Accelerator, model: nn.Module, encoder: nn.Module, prefix: str
) -> Iterator[None]:
    """The encoder with whole tensors on the main process, as long as the block lasts; collective.

    Args:
        model: the prepared model, of which ``encoder`` is a part.
        prefix: the encoder's name in it.
    """
    if not sharded(accelerator):
        yield
        return
    state = accelerator.get_state_dict(model)  # on the CPU of the main process alone
    swapped: list[tuple[nn.Module, str, Any]] = []
    made: dict[int, nn.Parameter] = {}  # tied weights stay tied
    if accelerator.is_main_process:
        for name, module in encoder.named_modules():
            for key, part in list(module._parameters.items()):
                if part is None:
                    continue
                swapped.append((module, key, part))
                if id(part) not in made:
                    whole = state[".".join(filter(None, (prefix, name, key)))]
                    made[id(part)] = nn.Parameter(whole, requires_grad=False)
                module._parameters[key] = made[id(part)]
    try:
        yield
    finally:
        for module, key, part in swapped:
            module._parameters[key] = part
