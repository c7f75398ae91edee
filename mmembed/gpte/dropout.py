"""Rates of dropout, of modules and of layers that keep theirs as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["dropout_at", "set_dropout"]

_DROPOUTS = (
    "dropout",
    "attention_dropout",
    "hidden_dropout",
    "activation_dropout",
    "dropout_rate",
    "layerdrop",
)


def set_dropout(model: nn.Module, rate: float) -> None:
    """Set every dropout of a model."""
    for module, name, _ in _rates(model):
        setattr(module, name, rate)


@contextmanager
def dropout_at(model: nn.Module, rate: float) -> Iterator[None]:
    """Every dropout at one rate, as long as the block lasts: a view of its own (SCD)."""
    before = list(_rates(model))
    set_dropout(model, rate)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _rates(model: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            yield module, "p", module.p
        for name in _DROPOUTS:
            value = getattr(module, name, None)
            if isinstance(value, float):
                yield module, name, value
