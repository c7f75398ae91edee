"""sentence-transformers: an ``Embedder`` as a ``SentenceTransformer``, for all that takes one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

try:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    from mmembed.errors import MmembedError

    message = "this needs sentence-transformers 6: pip install 'sentence-transformers>=6.2'"
    raise MmembedError(message) from error

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["EmbedderModule", "as_sentence_transformer"]


def as_sentence_transformer(model: str | Embedder = "mini") -> SentenceTransformer:
    """A model that ``encode``, evaluators and stores of sentence-transformers take.

    Its vectors are those of :class:`~mmembed.embedder.Embedder`, and so are its prompts; it is for
    use and not for training, which goes by recipes here. ``save`` writes a folder that
    ``SentenceTransformer(folder, trust_remote_code=True)`` loads where ``mmembed`` is installed:
    without that word it loads no class but its own.

    Args:
        model: what ``Embedder.from_pretrained`` loads, or an ``Embedder``.
    """
    from mmembed.embedder import Embedder

    loaded = Embedder.from_pretrained(model) if isinstance(model, str) else model
    prompts = {role: loaded.config.prompts.get(role, "") for role in ("query", "document")}
    return SentenceTransformer(
        modules=[EmbedderModule(loaded)], prompts=prompts, similarity_fn_name="cosine"
    )


class EmbedderModule(InputModule):  # type: ignore[misc, unused-ignore]
    """An ``Embedder`` as the only module of a ``SentenceTransformer``."""

    def __init__(self, embedder: Embedder) -> None:
        from mmembed.backbones.base import module_of

        super().__init__()
        self._embedder = [embedder]  # in a list, or its parts would be registered twice
        self.backbone = module_of(embedder.backbone)
        self.heads = embedder.heads

    @property
    def embedder(self) -> Embedder:
        """The model behind it."""
        return self._embedder[0]

    @property
    def modalities(self) -> list[Any]:
        """What it can read: document pages are images here."""
        return [name for name in ("text", "image", "video") if name in self.embedder.modalities]

    @property
    def max_seq_length(self) -> int:
        """Longest text that is read whole, in tokens."""
        return self.embedder.max_tokens

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self.embedder.dim

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Keeps the inputs as they are: the model reads and batches them by itself."""
        return {"inputs": list(inputs), "prompt": prompt or ""}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """``sentence_embedding``: ``(n, d)`` float32."""
        vectors = self.embedder.encode(
            features["inputs"],
            instruction=features["prompt"],
            show_progress=False,
            convert_to="torch",
        )
        features["sentence_embedding"] = vectors.to(next(self.parameters()).device)
        features["attention_mask"] = torch.ones(len(vectors), 1, device=vectors.device)
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        self.embedder.save_pretrained(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> EmbedderModule:
        from pathlib import Path

        from mmembed.embedder import Embedder

        subfolder = kwargs.get("subfolder") or ""
        return cls(Embedder.from_pretrained(Path(model_name_or_path) / subfolder))
