"""Let a decoder look both ways (LLM2Vec, GritLM, NV-Embed), and check that it does.

transformers keeps the direction of attention in ``config.is_causal``, saves it with the model and
honours it in every attention implementation; a model that ignores it is found out numerically here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmembed.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["make_bidirectional", "sees_ahead"]


def make_bidirectional(model: PreTrainedModel) -> None:
    """Take the causal mask off a decoder, in place.

    Raises:
        ConfigError: the first token still does not see the last one, alone or beside padding. The
            model is left as it was.
    """
    before = getattr(model.config, "is_causal", None)
    model.config.is_causal = False
    if not sees_ahead(model):
        if before is None:
            del model.config.is_causal
        else:
            model.config.is_causal = before
        raise ConfigError(
            f"{type(model).__name__} stays causal: its attention does not read config.is_causal"
        )


@torch.no_grad()
def sees_ahead(model: PreTrainedModel) -> bool:
    """Whether the first token's state changes with the last token, in a row alone and a padded one.

    A lone row without padding needs no mask, and is where a causal default goes unnoticed.
    """
    device = model.get_input_embeddings().weight.device
    was_training = model.training
    model.eval()
    try:
        rows = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]], device=device)
        alone = [_first_state(model, row[None], torch.ones_like(row[None])) for row in rows]
        padding = torch.zeros(2, 2, dtype=torch.int64, device=device)
        padded = torch.cat([rows, padding], dim=1)
        mask = torch.cat([torch.ones_like(rows), padding], dim=1)
        beside = _first_state(model, padded, mask)
        return not (_same(alone[0], alone[1]) or _same(beside[:1], beside[1:]))
    finally:
        model.train(was_training)


def _first_state(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    hidden: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden[:, 0].float()


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * a.abs().max())
