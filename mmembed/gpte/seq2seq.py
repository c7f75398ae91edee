"""Encoder-decoders with a language-model head: which models are such, and what their heads say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmembed.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_logits", "logits_of", "writes"]


def writes(model: PreTrainedModel) -> bool:
    """Whether a model has an encoder, a decoder and a language-model head."""
    both = bool(getattr(model.config, "is_encoder_decoder", False))
    return both and getattr(model, "lm_head", None) is not None


def logits_of(model: PreTrainedModel, states: Tensor) -> Tensor:
    """``(t, d)`` states of a decoder to ``(t, vocab)`` logits."""
    config: Any = model.config
    if getattr(config, "scale_decoder_outputs", False):  # T5 with tied embeddings
        states = states * config.d_model**-0.5
    logits: Tensor = model.lm_head(states)
    bias: Tensor | None = getattr(model, "final_logits_bias", None)  # BART
    return logits if bias is None else logits + bias


@torch.no_grad()
def check_logits(model: PreTrainedModel) -> None:
    """Make sure that :func:`logits_of` says what the model itself does.

    Raises:
        ConfigError: it does not.
    """
    was_training = model.training
    model.eval()
    ids = torch.arange(5, 9, device=model.device).unsqueeze(0)
    try:
        wanted = model(input_ids=ids, decoder_input_ids=ids).logits
        memory = model.get_encoder()(input_ids=ids).last_hidden_state
        decoded = model.get_decoder()(input_ids=ids, encoder_hidden_states=memory)
        found = logits_of(model, decoded.last_hidden_state)
        if not torch.allclose(found.float(), wanted.float(), rtol=1e-3, atol=1e-4):
            raise ConfigError(f"the head of {type(model).__name__} is no plain layer")
    finally:
        model.train(was_training)
