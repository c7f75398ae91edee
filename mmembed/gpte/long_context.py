"""Let a model read more positions than it was trained on.

Learned tables are tiled or interpolated; rotary embeddings are scaled through the transformers
config, so a saved model stays lengthened; encoders can trade their table for symmetric ALiBi.
Dynamic NTK scaling is left out on purpose: it makes a row's vector depend on its batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "alibi_slopes",
    "drop_positions",
    "interpolate_positions",
    "interpolate_rope",
    "ntk_rope",
    "positions_of",
    "tile_positions",
    "train_new_positions",
    "yarn_rope",
]


def positions_of(model: PreTrainedModel) -> int | None:
    """How many tokens a row may have, or None where only memory limits it.

    A learned table counts by its rows, less those that the RoBERTa family never uses.
    """
    table = _table_of(model)
    if table is not None:
        return table.num_embeddings - _unused(table)
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit else None


def tile_positions(model: PreTrainedModel, tokens: int) -> None:
    """Repeat the learned table of positions up to ``tokens`` (BGE-M3, Longformer).

    Raises:
        ConfigError: the model has no such table, or reads that many tokens already.
    """
    table, trained = _trained(model, tokens)
    copies = math.ceil(tokens / len(trained))
    _replace(model, table, trained.repeat(copies, 1)[:tokens])


def interpolate_positions(model: PreTrainedModel, tokens: int) -> None:
    """Stretch the learned table of positions to ``tokens`` by linear interpolation (E5-4k).

    Raises:
        ConfigError: the model has no such table, or reads that many tokens already.
    """
    table, trained = _trained(model, tokens)
    columns = trained.T.float().unsqueeze(0)
    stretched = F.interpolate(columns, size=tokens, mode="linear", align_corners=True)
    _replace(model, table, stretched.squeeze(0).T.to(trained.dtype))


def train_new_positions(model: PreTrainedModel, before: int) -> None:
    """Freeze everything but the positions from ``before`` on (Zhu et al. 2024, "LongEmbed").

    Use an optimiser without weight decay, which would reach the frozen rows.

    Raises:
        ConfigError: the model has no learned table of positions.
    """
    table = _need_table(model)
    model.requires_grad_(False)
    table.weight.requires_grad_(True)
    first = before + _unused(table)

    def keep_new(grad: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(grad[:first]), grad[first:]])

    table.weight.register_hook(keep_new)


def interpolate_rope(model: PreTrainedModel, tokens: int) -> None:
    """Position interpolation: positions shrink by the factor of extension (Chen et al. 2023).

    Raises:
        ConfigError: the model has no plain rotary embedding, or reads that many tokens already.
    """
    factor = _rope_factor(model, tokens)
    _set_rope(model, tokens, {"rope_type": "linear", "factor": factor})


def ntk_rope(model: PreTrainedModel, tokens: int) -> None:
    """NTK-aware scaling: the base grows by ``factor ** (d / (d - 2))`` (bloc97 2023).

    Raises:
        ConfigError: the model has no plain rotary embedding, or reads that many tokens already.
    """
    factor = _rope_factor(model, tokens)
    dim = 2 * next(b.numel() for name, b in model.named_buffers() if name.endswith("inv_freq"))
    grow = factor ** (dim / (dim - 2))
    _set_rope(model, tokens, {"rope_theta": _rope(model)["rope_theta"] * grow})


def yarn_rope(model: PreTrainedModel, tokens: int) -> None:
    """YaRN: fast dimensions keep their step, slow ones are interpolated (Peng et al. 2023).

    Raises:
        ConfigError: the model has no plain rotary embedding, or reads that many tokens already.
    """
    factor = _rope_factor(model, tokens)
    before = model.config.max_position_embeddings
    changes = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": before}
    _set_rope(model, tokens, changes)


def alibi_slopes(heads: int) -> Tensor:
    """``(heads,)`` ALiBi slopes (Press et al. 2022): a geometric series from ``2 ** (-8 / heads)``.

    Where the number of heads is no power of two, every other slope of the next power fills up.
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    more = [2 ** (-4 * i / power) for i in range(1, 2 * (heads - power), 2)]
    return torch.tensor(slopes + more)


@torch.no_grad()
def drop_positions(model: PreTrainedModel) -> None:
    """Zero the learned table of positions, whose place symmetric ALiBi takes (JinaBERT).

    Raises:
        ConfigError: the model has no such table.
    """
    table = _need_table(model)
    table.weight.zero_()
    table.weight.requires_grad_(False)


def _table_of(model: PreTrainedModel) -> nn.Embedding | None:
    """The learned table of absolute positions, if the model has one."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _need_table(model: PreTrainedModel) -> nn.Embedding:
    table = _table_of(model)
    if table is None:
        raise ConfigError(f"{type(model).__name__} has no learned table of positions")
    return table


def _unused(table: nn.Embedding) -> int:
    """Rows at the start that belong to padding: positions begin behind ``padding_idx``."""
    return 0 if table.padding_idx is None else table.padding_idx + 1


def _trained(model: PreTrainedModel, tokens: int) -> tuple[nn.Embedding, Tensor]:
    table = _need_table(model)
    trained = table.weight.detach()[_unused(table) :]
    if tokens <= len(trained):
        raise ConfigError(f"the model reads {len(trained)} tokens already, {tokens} is no more")
    return table, trained


def _replace(model: PreTrainedModel, table: nn.Embedding, used: Tensor) -> None:
    """Give the table new used rows, and the model the buffers and config that count them."""
    unused = _unused(table)
    weight = torch.cat([table.weight.detach()[:unused], used])
    table.weight = nn.Parameter(weight.contiguous())
    table.num_embeddings = len(weight)
    model.config.max_position_embeddings = len(weight)
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if name == "position_ids":
                longer = torch.arange(len(weight), device=buffer.device).unsqueeze(0)
                module.register_buffer(name, longer, persistent=False)
            elif name == "token_type_ids":
                zeros = buffer.new_zeros(1, len(weight))
                module.register_buffer(name, zeros, persistent=False)


def _rope(model: PreTrainedModel) -> dict[str, Any]:
    """The rotary settings of full attention; sliding windows never meet far positions."""
    found: dict[str, Any] | None = getattr(model.config, "rope_parameters", None)
    if not found:
        raise ConfigError(f"{type(model).__name__} has no rotary positions")
    return found.get("full_attention", found)


def _rope_factor(model: PreTrainedModel, tokens: int) -> float:
    kind = _rope(model).get("rope_type", "default")
    if kind != "default":
        raise ConfigError(f"the model's rotary positions are scaled already ({kind})")
    before = model.config.max_position_embeddings
    if tokens <= before:
        raise ConfigError(f"the model reads {before} tokens already, {tokens} is no more")
    return float(tokens / before)


def _set_rope(model: PreTrainedModel, tokens: int, changes: dict[str, Any]) -> None:
    """Change the config, and rebuild every module that has computed frequencies from it."""
    _rope(model).update(changes)
    model.config.max_position_embeddings = tokens
    for name, module in list(model.named_modules()):
        if any(key.endswith("inv_freq") for key, _ in module.named_buffers(recurse=False)):
            fresh = type(module)(model.config)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, fresh.to(model.device))
