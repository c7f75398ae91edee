"""One batch forward and backward: plain, or through the gradient cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmembed.gpte.agreement import agreed_rounds
from mmembed.gpte.config import BatchConfig, MomentumConfig
from mmembed.gpte.context import CorpusTokens, neighbours
from mmembed.gpte.data.batches import ExampleBatch
from mmembed.gpte.dropout import dropout_at
from mmembed.gpte.gradcache import CachedColumn, cached_backward, chunk_rows, join_outputs
from mmembed.gpte.protocols import QUEUES, Columns, Loss, Objective, Outputs
from mmembed.gpte.queue import MomentumQueue, momentum_update
from mmembed.gpte.rows import Row
from mmembed.gpte.token_tasks import TokenTask, Work
from mmembed.gpte.wrapping import backward, waits_in_backward

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Follower", "Goal", "Stepper", "Trainee"]


class Trainee(nn.Module):
    """All that data-parallel wrappers hold: the encoder and its token tasks, behind one forward.

    Args:
        encoder: implements :class:`mmembed.gpte.protocols.Encoder`.
        tasks: token tasks by the names that their losses are logged under.
        learned: what the objectives learn themselves, by name.
    """

    def __init__(
        self,
        encoder: nn.Module,
        tasks: Mapping[str, TokenTask],
        learned: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.tasks = nn.ModuleDict(dict(tasks))
        self.learned = nn.ModuleDict(dict(learned or {}))
        # Where sharding cuts; the name is that by which accelerate asks transformers' models.
        self._no_split_modules = _blocks(encoder)

    def forward(
        self, batch: Any = None, task: str = "", work: Work | None = None, outputs: Any = None
    ) -> Any:
        """The encoder's outputs of a batch; or a task's loss, where ``work`` is given."""
        if work is not None:
            return self.tasks[task](self.encoder, work, outputs)
        return self.encoder(batch)


def _blocks(encoder: nn.Module) -> list[str]:
    """The classes of the repeated layers: other parts may share weights, as embeddings do."""
    known = getattr(getattr(encoder, "full", None), "_no_split_modules", None) or ()
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    repeated = {type(child).__name__ for one in lists for child in one}
    return sorted(repeated & set(known))


@dataclass
class Goal:
    """A sentence objective and the parameters it learns itself."""

    objective: Objective
    learned: nn.ParameterDict


class Follower(nn.Module):
    """A copy of the encoder that follows it, and the queues of keys it has made, by column.

    The follower reads without dropout.

    Args:
        copy: a frozen copy of the encoder.
        width: dimensions of its vectors.
    """

    def __init__(self, copy: nn.Module, config: MomentumConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = copy.requires_grad_(False).eval()
        self.sides = ("query", "positive") if config.sides == "both" else ("positive",)
        self.queues = nn.ModuleDict(
            {side: MomentumQueue(config.queue, width) for side in self.sides if config.queue}
        )

    @torch.no_grad()
    def keys(self, chunks: Sequence[Sequence[Row]]) -> Outputs:
        """The follower's outputs of a column."""
        encoder: Any = self.encoder
        return join_outputs([encoder(encoder.collate(rows)) for rows in chunks])

    def shared(self) -> dict[str, Tensor]:
        """The queues' part of ``Columns.shared``."""
        found: dict[str, Tensor] = {}
        for side, queue in self.queues.items():
            assert isinstance(queue, MomentumQueue)
            found |= queue.shared(QUEUES[side])
        return found

    def push(self, keys: Mapping[str, tuple[Outputs, Tensor | None]]) -> None:
        """Keep a batch's keys and hashes by column, once its loss has been computed."""
        for side, queue in self.queues.items():
            made, hashes = keys[side]
            assert isinstance(queue, MomentumQueue)
            if made.dense is not None:
                queue.push(made.dense, hashes)

    def follow(self, encoder: nn.Module) -> None:
        """Move towards the encoder, after an optimiser step."""
        momentum_update(self.encoder, encoder, self.config.decay)


