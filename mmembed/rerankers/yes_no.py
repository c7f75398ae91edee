"""Rerankers that answer yes or no: Qwen3-VL-Reranker and decoders prompted like it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmembed.backbones.vlm.loading import load_vision_language
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.backbones.vlm.wording import fill
from mmembed.backbones.weights import read_json, read_safetensors
from mmembed.errors import ConfigError, InputError, ModelLoadError
from mmembed.gpte.pooling import last
from mmembed.gpte.rows import Row
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decoded import DecodedItem
from mmembed.rerankers.base import Pair

__all__ = ["YesNoReranker", "YesNoSettings"]

SETTINGS_NAME = "yes_no.json"
_WEIGHTS_NAME = "yes_no.safetensors"


@dataclass(frozen=True, slots=True)
class YesNoSettings:
    """What a yes/no reranker reads and how it answers.

    Attributes:
        template: prompt with ``{instruction}``, ``{query}`` and ``{document}``.
        instruction: takes the place of an instruction that the query does not bring.
        yes: the word, one token, of a match.
        no: the word, one token, of no match.
    """

    template: str = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: {instruction}<Query>:{query}\n<Document>:{document}"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    instruction: str = "Given a search query, retrieve relevant candidates that answer the query."
    yes: str = "yes"
    no: str = "no"


class YesNoReranker(nn.Module):
    """The log-odds of yes against no as the next token, for pairs of any modality, in batches.

    Qwen3-VL-Reranker (Qwen Team 2026); its own code scores one pair a forward.

    Args:
        backbone: a vision-language backbone.
        answers: ``(2, hidden_size)`` rows of the language-model head, of no and of yes.
        settings: prompt and answers.
    """

    def __init__(
        self, backbone: VisionLanguage, answers: Tensor, settings: YesNoSettings | None = None
    ) -> None:
        super().__init__()
        if tuple(answers.shape) != (2, backbone.hidden_size):
            raise ConfigError(
                f"answers of shape {tuple(answers.shape)} do not fit states of "
                f"{backbone.hidden_size} dimensions"
            )
        self.backbone = backbone
        self.answers = nn.Parameter(answers.detach().clone().float())
        self.settings = settings or YesNoSettings()

    @property
    def media_budget(self) -> MediaBudget:
        return self.backbone.media_budget

    @property
    def instruction(self) -> str:
        return self.settings.instruction

    def prepare(self, pairs: Sequence[Pair]) -> list[Row]:
        """One row a pair. Words are cut from the end of the document.

        Raises:
            InputError: the media and the query of a pair do not fit; ``position`` is its index.
        """
        wording = self.backbone.settings.wording
        queries, documents = ([pair[side] for pair in pairs] for side in (0, 1))
        prompts = []
        for query, query_parts, document_parts in zip(
            queries, self._parts(queries), self._parts(documents), strict=True
        ):
            fields = {
                "instruction": wording.instruction(query.instruction or self.instruction),
                "query": wording.content(query_parts),
                "document": wording.content(document_parts),
            }
            prompts.append(fill(self.settings.template, fields))
        return self.backbone.rows(prompts, [document.label for document in documents])

    def _parts(self, items: Sequence[DecodedItem]) -> list[Any]:
        """Each object once: the query of many documents is the same one."""
        unique = {id(item): item for item in items}
        try:
            done = dict(zip(unique, self.backbone.preprocess(list(unique.values())), strict=True))
        except InputError as error:
            culprit = list(unique)[error.position or 0]
            raise error.at([id(item) for item in items].index(culprit)) from None
        return [done[id(item)] for item in items]

    def collate(self, rows: Sequence[Row]) -> Any:
        return self.backbone.collate(rows)

    def forward(self, batch: Any) -> Tensor:
        """``(n,)`` float32 log-odds of yes."""
        states = last(self.backbone(batch))
        return states @ (self.answers[1] - self.answers[0])

    def save_pretrained(self, folder: str) -> None:
        """Write a folder that :meth:`from_folder` reads."""
        from safetensors.torch import save_file

        target = Path(folder)
        self.backbone.save_pretrained(folder)
        save_file({"answers": self.answers.detach().contiguous()}, target / _WEIGHTS_NAME)
        text = json.dumps(asdict(self.settings), indent=2) + "\n"
        (target / SETTINGS_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        settings: YesNoSettings | None = None,
        *,
        limits: VlmSettings | None = None,
        dtype: torch.dtype | None = None,
    ) -> YesNoReranker:
        """A folder that was saved here, or any generative checkpoint of a known family.

        Args:
            settings: prompt and answers, in place of the folder's own.
            limits: what the backbone reads of media and words, likewise.

        Raises:
            ModelLoadError: a tensor is missing, or an answer is not one token.
        """
        backbone = load_vision_language(folder, limits, dtype=dtype)
        saved = folder / SETTINGS_NAME
        if saved.exists():
            settings = settings or YesNoSettings(**read_json(saved))
            answers = read_safetensors(folder / _WEIGHTS_NAME).get("answers")
            if answers is None:
                raise ModelLoadError(f"{folder / _WEIGHTS_NAME}: tensor answers is missing")
        else:
            settings = settings or YesNoSettings()
            answers = _head_rows(backbone, folder, (settings.no, settings.yes))
        return cls(backbone, answers, settings).eval()


def _head_rows(backbone: VisionLanguage, folder: Path, words: Sequence[str]) -> Tensor:
    """Rows of the language-model head, which is the word embeddings where the two are tied."""
    tokenizer = backbone.tokenizer
    ids = []
    for word in words:
        found = tokenizer.encode(word, add_special_tokens=False)
        if len(found) != 1:
            raise ModelLoadError(f"{folder}: {word!r} is {len(found)} tokens, and must be one")
        ids += found
    head = _language_model_head(folder)
    if head is None:
        head = backbone.language_model.get_input_embeddings().weight
    return head[ids].detach()


def _language_model_head(folder: Path) -> Tensor | None:
    """``lm_head.weight`` of a checkpoint, read without the rest of it; None where it is tied."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - no mapping
                if key.endswith("lm_head.weight"):
                    found: Tensor = tensors.get_tensor(key)
                    return found
    return None
