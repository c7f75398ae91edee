"""Heads: what is made of pooled vectors and of token states, and how vectors are shortened."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmembed.errors import ConfigError
from mmembed.gpte.states import TokenStates, padded, row_ids

__all__ = ["LexicalHead", "MultiVectorHead", "Projection", "TrainOnly", "splade", "truncate"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def truncate(vectors: Tensor, dim: int) -> Tensor:
    """The first ``dim`` dimensions, L2-normalised after the cut (Matryoshka, Kusupati et al. 2022).

    Args:
        vectors: ``(..., d)`` floating.

    Returns:
        ``(..., dim)`` unit vectors, at least float32.

    Raises:
        ConfigError: ``dim`` is not in 1..d.
    """
    if not 1 <= dim <= vectors.shape[-1]:
        raise ConfigError(f"cannot cut vectors of {vectors.shape[-1]} dimensions to {dim}")
    wide = torch.promote_types(vectors.dtype, torch.float32)
    return F.normalize(vectors[..., :dim].to(wide), dim=-1)


class Projection(nn.Module):
    """A linear layer and an activation over pooled vectors, as in LaBSE, GTR or SimCSE.

    Attributes:
        activation: the activation's name: identity, tanh, relu, gelu or silu.
    """

    def __init__(self, width: int, out: int, bias: bool = True, activation: str = "identity"):
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ConfigError(
                f"unknown activation {activation!r} (known: {', '.join(_ACTIVATIONS)})"
            )
        self.linear = nn.Linear(width, out, bias=bias)
        self.activation = activation
        self._activate = _ACTIVATIONS[activation]()

    def forward(self, vectors: Tensor) -> Tensor:
        """``(n, width)`` to ``(n, out)`` in the layer's own type."""
        out: Tensor = self._activate(self.linear(vectors.to(self.linear.weight.dtype)))
        return out


class TrainOnly(nn.Module):
    """A module that is skipped in evaluation, as the MLP of unsupervised SimCSE is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, vectors: Tensor) -> Tensor:
        """The inner module's output in training, and ``vectors`` themselves in evaluation."""
        return self.inner(vectors) if self.training else vectors


def splade(
    states: TokenStates, lm_head: Callable[[Tensor], Tensor], *, block_tokens: int = 256
) -> Tensor:
    """Lexical weights from a masked-language-model head: the maximum of log(1 + relu(logit)).

    Formal et al. 2021, "SPLADE v2". Logits exist for one block of tokens at a time, and are made
    again in the backward pass, so no tensor holds the logits of the whole batch.

    Args:
        lm_head: maps ``(t, d)`` hidden states to ``(t, vocab)`` logits.
        block_tokens: tokens whose logits exist at the same time.

    Returns:
        ``(n, vocab)`` non-negative weights, float32.
    """
    highest: list[Tensor] = []  # one (vocab,) tensor a row
    starts = set(states.offsets.tolist())
    ends = states.offsets[1:].tolist()
    row = 0
    for start in range(0, len(states.hidden), block_tokens):
        stop = min(start + block_tokens, len(states.hidden))
        cuts, at = [], start
        while at < stop:
            cuts.append(min(ends[row], stop) - at)
            at += cuts[-1]
            row += at == ends[row]
        peaks = list(_peaks(states.hidden[start:stop], cuts, lm_head))
        if start not in starts:  # the block starts inside a row
            highest[-1] = torch.maximum(highest[-1], peaks.pop(0))
        highest += peaks
    # log1p and relu are monotone: applied once, after the maximum.
    return torch.log1p(torch.relu(torch.stack(highest)))


def _peaks(hidden: Tensor, cuts: list[int], lm_head: Callable[[Tensor], Tensor]) -> Tensor:
    """``(len(cuts), vocab)`` float32 maxima of the logits of consecutive pieces of ``hidden``."""

    def run(hidden: Tensor) -> Tensor:
        logits = lm_head(hidden).float()
        return torch.stack([piece.amax(dim=0) for piece in logits.split(cuts)])

    if not torch.is_grad_enabled():
        return run(hidden)
    out: Tensor = checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False)
    return out


class LexicalHead(nn.Module):
    """One weight a token, kept under the token's own id: BGE-M3's sparse head, LEX.

    The weight of a vocabulary entry is the largest among its occurrences in the row.

    Args:
        width: size of the hidden states.
        vocab: size of the vocabulary.
        skip_ids: token ids that never get a weight: the tokenizer's special tokens.
    """

    skip: Tensor

    def __init__(self, width: int, vocab: int, skip_ids: Sequence[int] = ()) -> None:
        super().__init__()
        self.vocab = vocab
        self.linear = nn.Linear(width, 1)
        self.register_buffer("skip", torch.tensor(sorted(skip_ids), dtype=torch.int64), False)

    def forward(self, states: TokenStates, *, exclude: str | None = None) -> Tensor:
        """``(n, vocab)`` non-negative float32 weights.

        Args:
            exclude: a span whose tokens get no weight, e.g. ``"instruction"``.
        """
        ids = _ids_of(states)
        weights = (
            torch.relu(self.linear(states.hidden.to(self.linear.weight.dtype))).squeeze(1).float()
        )
        weights = weights.masked_fill(torch.isin(ids, self.skip), 0.0)
        if exclude is not None:
            weights = weights.masked_fill(states.spans[exclude], 0.0)
        cells = row_ids(states.offsets) * self.vocab + ids
        flat = weights.new_zeros(len(states) * self.vocab)
        return flat.scatter_reduce(0, cells, weights, "amax").view(len(states), self.vocab)


class MultiVectorHead(nn.Module):
    """A unit vector a token, for late interaction (ColBERT, Khattab and Zaharia 2020).

    Args:
        width: size of the hidden states.
        out: size of a token vector.
        skip_ids: token ids that get no vector, e.g. those of punctuation in documents.
    """

    skip: Tensor

    def __init__(
        self, width: int, out: int = 128, bias: bool = False, skip_ids: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out, bias=bias)
        self.register_buffer("skip", torch.tensor(sorted(skip_ids), dtype=torch.int64), False)

    def forward(self, states: TokenStates, *, exclude: str | None = None) -> tuple[Tensor, Tensor]:
        """``(n, t, out)`` float32 unit vectors, zero past a row's end, and the ``(n, t)`` mask.

        Args:
            exclude: a span whose tokens get no vector, e.g. ``"instruction"``.
        """
        hidden = states.hidden
        keep = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
        if exclude is not None:
            keep &= ~states.spans[exclude]
        if self.skip.numel():
            keep &= ~torch.isin(_ids_of(states), self.skip)
        vectors = F.normalize(
            self.linear(hidden[keep].to(self.linear.weight.dtype)).float(), dim=-1
        )
        before = F.pad(keep.cumsum(0), (1, 0))
        lengths = before[states.offsets].diff()
        return padded(vectors, lengths)


def _ids_of(states: TokenStates) -> Tensor:
    if states.token_ids is None:
        raise ConfigError("this head needs token ids, and the token states carry none")
    return states.token_ids
