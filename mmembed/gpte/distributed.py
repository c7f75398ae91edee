"""Collectives that keep gradients right whatever the number of processes.

One rule for every objective: a process computes the part of the whole batch's loss that belongs
to its own rows, multiplied by the world size, and the *mean* of the processes' gradients, which is
what data-parallel training takes, equals the gradient of one process that holds the whole batch.
Both differentiable collectives below therefore sum in the backward pass.

Processes may hold different numbers of rows; collectives pad and unpad by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mmembed.errors import ConfigError

__all__ = [
    "Shard",
    "average_gradients",
    "exchanged",
    "fill_gradients",
    "gather",
    "gather_padded",
    "global_count",
    "global_sum",
    "shard_of",
    "world_size",
]

_BUCKET = 2**24  # elements of one message


def world_size() -> int:
    """Number of processes that train together; 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


@dataclass(frozen=True, slots=True)
class Shard:
    """Where this process's rows lie among the rows of all processes.

    Attributes:
        counts: rows per process, in rank order.
        rank: this process.
    """

    counts: tuple[int, ...]
    rank: int = 0

    @property
    def start(self) -> int:
        """Global index of this process's first row."""
        return sum(self.counts[: self.rank])

    @property
    def rows(self) -> int:
        """Rows on this process."""
        return self.counts[self.rank]

    @property
    def total(self) -> int:
        """Rows on all processes."""
        return sum(self.counts)

    @property
    def world(self) -> int:
        """Number of processes."""
        return len(self.counts)

    def times(self, k: int) -> Shard:
        """The shard of a column that holds ``k`` consecutive rows for each of these rows."""
        return Shard(tuple(k * count for count in self.counts), self.rank)

    def mean(self, losses: Tensor) -> Tensor:
        """This process's share of the mean over all processes' rows.

        Args:
            losses: one loss per local row; an empty tensor gives zero.

        Returns:
            0-d ``world * sum(losses) / total``: its mean over processes is the mean over all rows.
        """
        return losses.sum() * self.factor

    @property
    def factor(self) -> float:
        """``world / total``: turns a local sum into this process's share of the global mean."""
        return self.world / max(self.total, 1)


def shard_of(rows: int, device: torch.device | str, *, same: int = 0) -> Shard:
    """Exchange row counts (one small collective).

    Args:
        rows: rows on this process; may be zero and may differ between processes.
        same: a number on which all processes must agree, such as negatives per query.

    Raises:
        ConfigError: the processes disagree on ``same``; raised on every process alike.
    """
    counts, sames = zip(*exchanged((rows, same), device), strict=True)
    if len(set(sames)) > 1:
        raise ConfigError(
            f"processes hold different numbers of negatives per query: {list(sames)}; give every "
            "query of a step the same number"
        )
    return Shard(counts, _rank())


def exchanged(numbers: Sequence[int], device: torch.device | str) -> list[list[int]]:
    """Every process's numbers, in rank order; all give equally many (one small collective)."""
    if world_size() == 1:
        return [list(numbers)]
    mine = torch.tensor(list(numbers), device=device)
    every = mine.new_empty(world_size() * len(mine))
    _all_gather(every, mine)
    found: list[list[int]] = every.view(-1, len(mine)).tolist()
    return found


def _all_gather(out: Tensor, mine: Tensor) -> None:
    # torch 2.13 renamed both; the old names warn there.
    call = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    call(out, mine)


def _reduce_scatter(out: Tensor, every: Tensor) -> None:
    call = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    call(out, every)


def _exchange(x: Tensor, shard: Shard) -> Tensor:
    """All processes' rows of ``x``, in rank order."""
    longest = max(shard.counts)
    flat = x.to(torch.uint8) if x.dtype == torch.bool else x
    padded = flat.new_zeros(longest, *flat.shape[1:])
    padded[: len(flat)] = flat
    every = flat.new_empty(shard.world * longest, *flat.shape[1:])
    _all_gather(every, padded)
    if min(shard.counts) != longest:
        blocks = every.view(shard.world, longest, *flat.shape[1:])
        every = torch.cat([b[:n] for b, n in zip(blocks, shard.counts, strict=True)])
    return every.to(x.dtype)


class _Gather(torch.autograd.Function):
    """Rows travel in the encoder's own type; their gradients are summed in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shard: Shard) -> Tensor:
        ctx.shard, ctx.dtype = shard, x.dtype
        return _exchange(x, shard).to(torch.promote_types(x.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        shard: Shard = ctx.shard
        grad = grads[0].contiguous().clone()
        if dist.get_backend() == "nccl" and min(shard.counts) == max(shard.counts):
            mine = grad.new_empty(shard.rows, *grad.shape[1:])
            _reduce_scatter(mine, grad)
        else:
            dist.all_reduce(grad)
            mine = grad[shard.start : shard.start + shard.rows]
        return mine.to(ctx.dtype), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad


def gather(x: Tensor, shard: Shard) -> Tensor:
    """The rows of all processes, differentiable.

    Args:
        x: ``(shard.rows, ...)`` of any type.

    Returns:
        ``(shard.total, ...)`` in rank order; floating tensors come back in float32 or wider.
    """
    if shard.world == 1:
        return x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x
    if x.is_floating_point():
        out: Tensor = _Gather.apply(x, shard)
        return out
    return _exchange(x, shard)


def gather_padded(x: Tensor, shard: Shard) -> Tensor:
    """As :func:`gather` for ``(rows, t, ...)`` whose ``t`` differs between processes.

    Shorter processes are padded with zeros (False) at the end of the token axis.
    """
    if shard.world > 1:
        longest = torch.tensor(x.shape[1], device=x.device)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        short = int(longest) - x.shape[1]
        if short:
            x = torch.cat([x, x.new_zeros(x.shape[0], short, *x.shape[2:])], dim=1)
    return gather(x, shard)


def global_sum(x: Tensor) -> Tensor:
    """The elementwise sum over processes, differentiable."""
    if world_size() == 1:
        return x
    out: Tensor = _Sum.apply(x)
    return out


def global_count(local: int | float | Tensor, device: torch.device | str = "cpu") -> float:
    """The sum of a plain number over processes."""
    if world_size() == 1:
        return float(local)
    count = torch.as_tensor(local, dtype=torch.float64, device=device).detach().clone()
    dist.all_reduce(count)
    return float(count)


def fill_gradients(parameters: Iterable[Tensor]) -> None:
    """Let a parameter without a gradient have zeros.

    So every process joins in when they are averaged; in one process too, whose optimiser would
    otherwise pass over what a batch happens not to touch, and two processes would not.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average the gradients of parameters that no data-parallel wrapper owns; a collective call.

    Once per optimiser step, in buckets, after :func:`fill_gradients`.
    """
    world = world_size()
    if world == 1:
        return
    buckets: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        assert parameter.grad is not None
        bucket = buckets.setdefault(parameter.grad.dtype, [])
        bucket.append(parameter.grad)
        if sum(grad.numel() for grad in bucket) >= _BUCKET:
            _average(bucket, world)
            bucket.clear()
    for bucket in buckets.values():
        if bucket:
            _average(bucket, world)


def _average(grads: list[Tensor], world: int) -> None:
    """One message for many gradients."""
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat.div_(world)
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))
