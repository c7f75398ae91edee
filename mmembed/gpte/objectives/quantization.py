"""Training for vectors that will be stored in int8 or in bits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.base import Learnable, loss_of, shared, unit, wide
from mmembed.gpte.protocols import Columns, Loss, Objective, Outputs

__all__ = ["Quantized", "binarize", "fake_int8"]

_TOP = 127  # symmetric: -127..127


class _RoundThrough(torch.autograd.Function):
    """LSQ: rounding passes the gradient; the step gets its own (Esser et al. 2020)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:
        ctx.save_for_backward(x, step)
        return (x / step).clamp(-_TOP, _TOP).round() * step

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, step = ctx.saved_tensors
        scaled = x / step
        inside = scaled.abs() <= _TOP
        of_step = torch.where(inside, scaled.round() - scaled, scaled.clamp(-_TOP, _TOP))
        return grads[0] * inside, (grads[0] * of_step).sum().reshape(step.shape)


def fake_int8(vectors: Tensor, step: Tensor) -> Tensor:
    """Vectors rounded to 255 levels ``step`` apart, differentiable by LSQ's rule.

    Args:
        vectors: ``(n, d)``.
        step: 0-d, positive.
    """
    out: Tensor = _RoundThrough.apply(vectors, step)
    return out


def binarize(vectors: Tensor) -> Tensor:
    """Signs as +1 and -1, with the gradient of the identity where ``|x| <= 1``.

    Hubara et al. 2016; unit vectors lie inside, so all of their gradient passes.
    """
    clipped = vectors.clamp(-1.0, 1.0)
    signs = torch.where(vectors >= 0, 1.0, -1.0).to(vectors)
    return clipped + (signs - clipped).detach()


@dataclass(frozen=True)
class Quantized:
    """``full_weight * L(vectors) + weight * L(quantised unit vectors)``.

    Qwen3-VL-Embedding trains every loss so. Guides and queues are left alone.

    Attributes:
        kind: ``int8`` with one learned step for all vectors, or ``binary``.
    """

    objective: Objective
    kind: Literal["int8", "binary"] = "int8"
    weight: float = 1.0
    full_weight: float = 1.0

    name: ClassVar[str] = "quantized"

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.full_weight < 0:
            raise ConfigError("weights of a quantised objective are positive")

    def parameters(self, width: int) -> dict[str, Tensor]:
        """Those of the objective, and the logarithm of the step for int8."""
        inner = self.objective
        found = inner.parameters(width) if isinstance(inner, Learnable) else {}
        if self.kind == "int8":
            # Twice the mean size of an entry of a unit vector, over the root of the top level.
            mean = math.sqrt(2 / (math.pi * width))
            found = found | {"quant_log_step": torch.tensor(2 * mean / math.sqrt(_TOP)).log()}
        return found

    def __call__(self, columns: Columns) -> Loss:
        """Both losses' weighted sum; quantised parts are named ``part@int8`` or ``part@binary``."""
        step = None
        if self.kind == "int8":
            step = wide(shared(columns, "quant_log_step", "an int8 objective")).exp()

        def rounded(outputs: Outputs | None) -> Outputs | None:
            if outputs is None or outputs.dense is None:
                return outputs
            vectors = unit(outputs.dense)
            # LSQ's scale of the step's gradient is left to the optimiser: Adam ignores it.
            made = binarize(vectors) if step is None else fake_int8(vectors, step.to(vectors))
            return replace(outputs, dense=made)

        query = rounded(columns.query)
        assert query is not None
        low = replace(
            columns,
            query=query,
            positive=rounded(columns.positive),
            negative=rounded(columns.negative),
        )
        loss = self.objective(low)
        total = self.weight * loss.total
        parts = {f"{name}@{self.kind}": part for name, part in loss.parts.items()}
        if self.full_weight:
            full = self.objective(columns)
            total = total + self.full_weight * full.total
            parts = {**full.parts, **parts}
        return loss_of(self.name, total, parts)
