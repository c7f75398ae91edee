"""An embedder as a model of mteb 2.x, which measures MTEB, MIEB, ViDoRe and code tasks.

For example::

    import mteb
    from mmembed import Embedder
    from mmembed.evaluation.mteb_model import MtebModel

    model = MtebModel(Embedder.from_pretrained("mini"))
    mteb.evaluate(model, mteb.get_tasks(["STSBenchmark"]))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.errors import InputError, MissingDependencyError
from mmembed.evaluation.mteb_clips import clip_of
from mmembed.inputs.budget import MediaBudget

if TYPE_CHECKING:
    from mmembed.embedder import Embedder

__all__ = ["MtebModel", "items_of_batch"]

_COLUMNS = ("text", "image", "video")


class MtebModel:
    """mteb's ``EncoderProtocol`` over an :class:`mmembed.Embedder`.

    Queries get the model's query prompt and documents its document prompt. Tasks without sides
    (similarity, classification, clustering) are embedded as documents. A task's own instruction is
    used where ``instructions`` names the task, since models differ in what they were trained on.

    Args:
        model: what is measured.
        instructions: an instruction for queries, by the task's name in mteb.
        revision: kept in mteb's results; the model's fingerprint by default.

    Raises:
        MissingDependencyError: mteb is not installed.
    """

    def __init__(
        self,
        model: Embedder,
        instructions: Mapping[str, str] | None = None,
        *,
        revision: str | None = None,
    ) -> None:
        self.model = model
        self.instructions = dict(instructions or {})
        self.mteb_model_meta = _meta(model, revision)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **options: Any,
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """``(n, d)`` float32 unit vectors of mteb's batches, in their order.

        Args:
            inputs: batches with any of the columns ``text``, ``image`` and ``video``; several make
                fused items. A clip is a decoder of torchcodec, a ``(frames, 3, height, width)``
                uint8 tensor, or a path.
            task_metadata: names the task, for its instruction.
            hf_split: not used.
            hf_subset: not used.
            prompt_type: mteb's query or document; the document prompt where there is none.
            options: mteb's; the embedder sizes its batches by tokens instead.

        Raises:
            InputError: a batch has none of these columns, or an item cannot be read.
        """
        budget = self.model.backbone.media_budget
        items = (item for batch in inputs for item in items_of_batch(batch, budget))
        side = getattr(prompt_type, "value", prompt_type)
        if side == "query":
            name = getattr(task_metadata, "name", "")
            found = self.model.encode_query(items, instruction=self.instructions.get(name))
        else:
            found = self.model.encode_document(items)
        return np.asarray(found, dtype=np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """``(n, m)`` cosines."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """``(n,)`` cosines of rows that belong together."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=-1)


def items_of_batch(batch: Mapping[str, Any], budget: MediaBudget) -> Iterator[Any]:
    """The items of one of mteb's batches: texts, pictures, clips, or several fused.

    Args:
        batch: columns of equal length.
        budget: how many frames of a clip are read.

    Raises:
        InputError: the batch has nothing that an embedder reads.
    """
    columns = {name: batch[name] for name in _COLUMNS if name in batch}
    if not columns:
        raise InputError("mteb batch", f"has no text, image or video, only {', '.join(batch)}")
    if set(columns) == {"text"}:
        yield from columns["text"]
        return
    for values in zip(*columns.values(), strict=True):
        item = {k: v for k, v in zip(columns, values, strict=True) if v is not None and v != ""}
        if "video" in item:
            item["video"] = clip_of(item["video"], budget)
        yield item


def _unit(vectors: Any) -> Tensor:
    return F.normalize(torch.atleast_2d(torch.as_tensor(vectors)).float(), dim=-1)


def _meta(model: Embedder, revision: str | None) -> Any:
    try:
        from mteb.models.model_meta import ModelMeta, ScoringFunction
    except ImportError as error:
        raise MissingDependencyError("mteb", "eval") from error
    from pathlib import Path

    from mmembed.backbones.base import module_of

    modalities: list[Any] = [
        name for name in ("text", "image", "video") if name in model.modalities
    ]
    return ModelMeta(
        loader=None,
        # mteb wants ORGANISATION/NAME, which also names its folder of results.
        name=model.name if model.name.count("/") == 1 else f"mmembed/{Path(model.name).name}",
        revision=revision or model.fingerprint,
        release_date=None,
        languages=None,
        n_parameters=sum(p.numel() for p in module_of(model.backbone).parameters()),
        memory_usage_mb=None,
        max_tokens=model.max_tokens,
        embed_dim=model.dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=any(model.config.prompts.values()),
        training_datasets=None,
        modalities=modalities,
    )
