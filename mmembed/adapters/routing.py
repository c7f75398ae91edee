"""Which adapter reads which row of the batch that runs now.

The route is a context variable: every thread has its own, so that threads with different tasks
share one model, and nothing in the model itself says which adapter is on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

from mmembed.errors import ConfigError

__all__ = ["Route", "checkpoint_contexts", "current_route", "following"]


class Route:
    """The tasks of a batch's rows.

    Args:
        tasks: adapter of each row, ``""`` for none.
        lengths: tokens of each row.

    Attributes:
        names: the different adapters, sorted; empty where no row has one.
        uniform: every row has the same task, so that nothing needs to be taken apart.
    """

    def __init__(self, tasks: Sequence[str], lengths: Sequence[int]) -> None:
        if len(tasks) != len(lengths):
            raise ConfigError(f"{len(tasks)} tasks and {len(lengths)} rows: give one task a row")
        self._rows = len(tasks)
        self._tokens = sum(lengths)
        self.names = tuple(sorted(set(tasks) - {""}))
        self.uniform = len(set(tasks)) <= 1
        self._by_row = {
            name: torch.tensor([i for i, task in enumerate(tasks) if task == name])
            for name in (() if self.uniform else self.names)
        }
        counts = torch.tensor(lengths, dtype=torch.int64)
        owner = torch.repeat_interleave(torch.arange(self._rows), counts)
        self._by_token = {
            name: torch.isin(owner, rows).nonzero().squeeze(1)
            for name, rows in self._by_row.items()
        }
        self._moved: dict[tuple[str, bool, torch.device], Tensor] = {}

    def place(self, name: str, states: Tensor, layer: str) -> tuple[int, Tensor]:
        """The axis and the indices along it that belong to an adapter's rows.

        Args:
            name: one of :attr:`names`.
            states: ``(tokens, d)`` or ``(1, tokens, d)`` packed; ``(n, length, d)`` padded, on any
                side; or ``(n, d)``, one state a row.
            layer: where the states are read, for the message.

        Raises:
            ConfigError: the states have another shape, so their rows cannot be told apart.
        """
        shape = tuple(states.shape[:-1])
        if shape in ((self._tokens,), (1, self._tokens)):
            return len(shape) - 1, self._on(states.device, name, by_token=True)
        if len(shape) in (1, 2) and shape[0] == self._rows:
            return 0, self._on(states.device, name, by_token=False)
        raise ConfigError(
            f"{layer} reads {tuple(states.shape)}: neither {self._tokens} packed tokens nor "
            f"{self._rows} padded rows, so the rows of a task cannot be found: encode rows of "
            "different tasks in different batches"
        )

    def _on(self, device: torch.device, name: str, *, by_token: bool) -> Tensor:
        key = (name, by_token, device)
        if key not in self._moved:
            self._moved[key] = (self._by_token if by_token else self._by_row)[name].to(device)
        return self._moved[key]


_CURRENT: ContextVar[Route | None] = ContextVar("mmembed_route", default=None)


def current_route() -> Route | None:
    """The route of the batch that this thread runs."""
    return _CURRENT.get()


@contextmanager
def following(route: Route | None) -> Iterator[None]:
    """Run the block with this route."""
    token = _CURRENT.set(route)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def checkpoint_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The ``context_fn`` for :func:`torch.utils.checkpoint.checkpoint` (``use_reentrant=False``).

    Backward runs the layers again when the batch's route is gone, and on a GPU in another thread:
    the second run must find the route of the first.
    """
    return nullcontext(), following(current_route())
