"""Between hidden states and pooling: latent attention, and several layers at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError

__all__ = ["LatentAttention", "LayerMean", "LayerWeights"]


class LatentAttention(nn.Module):
    """Tokens attend to learned latents, then pass a gated feed-forward (NV-Embed, Lee et al. 2024).

    Tokens never see each other here, so packed rows need no mask. Pool the result, by mean in the
    paper.

    Args:
        width: size of the hidden states and of the latents.
        latents: number of latents.
        heads: attention heads.
        head_dim: size of a head; ``width // heads`` by default, ``width`` in the released model.
    """

    def __init__(
        self, width: int, latents: int = 512, heads: int = 8, head_dim: int | None = None
    ) -> None:
        super().__init__()
        inner = heads * (head_dim or width // heads)
        if inner < heads:
            raise ConfigError(f"{heads} heads do not fit a width of {width}")
        self.heads = heads
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.token_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.feed_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 8 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(tokens, width)`` to ``(tokens, width)``."""
        hidden = hidden.to(self.latents.dtype)
        query = self._split(self.query(self.token_norm(hidden)))
        key, value = self.key_value(self.latent_norm(self.latents)).chunk(2, dim=-1)
        seen = F.scaled_dot_product_attention(query, self._split(key), self._split(value))
        hidden = hidden + self.out(seen.transpose(0, 1).flatten(1))
        up, gate = self.up(self.feed_norm(hidden)).chunk(2, dim=-1)
        out: Tensor = hidden + self.down(up * F.gelu(gate))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """``(tokens, inner)`` to ``(heads, tokens, head_dim)``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)


class LayerMean(nn.Module):
    """The mean of chosen layers' hidden states, e.g. first and last, or the last two (BERT-flow).

    Args:
        layers: indices into the model's hidden states, where 0 is the embedding layer's output and
            -1 the last layer's.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        if not layers:
            raise ConfigError("name at least one layer to pool")
        self.layers = tuple(layers)

    def forward(self, hidden: Sequence[Tensor]) -> Tensor:
        """One ``(tokens, d)`` tensor a layer to ``(tokens, d)``, summed in float32 or wider."""
        wide = torch.promote_types(hidden[0].dtype, torch.float32)
        return _pick(hidden, self.layers).to(wide).mean(dim=0).to(hidden[0].dtype)


class LayerWeights(nn.Module):
    """A learned convex mixture of chosen layers (ELMo's scalar mix, Peters et al. 2018).

    Args:
        layers: as in :class:`LayerMean`.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        if not layers:
            raise ConfigError("name at least one layer to pool")
        self.layers = tuple(layers)
        self.logits = nn.Parameter(torch.zeros(len(self.layers)))

    def forward(self, hidden: Sequence[Tensor]) -> Tensor:
        """One ``(tokens, d)`` tensor a layer to ``(tokens, d)``, summed in float32 or wider."""
        wide = torch.promote_types(hidden[0].dtype, torch.float32)
        weights = self.logits.softmax(dim=0).to(wide)
        mixed = torch.einsum("l,ltd->td", weights, _pick(hidden, self.layers).to(wide))
        return mixed.to(hidden[0].dtype)


def _pick(hidden: Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    """``(layers, tokens, d)``."""
    outside = [i for i in layers if not -len(hidden) <= i < len(hidden)]
    if outside:
        raise ConfigError(
            f"layers {outside} do not exist: the model has {len(hidden)} hidden states"
        )
    return torch.stack([hidden[i] for i in layers])
