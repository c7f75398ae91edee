"""The text encoder: a transformers model, its tokenizer, pooling and heads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte import reading
from mmembed.gpte.bidirectional import make_bidirectional
from mmembed.gpte.calibration import Flow, Whitening
from mmembed.gpte.context import CorpusTokens
from mmembed.gpte.experts import Experts, add_experts, routing_of
from mmembed.gpte.heads import LexicalHead, MultiVectorHead, Projection, TrainOnly, splade
from mmembed.gpte.layers import LatentAttention, LayerMean, LayerWeights
from mmembed.gpte.long_context import alibi_slopes, drop_positions, positions_of
from mmembed.gpte.packed import packing_of
from mmembed.gpte.pooling import pooling_of
from mmembed.gpte.protocols import Outputs, TrainableEncoder
from mmembed.gpte.reading import TextBatch
from mmembed.gpte.rows import Row
from mmembed.gpte.seq2seq import logits_of, writes
from mmembed.gpte.soft_prompts import SoftPrefix
from mmembed.gpte.states import TokenStates, offsets_of
from mmembed.gpte.text_settings import ProjectionSettings, TextSettings
from mmembed.gpte.tokenizing import Tokenizing, summary_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["TextEncoder"]


class TextEncoder(TrainableEncoder):
    """Texts in, vectors out. Implements :class:`mmembed.gpte.protocols.Encoder`.

    Runs padding-free where the model allows it and padded elsewhere; a row's outputs never depend
    on its neighbours.

    Args:
        model: an encoder, a decoder or an encoder-decoder of transformers, with or without a
            language-model head. The splade head needs one.
        tokenizer: its fast tokenizer.
        settings: everything else.

    Attributes:
        full: the model as given, which holds the weights.
        hidden_size: width of the token states.

    Raises:
        ModelLoadError: tokenizer and model do not belong together.
        ConfigError: the settings ask for what this model cannot give.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        settings: TextSettings | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings = settings or TextSettings()
        self.full: PreTrainedModel = model
        self.tokenizer = tokenizer
        self._writes = not settings.decoder_first and writes(model)
        summary = summary_tokens(settings.summary_tokens)
        _learn_tokens(self, [*summary, *settings.tokens])
        tokenizer = self.tokenizer
        rows = self.base.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            raise ModelLoadError(
                f"the tokenizer has {len(tokenizer)} tokens and the model embeds {rows}: they do "
                "not belong together, or resize_token_embeddings was forgotten"
            )
        end_id = None if settings.end_token is None else _id_of(tokenizer, settings.end_token)
        self.max_tokens = _max_tokens(self.base, tokenizer, settings)
        self.tokenizing = Tokenizing(tokenizer, self.max_tokens, end_id, summary)
        if settings.decoder_first and not self.base.config.is_encoder_decoder:
            raise ConfigError(f"{type(self.base).__name__} has no decoder beside its encoder")
        if settings.bidirectional:
            make_bidirectional(self.base)
        self.experts: list[Experts] = []
        if settings.experts:
            numbers = (settings.experts, settings.expert_top, settings.expert_every)
            self.experts = add_experts(self.base, *numbers)
        self.packing = None if settings.decoder_first else packing_of(self.base)
        if self.experts and self.packing is None:
            raise ConfigError(f"{type(self.base).__name__} does not pack: no experts")
        self.hidden_size: int = self.base.config.hidden_size
        self._add_attention_extras()
        self._add_heads()

    def _add_attention_extras(self) -> None:
        settings = self.settings
        self.summary_ids: Tensor
        ids = self.tokenizer.convert_tokens_to_ids(summary_tokens(settings.summary_tokens))
        self.register_buffer("summary_ids", torch.tensor(ids, dtype=torch.int64), persistent=False)
        self.slopes: Tensor | None
        self.register_buffer("slopes", None, persistent=False)
        self.prefix: SoftPrefix | None = None
        self.context: CorpusTokens | None = None
        summary = settings.summary_tokens
        if not (settings.alibi or settings.prefix_tokens or settings.context or summary):
            return
        if self.packing is None:
            raise ConfigError(
                f"{type(self.base).__name__} does not pack: no ALiBi, no prefix, no context, no "
                "summary tokens"
            )
        if settings.context is not None:
            if settings.alibi or settings.prefix_tokens or summary:
                raise ConfigError("a context goes with no ALiBi, no prefix and no summary tokens")
            embedded = self.base.get_input_embeddings().weight.shape[1]
            self.context = CorpusTokens(settings.context, embedded)
        if settings.alibi:
            drop_positions(self.base)
            self.slopes = alibi_slopes(self.base.config.num_attention_heads)
        if settings.prefix_tokens:
            self.prefix = SoftPrefix(self.base, settings.prefix_tokens)

    def _add_heads(self) -> None:
        settings, width = self.settings, self.hidden_size
        self.mixture: nn.Module | None = None
        if settings.layers:
            kind = LayerWeights if settings.learned_layers else LayerMean
            self.mixture = kind(settings.layers)
        self.latent: nn.Module | None = None
        if settings.latents:
            self.latent = LatentAttention(
                width, settings.latents, settings.latent_heads, settings.latent_head_dim
            )
        self.poolings = [pooling_of(name, **settings.pooling_options) for name in settings.poolings]
        self.projections = nn.Sequential()
        at = width * len(self.poolings)
        for one in settings.projections:
            self.projections.append(_projection(at, one))
            at = one.out
        self.dim = at
        self.calibration: Whitening | Flow | None = None
        specials = self.tokenizer.all_special_ids
        self.lexical: LexicalHead | None = None
        if "lexical" in settings.heads:
            vocab = self.base.get_input_embeddings().weight.shape[0]
            self.lexical = LexicalHead(width, vocab, specials)
        self.multi: MultiVectorHead | None = None
        if "multi" in settings.heads:
            self.multi = MultiVectorHead(width, settings.multi_dim)
        self.match: nn.Linear | None = None
        if settings.match_token:
            self.match_id = _id_of(self.tokenizer, settings.match_token)
            self.match = nn.Linear(width, 1)
        if "splade" in settings.heads:
            _check_lm_head(self.full, self.lm_head)
        self.to(self.base.device)

    def calibrate(self, calibration: Whitening | Flow) -> None:
        """Transform every dense vector in evaluation mode, and be saved with what does it.

        Raises:
            ConfigError: it is of another width than the vectors.
        """
        settings = calibration.settings()
        if settings["width"] != self.dim:
            raise ConfigError(f"vectors have {self.dim} dimensions, not {settings['width']}")
        self.calibration = calibration.to(self.device)
        self.dim = settings.get("dim", self.dim)

    @property
    def base(self) -> PreTrainedModel:
        """The model without its language-model head; of one that also writes, its encoder."""
        base: PreTrainedModel = self.full.get_encoder() if self._writes else self.full.base_model
        return base

    @property
    def decoder(self) -> PreTrainedModel | None:
        """The decoder beside the encoder, where the model came with a language-model head."""
        return self.full.get_decoder() if self._writes else None

    @property
    def lm_head(self) -> Callable[[Tensor], Tensor]:
        """``(t, d)`` token states to ``(t, vocab)`` logits, for MLM, NTP and SPLADE.

        Raises:
            ConfigError: the model came without a language-model head.
        """
        if self._writes:
            return partial(logits_of, self.full)
        if self.full is self.base:
            raise ConfigError(f"{type(self.full).__name__} has no language-model head")
        return nn.Sequential(*(part for part in self.full.children() if part is not self.base))

    @property
    def device(self) -> torch.device:
        device: torch.device = self.base.device
        return device

    def tokenize(
        self,
        texts: Sequence[str],
        role: str | None = None,
        instruction: str | Sequence[str | None] | None = None,
    ) -> list[Row]:
        """One row a text, cut to :attr:`max_tokens` without losing a prompt or an end token.

        Args:
            texts: the texts.
            role: whose prompt to use, e.g. ``"query"``.
            instruction: what the embedding is for, one for all texts or one each.

        Raises:
            InputError: a text is no string, empty, or has no room beside its prompt; ``position``
                is its index.
            ConfigError: the role is unknown, or its prompt has no slot for an instruction.
        """
        if instruction is None or isinstance(instruction, str):
            instruction = [instruction] * len(texts)
        return self.tokenizing.rows(self.settings.prompt(role), texts, instruction)

    def collate(self, rows: Sequence[Row]) -> TextBatch:
        """One batch of these rows on the model's device."""
        return reading.batch_of(rows, self.device)

    def forward(self, batch: TextBatch) -> Outputs:
        """Every head's output, and the token states, from one forward."""
        states = self.read(batch)
        out = Outputs(states=states)
        heads = self.settings.heads
        if self.experts:
            out.routing = routing_of(self.experts, states)
        if "dense" in heads:
            out.dense = self._dense(states, batch)
        if self.multi is not None:
            out.multi, out.multi_mask = self.multi(states, exclude="unpooled")
        if self.lexical is not None:
            out.sparse = self.lexical(states, exclude="unpooled")
        elif "splade" in heads:
            out.sparse = splade(states, self.lm_head)
        return out

    def read(self, batch: TextBatch) -> TokenStates:
        """Token states of the batch, layers mixed and latent attention applied where set."""
        every = self.mixture is not None
        if self.packing is not None:
            prefix = None if self.prefix is None else self.prefix()
            context = None if self.context is None else self.context(len(batch))
            gathers = self.gathers(batch) if self.settings.summary_tokens else None
            layers = reading.read_packed(
                self.base, self.packing, batch, every, prefix, self.slopes, context, gathers
            )
        elif self.settings.decoder_first:
            layers = reading.read_decoder_first(self.base, self._pad_id, batch, every)
        else:
            layers = reading.read_padded(self.base, self._pad_id, batch, every)
        hidden = layers[-1] if self.mixture is None else self.mixture(layers)
        if self.latent is not None:
            hidden = self.latent(hidden)
        device = batch.ids.device
        if self.settings.decoder_first:
            nothing = torch.zeros(len(batch), dtype=torch.bool, device=device)
            spans = dict.fromkeys(batch.spans, nothing)
            return TokenStates(hidden, torch.arange(len(batch) + 1, device=device), spans)
        return TokenStates(hidden, offsets_of(batch.lengths).to(device), batch.spans, batch.ids)

    def gathers(self, batch: TextBatch) -> Tensor:
        """``(tokens,)`` bool: the learned tokens that gather a text."""
        return torch.isin(batch.ids, self.summary_ids)

    def _dense(self, states: TokenStates, batch: TextBatch) -> Tensor:
        dense = self._pool(states)
        if batch.bare is not None and batch.bare_rows is not None:
            bare = self._pool(self.read(batch.bare))
            has = (batch.bare_rows >= 0).unsqueeze(1)
            dense = dense - torch.where(has, bare[batch.bare_rows], 0.0)
        dense = self.projections(dense)
        if self.calibration is None or self.training:
            return dense
        return self.calibration(dense)

    def _pool(self, states: TokenStates) -> Tensor:
        pooled = [pool(states, exclude="unpooled") for pool in self.poolings]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)

    @property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, settings: TextSettings | None = None, **options: Any
    ) -> TextEncoder:
        """Load a folder or hub model; see :func:`mmembed.gpte.text_loading.load_text_encoder`."""
        from mmembed.gpte.text_loading import load_text_encoder

        return load_text_encoder(name_or_path, settings, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that :meth:`from_pretrained` reads; adapters are merged in the copy."""
        from mmembed.gpte.text_loading import save_text_encoder

        save_text_encoder(self, Path(folder))


def _projection(width: int, one: ProjectionSettings) -> nn.Module:
    layer = Projection(width, one.out, one.bias, one.activation)
    if not one.train_only:
        return layer
    if one.out != width:
        raise ConfigError(f"a train_only projection must keep the width {width}, not {one.out}")
    return TrainOnly(layer)


def _learn_tokens(encoder: TextEncoder, tokens: list[str]) -> None:
    """Add tokens to tokenizer and model, unless a saved encoder already has them."""
    # Those of a plain vocabulary would be split where they stand in a text.
    new = [token for token in tokens if token not in encoder.tokenizer.get_added_vocab()]
    if new:
        # The tokenizer may be shared with another encoder, which must not grow along.
        encoder.tokenizer = copy.deepcopy(encoder.tokenizer)
        encoder.tokenizer.add_special_tokens(
            {"additional_special_tokens": new}, replace_extra_special_tokens=False
        )
        rows = encoder.base.get_input_embeddings().weight.shape[0]
        if len(encoder.tokenizer) > rows:
            encoder.full.resize_token_embeddings(len(encoder.tokenizer))


def _id_of(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    found = tokenizer.get_vocab().get(token)
    if found is None:
        raise ConfigError(f"the tokenizer has no token {token!r} to end rows with")
    return int(found)


def _max_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, settings: TextSettings
) -> int:
    wanted = settings.max_tokens
    room = None if settings.alibi else positions_of(model)
    if room is not None:
        room -= settings.prefix_tokens
    if wanted is None:
        limits = [limit for limit in (room, tokenizer.model_max_length) if limit is not None]
        # Tokenizers without a limit give an astronomic one.
        smallest = min(limits)
        return smallest if smallest < 1_000_000 else 512
    if room is not None and wanted > room:
        raise ConfigError(
            f"max_tokens is {wanted}, and the model has positions for {room}: lengthen it with "
            "mmembed.gpte.long_context first"
        )
    return wanted


@torch.no_grad()
def _check_lm_head(full: PreTrainedModel, lm_head: Callable[[Tensor], Tensor]) -> None:
    """The parts besides the base model, in order, must be the head that the model itself runs."""
    was_training = full.training
    full.eval()
    ids = torch.arange(5, 9, device=full.device).unsqueeze(0)
    try:
        logits = full(input_ids=ids).logits
        states = full.base_model(input_ids=ids).last_hidden_state
        try:
            same = torch.allclose(lm_head(states).float(), logits.float(), rtol=1e-3, atol=1e-4)
        except (RuntimeError, TypeError):  # layers out of order, or a loss among them (DistilBERT)
            same = False
        if not same:
            raise ConfigError(
                f"the head of {type(full).__name__} is not a plain sequence of layers"
            )
    finally:
        full.train(was_training)
