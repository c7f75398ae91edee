"""A reranker as the trainer sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmembed.errors import ConfigError
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.onednn import use_onednn
from mmembed.gpte.protocols import Outputs, TrainableEncoder
from mmembed.gpte.rows import Row
from mmembed.gpte.text_loading import hub_folder
from mmembed.multimodal.config import MediaEncoderConfig
from mmembed.multimodal.encoder import adapt, freeze
from mmembed.reranker import load_scorer
from mmembed.rerankers.base import PairScorer
from mmembed.rerankers.yes_no import YesNoReranker, YesNoSettings

__all__ = ["PairEncoder", "start_pair_encoder"]


class PairEncoder(TrainableEncoder):
    """A scorer of pairs, trainable: a pair's logit is its dense vector of one dimension.

    Args:
        scorer: trained in place.
    """

    dim = 1

    def __init__(self, scorer: PairScorer) -> None:
        super().__init__()
        assert isinstance(scorer, nn.Module)
        self.full = scorer

    @property
    def scorer(self) -> PairScorer:
        """The reranker whose weights are trained."""
        found: Any = self.full
        return found

    @property
    def device(self) -> torch.device:
        return next(self.full.parameters()).device

    def collate(self, rows: Sequence[Row]) -> Any:
        """One batch of these pairs on the model's device."""
        return self.scorer.collate(rows)

    def forward(self, batch: Any) -> Outputs:
        """``dense (n, 1)``: the logits."""
        return Outputs(dense=self.full(batch).unsqueeze(1))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that :meth:`mmembed.reranker.Reranker.from_pretrained` reads, LoRA merged.

        Raises:
            OSError: the disk is full or not writable; an earlier folder stays as it was.
        """
        with whole_folder(Path(folder)) as partial:
            self.scorer.save_pretrained(str(partial))


def start_pair_encoder(config: MediaEncoderConfig, weights: str | None = None) -> PairEncoder:
    """The reranker of a stage, in training mode, with adapters and what shall stay frozen.

    Args:
        weights: a folder or hub name in place of the config's backbone.

    Raises:
        ConfigError: nothing of it learns, or a setting is unknown.
        ModelLoadError: it cannot be loaded, or is no reranker.
    """
    name = weights or config.backbone
    known = {one.name for one in fields(YesNoSettings)}
    if wrong := sorted(set(config.settings) - known):
        raise ConfigError(f"encoder.settings: unknown key {wrong[0]!r} (known: {sorted(known)})")
    scorer: Any
    if config.settings:
        scorer = YesNoReranker.from_folder(hub_folder(name), YesNoSettings(**config.settings))
    else:
        scorer = load_scorer(name)
    backbone: nn.Module = getattr(scorer, "backbone", scorer)
    freeze(backbone, config)
    if config.lora is not None:
        adapt(backbone, config.lora)
    if config.gradient_checkpointing:
        scorer.backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    encoder = PairEncoder(scorer)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError(
            f"{config.backbone}: nothing learns: no head or adapter besides train none"
        )
    use_onednn(encoder)
    return encoder.train()
