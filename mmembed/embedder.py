"""The public face of every model: ``Embedder``."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.backbones.base import Backbone, module_of
from mmembed.devices import default_device
from mmembed.embedder_config import CONFIG_NAME, EmbedderConfig
from mmembed.embeddings import Embeddings, Vectors, one_output, truncate
from mmembed.encoded import Encoded
from mmembed.encoding import encode_stream
from mmembed.errors import ConfigError
from mmembed.fingerprint import digest_of
from mmembed.gate import Gate
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.rows import Row
from mmembed.heads import EmbeddingHeads, check_outputs, read_heads
from mmembed.inputs.items import Item, ItemLike, Modality
from mmembed.progress import with_progress

if TYPE_CHECKING:
    from mmembed.adapters import TaskAdapters
    from mmembed.vector_cache import VectorCache

__all__ = ["Embedder", "EmbedderConfig", "OnError", "Output", "Role", "truncate"]

logger = logging.getLogger(__name__)

Role: TypeAlias = Literal["query", "document"]
Output: TypeAlias = Literal["dense", "multi", "sparse"]
OnError: TypeAlias = Literal["raise", "skip", "none"]

_HEADS_NAME = "heads.safetensors"
_ADAPTERS_NAME = "adapters"


@runtime_checkable
class OwnHeads(Protocol):
    """A backbone that makes its outputs by itself, as text encoders and two towers do."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives."""
        ...

    def embed(self, batch: Any) -> Outputs: ...


