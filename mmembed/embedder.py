"""The public face of every model: ``Embedder``."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.backbones.base import Backbone, module_of
from mmembed.encoded import Encoded
from mmembed.encoding import encode_stream
from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.pooling import pooling_of
from mmembed.gpte.states import TokenStates
from mmembed.inputs.items import Item, ItemLike, Modality

__all__ = ["Embedder", "EmbedderConfig", "Role"]

logger = logging.getLogger(__name__)

Role: TypeAlias = Literal["query", "document"]
Vectors: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

CONFIG_NAME = "embedder.json"


@dataclass(frozen=True, slots=True)
class EmbedderConfig:
    """What turns token states into vectors; saved as ``embedder.json`` beside the backbone.

    Attributes:
        pooling: name of a function of :mod:`mmembed.gpte.pooling`.
        prompts: instruction by role, used for items that bring none of their own.
        normalize: L2-normalise, as cosine search expects.
        batch_tokens: tokens of one forward.
    """

    pooling: str = "mean"
    prompts: Mapping[str, str] = field(default_factory=dict)
    normalize: bool = True
    batch_tokens: int = 4096


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
        self, backbone: Backbone, config: EmbedderConfig | None = None, *, name: str = "custom"
    ) -> None:
        self.backbone = backbone
        self.config = config or EmbedderConfig()
        self.name = name
        self._pool = pooling_of(self.config.pooling)
        module_of(backbone).eval()

    @classmethod
    def from_pretrained(
        cls, name: str | Path = "mini", *, device: str | torch.device | None = None
    ) -> Embedder:
        """Load ``"mini"``, a folder written by :meth:`save_pretrained`, or a Hugging Face id.

        Raises:
            ModelLoadError: the folder is incomplete or a tensor has no place; names the key.
        """
        from mmembed.backbones import load_backbone, model_folder

        backbone = load_backbone(name)
        module_of(backbone).to(device or default_device())
        folder = model_folder(name)
        config_file = None if folder is None else folder / CONFIG_NAME
        config = EmbedderConfig(prompts=dict(backbone.prompts))
        if config_file is not None and config_file.exists():
            config = _read_config(config_file)
        # A packaged name keeps its meaning wherever an index that was made with it is opened.
        local = folder is not None and folder == Path(name).expanduser()
        return cls(backbone, config, name=str(folder.resolve()) if local and folder else str(name))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write weights (safetensors) and configuration (json) so that the folder stands alone."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self.backbone.save_pretrained(str(target))
        text = json.dumps(asdict(self.config), indent=2) + "\n"
        (target / CONFIG_NAME).write_text(text, encoding="utf-8")

    @property
    def dim(self) -> int:
        """Length of a full vector."""
        return self.backbone.hidden_size

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

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the vectors would: weights, pooling, prompts or preprocessing.

        Large tensors are sampled, at 4,096 evenly spaced elements each.
        """
        digest = hashlib.blake2b(digest_size=16)
        settings = {**asdict(self.config), "batch_tokens": 0}
        digest.update(json.dumps(settings, sort_keys=True).encode())
        digest.update(repr(self.backbone.media_budget).encode())
        for key, tensor in sorted(module_of(self.backbone).state_dict().items()):
            flat = tensor.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 4096)].to("cpu", torch.float32)
            digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(sample.numpy().tobytes())
        # A folder that was moved holds the same model.
        return f"{Path(self.name).name}-{digest.hexdigest()}"

    def encode(
        self,
        inputs: ItemLike | Iterable[ItemLike],
        *,
        role: Role | None = None,
        instruction: str | None = None,
        dim: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        show_progress: bool | None = None,
        convert_to: Literal["numpy", "torch"] = "numpy",
    ) -> Vectors | Tensor:
        """Vectors of any mix of inputs, in their order.

        Args:
            inputs: one input, or a list or other iterable of them; see :mod:`mmembed.inputs.items`
                for what an input is (a plain ``str`` is text, always).
            role: picks the model's prompt for queries or documents.
            instruction: replaces that prompt. An item's own ``instruction`` goes before both.
            dim: keep the first ``dim`` dimensions and normalise again (Matryoshka truncation).
            on_error: ``"raise"`` at the first bad item, or ``"skip"``: log it and leave a row of
                NaN in its place.
            show_progress: a bar on standard error; by default only on a terminal, for long work.
            convert_to: ``"numpy"`` or ``"torch"``.

        Returns:
            ``(n, d)`` float32, ``(0, d)`` for an empty list; ``(d,)`` for one bare input.

        Raises:
            InputError: an item cannot be read; ``position`` says which.
        """
        if dim is not None and not 0 < dim <= self.dim:
            raise ConfigError(f"dim={dim}: this model has vectors of {self.dim} dimensions")
        single = isinstance(inputs, (str, bytes, Path, Mapping, Item, np.ndarray)) or hasattr(
            inputs,
            "getbands",  # a PIL image, without importing pillow
        )
        items: Iterable[ItemLike] = [inputs] if single else inputs  # type: ignore[list-item, assignment]
        total = len(items) if isinstance(items, Sequence) else None
        rows: list[Vectors] = []
        for encoded in _progress(
            self.encode_stream(items, role=role, instruction=instruction), total, show_progress
        ):
            if encoded.vector is not None:
                rows.append(encoded.vector)
                continue
            assert encoded.error is not None
            if on_error == "raise":
                raise encoded.error
            logger.warning("skipped: %s", encoded.error)
            rows.append(np.full(self.dim, np.nan, dtype=np.float32))
        vectors = np.stack(rows) if rows else np.empty((0, self.dim), dtype=np.float32)
        vectors = truncate(vectors, dim)
        result = vectors[0] if single else vectors
        return torch.from_numpy(result) if convert_to == "torch" else result

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
    ) -> Iterator[Encoded]:
        """Encode lazily and in order; a bad item comes as an :class:`Encoded` with its error."""
        prompt = self.config.prompts.get(role or "", "") if instruction is None else instruction
        return encode_stream(
            inputs,
            self.backbone,
            self._vectors,
            instruction=prompt,
            batch_tokens=self.config.batch_tokens,
        )

    def similarity(self, a: Vectors | Tensor, b: Vectors | Tensor) -> Any:
        """Cosine similarity of every row of ``a`` with every row of ``b``: ``(n, m)`` float32."""
        as_torch = isinstance(a, Tensor)
        left, right = (
            F.normalize(torch.atleast_2d(torch.as_tensor(x)).float(), dim=1) for x in (a, b)
        )
        scores = left @ right.T
        return scores if as_torch else scores.numpy()

    def _vectors(self, states: TokenStates) -> Tensor:
        pooled = self._pool(states).float()
        return F.normalize(pooled, dim=1) if self.config.normalize else pooled


def truncate(vectors: Vectors, dim: int | None) -> Vectors:
    """The first ``dim`` dimensions of each row, normalised again; unchanged for None."""
    if dim is None or dim == vectors.shape[-1]:
        return vectors
    cut = vectors[..., :dim]
    norms = np.linalg.norm(cut, axis=-1, keepdims=True)
    return np.asarray(cut / np.maximum(norms, 1e-12), dtype=np.float32)


def default_device() -> torch.device:
    """CUDA where there is one, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _read_config(path: Path) -> EmbedderConfig:
    try:
        return EmbedderConfig(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, json.JSONDecodeError) as error:
        raise ModelLoadError(f"{path}: {error}") from error


def _progress(stream: Iterator[Encoded], total: int | None, show: bool | None) -> Iterator[Encoded]:
    """The same stream, with a bar on standard error where one is wanted."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if show is None:
        show = console.is_terminal and (total is None or total > 256)
    if not show:
        return stream
    return iter(track(stream, "Encoding", total=total, console=console, transient=True))
