"""A linear layer with several adapters, each for its own rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn

from mmembed.adapters.routing import Route, current_route
from mmembed.errors import ConfigError

__all__ = ["BIAS", "DOWN", "MAGNITUDE", "UP", "RoutedLinear"]

# Parts of an adapter in one layer, by their names in peft's files.
DOWN = "lora_A.weight"
UP = "lora_B.weight"
BIAS = "lora_B.bias"
MAGNITUDE = "lora_magnitude_vector"

_MODULES = ("lora_A", "lora_B", "lora_dropout", "lora_magnitude_vector")
_VALUES = ("r", "lora_alpha", "scaling", "use_dora", "use_rslora", "lora_bias", "lora_variant")


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

    @classmethod
    def of(cls, layer: lora.Linear, name: str, *, by_rows: bool) -> RoutedLinear:
        """The same layer, routed from now on."""
        layer.__class__ = cls
        layer.name, layer.by_rows = name, by_rows
        # peft's own switches stay off, so that whatever folds in the active adapters folds nothing.
        layer._active_adapter = []
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
        ours = self._adapted(name, x.index_select(axis, where), result.index_select(axis, where))
        if torch.is_grad_enabled():  # autograd forbids changing what a custom function made
            return result.index_copy(axis, where, ours)
        # The base layer has just made the result, and nobody else has seen it.
        return result.index_copy_(axis, where, ours)

    def _adapted(self, name: str, x: Tensor, result: Tensor) -> Tensor:
        down, up = self.lora_A[name], self.lora_B[name]
        # Adapters are float32 over a bfloat16 base, whose eight bits of mantissa would swallow
        # their updates: compute in theirs, return in the base's.
        x = x.to(down.weight.dtype)
        if name in self.lora_variant:
            variant = self.lora_variant[name]
            out = variant.forward(self, active_adapter=name, x=x, result=result)
        else:
            out = result + up(down(self.lora_dropout[name](x))) * self.scaling[name]
        return out.to(result.dtype)

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
        # Direction and length of each output's weights (DoRA, section 4).
        norm = torch.linalg.norm(self._turned(weight + delta), dim=1)
        share = (parts[MAGNITUDE] / norm).unsqueeze(1)
        delta = self._turned(share * self._turned(weight + delta)) - weight
        return delta, None if bias is None else share.squeeze(1) * bias

    def _turned(self, weight: Tensor) -> Tensor:
        """Between ``(out, in)`` and the base layer's own order, which Conv1D turns around."""
        return weight.T if self.fan_in_fan_out else weight
