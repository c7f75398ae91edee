"""The adapters that are in a model now; they change between batches, never during one."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from peft import LoraConfig
from torch import nn

from mmembed.adapters.building import Prepared
from mmembed.adapters.layer import RoutedLinear
from mmembed.adapters.naming import View
from mmembed.adapters.routing import current_route
from mmembed.errors import ConfigError
from mmembed.gate import Gate

__all__ = ["Installed", "InstalledAdapters"]

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Installed:
    """One adapter in the model: peft's config, how it names modules, and the layers changed.

    ``by_rows`` is kept here, as the layers themselves can be out while another thread asks.
    """

    config: LoraConfig
    view: View
    layers: tuple[str, ...]
    by_rows: bool


class InstalledAdapters:
    """Adapters by name, and the gate between batches and changes.

    Args:
        module: the backbone.
        gate: the one that all batches of this backbone go through.
    """

    def __init__(self, module: nn.Module, gate: Gate) -> None:
        self.module = module
        self.gate = gate
        self._adapters: dict[str, Installed] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    def __getitem__(self, name: str) -> Installed:
        self.check(name)
        if not name:
            raise ConfigError("give the name of an adapter: '' is the base model")
        return self._adapters[name]

    def check(self, task: str, others: Collection[str] = ()) -> None:
        """See :meth:`mmembed.adapters.TaskAdapters.check`."""
        tasks = dict.fromkeys((*self._adapters, *others))
        if not task or task in tasks:
            return
        near = difflib.get_close_matches(task, tasks, n=1)
        meant = f", did you mean {near[0]!r}?" if near else ""
        known = ", ".join(map(repr, tasks)) or "none"
        raise ConfigError(f"unknown task {task!r}{meant} (this model has: {known})")

    def check_new(self, name: str) -> None:
        """Raise unless an adapter can have this name.

        Raises:
            ConfigError: the name is taken or unusable.
        """
        if name in self._adapters:
            raise ConfigError(f"there is an adapter {name!r} already: remove it first")
        if not _NAME.fullmatch(name) or hasattr(nn.ModuleDict(), name):
            raise ConfigError(
                f"{name!r} cannot be the name of an adapter: take letters, digits, - and _, and no "
                "name of a method of torch modules"
            )

    def layer(self, name: str) -> RoutedLinear:
        """An adapted layer by its name in the backbone."""
        layer = self.module.get_submodule(name)
        assert isinstance(layer, RoutedLinear)
        return layer

    def layers(self, name: str) -> dict[str, RoutedLinear]:
        """The layers of an adapter."""
        return {one: self.layer(one) for one in self[name].layers}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Between two batches.

        Raises:
            ConfigError: called inside a batch, which would wait for itself.
        """
        if current_route() is not None:
            raise ConfigError("adapters cannot change inside a routed batch: leave it first")
        with self.gate.alone():
            yield

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Between two batches, with every layer plain, as if there were no adapters."""
        with self.alone():
            layers = {one: self.layer(one) for key in self.names for one in self[key].layers}
            try:
                for one, layer in layers.items():
                    self._replace(one, layer.base_layer)
                yield
            finally:
                for one, layer in layers.items():
                    self._replace(one, layer)

    def insert(self, new: Mapping[str, Prepared]) -> None:
        """Put prepared layers into the model, all of them between the same two batches."""
        with self.alone():
            for name, prepared in new.items():
                for one, layer in prepared.layers.items():
                    live = self.module.get_submodule(one)
                    layer.train(live.training)
                    if isinstance(live, RoutedLinear):
                        live.adopt(layer, name)
                    else:
                        layer.base_layer = live
                        self._replace(one, layer)
                adapter = Installed(
                    prepared.config,
                    prepared.view,
                    tuple(prepared.layers),
                    by_rows=all(layer.by_rows for layer in prepared.layers.values()),
                )
                # A new dict: other threads may be going through the old one.
                self._adapters = {**self._adapters, name: adapter}
        for name, prepared in new.items():
            layers = prepared.layers
            logger.info("adapter %s on %d layers: %s", name, len(layers), ", ".join(layers))

    def drop(self, name: str) -> None:
        """Take an adapter out, inside :meth:`alone`; layers without any are plain again."""
        for one, layer in self.layers(name).items():
            layer.delete_adapter(name)
            if not len(layer.lora_A):
                self._replace(one, layer.base_layer)
        self._adapters = {key: value for key, value in self._adapters.items() if key != name}

    def _replace(self, name: str, module: nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        setattr(self.module.get_submodule(parent), child, module)
