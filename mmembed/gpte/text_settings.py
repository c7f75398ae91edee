"""What a text encoder is besides its weights, as one value that is saved beside them."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmembed.errors import ConfigError
from mmembed.gpte.pooling import pooling_of
from mmembed.gpte.prompts import PROMPTS, Prompt

__all__ = ["HEADS", "ContextSettings", "ProjectionSettings", "TextSettings"]

HEADS = ("dense", "multi", "lexical", "splade")


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """Tokens ahead of every row that tell of the corpus (CDE); :mod:`mmembed.gpte.context`.

    Attributes:
        documents: of the corpus that a row sees.
        width: of the first stage's vectors.
        soft: learned tokens beside them.
        dropout: share of documents that a row does not see in training.

    Raises:
        ConfigError: an impossible value.
    """

    documents: int = 512
    width: int = 768
    soft: int = 8
    dropout: float = 0.005

    def __post_init__(self) -> None:
        if self.documents < 1 or self.width < 1 or self.soft < 0 or not 0 <= self.dropout < 1:
            raise ConfigError("context: needs documents, a width, and a dropout below 1")


@dataclass(frozen=True, slots=True)
class ProjectionSettings:
    """One :class:`mmembed.gpte.heads.Projection` behind pooling.

    Attributes:
        out: size of its output.
        bias: whether it has one.
        activation: identity, tanh, relu, gelu or silu.
        train_only: skipped in evaluation, as in unsupervised SimCSE; needs ``out`` to be the width.
    """

    out: int
    bias: bool = True
    activation: str = "identity"
    train_only: bool = False


@dataclass(frozen=True, slots=True)
class TextSettings:
    """Everything about a text encoder that is not a tensor.

    Attributes:
        pooling: a name in :data:`mmembed.gpte.pooling.POOLINGS`, or several, whose vectors are
            concatenated.
        pooling_options: options of the pooling, e.g. ``{"k": 8}`` for ``last_k``.
        heads: what one forward gives: dense, multi, lexical, splade.
        prompts: prompts by role, e.g. ``"query"`` and ``"document"``; ``"default"`` serves calls
            that name no role.
        max_tokens: longest row; None is what the tokenizer and the model allow.
        end_token: token that closes every row, whatever is cut, e.g. ``"</s>"`` for E5-Mistral.
        summary_tokens: number of learned tokens for ``{summary}`` slots (GEM). They see what is
            ahead of them and not each other, and what is behind them sees no more than them of it.
        tokens: texts that are one token each, such as UniXcoder's modes and T5's sentinels; learned
            where the model does not have them.
        match_token: token ahead of a document that the matching head judges beside a query, as
            CodeT5+'s ``[Match]``; empty leaves that head out.
        decoder_first: read an encoder-decoder at the first step of its decoder (Sentence-T5).
        bidirectional: take the causal mask off a decoder.
        prefix_tokens: length of a learned prefix of every layer (PromCSE); 0 leaves it out.
        context: documents of the corpus ahead of every row (CDE); None leaves them out.
        alibi: symmetric ALiBi in the place of a learned table of positions (JinaBERT).
        layers: hidden states to mix before pooling, 0 the embeddings' and -1 the last; empty reads
            the last layer.
        learned_layers: mix them by learned weights in place of the mean.
        latents: latents of an NV-Embed attention before pooling; 0 leaves it out.
        latent_heads: its heads.
        latent_head_dim: size of its heads; None is the width divided by the heads.
        experts: experts in the place of the MLP of every ``expert_every``-th layer, of which each
            token reads ``expert_top`` (Nomic Embed v2); 0 leaves the MLPs as they are.
        projections: layers behind pooling.
        multi_dim: size of multi-vector token vectors.
        normalize: whether the final dense vectors are unit vectors; read by encoding and exports,
            while objectives normalise for themselves.

    Raises:
        ConfigError: an unknown name, or an empty or impossible value.
    """

    pooling: str | tuple[str, ...] = "mean"
    pooling_options: Mapping[str, Any] = field(default_factory=dict)
    heads: tuple[str, ...] = ("dense",)
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    max_tokens: int | None = None
    end_token: str | None = None
    summary_tokens: int = 0
    tokens: tuple[str, ...] = ()
    match_token: str = ""
    decoder_first: bool = False
    bidirectional: bool = False
    prefix_tokens: int = 0
    context: ContextSettings | None = None
    alibi: bool = False
    layers: tuple[int, ...] = ()
    learned_layers: bool = False
    latents: int = 0
    latent_heads: int = 8
    latent_head_dim: int | None = None
    experts: int = 0
    expert_top: int = 2
    expert_every: int = 2
    projections: tuple[ProjectionSettings, ...] = ()
    multi_dim: int = 128
    normalize: bool = True

    def __post_init__(self) -> None:
        for name in self.poolings:
            pooling_of(name, **self.pooling_options)
        unknown = [name for name in self.heads if name not in HEADS]
        if unknown or not self.heads:
            raise ConfigError(f"heads {list(self.heads)}: choose from {', '.join(HEADS)}")
        if {"lexical", "splade"} <= set(self.heads):
            raise ConfigError(
                "the lexical and the splade head both fill the sparse output: pick one"
            )
        if self.decoder_first and set(self.heads) != {"dense"}:
            raise ConfigError(
                "decoder_first gives one state a row: only the dense head can read it"
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be positive, not {self.max_tokens}")

    @property
    def poolings(self) -> tuple[str, ...]:
        """The names of the poolings."""
        return (self.pooling,) if isinstance(self.pooling, str) else self.pooling

    @property
    def heads_key(self) -> tuple[object, ...]:
        """What decides which tensors there are besides the model's: equal keys, equal tensors."""
        return (
            self.heads,
            len(self.poolings),
            self.summary_tokens,
            bool(self.match_token),
            self.prefix_tokens,
            self.context,
            self.layers,
            self.learned_layers,
            self.latents,
            self.latent_heads,
            self.latent_head_dim,
            self.experts,
            self.expert_every,
            self.projections,
            self.multi_dim,
        )

    def prompt(self, role: str | None) -> Prompt:
        """The prompt of a role; a role without one is dressed in nothing.

        Raises:
            ConfigError: the role is none of those named, nor query or document.
        """
        if role is None:
            return self.prompts.get("default", Prompt())
        if role not in self.prompts and role not in ("query", "document"):
            known = ", ".join(sorted({"query", "document", *self.prompts}))
            raise ConfigError(f"unknown role {role!r} (known: {known})")
        return self.prompts.get(role, Prompt())

    def to_json(self) -> str:
        """Indented JSON that :meth:`from_json` reads back."""
        values = dataclasses.asdict(self)
        for prompt in values["prompts"].values():
            del prompt["_pieces"]
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TextSettings:
        """Settings from JSON.

        Raises:
            ConfigError: an unknown key; the message holds the nearest known one.
        """
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextSettings:
        """Settings from plain values, as YAML gives them.

        Prompts are dicts of their fields, or names in :data:`mmembed.gpte.prompts.PROMPTS`.

        Raises:
            ConfigError: an unknown key; the message holds the nearest known one.
        """
        values = _known(cls, values)
        for name in ("pooling", "heads", "layers", "tokens"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        if "prompts" in values:
            prompts = (values["prompts"] or {}).items()
            values["prompts"] = {role: _prompt(prompt) for role, prompt in prompts}
        if "projections" in values:
            values["projections"] = tuple(
                ProjectionSettings(**_known(ProjectionSettings, one))
                for one in values["projections"]
            )
        if isinstance(values.get("context"), Mapping):
            values["context"] = ContextSettings(**_known(ContextSettings, values["context"]))
        return cls(**values)


def _prompt(value: str | Mapping[str, Any]) -> Prompt:
    if not isinstance(value, str):
        return Prompt(**_known(Prompt, value))
    if value not in PROMPTS:
        raise ConfigError(f"unknown prompt {value!r} (known: {', '.join(PROMPTS)})")
    return PROMPTS[value]


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the values, all of whose keys are fields of the dataclass."""
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{kind.__name__} has no setting {key!r}{hint}")
    return dict(values)