class Embedder:
    """Text, images, video and document pages as comparable vectors.

    Example:
        >>> from mmembed import Embedder
        >>> model = Embedder.from_pretrained("mini")
        >>> q = model.encode_query(["two dogs in the snow"])
        >>> d = model.encode_document(["a dog", "a cat"])
        >>> model.similarity(q, d).shape
        (1, 2)
    """

    def __init__(
        self,
        backbone: Backbone,
        config: EmbedderConfig | None = None,
        *,
        heads: EmbeddingHeads | None = None,
        name: str = "custom",
    ) -> None:
        self.backbone = backbone
        self.config = config or EmbedderConfig()
        self.name = name
        self.heads = heads or heads_for(backbone, self.config)
        self._adapters: TaskAdapters | None = None
        self._adapter_folder: Path | None = None  # of adapters that wait to be asked for
        #: Set to keep embeddings on disk and never make one twice.
        self.cache: VectorCache | None = None
        self._making = threading.Lock()
        # Also batches that run before there are adapters: a merge must not meet one half way.
        self._gate = Gate()
        self._fingerprint: tuple[int, str] | None = None
        module_of(backbone).eval()
        self.heads.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "mini",
        *,
        preset: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Embedder:
        """Load ``"mini"``, a folder written by :meth:`save_pretrained`, or a Hugging Face id.

        Args:
            preset: name of the conventions to read a published checkpoint by; found by the
                checkpoint's name by default, and ``"none"`` for none. See :mod:`mmembed.presets`.
            device: where it runs; CUDA where there is one, else Apple's GPU, else the CPU.
            dtype: type of the backbone's weights, e.g. ``torch.bfloat16``; float32 by default.

        Raises:
            ModelLoadError: the folder is incomplete or a tensor has no place; names the key.
            ConfigError: there is no such preset; names the nearest.
        """
        from mmembed.backbones import fetched_folder, load_backbone, model_folder
        from mmembed.gpte.text_loading import hub_folder
        from mmembed.preset_loading import load_preset
        from mmembed.presets import find_preset

        target = torch.device(device) if device is not None else default_device()
        folder = model_folder(name)
        ours = folder is not None and (folder / CONFIG_NAME).exists()
        # What was saved here says by itself how it is read.
        known = None if ours and preset is None else find_preset(name, preset)
        if known is not None:
            shown = str(folder.resolve()) if folder else str(name)
            there = folder or hub_folder(name)
            return load_preset(there, known, name=shown, device=target, dtype=dtype)
        folder = fetched_folder(name)
        backbone = load_backbone(folder or name, dtype=dtype)
        module_of(backbone).to(target)
        config = EmbedderConfig(prompts=dict(backbone.prompts))
        if folder is not None and (folder / CONFIG_NAME).exists():
            config = EmbedderConfig.read(folder / CONFIG_NAME)
        heads = heads_for(backbone, config)
        if folder is not None and heads.state_dict():
            read_heads(heads, folder / _HEADS_NAME)
        # A packaged name keeps its meaning wherever an index that was made with it is opened.
        local = folder is not None and folder == Path(name).expanduser()
        shown = str(folder.resolve()) if local and folder else str(name)
        model = cls(backbone, config, heads=heads.to(target), name=shown)
        if folder is not None and (folder / _ADAPTERS_NAME).is_dir():
            model._adapter_folder = folder / _ADAPTERS_NAME
            _ = model.adapters if local else None  # what a user saved is right, or an error now
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write weights (safetensors) and configuration (json) so that the folder stands alone.

        Task adapters go to a folder each, in peft's format, and batches wait while weights are
        written.
        """
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with self._base_alone():
            self.backbone.save_pretrained(str(target))
        if self.adapted and self.adapters.names:
            self.adapters.save_all(target / _ADAPTERS_NAME)
        else:  # what an earlier save left there is no part of this model
            shutil.rmtree(target / _ADAPTERS_NAME, ignore_errors=True)
        if tensors := self.heads.state_dict():
            save_file({key: t.contiguous() for key, t in tensors.items()}, target / _HEADS_NAME)
        (target / CONFIG_NAME).write_text(json.dumps(asdict(self.config), indent=2) + "\n", "utf-8")

    def configured(self, config: EmbedderConfig) -> Embedder:
        """The same backbone and task adapters read in another way.

        Heads of the same shapes keep their weights; others are new.
        """
        other = Embedder(self.backbone, config, name=self.name)
        ours, theirs = self.heads.state_dict(), other.heads.state_dict()
        if {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}:
            other.heads.load_state_dict(ours)
        other._adapters, other._adapter_folder = self._adapters, self._adapter_folder
        return other

    @property
    def dim(self) -> int:
        """Length of a full vector."""
        return self.backbone.hidden_size

    @property
    def outputs(self) -> tuple[str, ...]:
        """What :meth:`encode` can give: ``"dense"``, ``"multi"``, ``"sparse"``."""
        if isinstance(self.backbone, OwnHeads):
            return self.backbone.outputs
        return self.heads.available

    @property
    def modalities(self) -> frozenset[Modality]:
        return self.backbone.modalities

    @property
    def max_tokens(self) -> int:
        """Longest text that is read whole, in tokens, the special ones included."""
        return self.backbone.max_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the special ones included, before any cut."""
        return self.backbone.count_tokens(texts)

    @property
    def adapters(self) -> TaskAdapters:
        """The task adapters, which :meth:`encode` takes by ``task``: add, load, train, merge."""
        from mmembed.adapters import TaskAdapters  # with peft, which most models do without

        with self._making:
            given = self._adapter_folder
            self._adapters = self._adapters or TaskAdapters.of(self.backbone, self._gate, given)
            return self._adapters

    @property
    def adapted(self) -> bool:
        """Whether there are task adapters; asking costs nothing."""
        return bool(self._adapter_folder if self._adapters is None else self._adapters.names)

    def _base_alone(self) -> AbstractContextManager[None]:
        return nullcontext() if self._adapters is None else self._adapters.detached()

    @property
    def fingerprint(self) -> str:
        """Changes when the vectors without a task would: weights, pooling, prompts, preprocessing.

        Large tensors are sampled, at 4,096 evenly spaced elements each.
        """
        merges = 0 if self._adapters is None else self._adapters.merges
        if self._fingerprint is None or self._fingerprint[0] != merges:
            with self._base_alone():
                self._fingerprint = (merges, digest_of(self.backbone, self.heads, self.config))
        # A folder that was moved holds the same model.
        return f"{Path(self.name).name}-{self._fingerprint[1]}"

    def encode(
        self,
        inputs: ItemLike | Iterable[ItemLike],
        *,
        role: Role | None = None,
        instruction: str | None = None,
        task: str | Sequence[str] | None = None,
        output: Output | Sequence[Output] = "dense",
        dim: int | None = None,
        on_error: OnError = "raise",
        show_progress: bool | None = None,
        convert_to: Literal["numpy", "torch"] = "numpy",
    ) -> Any:
        """Embeddings of any mix of inputs, in their order, from one forward each.

        Args:
            inputs: one input, or a list or other iterable of them; see :mod:`mmembed.inputs.items`
                for what an input is (a plain ``str`` is text, always).
            role: picks the model's prompt for queries or documents.
            instruction: replaces that prompt. An item's own ``instruction`` goes before both.
            task: name of a task for all inputs, or one name an input; the model's own where there
                is one by default.
            output: ``"dense"``, ``"multi"`` or ``"sparse"``, or several of them.
            dim: keep the first ``dim`` dimensions of dense vectors, normalised again (Matryoshka).
            on_error: what to do about an input that cannot be read: ``"raise"`` its error;
                ``"skip"`` it, so that the result is shorter; or ``"none"``: leave NaN, no vectors
                or no weights in its place. The last two log it, and :class:`Embeddings` lists it.
            show_progress: a bar on standard error; by default only on a terminal, for long work.
            convert_to: ``"numpy"`` or ``"torch"``, for dense vectors.

        Returns:
            ``(n, d)`` float32 for ``"dense"``, ``(0, d)`` for an empty list; a list of ``(t, k)``
            for ``"multi"``; a ``(n, vocab)`` torch CSR tensor for ``"sparse"``; an
            :class:`Embeddings` for several. For one bare input the row alone.

        Raises:
            InputError: an item cannot be read; ``position`` says which.
            ConfigError: the model has no such output, task or dimension.
        """
        if dim is not None and not 0 < dim <= self.dim:
            raise ConfigError(f"dim={dim}: this model has vectors of {self.dim} dimensions")
        single = isinstance(inputs, (str, bytes, Path, Mapping, Item, np.ndarray))
        single = single or hasattr(inputs, "getbands")  # a PIL image, without importing pillow
        items: Iterable[ItemLike] = [inputs] if single else inputs  # type: ignore[list-item, assignment]
        total = len(items) if isinstance(items, Sequence) else None
        wanted: tuple[Output, ...] = (output,) if isinstance(output, str) else tuple(output)
        stream = self.encode_stream(
            items, role=role, instruction=instruction, task=task, output=wanted
        )
        rows = []
        for encoded in with_progress(stream, total, show_progress):
            if encoded.error is not None:
                if on_error == "raise":
                    raise encoded.error
                logger.warning("skipped: %s", encoded.error)
            rows.append(encoded)
        short = on_error == "skip" and not single
        kept = [row for row in rows if row.error is None] if short else rows
        found = Embeddings.collect(kept, wanted, self.dim, self._vocab, self.config.multi_dim)
        found.errors = [row.error for row in rows if row.error is not None]
        if found.dense is not None:
            found.dense = truncate(found.dense, dim)
        if not isinstance(output, str):
            return found
        return one_output(found, output, single=single, as_torch=convert_to == "torch")

    def encode_query(self, inputs: ItemLike | Iterable[ItemLike], **options: Any) -> Any:
        """:meth:`encode` with ``role="query"``."""
        return self.encode(inputs, role="query", **options)

    def encode_document(self, inputs: ItemLike | Iterable[ItemLike], **options: Any) -> Any:
        """:meth:`encode` with ``role="document"``."""
        return self.encode(inputs, role="document", **options)

    def encode_stream(
        self,
        inputs: Iterable[ItemLike],
        *,
        role: Role | None = None,
        instruction: str | None = None,
        task: str | Sequence[str] | None = None,
        output: Sequence[Output] = ("dense",),
    ) -> Iterator[Encoded]:
        """Encode lazily and in order; a bad item comes as an :class:`Encoded` with its error.

        Raises:
            ConfigError: the model has no such output or task.
        """
        check_outputs(output, self.outputs)
        prompt = self.config.prompts.get(role or "", "") if instruction is None else instruction
        tasks = self._tasks(task)
        encode = partial(
            encode_stream,
            backbone=self.backbone,
            read=self._reader(tuple(output)),
            instruction=prompt,
            role=role or "",
            routing=self._routing,
            apart=None if self._adapters is None else self._adapters.stands_apart,
            batch_tokens=self.config.batch_tokens,
        )
        if self.cache is None:
            return encode(inputs, tasks=tasks)
        settings = repr((self.fingerprint, prompt, role or "", tuple(output)))
        return self.cache.stream(inputs, encode, tasks, settings, self._adapters)

    def _tasks(self, task: str | Sequence[str] | None) -> Callable[[int], str] | None:
        if task is None and not (task := self.config.task):
            return None
        named = [task] if isinstance(task, str) else list(task)
        for name in dict.fromkeys(named):
            self.adapters.check(name, self.config.dense_tasks)
        if isinstance(task, str):
            return lambda position: task

        def task_of(position: int) -> str:
            if position >= len(named):
                raise ConfigError(f"{len(named)} tasks, and more inputs: give one task an input")
            return named[position]

        return task_of

    def _routing(self, rows: Sequence[Row]) -> AbstractContextManager[None]:
        """Asked batch by batch, because adapters may come while a stream is running."""
        if self._adapters is None:
            return self._gate.shared()
        tasks, lengths = [row.task for row in rows], [row.tokens for row in rows]
        return self._adapters.routed(tasks, lengths, self.config.dense_tasks)

    def _reader(self, wanted: tuple[Output, ...]) -> Callable[[Any], Outputs]:
        own = self.backbone if isinstance(self.backbone, OwnHeads) else None

        def read(batch: Any) -> Outputs:
            found = own.embed(batch) if own else self.heads(module_of(self.backbone)(batch), wanted)
            dense = found.dense
            if dense is not None and self.config.normalize:
                dense = F.normalize(dense.float(), dim=1)
            return Outputs(
                dense=dense if "dense" in wanted else None,
                multi=found.multi if "multi" in wanted else None,
                multi_mask=found.multi_mask,
                sparse=found.sparse if "sparse" in wanted else None,
            )

        return read

    @property
    def _vocab(self) -> int:
        return vocab_of(self.backbone)

    def similarity(self, a: Vectors | Tensor, b: Vectors | Tensor) -> Any:
        """Cosine similarity of every row of ``a`` with every row of ``b``: ``(n, m)`` float32."""
        as_torch = isinstance(a, Tensor)
        left, right = (
            F.normalize(torch.atleast_2d(torch.as_tensor(x)).float(), dim=1) for x in (a, b)
        )
        scores = left @ right.T
        return scores if as_torch else scores.numpy()


def heads_for(backbone: Backbone, config: EmbedderConfig) -> EmbeddingHeads:
    """The heads that a configuration describes, untrained.

    Raises:
        ConfigError: a task wants a head, and the backbone makes its vectors by itself.
    """
    if config.dense_tasks and isinstance(backbone, OwnHeads):
        named = ", ".join(config.dense_tasks)
        raise ConfigError(f"dense_tasks: this backbone has no place for a head of {named}")
    tokenizer = getattr(backbone, "tokenizer", None)
    special = [] if tokenizer is None else tokenizer.all_special_ids
    return EmbeddingHeads(config, backbone.hidden_size, vocab_of(backbone), special)


def vocab_of(backbone: Backbone) -> int:
    """Size of a sparse vector of this backbone; 0 without a vocabulary."""
    tokenizer = getattr(backbone, "tokenizer", None)
    return 0 if tokenizer is None else len(tokenizer)
