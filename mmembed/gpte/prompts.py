"""Prompts: how a text is dressed before tokenisation, and which of its tokens are pooled.

A prompt is a template with slots in braces (``{{`` and ``}}`` are literal braces):

- ``{text}``: the text, once or more often (Echo);
- ``{instruction}``: what the embedding is for;
- ``{mask}``: the tokenizer's mask token (PromptBERT);
- ``{summary}``: learned special tokens that gather the text (GEM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import NamedTuple

from mmembed.errors import ConfigError

__all__ = ["PROMPTS", "Prompt", "Rendered", "Slot"]

_SLOTS = frozenset({"text", "instruction", "mask", "summary"})
_POOLED = frozenset({"all", "text", "mask", "summary"})


class Slot(NamedTuple):
    """Where one slot lies: ``start:stop`` in characters of a string, or in tokens of a row."""

    name: str
    start: int
    stop: int


class Rendered(NamedTuple):
    """A rendered text and its slots, in order."""

    string: str
    slots: list[Slot]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A template and what of it is pooled.

    Attributes:
        template: text with slots, see the module.
        instruction: fills ``{instruction}`` where a call gives none.
        pooled: ``"all"`` pools every token; ``"text"`` the last copy of the text and the end token,
            not what stands before or between; ``"mask"`` and ``"summary"`` those tokens alone.
        denoise: subtract the vector of the template without the text, whose tokens keep their
            positions (PromptBERT's template denoising, Jiang et al. 2022).

    Raises:
        ConfigError: the template has no ``{text}``, an unknown slot, or not the pooled one.
    """

    template: str = "{text}"
    instruction: str = ""
    pooled: str = "all"
    denoise: bool = False
    _pieces: tuple[tuple[str, str | None], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            parsed = [(literal, name) for literal, name, _, _ in Formatter().parse(self.template)]
        except ValueError as error:
            raise ConfigError(f"prompt template {self.template!r}: {error}") from None
        names = {name for _, name in parsed if name is not None}
        if unknown := sorted(names - _SLOTS):
            known = ", ".join(sorted(_SLOTS))
            raise ConfigError(f"prompt template {self.template!r}: no slot {unknown} ({known})")
        if "text" not in names:
            raise ConfigError(f"prompt template {self.template!r} has no {{text}} slot")
        if self.pooled not in _POOLED or self.pooled not in names | {"all"}:
            raise ConfigError(f"prompt {self.template!r} cannot pool {self.pooled!r}")
        object.__setattr__(self, "_pieces", tuple(parsed))

    @classmethod
    def prefix(cls, prefix: str, pooled: str = "all") -> Prompt:
        """A literal prefix before the text, as in E5's ``"query: "``."""
        return cls(prefix.replace("{", "{{").replace("}", "}}") + "{text}", pooled=pooled)

    @property
    def slots(self) -> frozenset[str]:
        """The names of the slots in the template."""
        return frozenset(name for _, name in self._pieces if name is not None)

    def render(
        self, text: str, instruction: str | None = None, tokens: Mapping[str, str] | None = None
    ) -> Rendered:
        """Fill the template.

        Args:
            text: any text; braces in it are just braces.
            instruction: fills ``{instruction}`` in place of the prompt's own.
            tokens: what ``mask`` and ``summary`` stand for, from the tokenizer.

        Raises:
            ConfigError: an instruction has no slot, or a slot has nothing to fill it.
        """
        if instruction and "instruction" not in self.slots:
            raise ConfigError(f"prompt {self.template!r} has no slot for an instruction")
        fill = {"text": text, "instruction": instruction or self.instruction, **(tokens or {})}
        string, slots = "", []
        for literal, name in self._pieces:
            string += literal
            if name is None:
                continue
            if name not in fill or (name == "instruction" and not fill[name]):
                raise ConfigError(f"prompt {self.template!r}: nothing to put into {{{name}}}")
            slots.append(Slot(name, len(string), len(string) + len(fill[name])))
            string += fill[name]
        return Rendered(string, slots)


PROMPTS: dict[str, Prompt] = {
    "plain": Prompt(),
    # E5-Mistral, GTE-Qwen2 and Qwen3-Embedding, on queries.
    "instruct": Prompt("Instruct: {instruction}\nQuery: {text}"),
    # PromptBERT (Jiang et al. 2022): two templates are two views of a sentence.
    "promptbert": Prompt('This sentence of "{text}" means {mask}.', pooled="mask", denoise=True),
    "promptbert_view": Prompt(
        'This sentence : "{text}" means {mask}.', pooled="mask", denoise=True
    ),
    # PromptEOL (Jiang et al. 2023) and its pretended chain of thought (Zhang et al. 2024).
    "prompteol": Prompt('This sentence : "{text}" means in one word:"'),
    "pcoteol": Prompt('After thinking step by step , this sentence : "{text}" means in one word:"'),
    # Echo embeddings (Springer et al. 2024): the second copy has seen the whole text.
    "echo": Prompt("Rewrite the sentence: {text}, rewritten sentence: {text}", pooled="text"),
    # SGPT (Muennighoff 2022) marks queries and documents by brackets.
    "sgpt_query": Prompt("[{text}]"),
    "sgpt_document": Prompt("{{{text}}}"),
    # GEM (Zhang et al. 2025): learned tokens behind the text gather it.
    "gem": Prompt("{text}{summary}", pooled="summary"),
}
