"""The encoder that a stage starts from, and what of it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from mmembed.errors import ConfigError
from mmembed.gpte.config import EncoderConfig, LoraSettings, ScheduleConfig
from mmembed.gpte.dropout import set_dropout
from mmembed.gpte.long_context import (
    interpolate_positions,
    interpolate_rope,
    ntk_rope,
    tile_positions,
    yarn_rope,
)
from mmembed.gpte.lora import add_lora
from mmembed.gpte.onednn import use_onednn
from mmembed.gpte.protocols import TrainableEncoder
from mmembed.gpte.text_encoder import TextEncoder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["parameter_groups", "start_encoder"]

_LENGTHEN: Mapping[str, Callable[[PreTrainedModel, int], None]] = {
    "tile": tile_positions,
    "interpolate": interpolate_positions,
    "rope": interpolate_rope,
    "ntk": ntk_rope,
    "yarn": yarn_rope,
}


def start_encoder(config: EncoderConfig, weights: str | Path | None = None) -> TextEncoder:
    """The encoder of a stage, with adapters, in training mode.

    Args:
        weights: a folder or hub name in place of the config's backbone.

    Raises:
        ConfigError: the model cannot be what the config asks for, or nothing of it learns.
        ModelLoadError: it cannot be loaded.
    """
    settings = config.text_settings
    source = str(weights or config.backbone)
    longer = config.lengthen
    if longer is None:
        encoder = TextEncoder.from_pretrained(source, settings, lm_head=config.lm_head)
    else:

        def lengthen(model: PreTrainedModel) -> None:
            _LENGTHEN[longer.method](model, longer.tokens)

        encoder = TextEncoder.from_pretrained(
            source, settings, lm_head=config.lm_head, change=lengthen
        )
    if encoder.calibration is not None:
        raise ConfigError(f"{source}: is calibrated, which training would make wrong: start before")
    if config.dropout is not None:
        set_dropout(encoder.full, config.dropout)
    if config.train == "none":
        encoder.full.requires_grad_(False)
    elif config.train == "biases":
        for name, parameter in encoder.full.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
    if config.lora is not None:
        _adapt(encoder, config.lora)
    if config.gradient_checkpointing:
        if config.positive_dropout is not None:
            raise ConfigError("gradient checkpointing reads again at one rate: no positive_dropout")
        encoder.full.gradient_checkpointing_enable({"use_reentrant": False})
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError(
            f"{source}: nothing learns: no head, prefix or adapter besides train none"
        )
    return use_onednn(encoder).train()


def parameter_groups(
    encoder: TrainableEncoder,
    tasks: Iterable[nn.Module],
    learned: Iterable[nn.Module],
    schedule: ScheduleConfig,
) -> list[dict[str, object]]:
    """Groups for an optimiser: no weight decay for vectors, and ``head_lr`` for what is new.

    Args:
        tasks: token tasks.
        learned: what objectives learn themselves; it never decays.

    Raises:
        ConfigError: nothing learns.
    """
    head_lr = schedule.head_lr or schedule.lr
    own = {id(parameter) for parameter in encoder.full.parameters()}
    new = [p for p in encoder.parameters() if id(p) not in own]
    groups: list[tuple[list[torch.nn.Parameter], float, float]] = []
    for parameters, rate in (
        (list(encoder.full.parameters()), schedule.lr),
        (new, head_lr),
        *((list(module.parameters()), head_lr) for module in tasks),
    ):
        learning = [p for p in parameters if p.requires_grad]
        matrices = [p for p in learning if p.ndim > 1]
        groups.append((matrices, rate, schedule.weight_decay))
        groups.append(([p for p in learning if p.ndim <= 1], rate, 0.0))
    groups += [(list(module.parameters()), head_lr, 0.0) for module in learned]
    found = [{"params": p, "lr": lr, "weight_decay": decay} for p, lr, decay in groups if p]
    if not found:
        raise ConfigError("nothing learns")
    return found


def _adapt(encoder: TextEncoder, lora: LoraSettings) -> None:
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    add_lora(
        encoder.full,
        lora.rank,
        lora.alpha,
        dropout=lora.dropout,
        targets=targets,
        dora=lora.dora,
    )
