"""What turns a model's token states into embeddings: saved as ``embedder.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmembed.errors import ConfigError, ModelLoadError

__all__ = ["CONFIG_NAME", "EmbedderConfig"]

CONFIG_NAME = "embedder.json"


@dataclass(frozen=True, slots=True)
class EmbedderConfig:
    """What turns token states into vectors; saved beside the backbone.

    Attributes:
        pooling: name of a function of :mod:`mmembed.gpte.pooling`.
        media_pooling: likewise for items with media; ``""`` takes ``pooling``.
        media_span: pool items with media over these tokens alone: ``"media"`` (visual tokens and
            their markers), ``"visual"`` (without the markers), or ``""`` for the whole row.
        dense: whether dense vectors mean anything: not where only token vectors were trained.
        skip_instruction: leave the instruction's tokens out of every output.
        multi_dim: size of a token's vector in multi-vector output; 0 for a model without.
        multi_bias: whether that projection has a bias.
        multi_tasks: task adapters that have a projection of their own, as Jina-v4's have.
        dense_tasks: tasks whose dense vectors go through a linear map of their own, such as one
            that puts first what matters most; with or without an adapter of that name.
        task: task or task adapter of inputs for which none is asked; ``""`` for the base model.
        lexical: whether the model has a head for sparse lexical weights.
        prompts: instruction by role, used for items that bring none of their own.
        normalize: L2-normalise dense vectors, as cosine search expects.
        batch_tokens: tokens of one forward.
    """

    pooling: str = "mean"
    media_pooling: str = ""
    media_span: str = ""
    dense: bool = True
    skip_instruction: bool = False
    multi_dim: int = 0
    multi_bias: bool = False
    multi_tasks: Sequence[str] = ()
    dense_tasks: Sequence[str] = ()
    task: str = ""
    lexical: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    normalize: bool = True
    batch_tokens: int = 4096

    def __post_init__(self) -> None:
        object.__setattr__(self, "multi_tasks", tuple(self.multi_tasks))
        object.__setattr__(self, "dense_tasks", tuple(self.dense_tasks))
        if self.media_span not in ("", "media", "visual"):
            raise ConfigError(f"media_span {self.media_span!r} is neither 'media' nor 'visual'")

    @classmethod
    def read(cls, file: Path) -> EmbedderConfig:
        """The configuration in a file.

        Raises:
            ModelLoadError: it is no such file; names what is wrong.
        """
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ModelLoadError(f"{file}: {error}") from error