@dataclass
class Stepper:
    """Accumulates the gradient of one batch at a time.

    Attributes:
        accelerator: wraps ``model`` and scales backward passes.
        model: the prepared :class:`Trainee`.
        encoder: the encoder inside it.
        goals: objectives by the number of the source they are for; -1 for all others.
        weights: of the token tasks, by name.
        seed: of the tasks' masks.
        states: whether objectives read token states.
        verify: compare both passes of the cache.
        rates: of the encoder's dropout, by column, where a column has its own.
        context: the encoder's tokens of the corpus, which every batch fills.
    """

    accelerator: Accelerator
    model: nn.Module
    encoder: Any
    goals: Mapping[int, Goal]
    tasks: Mapping[str, TokenTask]
    batch: BatchConfig
    follower: Follower | None = None
    seed: int = 0
    states: bool = False
    verify: bool = False
    rates: Mapping[str, float] = field(default_factory=dict)
    context: CorpusTokens | None = None
    _keys: dict[str, tuple[Outputs, Tensor | None]] = field(default_factory=dict, init=False)

    def backward(self, batch: ExampleBatch, step: int, share: float, last: bool) -> Loss:
        """Add ``share`` of the batch's gradient to the parameters'.

        Args:
            batch: this process's rows.
            step: seeds masks, and is told to objectives with schedules of their own.
            share: ``1 / batches`` of an optimiser step.
            last: whether this is the step's last batch, when gradients travel.

        Returns:
            The loss before ``share``, detached.

        Raises:
            ConfigError: processes hold different kinds of rows.
        """
        goal = self.goals.get(batch.source, self.goals.get(-1))
        chunks = {
            name: self._chunks(rows)
            for name, rows in batch.columns.items()
            if goal is not None or any(t.config.column == name for t in self.tasks.values())
        }
        rounds = agreed_rounds(batch, chunks, self.accelerator.device)
        works = self._works(chunks, step)
        if self.context is not None:
            count, device = self.context.settings.documents, self.accelerator.device
            self.context.meet(neighbours(batch.guide, batch.meta, count, (self.seed, step), device))

        def sentence_loss(outputs: Mapping[str, Outputs]) -> Loss:
            if goal is None:
                return Loss(self._zero(), {})
            return goal.objective(self._columns(batch, outputs, goal, step))

        def scaled(loss: Tensor) -> None:
            backward(self.accelerator, self.model, loss * share)

        frozen = self._frozen(batch, chunks)
        if self.batch.cached and goal is not None:
            waited = rounds if waits_in_backward(self.accelerator) else {}
            return self._cached(chunks, waited, works, sentence_loss, goal, scaled, last, frozen)
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            outputs = {
                name: frozen[name]
                if name in frozen
                else join_outputs([self._read(name, self.encoder.collate(rows)) for rows in parts])
                for name, parts in chunks.items()
                if goal is not None or self._reads_outputs(name)
            }
            loss = sentence_loss(outputs)
            total, parts = loss.total, dict(loss.parts)
            for name in works:
                column = self.tasks[name].config.column
                extra = self._task_loss(name, works[name][0], outputs.get(column))
                total = total + extra.total
                parts |= extra.parts
            scaled(total)
        return Loss(total.detach(), parts)

    def after_step(self) -> None:
        """What follows an optimiser step: the momentum encoder moves, and its queue grows."""
        if self.follower is not None:
            if self._keys:
                self.follower.push(self._keys)
                self._keys = {}
            self.follower.follow(self.encoder)

    def _cached(
        self,
        chunks: Mapping[str, list[list[Row]]],
        rounds: Mapping[str, int],
        works: Mapping[str, list[Work]],
        loss: Callable[[Mapping[str, Outputs]], Loss],
        goal: Goal,
        scaled: Callable[[Tensor], None],
        last: bool,
        frozen: Mapping[str, Outputs],
    ) -> Loss:

        def auxiliary(column: str) -> Callable[[Outputs, int], Loss] | None:
            mine = [name for name in works if self.tasks[name].config.column == column]
            if not mine:
                return None

            def run(outputs: Outputs, number: int) -> Loss:
                losses = [self._task_loss(name, works[name][number], outputs) for name in mine]
                total = torch.stack([one.total for one in losses]).sum()
                return Loss(total, {k: v for one in losses for k, v in one.parts.items()})

            return run

        columns = {
            name: CachedColumn(
                self.model,
                parts,
                self.encoder.collate,
                partial(self._read, name),
                states=self.states,
                auxiliary=auxiliary(name),
                rounds=rounds.get(name, 0),
            )
            for name, parts in chunks.items()
            if name not in frozen
        }
        return cached_backward(
            columns,
            lambda outputs: loss({**outputs, **frozen}),
            parameters=list(goal.learned.values()),
            backward=scaled,
            no_sync=self.accelerator.no_sync,
            last_step=last,
            verify=self.verify,
        )

    def _read(self, column: str, batch: Any) -> Outputs:
        """The model's outputs, under the column's own dropout if it has one."""
        rate = self.rates.get(column)
        with nullcontext() if rate is None else dropout_at(self.encoder.full, rate):
            made: Outputs = self.model(batch)
        return made

    def _works(self, chunks: Mapping[str, list[list[Row]]], step: int) -> dict[str, list[Work]]:
        rank = self.accelerator.process_index
        return {
            name: task.prepare(
                self.encoder,
                chunks,
                torch.Generator().manual_seed(hash((self.seed, step, rank, i)) % 2**63),
            )
            for i, (name, task) in enumerate(self.tasks.items())
        }

    def _task_loss(self, name: str, work: Work, outputs: Outputs | None) -> Loss:
        found = self.model(task=name, work=work, outputs=outputs)
        weight = self.tasks[name].config.weight
        return Loss(weight * found, {name: found.detach()})

    def _reads_outputs(self, column: str) -> bool:
        """Whether a task alone makes the encoder read a column."""
        return any(
            t.config.column == column and t.config.task == "rtd" for t in self.tasks.values()
        )

    def _chunks(self, rows: list[Row]) -> list[list[Row]]:
        """The rows that are encoded at a time."""
        if not self.batch.cached:
            return [rows]
        config = self.batch
        return chunk_rows(rows, max_rows=config.chunk_rows, max_tokens=config.chunk_tokens)

    def _frozen(
        self, batch: ExampleBatch, chunks: Mapping[str, list[list[Row]]]
    ) -> dict[str, Outputs]:
        """The columns that the momentum encoder reads in the encoder's place."""
        if self.follower is None or "positive" not in chunks:
            return {}
        config = self.follower.config
        if not config.queue and config.positives == "encoder" and config.sides == "positive":
            return {}
        for side in self.follower.sides:
            own = batch.keys.get(side)
            keys = self.follower.keys(chunks[side] if own is None else self._chunks(own))
            hashes = batch.meta.get(f"{side}_hash")
            self._keys[side] = (keys, None if hashes is None else hashes.to(self.encoder.device))
        return {"positive": self._keys["positive"][0]} if config.positives == "momentum" else {}

    def _columns(
        self, batch: ExampleBatch, outputs: Mapping[str, Outputs], goal: Goal, step: int
    ) -> Columns:
        device = self.encoder.device
        meta = {name: tensor.to(device) for name, tensor in batch.meta.items()}
        shared: dict[str, Tensor] = {"step": torch.tensor(step), **goal.learned}
        if self.follower is not None:
            shared |= self.follower.shared()
        return Columns(
            outputs["query"],
            outputs.get("positive"),
            outputs.get("negative"),
            batch.negatives_per_query,
            meta,
            {name: Outputs(dense=v.to(device)) for name, v in batch.guide.items()},
            shared,
            {side: keys for side, (keys, _) in self._keys.items()},
        )

    def _zero(self) -> Tensor:
        return torch.zeros((), device=self.accelerator.device)
