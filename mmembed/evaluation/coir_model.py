"""An embedder as a model of coir-eval, the benchmark of code retrieval (Li et al., 2024).

For example::

    from coir.data_loader import get_tasks
    from coir.evaluation import COIR
    from mmembed import Embedder
    from mmembed.evaluation.coir_model import CoirModel

    model = CoirModel(Embedder.from_pretrained("mini"))
    COIR(tasks=get_tasks(["cosqa"]), batch_size=64).run(model, output_folder="results")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmembed.evaluation.benchmarks.tasks import Encoder

__all__ = ["CoirModel"]


class CoirModel:
    """coir's (and BEIR's) two methods over anything that embeds queries and documents.

    As in CoIR a document is its text alone; mteb puts the title before it, which gives other
    figures for the same data.
    """

    def __init__(self, model: Encoder) -> None:
        self.model = model

    def encode_queries(self, queries: Sequence[str], **options: Any) -> Tensor:
        """``(n, d)`` float32 vectors; coir's options about batches are not used."""
        return torch.as_tensor(self.model.encode_query(_worded(queries))).float()

    def encode_corpus(self, corpus: Sequence[Mapping[str, str]], **options: Any) -> Tensor:
        """``(n, d)`` float32 vectors of the documents' texts."""
        texts = [document.get("text", "") for document in corpus]
        return torch.as_tensor(self.model.encode_document(_worded(texts))).float()


def _worded(texts: Sequence[str]) -> list[str]:
    """A text of nothing but white space has no vector, and must not stop a benchmark."""
    return [text if text.strip() else "?" for text in texts]
