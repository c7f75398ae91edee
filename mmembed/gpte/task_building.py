"""From what a recipe says of a token task to the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mmembed.errors import ConfigError
from mmembed.gpte.bidirectional import sees_ahead
from mmembed.gpte.matching import MatchedPairs
from mmembed.gpte.onednn import use_onednn
from mmembed.gpte.seq2seq import check_logits
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.token_tasks import (
    GatheredTokens,
    MaskedTokens,
    NextTokens,
    ReplacedTokens,
    TokenTask,
)
from mmembed.gpte.writing import ContinuedText, DenoisedText, OtherText, WrittenText

__all__ = ["task_of"]

_WRITTEN: Mapping[str, Callable[[TokenTaskConfig, TextEncoder], WrittenText]] = {
    "denoise": DenoisedText,
    "continue": ContinuedText,
    "generate": OtherText,
}


def task_of(config: TokenTaskConfig, encoder: TextEncoder) -> TokenTask:
    """The task of this configuration, for this encoder.

    Raises:
        ConfigError: the encoder lacks what the task needs.
        ModelLoadError: a model of the task cannot be loaded.
    """
    if config.task == "rtd":
        generator = TextEncoder.from_pretrained(str(config.generator), lm_head=True).full
        discriminator = TextEncoder.from_pretrained(str(config.discriminator)).full
        generator, discriminator = use_onednn(generator), use_onednn(discriminator.train())
        return ReplacedTokens(config, encoder, generator, discriminator)
    if config.task == "match":
        return MatchedPairs(config, encoder)
    _ = encoder.lm_head
    if config.task in _WRITTEN:
        if encoder.decoder is not None:
            check_logits(encoder.full)
        return _WRITTEN[config.task](config, encoder)
    if encoder.decoder is not None:
        raise ConfigError(
            f"task {config.task}: the head of an encoder-decoder says what its decoder writes: "
            "take denoise, continue or generate"
        )
    if config.task in ("mlm", "mntp"):
        return MaskedTokens(config)
    if encoder.packing is None:
        _check_direction(config, encoder)
    return NextTokens(config) if config.task == "ntp" else GatheredTokens(config)


def _check_direction(config: TokenTaskConfig, encoder: TextEncoder) -> None:
    """A model whose mask cannot be set has to be causal, or a decoder that can be made so."""
    if not encoder.settings.bidirectional and sees_ahead(encoder.base):
        raise ConfigError(f"task {config.task}: {type(encoder.base).__name__} looks ahead")
    if encoder.settings.bidirectional and getattr(encoder.full, "is_gradient_checkpointing", False):
        raise ConfigError(
            f"task {config.task} reads by a causal mask, which gradient checkpointing would forget"
        )
