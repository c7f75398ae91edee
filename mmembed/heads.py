"""From token states to every embedding that was asked for, in one forward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmembed.embedder_config import EmbedderConfig
from mmembed.errors import ConfigError
from mmembed.gpte.heads import LexicalHead, MultiVectorHead
from mmembed.gpte.pooling import pooling_of
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.states import TokenStates, row_ids

__all__ = ["EmbeddingHeads", "check_outputs", "read_heads"]

_LEFT_OUT = "left out"


class EmbeddingHeads(nn.Module):
    """Pooling, multi-vector projection and lexical weights over one set of token states.

    Args:
        config: which heads there are.
        width: size of the hidden states.
        vocab: size of the vocabulary, for a lexical head.
        special_ids: tokens that get no lexical weight.
    """

    def __init__(
        self, config: EmbedderConfig, width: int, vocab: int = 0, special_ids: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.config = config
        self._pool = pooling_of(config.pooling)
        self._pool_media = pooling_of(config.media_pooling or config.pooling)
        self.multi: MultiVectorHead | None = None
        if config.multi_dim:
            self.multi = MultiVectorHead(width, config.multi_dim, config.multi_bias)
        self.task_multi = nn.ModuleDict(
            {
                task: MultiVectorHead(width, config.multi_dim, config.multi_bias)
                for task in config.multi_tasks
            }
        )
        self.task_dense = nn.ModuleDict(
            {task: nn.Linear(width, width, bias=False) for task in config.dense_tasks}
        )
        self.lexical: LexicalHead | None = None
        if config.lexical:
            if not vocab:
                raise ConfigError("a lexical head needs a backbone with a vocabulary")
            self.lexical = LexicalHead(width, vocab, special_ids)

    @property
    def available(self) -> tuple[str, ...]:
        """Names of the outputs that this model has."""
        heads = {"dense": self.config.dense, "multi": self.multi, "sparse": self.lexical}
        return tuple(name for name, head in heads.items() if head)

    def forward(self, states: TokenStates, wanted: Collection[str] = ("dense",)) -> Outputs:
        """The wanted outputs of ``n`` rows; dense vectors are not normalised."""
        states = self._marked(states)
        out = Outputs(states=states)
        if "dense" in wanted:
            out.dense = self._dense(states)
        if "multi" in wanted and self.multi is not None:
            out.multi, out.multi_mask = self._multi(self.multi, states)
        if "sparse" in wanted and self.lexical is not None:
            out.sparse = self.lexical(states, exclude=self._skipped(states))
        return out

    def _multi(self, base: nn.Module, states: TokenStates) -> tuple[Tensor, Tensor]:
        """Token vectors and their mask, each row through the projection of its task."""
        skipped = self._skipped(states)
        vectors, mask = base(states, exclude=skipped)
        own = _by_task(self.task_multi, vectors, lambda head: head(states, exclude=skipped)[0])
        return own, mask

    def _skipped(self, states: TokenStates) -> str | None:
        skip = self.config.skip_instruction and "instruction" in states.spans
        return "instruction" if skip else None

    def _dense(self, states: TokenStates) -> Tensor:
        """Pooled vectors, each row's through the map of its task."""
        pooled = self._pooled(states)
        return _by_task(self.task_dense, pooled, lambda head: head(pooled.to(head.weight.dtype)))

    def _pooled(self, states: TokenStates) -> Tensor:
        pooled = self._pool(states, exclude=_LEFT_OUT)
        if not self.config.media_pooling or self.config.media_pooling == self.config.pooling:
            return pooled
        has_media = _rows_with_media(states).unsqueeze(1)
        return torch.where(has_media, self._pool_media(states, exclude=_LEFT_OUT), pooled)

    def _marked(self, states: TokenStates) -> TokenStates:
        """With one more span: the tokens that dense pooling leaves out."""
        left_out = torch.zeros(len(states.hidden), dtype=torch.bool, device=states.hidden.device)
        if skipped := self._skipped(states):
            left_out = left_out | states.spans[skipped]
        if (span := self.config.media_span) and span in states.spans:
            inside = _rows_with_media(states)[row_ids(states.offsets)]
            left_out = left_out | (inside & ~states.spans[span])
        return replace(states, spans={**states.spans, _LEFT_OUT: left_out})


def check_outputs(wanted: Collection[str], available: Collection[str]) -> None:
    """Refuse an output that the model does not have.

    Raises:
        ConfigError: names it, and what there is.
    """
    for name in wanted:
        if name not in available:
            raise ConfigError(f"this model has no {name!r} output (it has: {', '.join(available)})")


def _by_task(heads: nn.ModuleDict, vectors: Tensor, own_of: Callable[[Any], Tensor]) -> Tensor:
    """``vectors``, where the rows of a task that has a head of its own are what that head makes.

    Args:
        vectors: ``(n, ...)``, of the rows without such a task.
        own_of: from a task's head to its vectors of all rows.
    """
    if not heads:
        return vectors
    from mmembed.adapters.routing import current_route  # with peft, which most do without

    route = current_route()
    if route is None:
        return vectors
    for task in route.names:
        if task not in heads:
            continue
        own = own_of(heads[task])
        if route.uniform:
            return own
        _, rows = route.place(task, vectors, f"the head of {task}")
        vectors = vectors.index_copy(0, rows, own[rows].to(vectors.dtype))
    return vectors


def _rows_with_media(states: TokenStates) -> Tensor:
    """``(n,)`` bool."""
    visual = states.spans.get("visual")
    if visual is None:
        return torch.zeros(len(states), dtype=torch.bool, device=states.hidden.device)
    rows = row_ids(states.offsets)[visual]
    return torch.bincount(rows, minlength=len(states)) > 0


def read_heads(heads: EmbeddingHeads, file: Path) -> None:
    """Fill the heads from a file.

    Raises:
        ModelLoadError: a tensor is missing, has no place, or has another shape.
    """
    from mmembed.backbones.weights import load_exactly, read_safetensors

    load_exactly(heads, read_safetensors(file), str(file))
