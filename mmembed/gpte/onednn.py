"""Float32 matrix products through oneDNN where PyTorch would take a slower path.

PyTorch sends float32 products on x86 to MKL, which runs its AVX2 kernels on CPUs of other makers
even where they have AVX-512. oneDNN, which the same build of PyTorch carries, looks at the features
instead of the maker: on a Zen 5 core it is 2.3 times as fast (``benchmarks/onednn.py``). The choice
depends on the machine alone, so that a resumed run repeats its numbers.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["OneDnnLinear", "linear", "matmul_nt", "onednn_helps", "use_onednn"]

_Module = TypeVar("_Module", bound=nn.Module)


@cache
def onednn_helps() -> bool:
    """Whether this machine is one where oneDNN beats MKL: x86 Linux, AVX-512, not by Intel."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and "AVX512" in torch.backends.cpu.get_cpu_capability()
        and "GenuineIntel" not in cpuinfo.read_text(errors="replace")
    )


def _applies(*tensors: Tensor | None) -> bool:
    present = [t for t in tensors if t is not None]
    return onednn_helps() and all(
        t.device.type == "cpu" and t.dtype == torch.float32 and t.numel() for t in present
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, weight = _gapless(x), _gapless(weight)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _gapless(x: Tensor) -> Tensor:
    """A copy of what has gaps between its rows, such as a slice of columns.

    For those oneDNN runs a reference loop, a thousand times as slow as its kernels.
    """
    if x.is_contiguous() or x.mT.is_contiguous():
        return x
    transposed = x.stride(-2) < x.stride(-1)
    return x.mT.contiguous().mT if transposed else x.contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias = inputs
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        flat = grads[0].reshape(-1, weight.shape[0])
        need_x, need_weight, need_bias = ctx.needs_input_grad
        grad_x = _product(flat, weight.t()).view(x.shape) if need_x else None
        grad_weight = None
        if need_weight:
            grad_weight = _product(flat.t(), x.reshape(-1, x.shape[-1]).t())
        grad_bias = flat.sum(0) if ctx.has_bias and need_bias else None
        return grad_x, grad_weight, grad_bias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, as ``torch.nn.functional.linear``, differentiable once."""
    if not _applies(x, weight, bias) or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        out: Tensor = _Linear.apply(x, weight, bias)
        return out
    flat = x.reshape(-1, x.shape[-1])
    missing = _few_sizes(len(flat)) - len(flat)
    padded = F.pad(flat, (0, 0, 0, missing)) if missing else flat
    return _product(padded, weight, bias)[: len(flat)].view(*x.shape[:-1], -1)


def _few_sizes(rows: int) -> int:
    """The next of eight sizes an octave.

    oneDNN compiles a kernel for every number of rows and keeps thousands, of half a megabyte each:
    a server whose batches are all of different lengths would grow by that for a long time.
    """
    if rows <= 16:
        return rows
    step = 1 << (rows.bit_length() - 4)
    return -(-rows // step) * step


def matmul_nt(a: Tensor, b: Tensor) -> Tensor:
    """``(m, d)`` times ``(n, d)`` transposed: the ``(m, n)`` matrix of dot products."""
    return linear(a, b)


class OneDnnLinear(nn.Linear):
    """``nn.Linear`` with the same parameters and state, computed by :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def use_onednn(module: _Module) -> _Module:
    """Let every plain ``nn.Linear`` inside compute through :func:`linear`; state is untouched."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = OneDnnLinear
    return module
