"""A linear layer with several adapters, each for its own rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn

from mmembed.adapters.routing import Route, current_route
from mmembed.errors import ConfigError
from mmembed.gpte.onednn import linear

__all__ = ["BIAS", "DOWN", "MAGNITUDE", "UP", "RoutedLinear"]

# Parts of an adapter in one layer, by their names in peft's files.
DOWN = "lora_A.weight"
UP = "lora_B.weight"
BIAS = "lora_B.bias"
MAGNITUDE = "lora_magnitude_vector"

_MODULES = ("lora_A", "lora_B", "lora_dropout", "lora_magnitude_vector")
_VALUES = ("r", "lora_alpha", "scaling", "use_dora", "use_rslora", "lora_bias", "lora_variant")


@dataclass(frozen=True, slots=True)
class _Share:
    """A kept quotient, and the state of the tensors that it was computed from."""

    share: Tensor
    sources: tuple[Tensor, ...]
    versions: list[int]

    def still(self, sources: tuple[Tensor, ...], versions: list[int]) -> bool:
        same = all(one is other for one, other in zip(self.sources, sources, strict=True))
        return same and self.versions == versions and self.share.device == sources[0].device


@dataclass(frozen=True, slots=True)
class _Terms:
    """``share * result + narrow @ up.T + offset``; no share is 1, no offset is 0."""

    share: Tensor | None
    narrow: Tensor
    up: Tensor
    offset: Tensor | None


class RoutedLinear(lora.Linear):
    """peft's adapted linear layer (LoRA, Hu et al. 2021; DoRA, Liu et al. 2024), routed by row.

    Rows without an adapter get the base layer's output, bit for bit.

    Attributes:
        name: of the layer in the backbone.
        by_rows: its states lie as the backbone's rows do. A layer of a vision tower reads patches
            instead, so it takes whole batches of one task only.
    """

    name: str
    by_rows: bool
    _shares: dict[str, _Share]

    @classmethod
    def of(cls, layer: lora.Linear, name: str, *, by_rows: bool) -> RoutedLinear:
        """The same layer, routed from now on."""
        layer.__class__ = cls
        layer.name, layer.by_rows = name, by_rows
        # peft's own switches stay off, so that whatever folds in the active adapters folds nothing.
        layer._active_adapter = []
        layer._shares = {}
        return layer

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = self.base_layer(x, *args, **kwargs)
        route = current_route()
        for name in () if route is None else route.names:
            if name in self.lora_A:
                assert route is not None
                result = self._routed(name, route, x, result)
        return result

    def _routed(self, name: str, route: Route, x: Tensor, result: Tensor) -> Tensor:
        if route.uniform:
            return self._adapted(name, x, result)
        if not self.by_rows:
            raise ConfigError(
                f"adapter {name!r} changes {self.name}, which is none of the backbone's LoRA "
                "targets: encode inputs of this task in a call of their own"
            )
        axis, where = route.place(name, x, self.name)
        x = x.index_select(axis, where)
        fresh = not torch.is_grad_enabled()  # autograd forbids changing what a custom function made
        if (
            name not in self.lora_magnitude_vector
            and result.dtype == self.lora_B[name].weight.dtype
        ):
            # LoRA only adds, so the rows need not be taken out and put back.
            added = self._product(self._terms(name, x))
            add = result.index_add_ if fresh else result.index_add
            return add(axis, where, added)
        ours = self._adapted(name, x, result.index_select(axis, where))
        put = result.index_copy_ if fresh else result.index_copy
        return put(axis, where, ours)

    def _adapted(self, name: str, x: Tensor, result: Tensor) -> Tensor:
        """The base layer's result, changed by an adapter; without gradients it is overwritten."""
        terms = self._terms(name, x)
        share, up = terms.share, terms.up
        if torch.is_grad_enabled() or not result.dtype == terms.narrow.dtype == up.dtype:
            kept = result if share is None else share * result
            return (kept + self._product(terms)).to(result.dtype)
        # In place: getting fresh memory for every sum takes longer than the sums.
        flat = result.view(-1, result.shape[-1])
        if share is not None:
            flat.mul_(share)
        flat.addmm_(terms.narrow.view(-1, terms.narrow.shape[-1]), up.T)
        if terms.offset is not None:
            flat.add_(terms.offset)
        return result

    def _terms(self, name: str, x: Tensor) -> _Terms:
        up, bias = self.lora_B[name].weight, self.lora_B[name].bias
        # Adapters are float32 over a bfloat16 base, whose eight bits of mantissa would swallow
        # their updates: compute in theirs, return in the base's.
        x = self.lora_dropout[name](x.to(up.dtype))
        narrow = linear(x, self.lora_A[name].weight) * self.scaling[name]
        offset = None if bias is None else self.scaling[name] * bias
        if name not in self.lora_magnitude_vector:
            return _Terms(None, narrow, up, offset)
        share = self._share(name)
        offset = None if offset is None else share * offset
        if (own := self.base_layer.bias) is not None:  # DoRA rescales the weights alone
            offset = (1.0 - share) * own + (0.0 if offset is None else offset)
        return _Terms(share, narrow, share.unsqueeze(1) * up, offset)

    @staticmethod
    def _product(terms: _Terms) -> Tensor:
        product = linear(terms.narrow, terms.up)
        return product if terms.offset is None else product + terms.offset

    def _share(self, name: str) -> Tensor:
        """``(out,)``: DoRA's learned lengths by the lengths that the changed weights have.

        The latter count as constants in training (section 4.3 of the paper). At inference they are
        kept, because they take as long as some hundred tokens.
        """
        magnitude = self.lora_magnitude_vector[name].weight
        sources = (magnitude, *self.tensors(name).values(), self.base_layer.weight)
        if torch.is_grad_enabled():
            return magnitude / self._lengths(name)
        versions = [tensor._version for tensor in sources]
        kept = self._shares.get(name)
        if kept is not None and kept.still(sources, versions):
            return kept.share
        share = magnitude / self._lengths(name)
        self._shares[name] = _Share(share, sources, versions)
        return share

    @torch.no_grad()
    def _lengths(self, name: str) -> Tensor:
        """``(out,)``: norms of the base weights with an adapter's product added."""
        parts = self.tensors(name)
        delta = self._turned(self.scaling[name] * (parts[UP] @ parts[DOWN]))
        changed = self.base_layer.weight.to(delta.dtype) + delta
        return torch.linalg.norm(self._turned(changed), dim=1)

    def delete_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; rows that ask for it are an error again."""
        super().delete_adapter(adapter_name)
        self._shares.pop(adapter_name, None)

    def tensors(self, name: str) -> dict[str, nn.Parameter]:
        """An adapter's parameters by part."""
        up = self.lora_B[name]
        found = {DOWN: self.lora_A[name].weight, UP: up.weight}
        if up.bias is not None:
            found[BIAS] = up.bias
        if name in self.lora_magnitude_vector:
            found[MAGNITUDE] = self.lora_magnitude_vector[name].weight
        return found

    def put(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Set an adapter's parameters, as float32 on the base layer's device, frozen."""
        up = self.lora_B[name]
        places = {DOWN: (self.lora_A[name], "weight"), UP: (up, "weight"), BIAS: (up, "bias")}
        if name in self.lora_magnitude_vector:
            places[MAGNITUDE] = (self.lora_magnitude_vector[name], "weight")
        device = self.base_layer.weight.device
        for part, tensor in tensors.items():
            module, attribute = places[part]
            # A tensor made in inference mode could never be trained.
            with torch.inference_mode(False):
                value = tensor.detach().to(device, torch.float32, copy=True).contiguous()
                setattr(module, attribute, nn.Parameter(value, requires_grad=False))

    def adopt(self, other: RoutedLinear, name: str) -> None:
        """Take over an adapter of another layer of the same shape."""
        for attribute in _MODULES:
            modules = getattr(other, attribute)
            if name in modules:
                getattr(self, attribute)[name] = modules[name]
        for attribute in _VALUES:
            values = getattr(other, attribute)
            if name in values:
                getattr(self, attribute)[name] = values[name]

    @torch.no_grad()
    def change(self, name: str) -> tuple[Tensor, Tensor | None]:
        """What an adapter adds to the base weight and bias, in float32."""
        parts = {part: tensor.float() for part, tensor in self.tensors(name).items()}
        scale = self.scaling[name]
        delta = self._turned(scale * (parts[UP] @ parts[DOWN]))
        bias = scale * parts[BIAS] if BIAS in parts else None
        if MAGNITUDE not in parts:
            return delta, bias
        weight = self.base_layer.weight.float()
        share = (parts[MAGNITUDE] / self._lengths(name)).unsqueeze(1)
        delta = self._turned(share * self._turned(weight + delta)) - weight
        return delta, None if bias is None else share.squeeze(1) * bias

    def _turned(self, weight: Tensor) -> Tensor:
        """Between ``(out, in)`` and the base layer's own order, which Conv1D turns around."""
        return weight.T if self.fan_in_fan_out else weight
