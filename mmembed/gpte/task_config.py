"""What a recipe says of a loss over tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmembed.errors import ConfigError

__all__ = ["TokenTaskConfig"]


@dataclass(frozen=True)
class TokenTaskConfig:
    """A token-level loss that trains along; see :mod:`mmembed.gpte.token_tasks`.

    Attributes:
        task: masked language modelling, masked next-token prediction, next-token prediction, the
            same through a prompt's summary tokens (GEM), or replaced-token detection conditioned on
            the sentence vector (DiffCSE); writing what follows a text read both ways: its spans
            that were cut out (``denoise``, T5), its rest (``continue``), or the pair's other text
            (``generate``); or whether two texts are a pair (``match``, ALBEF), by the encoder's
            matching head.
        column: whose texts it reads.
        label: what its loss is logged under, where a task is given twice.
        weight: times its loss.
        probability: share of tokens that are masked or cut out; for GEM of texts that are cut in
            two.
        keep, random: shares of those left as they are, or replaced by any token.
        mask_token: what masks, where the tokenizer has no mask token (LLM2Vec: ``"_"``).
        prefix: text in the place of the column's own prompt while this task reads, as UniXcoder's
            ``<decoder-only>``.
        begin: token that what is written begins with; a decoder's own start token by default.
        sentinel: names of the tokens that stand for spans, numbered from 0: ``<extra_id_{}>``.
        span: mean length of a span.
        temperature: of the cosines by which a match's wrong partners are drawn.
        generator: folder or hub name of the frozen model that fills masks in for detection.
        generator_family: its architecture, for a tiny stand-in.
        discriminator: folder or hub name of the model that judges tokens.
    """

    task: Literal["mlm", "mntp", "ntp", "gem", "rtd", "denoise", "continue", "generate", "match"]
    column: Literal["query", "positive"] = "query"
    label: str = ""
    weight: float = 1.0
    probability: float = 0.15
    keep: float = 0.1
    random: float = 0.1
    mask_token: str | None = None
    prefix: str = ""
    begin: str = ""
    sentinel: str = "<extra_id_{}>"
    span: float = 3.0
    temperature: float = 0.07
    generator: str | None = None
    generator_family: str = "distilbert"
    discriminator: str | None = None
    discriminator_family: str = "bert"

    def __post_init__(self) -> None:
        if self.task == "rtd" and (self.generator is None or self.discriminator is None):
            raise ConfigError("task rtd needs a generator and a discriminator")
        if not 0 < self.probability < 1:
            raise ConfigError(f"task {self.task}: probability lies between 0 and 1")
        if self.span < 1 or not self.temperature > 0 or "{}" not in self.sentinel:
            raise ConfigError(
                f"task {self.task}: span >= 1, a temperature above 0, and a sentinel with a {{}}"
            )

    @property
    def key(self) -> str:
        """What its loss is logged under."""
        return self.label or self.task

    @property
    def other(self) -> Literal["query", "positive"]:
        """The pair's column that it does not read."""
        return "positive" if self.column == "query" else "query"
