"""The model of a code index: an embedder, read through its adapter for code where it has one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from codeembed.tokens import CodeModel
from mmembed.encoded import Encoded

__all__ = ["TaskModel", "for_code", "load_model"]

_TASK = "code"


def load_model(name: str) -> CodeModel:
    """A model by name: ``mini``, a folder or a Hugging Face id.

    Raises:
        ModelLoadError: there is none.
    """
    from mmembed.embedder import Embedder

    return for_code(Embedder.from_pretrained(name))


def for_code(model: Any) -> CodeModel:
    """A model read through its adapter for code, or as it is where it has none."""
    if getattr(model, "adapted", False) and _TASK in model.adapters.names:
        return TaskModel(model, _TASK)
    found: CodeModel = model
    return found


class TaskModel:
    """An embedder that reads everything through one of its task adapters.

    Args:
        embedder: A :class:`mmembed.embedder.Embedder`.
        task: Name of the adapter.
    """

    def __init__(self, embedder: Any, task: str) -> None:
        self.backbone = embedder.backbone
        self._embedder = embedder
        self._task = task
        self.fingerprint = f"{embedder.fingerprint}+{task}-{_digest(embedder, task)}"

    @property
    def name(self) -> str:
        return str(self._embedder.name)

    @property
    def dim(self) -> int:
        return int(self._embedder.dim)

    @property
    def max_tokens(self) -> int:
        return int(self._embedder.max_tokens)

    def count_tokens(self, texts: Sequence[str], /) -> list[int]:
        return list(self._embedder.count_tokens(texts))

    def encode_stream(self, items: Iterable[Any], /, *, role: str) -> Iterator[Encoded]:
        yield from self._embedder.encode_stream(items, role=role, task=self._task)


def _digest(embedder: Any, task: str) -> str:
    from codeembed.collect import content_hash

    parts = (p.detach().cpu().float().numpy().tobytes() for p in embedder.adapters.parameters(task))
    return content_hash(b"".join(parts))[:12]
