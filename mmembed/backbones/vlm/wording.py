"""How an item becomes the text that a vision-language model reads."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mmembed.backbones.vlm.visual import Visual
from mmembed.errors import ConfigError

__all__ = ["Segment", "SegmentKind", "Wording", "fill"]

SegmentKind: TypeAlias = Literal["template", "instruction", "text", "visual"]

_FIELDS = {"instruction", "media", "text", "content", "visual"}


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the prompt and where it comes from; ``visual`` is set where it is a medium."""

    text: str
    kind: SegmentKind
    visual: Visual | None = None


@dataclass(frozen=True, slots=True)
class Wording:
    """The templates of one model: data, so that a published checkpoint is a few lines of YAML.

    A template holds ``{instruction}``, and either ``{media}`` (every image, page and clip, in
    their order) and ``{text}`` (all words), or ``{content}`` (both, as the user mixed them).

    Attributes:
        templates: by ``"role:kind"``, ``"kind"``, ``"role"`` or ``"default"``, the first that is
            there; a role is ``query`` or ``document``, a kind is ``text``, ``image`` (images and
            pages without words), ``video`` (likewise) or ``fused`` (several of these), which may
            also be told apart as ``image+text``, ``text+video`` and so on.
        image: what stands around the visual tokens of one image, as ``{visual}``.
        video: likewise of one clip.
        between: what stands between two pieces of content.
        empty: takes the place of an item's text where the item is an empty text.
        instruction_stop: ends an instruction that ends in no punctuation.
        instruction_gap: stands between an instruction and the words of the item.
        instructions: instruction by kind, for items that come with none.
    """

    templates: Mapping[str, str] = field(
        default_factory=lambda: {"default": "{instruction}{content}"}
    )
    image: str = "{visual}"
    video: str = "{visual}"
    between: str = "\n"
    empty: str = ""
    instruction_stop: str = ""
    instruction_gap: str = ""
    instructions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.templates:
            raise ConfigError("a wording needs at least one template")
        for template in (*self.templates.values(), self.image, self.video):
            unknown = {name for _, name, _, _ in string.Formatter().parse(template) if name}
            if wrong := sorted(unknown - _FIELDS):
                known = ", ".join(sorted(_FIELDS))
                raise ConfigError(f"template {template!r}: no field {wrong[0]!r} (known: {known})")

    def segments(
        self, parts: Sequence[str | Visual], *, instruction: str = "", role: str = ""
    ) -> list[Segment]:
        """The prompt of one item, in order; joined, the segments' texts are what is tokenised.

        Raises:
            ConfigError: no template fits this kind of item.
        """
        content = self._content(parts)
        kinds = _kinds(parts)
        told = self.instruction(instruction or self.instructions.get(kinds[-1], ""))
        if told and self.instruction_gap and any(isinstance(part, str) for part in parts):
            told.append(Segment(self.instruction_gap, "template"))
        fields = {
            "instruction": told,
            "content": self._joined(content),
            "media": self._joined([piece for piece in content if piece[0].visual is not None]),
            "text": self._joined([piece for piece in content if piece[0].visual is None]),
        }
        return fill(self._template(role, kinds), fields)

    def content(self, parts: Sequence[str | Visual]) -> list[Segment]:
        """Words and media as the user mixed them, for templates that hold two items."""
        return self._joined(self._content(parts))

    def instruction(self, instruction: str) -> list[Segment]:
        """The instruction as it stands in a prompt."""
        if not instruction:
            return []
        if self.instruction_stop and instruction.rstrip()[-1:].isalnum():
            instruction = instruction.rstrip() + self.instruction_stop
        return [Segment(instruction, "instruction")]

    def _template(self, role: str, kinds: Sequence[str]) -> str:
        for key in (*[f"{role}:{kind}" for kind in kinds], *kinds, role, "default"):
            if key in self.templates:
                return self.templates[key]
        raise ConfigError(
            f"this model has no template for {role or 'plain'} {kinds[0]} inputs "
            f"(it has: {', '.join(self.templates)})"
        )

    def _content(self, parts: Sequence[str | Visual]) -> list[list[Segment]]:
        """Segments of each part; the first of a medium's carries it."""
        pieces: list[list[Segment]] = []
        for part in parts:
            if isinstance(part, str):
                pieces.append([Segment(part or self.empty, "text")])
                continue
            frame = self.image if part.kind == "image" else self.video
            before, _, after = frame.partition("{visual}")
            pieces.append([Segment(before + part.text + after, "visual", part)])
        return pieces or [[Segment(self.empty, "text")]]

    def _joined(self, pieces: Sequence[Sequence[Segment]]) -> list[Segment]:
        joined: list[Segment] = []
        for piece in pieces:
            if joined and self.between:
                joined.append(Segment(self.between, "template"))
            joined += piece
        return joined


def _kinds(parts: Sequence[str | Visual]) -> list[str]:
    """What to call this mixture of parts, the exact name first."""
    kinds = sorted({"text" if isinstance(part, str) else part.kind for part in parts})
    if len(kinds) > 1:
        return ["+".join(kinds), "fused"]
    return kinds or ["text"]


def fill(template: str, fields: Mapping[str, Sequence[Segment]]) -> list[Segment]:
    """The segments of a template whose ``{fields}`` are segments themselves."""
    filled: list[Segment] = []
    for literal, name, _, _ in string.Formatter().parse(template):
        if literal:
            filled.append(Segment(literal, "template"))
        if name:
            filled += fields[name]
    return filled
