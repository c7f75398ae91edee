"""What the objectives share: reading columns, unit vectors, learned parameters, loss parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.protocols import Columns, Loss, Objective, Outputs

__all__ = [
    "Learnable",
    "dense_of",
    "full_precision",
    "learned_parameters",
    "learned_scale",
    "loss_of",
    "meta",
    "positive_of",
    "shared",
    "unit",
    "wide",
]

_Call = TypeVar("_Call", bound=Callable[..., Loss])


@runtime_checkable
class Learnable(Protocol):
    """An objective with parameters of its own, such as a learned temperature.

    The trainer calls :func:`learned_parameters` once, gives the result to the optimiser (without
    weight decay), passes it in ``Columns.shared`` and averages its gradients over processes
    (``mmembed.gpte.distributed.average_gradients``).
    """

    def parameters(self, width: int) -> dict[str, Tensor]:
        """Start values by name for vectors of ``width`` dimensions."""
        ...


def learned_parameters(objective: Objective, width: int) -> nn.ParameterDict:
    """The parameters that ``objective`` learns, at their start values; often empty."""
    found = objective.parameters(width) if isinstance(objective, Learnable) else {}
    return nn.ParameterDict({name: nn.Parameter(value) for name, value in found.items()})


def learned_scale(temperature: float, learn: bool) -> dict[str, Tensor]:
    """The start value of the logarithm of ``1 / temperature``, if it is learned."""
    return {"log_scale": torch.tensor(1.0 / temperature).log()} if learn else {}


def wide(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 if it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(x: Tensor) -> Tensor:
    """L2-normalised rows, at least float32; a zero row stays zero."""
    return F.normalize(wide(x), dim=-1)


def full_precision(call: _Call) -> _Call:
    """Let an objective compute outside autocast, where a product of scores would be rounded.

    At a temperature of 0.01 logits reach 100, and bfloat16 steps by 0.5 there.
    """

    @functools.wraps(call)
    def run(self: Objective, columns: Columns, *arguments: Any) -> Loss:
        query = columns.query
        heads = (query.dense, query.multi, query.sparse)
        device = next((h.device.type for h in heads if h is not None), "cpu")
        with torch.autocast(device, enabled=False):
            found: Loss = call(self, columns, *arguments)
        return found

    return cast(_Call, run)


def dense_of(outputs: Outputs) -> Tensor:
    """The dense vectors of these outputs, at least float32.

    Raises:
        ConfigError: the encoder was not asked for dense vectors.
    """
    if outputs.dense is None:
        raise ConfigError("this objective needs dense vectors, and the encoder gives none")
    return wide(outputs.dense)


def positive_of(columns: Columns) -> Outputs:
    """The positive column.

    Raises:
        ConfigError: the batch has none.
    """
    if columns.positive is None:
        raise ConfigError("this objective needs a positive for every query, and the data has none")
    return columns.positive


def meta(columns: Columns, name: str, why: str) -> Tensor:
    """The per-row tensor ``name``.

    Raises:
        ConfigError: the batch does not carry it.
    """
    if name not in columns.meta:
        raise ConfigError(f"{why} needs {name!r} with every row, and the data carries none")
    return columns.meta[name]


def shared(columns: Columns, name: str, why: str) -> Tensor:
    """The tensor ``name`` that all processes share.

    Raises:
        ConfigError: the trainer does not pass it.
    """
    if name not in columns.shared:
        raise ConfigError(f"{why} needs {name!r} in Columns.shared")
    return columns.shared[name]


def loss_of(name: str, total: Tensor, parts: Mapping[str, Tensor] | None = None) -> Loss:
    """A loss whose parts are detached; by default its only part is itself under ``name``."""
    found = parts if parts is not None else {name: total}
    return Loss(total, {key: value.detach() for key, value in found.items()})
