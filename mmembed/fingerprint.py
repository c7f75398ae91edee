"""What tells one model's vectors from another's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import torch
from torch import nn

from mmembed.backbones.base import Backbone, module_of
from mmembed.embedder_config import EmbedderConfig

__all__ = ["digest_of"]


def digest_of(backbone: Backbone, heads: nn.Module, config: EmbedderConfig) -> str:
    """32 hexadecimal digits of weights, pooling, prompts and preprocessing.

    Large tensors are sampled, at 4,096 evenly spaced elements each.
    """
    digest = hashlib.blake2b(digest_size=16)
    settings = {**asdict(config), "batch_tokens": 0}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    digest.update(repr(backbone.media_budget).encode())
    tensors = {**module_of(backbone).state_dict(), **heads.state_dict()}
    for key, tensor in sorted(tensors.items()):
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 4096)].to("cpu", torch.float32)
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
