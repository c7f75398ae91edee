"""An embedder as the trainer sees it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmembed.backbones.base import module_of
from mmembed.embedder import Embedder, OwnHeads
from mmembed.errors import ConfigError
from mmembed.gpte.config import LoraSettings
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.lora import add_lora
from mmembed.gpte.onednn import use_onednn
from mmembed.gpte.protocols import Outputs, TrainableEncoder
from mmembed.gpte.rows import Row
from mmembed.multimodal.config import MediaEncoderConfig

logger = logging.getLogger(__name__)

__all__ = ["MediaEncoder", "adapt", "freeze", "start_media_encoder"]


@dataclass(slots=True)
class RoutedBatch:
    """A backbone's batch, and the task adapter and length of each of its rows."""

    batch: Any
    tasks: list[str]
    lengths: list[int]


class MediaEncoder(TrainableEncoder):
    """The backbone and the heads of an :class:`mmembed.embedder.Embedder`, trainable.

    Args:
        embedder: trained in place.
        task: the adapter that rows go through; ``""`` for none.
    """

    def __init__(self, embedder: Embedder, task: str = "") -> None:
        super().__init__()
        self.full = module_of(embedder.backbone)
        self.heads = embedder.heads
        self.dim = embedder.dim
        self.task = task
        self._embedder = [embedder]  # a list, so that its modules are registered once

    @property
    def embedder(self) -> Embedder:
        """The embedder whose weights are trained."""
        return self._embedder[0]

    @property
    def device(self) -> torch.device:
        return next(self.full.parameters()).device

    @property
    def scale(self) -> Mapping[str, Tensor]:
        found: Mapping[str, Tensor] = getattr(self.full, "scale", {})
        return found

    def collate(self, rows: Sequence[Row]) -> RoutedBatch:
        """One batch of these rows on the model's device."""
        batch = self.embedder.backbone.collate(rows)
        return RoutedBatch(batch, [row.task for row in rows], [row.tokens for row in rows])

    def forward(self, routed: RoutedBatch) -> Outputs:
        """Everything that the model gives, dense vectors not normalised."""
        if not any(routed.tasks):
            return self._read(routed.batch)
        with self.embedder.adapters.routed(
            routed.tasks, routed.lengths, self.embedder.config.dense_tasks
        ):
            return self._read(routed.batch)

    def _read(self, batch: Any) -> Outputs:
        backbone = self.embedder.backbone
        if isinstance(backbone, OwnHeads):
            return backbone.embed(batch)
        out: Outputs = self.heads(self.full(batch), self.embedder.outputs)
        return out

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that :meth:`Embedder.from_pretrained` reads, plain LoRA merged.

        Raises:
            OSError: the disk is full or not writable; an earlier folder stays as it was.
        """
        with whole_folder(Path(folder)) as partial:
            self.embedder.save_pretrained(partial)


def start_media_encoder(config: MediaEncoderConfig, weights: str | None = None) -> MediaEncoder:
    """The encoder of a stage, in training mode, with adapters and what shall stay frozen.

    Args:
        weights: a folder or hub name in place of the config's backbone.

    Raises:
        ConfigError: nothing of it learns, or a setting is unknown.
        ModelLoadError: it cannot be loaded.
    """
    from dataclasses import fields, replace

    from mmembed.embedder_config import EmbedderConfig

    loaded = Embedder.from_pretrained(weights or config.backbone, device="cpu")
    known = {one.name for one in fields(EmbedderConfig)}
    if wrong := sorted(set(config.settings) - known):
        raise ConfigError(f"encoder.settings: unknown key {wrong[0]!r} (known: {sorted(known)})")
    changed = replace(loaded.config, **dict(config.settings))
    embedder = loaded if changed == loaded.config else loaded.configured(changed)
    if not config.task and (config.train != "none" or config.lora is not None):
        _leave_out_adapters(embedder)
    encoder = MediaEncoder(embedder, config.task)
    freeze(encoder.full, config)
    for task, head in embedder.heads.task_dense.items():
        head.requires_grad_(task == config.task)
    if config.task:
        _add_task(embedder, config)
    elif config.lora is not None:
        adapt(encoder.full, config.lora)
    if config.gradient_checkpointing:
        model: Any = getattr(encoder.full, "model", encoder.full)
        from mmembed.adapters import checkpoint_contexts

        # Activations are made again under the route of their rows.
        options = {"use_reentrant": False, "context_fn": checkpoint_contexts}
        model.gradient_checkpointing_enable(options)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError(
            f"{config.backbone}: nothing learns: no head or adapter besides train none"
        )
    use_onednn(encoder)
    return encoder.train()


def freeze(model: nn.Module, config: MediaEncoderConfig) -> None:
    """Keep what ``config.train`` does not name from learning."""
    if config.train == "all":
        return
    model.requires_grad_(False)
    if config.train == "language":
        part: Any = getattr(model, "language_model", None) or getattr(model, "text", None) or model
        part.requires_grad_(True)
        connector = getattr(model, "connector", None)
        if connector is not None:
            connector.requires_grad_(True)


def _leave_out_adapters(embedder: Embedder) -> None:
    """Forget task adapters of a base that learns: they belong to what it was."""
    if embedder.adapted:
        logger.warning("left out, because the base learns: %s", ", ".join(embedder.adapters.names))
        for name in embedder.adapters.names:
            embedder.adapters.remove(name)


def _add_task(embedder: Embedder, config: MediaEncoderConfig) -> None:
    """The task's adapter, new, cloned or as it is, and nothing else, learns."""
    adapters = embedder.adapters
    lora = config.lora or LoraSettings()
    if config.task in adapters.names:
        pass
    elif config.clone:
        adapters.clone(config.clone, config.task)
    else:
        alpha = 2.0 * lora.rank if lora.alpha is None else lora.alpha
        adapters.add(config.task, rank=lora.rank, alpha=alpha, dropout=lora.dropout, dora=lora.dora)
    module_of(embedder.backbone).requires_grad_(False)
    for parameter in adapters.parameters(config.task):
        parameter.requires_grad_(True)


def adapt(module: nn.Module, lora: LoraSettings) -> None:
    """LoRA on the layers of a backbone that its family names, or that the settings do."""
    targets: Any = lora.targets
    if targets == "all-linear":
        targets = module.lora_targets
    add_lora(
        module,
        lora.rank,
        lora.alpha,
        dropout=lora.dropout,
        targets=targets if isinstance(targets, str) else list(targets),
        dora=lora.dora,
    )
