"""A momentum queue: keys of earlier batches as further negatives (MoCo, ESimCSE)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.distributed import gather, shard_of

__all__ = ["MomentumQueue", "momentum_update"]

_NO_HASH = torch.iinfo(torch.int64).min


@torch.no_grad()
def momentum_update(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """Move the key encoder towards the query encoder: ``key = m key + (1 - m) query``.

    Args:
        momentum: 0.999 in MoCo (He et al. 2020), 0.995 in ESimCSE (Wu et al. 2022).

    Raises:
        ConfigError: the two do not have the same parameters.
    """
    sources = dict(query.named_parameters())
    targets = dict(key.named_parameters())
    if sources.keys() != targets.keys():
        raise ConfigError("a momentum encoder must be a copy of the encoder that it follows")
    for name, target in targets.items():
        target.lerp_(_whole(sources[name]).to(target.dtype), 1.0 - momentum)
    for kept, followed in zip(key.buffers(), query.buffers(), strict=True):
        kept.copy_(followed)


def _whole(tensor: Tensor) -> Tensor:
    """A tensor's value, gathered where it is sharded (FSDP2)."""
    gathered = getattr(tensor, "full_tensor", None)
    return tensor if gathered is None else gathered()


class MomentumQueue(nn.Module):
    """The last ``size`` keys, oldest overwritten first; part of the checkpoint by its buffers.

    Keys of all processes are pushed in rank order, so every process holds the same queue.

    Args:
        size: keys held.
        width: dimensions of a key.
    """

    keys: Tensor
    hashes: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"a queue holds at least one key, not {size}")
        self.size = size
        self.register_buffer("keys", torch.zeros(size, width))
        self.register_buffer("hashes", torch.full((size,), _NO_HASH))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def shared(self, name: str = "queue") -> dict[str, Tensor]:
        """What ``Columns.shared`` needs, under this name; empty before the first push."""
        count = int(self.filled)
        if not count:
            return {}
        # Copies: a later push must not change what a graph still holds.
        return {name: self.keys[:count].clone(), f"{name}_hash": self.hashes[:count].clone()}

    @torch.no_grad()
    def push(self, keys: Tensor, hashes: Tensor | None = None) -> None:
        """Take this step's keys, after its loss has been computed.

        Args:
            keys: ``(n, width)`` of this process; normalised here.
            hashes: ``(n,)`` int64 content hashes, for the duplicate mask.
        """
        shard = shard_of(len(keys), keys.device)
        every = F.normalize(gather(keys.detach(), shard), dim=1)[-self.size :]
        known = (
            keys.new_full((len(keys),), _NO_HASH, dtype=torch.int64) if hashes is None else hashes
        )
        names = gather(known, shard)[-self.size :]
        at = (int(self.pointer) + torch.arange(len(every), device=self.keys.device)) % self.size
        self.keys[at] = every.to(self.keys)
        self.hashes[at] = names.to(self.hashes)
        self.pointer.fill_((int(self.pointer) + len(every)) % self.size)
        self.filled.fill_(min(int(self.filled) + len(every), self.size))
