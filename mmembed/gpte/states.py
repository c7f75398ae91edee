"""Packed token states: what every backbone returns and every pooling and head reads.

Rows lie one after another without padding, so there is no padding side to get wrong, no mask to
apply, and no arithmetic spent on pad tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["TokenStates", "offsets_of", "padded", "row_ids"]


@dataclass(frozen=True, slots=True)
class TokenStates:
    """Hidden states of ``n`` rows packed along the token axis.

    Attributes:
        hidden: ``(total_tokens, d)`` floating; row ``i`` is ``hidden[offsets[i]:offsets[i + 1]]``.
        offsets: ``(n + 1,)`` int64, non-decreasing, starting at 0; same device as ``hidden``.
        spans: named boolean masks ``(total_tokens,)``, e.g. ``"instruction"`` or ``"visual"``.
        token_ids: ``(total_tokens,)`` int64 where the rows have ids (lexical heads need them).
    """

    hidden: Tensor
    offsets: Tensor
    spans: Mapping[str, Tensor] = field(default_factory=dict)
    token_ids: Tensor | None = None

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    @property
    def lengths(self) -> Tensor:
        """``(n,)`` int64 tokens per row."""
        return self.offsets.diff()

    @classmethod
    def from_padded(
        cls, hidden: Tensor, mask: Tensor, spans: Mapping[str, Tensor] | None = None
    ) -> TokenStates:
        """Pack a padded batch: ``hidden (n, L, d)``, ``mask (n, L)`` of 0/1, any padding side."""
        keep = mask.bool()
        return cls(
            hidden=hidden[keep],
            offsets=offsets_of(keep.sum(dim=1)),
            spans={name: span[keep] for name, span in (spans or {}).items()},
        )

    def rows(self) -> list[Tensor]:
        """The rows as ``n`` views of shape ``(t_i, d)``."""
        return list(self.hidden.split(self.lengths.tolist()))


def padded(
    packed: Tensor, lengths: Tensor | Sequence[int], value: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Packed rows padded on the right: ``(n, longest, ...)``, and the bool mask of the real ones.

    Args:
        packed: ``(sum(lengths), ...)``.
        lengths: ``(n,)``.
        value: what fills the rest.
    """
    sizes = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    rows = pad_sequence(list(packed.split(sizes)), batch_first=True, padding_value=value)
    held = torch.as_tensor(lengths, device=packed.device)
    return rows, torch.arange(rows.shape[1], device=packed.device) < held.unsqueeze(1)


def offsets_of(lengths: Tensor | Sequence[int]) -> Tensor:
    """``(n + 1,)`` int64 offsets of rows with these lengths."""
    lengths = torch.as_tensor(lengths, dtype=torch.int64)
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def row_ids(offsets: Tensor) -> Tensor:
    """``(total_tokens,)`` int64: the row that each packed token belongs to."""
    rows = torch.arange(offsets.numel() - 1, device=offsets.device)
    return torch.repeat_interleave(rows, offsets.diff())
