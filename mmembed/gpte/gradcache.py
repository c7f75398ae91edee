"""Exact gradients of losses over batches that do not fit in memory at once.

Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup": encode
every chunk without a graph, differentiate the loss with respect to the outputs, then encode each
chunk again and push its outputs' gradient through. The chain rule makes this exact as long as the
second encoding repeats the first, so every chunk's random state is kept and replayed, and modules
that mix rows (batch normalisation) are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.objectives.base import wide
from mmembed.gpte.protocols import Loss, Outputs
from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates, offsets_of

__all__ = ["CachedColumn", "cached_backward", "chunk_rows", "join_outputs"]

_HEADS = ("dense", "multi", "sparse", "routing")


@dataclass(frozen=True, slots=True)
class CachedColumn:
    """One column of a batch, in chunks.

    Attributes:
        encoder: the module whose parameters ``encode`` uses.
        chunks: the column's rows; see :func:`chunk_rows`. Chunks keep the order of rows.
        collate: rows to a batch on the device.
        encode: a batch to outputs; by default a call of ``encoder``. Adapters, prompts and dropout
            rates that a column needs are set here, so that both passes see them.
        frozen: encode without gradient, once.
        states: let the objective see token states, and send their gradient back too.
        auxiliary: adds a loss of one chunk's outputs to the replay, such as a token loss that is
            already normalised over the whole step; gets the outputs and the chunk's number.
        rounds: chunks of the process with most, where every forward and backward is collective: a
            process with fewer repeats its last chunk, without weight, until it has as many.
    """

    encoder: nn.Module
    chunks: Sequence[Sequence[Row]]
    collate: Callable[[Sequence[Row]], Any]
    encode: Callable[[Any], Outputs] | None = None
    frozen: bool = False
    states: bool = False
    auxiliary: Callable[[Outputs, int], Loss] | None = None
    rounds: int = 0

    @property
    def passes(self) -> list[Sequence[Row]]:
        """The chunks, and the last one again for every round that it lacks."""
        idle = max(0, self.rounds - len(self.chunks))
        return [*self.chunks, *([self.chunks[-1]] * idle)]

    def raw(self, batch: Any) -> Outputs:
        """Everything that the encoder gives for one collated chunk."""
        made: Outputs = self.encode(batch) if self.encode is not None else self.encoder(batch)
        return made

    def trimmed(self, outputs: Outputs) -> Outputs:
        """What the objective sees: token states only where they are wanted."""
        return outputs if self.states else replace(outputs, states=None)


def chunk_rows(
    rows: Sequence[Row], *, max_rows: int | None = None, max_tokens: int | None = None
) -> list[list[Row]]:
    """Cut rows into consecutive chunks by count, by tokens, or by both.

    A single row longer than ``max_tokens`` makes a chunk of its own.
    """
    if (max_rows is not None and max_rows < 1) or (max_tokens is not None and max_tokens < 1):
        raise ConfigError("chunks of a gradient cache hold at least one row and one token")
    chunks: list[list[Row]] = []
    tokens = 0
    for row in rows:
        full = not chunks or (max_rows is not None and len(chunks[-1]) >= max_rows)
        if full or (max_tokens is not None and tokens + row.tokens > max_tokens):
            chunks.append([])
            tokens = 0
        chunks[-1].append(row)
        tokens += row.tokens
    return chunks


def cached_backward(
    columns: Mapping[str, CachedColumn],
    loss: Callable[[Mapping[str, Outputs]], Loss],
    *,
    parameters: Sequence[Tensor] = (),
    backward: Callable[[Tensor], None] = torch.Tensor.backward,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    no_sync: Callable[[nn.Module], AbstractContextManager[Any]] | None = None,
    last_step: bool = True,
    verify: bool = False,
) -> Loss:
    """Accumulate the gradient of ``loss`` in the encoders' parameters.

    Args:
        columns: what to encode, by name.
        loss: a function of the joined outputs by name; it may gather from other processes.
        parameters: learned tensors that ``loss`` reads itself, such as a temperature.
        backward: backpropagates one scalar. An ``Accelerator.backward`` here scales for mixed
            precision and accumulation exactly once.
        autocast: opened around every encoding, the same in both passes. The loss and all backward
            passes run outside it.
        no_sync: opened around all but the last replayed chunk of each encoder, so that gradients
            travel between processes once.
        last_step: False keeps ``no_sync`` open throughout: an accumulation step that is not the
            last.
        verify: raise if a replayed chunk is not what it was the first time.

    Returns:
        The loss, detached, with the auxiliary losses added to the total and to the parts.

    Raises:
        ConfigError: a module mixes rows, or nothing needs a gradient.
    """
    encoders = {id(c.encoder): c.encoder for c in columns.values()}
    for encoder in encoders.values():
        _refuse_batch_norm(encoder)
    cached = {
        name: [_first_pass(column, rows, autocast) for rows in column.passes]
        for name, column in columns.items()
    }
    found = loss(
        {
            name: join_outputs([c.outputs for c in cs[: len(columns[name].chunks)]])
            for name, cs in cached.items()
        }
    )
    if not found.total.requires_grad:
        raise ConfigError("the loss depends on nothing that is trained")
    learned = [p for p in parameters if p.requires_grad]
    leaves = [leaf for cs in cached.values() for c in cs for leaf in c.leaves.values()]
    grads = torch.autograd.grad(found.total, [*leaves, *learned], allow_unused=True)
    upstream = {id(leaf): g for leaf, g in zip(leaves, grads, strict=False) if g is not None}

    total, parts = found.total.detach(), dict(found.parts)
    # Column by column, as every process must replay them in the same order; documents, which come
    # last, before queries, and the largest chunk first: memory that it frees serves the others,
    # where growing sizes would scatter it. Every chunk brings its own random state, so the order
    # changes no gradient.
    plan = [
        (name, number, chunk)
        for name in reversed(list(columns))
        if not columns[name].frozen
        for number, chunk in sorted(
            enumerate(cached[name]), key=lambda entry: -sum(row.tokens for row in entry[1].rows)
        )
    ]
    wanted = {
        name
        for name, cs in cached.items()
        if columns[name].auxiliary is not None
        or any(id(leaf) in upstream for chunk in cs for leaf in chunk.leaves.values())
    }
    last = {id(columns[name].encoder): at for at, (name, _, _) in enumerate(plan)}
    for at, (name, number, chunk) in enumerate(plan):
        column = columns[name]
        sync = last_step and at == last[id(column.encoder)]
        if name not in wanted and not (sync and no_sync is not None):
            continue
        with nullcontext() if no_sync is None or sync else no_sync(column.encoder):
            extra = _replay(column, number, chunk, upstream, backward, autocast, verify)
        if extra is not None:
            total = total + extra.total.detach()
            for key, part in extra.parts.items():
                parts[key] = parts[key] + part if key in parts else part
    # The loss's own parameters pass through the same scaling as the encoders'.
    dots = [
        (p * g).sum() for p, g in zip(learned, grads[len(leaves) :], strict=True) if g is not None
    ]
    if dots:
        backward(torch.stack(dots).sum())
    return Loss(total, parts)


@dataclass(slots=True)
class _Chunk:
    rows: Sequence[Row]
    random: _Random
    outputs: Outputs
    leaves: dict[str, Tensor]


class _Random:
    """The state of the random generators that an encoder's dropout draws from."""

    def __init__(self, module: nn.Module) -> None:
        devices = {p.device for p in module.parameters() if p.device.type not in ("cpu", "meta")}
        self.cpu = torch.get_rng_state()
        self.devices = {d: torch.get_device_module(d).get_rng_state(d) for d in devices}

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw again what was drawn from this state on, and leave the present state untouched."""
        present = {d: torch.get_device_module(d).get_rng_state(d) for d in self.devices}
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.cpu)
            for device, state in self.devices.items():
                torch.get_device_module(device).set_rng_state(state, device)
            try:
                yield
            finally:
                for device, state in present.items():
                    torch.get_device_module(device).set_rng_state(state, device)


def _tensors(outputs: Outputs) -> dict[str, Tensor]:
    """The floating tensors of these outputs, by name."""
    found = {head: getattr(outputs, head) for head in _HEADS}
    if outputs.states is not None:
        found["states"] = outputs.states.hidden
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _with_tensors(outputs: Outputs, tensors: Mapping[str, Tensor]) -> Outputs:
    states = outputs.states
    if states is not None and "states" in tensors:
        states = replace(states, hidden=tensors["states"])
    return replace(outputs, states=states, **{h: tensors[h] for h in _HEADS if h in tensors})


def _first_pass(
    column: CachedColumn,
    rows: Sequence[Row],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> _Chunk:
    batch = column.collate(rows)
    random = _Random(column.encoder)  # after the inputs have moved, which may draw
    with torch.no_grad(), autocast():
        outputs = column.trimmed(column.raw(batch))
    leaves = {
        name: tensor.detach().requires_grad_(not column.frozen)
        for name, tensor in _tensors(outputs).items()
    }
    return _Chunk(rows, random, _with_tensors(outputs, leaves), {} if column.frozen else leaves)


def _replay(
    column: CachedColumn,
    number: int,
    chunk: _Chunk,
    upstream: Mapping[int, Tensor],
    backward: Callable[[Tensor], None],
    autocast: Callable[[], AbstractContextManager[Any]],
    verify: bool,
) -> Loss | None:
    """Encode a chunk again and push its outputs' gradient through; its auxiliary loss, if any."""
    batch = column.collate(chunk.rows)
    idle = number >= len(column.chunks)
    with chunk.random.replayed(), autocast():
        whole = column.raw(batch)
        own = len(column.chunks) - 1 if idle else number
        extra = None if column.auxiliary is None else column.auxiliary(whole, own)
    outputs = column.trimmed(whole)
    dots = []
    for name, tensor in _tensors(outputs).items():
        leaf = chunk.leaves[name]
        if verify and not torch.equal(tensor.detach(), leaf.detach()):
            raise ConfigError(
                f"chunk {number} encodes to other {name} outputs when it is repeated: the encoder "
                "keeps state or draws from a generator that a gradient cache cannot replay"
            )
        gradient = upstream.get(id(leaf))
        if gradient is not None and tensor.requires_grad:
            dots.append((wide(tensor) * wide(gradient)).sum())
    if extra is not None:
        dots.append(0.0 * extra.total if idle else extra.total)
    if idle or not dots:
        # Zeros, so that a data-parallel wrapper still sees the backward that it waits for.
        dots += [wide(t).sum() * 0.0 for t in _tensors(outputs).values() if t.requires_grad]
    surrogate = torch.stack(dots).sum() if dots else None
    if surrogate is not None and surrogate.requires_grad:
        backward(surrogate)
    return None if idle else extra


