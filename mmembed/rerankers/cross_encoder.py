"""Cross-encoders of transformers: a sequence classifier over a query and a document of text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmembed.errors import InputError, ModelLoadError
from mmembed.gpte.rows import Row
from mmembed.gpte.text_loading import quiet_transformers
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decoded import DecodedItem, Page
from mmembed.rerankers.base import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["CrossEncoderReranker"]


class CrossEncoderReranker(nn.Module):
    """Monobert-style reranking of text (Nogueira and Cho 2019): one logit a pair.

    A document page is read through its text layer.

    Args:
        model: a sequence classifier with one output.
        tokenizer: its tokenizer.
        max_tokens: tokens of a pair; the longer side is cut.
    """

    instruction = ""
    media_budget = MediaBudget()

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, max_tokens: int = 512
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def prepare(self, pairs: Sequence[Pair]) -> list[Row]:
        """One row a pair.

        Raises:
            InputError: a side holds media without text; ``position`` is the pair's index.
        """
        texts = []
        for position, (query, document) in enumerate(pairs):
            try:
                texts.append((query.instruction + _text_of(query), _text_of(document)))
            except InputError as error:
                raise error.at(position) from None
        encoded = self.tokenizer(
            [query for query, _ in texts],
            [document for _, document in texts],
            truncation="longest_first",
            max_length=self.max_tokens,
            return_token_type_ids=True,
        )
        return [
            Row(ids, len(ids), {"token_type_ids": torch.tensor(kinds)})
            for ids, kinds in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)
        ]

    def collate(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Padded on the right; the mask comes from lengths."""
        longest = max(row.tokens for row in rows)
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id or 0)
        mask, kinds = torch.zeros_like(ids), torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : row.tokens] = torch.tensor(row.input_ids)
            mask[i, : row.tokens] = 1
            kinds[i, : row.tokens] = row.extras["token_type_ids"]
        batch = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self.tokenizer.model_input_names:
            batch["token_type_ids"] = kinds
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """``(n,)`` float32 logits."""
        logits: Tensor = self.model(**batch).logits
        return logits.float().squeeze(1)

    def save_pretrained(self, folder: str) -> None:
        """Write a plain transformers checkpoint."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype | None = None) -> CrossEncoderReranker:
        """Load a sequence classifier.

        Raises:
            ModelLoadError: it cannot be loaded, misses a tensor, or has several outputs.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        options: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True}
        try:
            with quiet_transformers():
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    folder, dtype=dtype or torch.float32, **options
                )
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelLoadError(f"{folder}: {error}") from error
        if report["missing_keys"]:
            raise ModelLoadError(f"{folder}: tensor {sorted(report['missing_keys'])[0]} is missing")
        if model.config.num_labels != 1:
            raise ModelLoadError(f"{folder}: has {model.config.num_labels} outputs, not one")
        limit = min(int(tokenizer.model_max_length), 8192)
        positions = getattr(model.config, "max_position_embeddings", limit)
        return cls(model.eval(), tokenizer, min(limit, int(positions)))


def _text_of(item: DecodedItem) -> str:
    words = []
    for part in item.parts:
        text = part if isinstance(part, str) else part.text if isinstance(part, Page) else ""
        if not isinstance(part, str) and not text:
            raise InputError(
                item.label,
                "holds no text, and a cross-encoder reads text only",
                "use a yes/no model",
            )
        words.append(text)
    return "\n".join(words)
