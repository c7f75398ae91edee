"""A sparse mixture of experts in the place of a dense MLP (Nomic Embed v2).

Sparse upcycling (Komatsuzaki et al. 2023): every expert starts as a copy of the layer's own MLP,
and the weights of a token's chosen experts add up to one, so the model starts as the dense one that
it was made of.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmembed.errors import ConfigError
from mmembed.gpte.states import TokenStates, row_ids

__all__ = ["Experts", "add_experts", "dense_state", "experts_of", "routing_of"]


class Experts(nn.Module):
    """Each token goes to the ``top`` of ``count`` MLPs that a linear router likes best.

    Attributes:
        routed: of the last forward, ``(tokens, 2, count)``: the router's probabilities, and a one
            for every chosen expert.
    """

    def __init__(self, mlp: nn.Module, width: int, count: int, top: int) -> None:
        super().__init__()
        self.top = top
        self.experts = nn.ModuleList(copy.deepcopy(mlp) for _ in range(count))
        device = next(mlp.parameters()).device
        self.router = nn.Linear(width, count, bias=False, device=device)
        nn.init.normal_(self.router.weight, std=0.02)
        self.routed: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """``(..., d)`` to ``(..., d)``; a token's result depends on no other token."""
        tokens = hidden.reshape(-1, hidden.shape[-1])
        # In float32: at lower precision equal experts tie, and the choice would be rounding's.
        with torch.autocast(tokens.device.type, enabled=False):
            logits = self.router(tokens.to(self.router.weight.dtype))
            probabilities = logits.float().softmax(dim=1)
        weights, chosen = probabilities.topk(self.top, dim=1)
        weights = (weights / weights.sum(dim=1, keepdim=True)).to(hidden.dtype)
        out = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            token, place = (chosen == number).nonzero(as_tuple=True)
            made = expert(tokens[token]) * weights[token, place, None]
            out = out.index_add(0, token, made.to(out.dtype))
        picked = torch.zeros_like(probabilities).scatter(1, chosen, 1.0)
        self.routed = torch.stack([probabilities, picked], dim=1)
        return out.view_as(hidden)


def add_experts(model: nn.Module, count: int, top: int, every: int) -> list[Experts]:
    """Turn the MLPs of every ``every``-th layer into experts, in place.

    Args:
        model: a transformers model whose layers call their MLP ``mlp``.

    Returns:
        The experts, in the order of layers.

    Raises:
        ConfigError: it has no such layers, or the numbers do not fit.
    """
    if not 1 <= top <= count or every < 1:
        raise ConfigError(f"experts: {top} of {count} in every {every}-th layer makes no sense")
    layers = [module for module in model.modules() if isinstance(_mlp(module), nn.Module)]
    wanted = layers[every - 1 :: every]
    if not wanted:
        raise ConfigError(f"{type(model).__name__} has no layers with an MLP to make experts of")
    width = model.config.hidden_size  # type: ignore[union-attr]
    for layer in wanted:
        layer.mlp = Experts(_mlp(layer), int(width), count, top)  # type: ignore[arg-type]
    return experts_of(model)


def _mlp(module: nn.Module) -> nn.Module | None:
    found = module._modules.get("mlp")
    return None if found is None or isinstance(found, Experts) else found


def experts_of(model: nn.Module) -> list[Experts]:
    """The experts of a model, in the order of layers."""
    return [module for module in model.modules() if isinstance(module, Experts)]


def dense_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the dense model: of all experts the first, under the MLP's own names."""
    names = [name for name, module in model.named_modules() if isinstance(module, Experts)]
    found = dict(state)
    for name in names:
        for key in [key for key in found if key.startswith(f"{name}.")]:
            value = found.pop(key)
            first = f"{name}.experts.0."
            if key.startswith(first):
                found[f"{name}.{key.removeprefix(first)}"] = value
    return found


def routing_of(experts: Sequence[Experts], states: TokenStates) -> Tensor:
    """``(n, layers, 2, count)`` sums over each row's tokens of what the routers gave, float32.

    Args:
        states: of the forward that has just been; what the experts kept of it is forgotten.
    """
    routed = torch.stack([one.routed for one in experts if one.routed is not None], dim=1)
    for one in experts:
        one.routed = None
    sums = routed.new_zeros(len(states), *routed.shape[1:])
    return sums.index_add(0, row_ids(states.offsets), routed)