def join_outputs(chunks: Sequence[Outputs]) -> Outputs:
    """One column's outputs from its chunks', differentiable; token axes padded to the longest."""
    first = chunks[0]
    dense, sparse, routing = (
        None if getattr(first, head) is None else torch.cat([getattr(c, head) for c in chunks])
        for head in ("dense", "sparse", "routing")
    )
    multi, mask = None, None
    if first.multi is not None:
        width = max(c.multi.shape[1] for c in chunks if c.multi is not None)
        multi = torch.cat([_padded(c.multi, width) for c in chunks])
        if first.multi_mask is not None:
            mask = torch.cat([_padded(c.multi_mask, width) for c in chunks])
    states = None
    if first.states is not None:
        states = _join_states([c.states for c in chunks if c.states is not None])
    return Outputs(dense, multi, mask, sparse, states, routing)


def _padded(x: Tensor | None, width: int) -> Tensor:
    assert x is not None
    short = width - x.shape[1]
    return F.pad(x, (0, 0) * (x.dim() - 2) + (0, short)) if short else x


def _join_states(states: Sequence[TokenStates]) -> TokenStates:
    first = states[0]
    ids = [s.token_ids for s in states if s.token_ids is not None]
    return TokenStates(
        hidden=torch.cat([s.hidden for s in states]),
        offsets=offsets_of(torch.cat([s.lengths for s in states])),
        spans={name: torch.cat([s.spans[name] for s in states]) for name in first.spans},
        token_ids=torch.cat(ids) if ids else None,
    )


def _refuse_batch_norm(encoder: nn.Module) -> None:
    for name, module in encoder.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ConfigError(
                f"{name or 'the encoder'} is a batch normalisation in training mode, whose output "
                "depends on the chunk: a gradient cache would train another model. Put it in "
                "evaluation mode, or train without the cache"
            )
