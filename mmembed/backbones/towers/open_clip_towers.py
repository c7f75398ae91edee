"""Both towers of any open_clip model (Ilharco et al. 2021): CLIP, SigLIP, CoCa and their kin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mmembed.backbones.towers.model import TowerSettings, TwoTowers
from mmembed.backbones.towers.transformers_towers import SETTINGS_NAME
from mmembed.backbones.weights import read_json
from mmembed.errors import MissingDependencyError, ModelLoadError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["CONFIG_NAME", "OPEN_CLIP", "OpenClipTowers", "open_clip_library"]

#: Ahead of a model's name, as in ``open_clip:ViT-B-32``.
OPEN_CLIP = "open_clip:"
CONFIG_NAME = "open_clip_config.json"
_WEIGHTS_NAME = "open_clip_model.safetensors"


class OpenClipTowers(TwoTowers):
    """An open_clip model, with its own tokenizer and preprocessing.

    Args:
        model: what ``open_clip.create_model`` makes.
        tokenizer: its tokenizer.
        preprocess: its transform of a picture at inference.
        about: ``model_cfg`` and ``preprocess_cfg``, as open_clip writes them beside weights.
        settings: prompts and limits.
    """

    fixed_length: ClassVar[bool] = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocess: Any,
        about: Mapping[str, Any],
        settings: TowerSettings | None = None,
    ) -> None:
        super().__init__(settings or TowerSettings())
        self.model = model
        self.about = dict(about)
        self._tokenize = tokenizer
        self._preprocess = preprocess
        tokenizer([""])  # its first call sets limits, for which threads would race

    @classmethod
    def from_name(cls, name: str, *, dtype: torch.dtype | None = None) -> OpenClipTowers:
        """Load by a name of open_clip.

        Args:
            name: a model, e.g. ``ViT-B-32``, with the first of its pretrained tags; or
                ``ViT-B-32@TAG``, a tag or a file of weights; or ``hf-hub:...``, ``local-dir:...``.

        Raises:
            MissingDependencyError: open_clip is not installed.
            ModelLoadError: open_clip has no such model, no weights for it, or cannot load them.
        """
        library = open_clip_library()
        model_name, _, tag = name.partition("@")
        if not tag and ":" not in model_name:
            tags = library.list_pretrained_tags_by_model(model_name)
            if not tags:
                known = model_name in library.list_models()
                what = "has no pretrained weights: name a file, MODEL@FILE" if known else "is none"
                raise ModelLoadError(f"open_clip model {model_name!r} {what}")
            tag = tags[0]
        return cls._created(library, model_name, tag or None, None, dtype)

    @classmethod
    def from_folder(cls, folder: Path, *, dtype: torch.dtype | None = None) -> OpenClipTowers:
        """Load what :meth:`save_pretrained`, or open_clip itself, wrote.

        Raises:
            MissingDependencyError: open_clip is not installed.
            ModelLoadError: a file or tensor is missing, or a tensor has no place.
        """
        saved = folder / SETTINGS_NAME
        settings = TowerSettings(**read_json(saved)) if saved.exists() else None
        if not (folder / _WEIGHTS_NAME).exists():
            raise ModelLoadError(f"{folder / _WEIGHTS_NAME} is missing")
        return cls._created(open_clip_library(), f"local-dir:{folder}", None, settings, dtype)

    @classmethod
    def _created(
        cls,
        library: Any,
        name: str,
        tag: str | None,
        settings: TowerSettings | None,
        dtype: torch.dtype | None,
    ) -> OpenClipTowers:
        try:
            model, preprocess = library.create_model_from_pretrained(name, pretrained=tag)
            tokenizer = library.get_tokenizer(name)
            config = library.get_model_config(name) or _config_of(name)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise ModelLoadError(f"open_clip model {name!r}: {error}") from error
        about = {"model_cfg": config, "preprocess_cfg": library.get_model_preprocess_cfg(model)}
        kind = cls
        if hasattr(model, "text_decoder"):
            from mmembed.backbones.towers.coca import CocaTowers as kind  # noqa: N813
        return kind(model.to(dtype or torch.float32), tokenizer, preprocess, about, settings).eval()

    @property
    def hidden_size(self) -> int:
        return int(self.about["model_cfg"]["embed_dim"])

    @property
    def max_tokens(self) -> int:
        return int(self._tokenize.context_length)

    @property
    def picture_tokens(self) -> int:
        grid = getattr(self.model.visual, "grid_size", None)
        if grid is not None:
            return int(grid[0] * grid[1])
        size = self.about["preprocess_cfg"]["size"]
        height, width = (size, size) if isinstance(size, int) else size
        return int(height * width) // 32**2

    @property
    def pad_id(self) -> int:
        return 0

    @property
    def lora_targets(self) -> str:
        """Feed-forward layers of open_clip's own transformers; its attention is one fused layer."""
        return r"model\.(visual\.|text\.)?transformer\..*\.mlp\.(c_fc|c_proj)"

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, the special ones included, before any cut."""
        if hasattr(self._tokenize, "encode"):
            return [len(self._tokenize.encode(text)) + 2 for text in texts]
        inner = self._tokenize.tokenizer
        return [len(inner(self._tokenize.clean_fn(text)).input_ids) for text in texts]

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenize(list(texts)).tolist() if texts else []
        return found

    def pixels(self, images: Sequence[PILImage]) -> dict[str, Tensor]:
        return {"image": torch.stack([self._preprocess(image) for image in images])}

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.model.encode_text(ids)
        return found

    def image_vectors(self, media: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model.encode_image(media["image"])
        return found.unsqueeze(1)

    def save_pretrained(self, folder: str) -> None:
        """Write a folder that open_clip loads too, as ``local-dir:FOLDER``."""
        from safetensors.torch import save_model

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(target / _WEIGHTS_NAME))
        (target / CONFIG_NAME).write_text(json.dumps(self.about, indent=2) + "\n", "utf-8")
        if hasattr(self._tokenize, "tokenizer"):
            self._tokenize.tokenizer.save_pretrained(target)
        text = json.dumps(asdict(self.settings), indent=2, ensure_ascii=False) + "\n"
        (target / SETTINGS_NAME).write_text(text, encoding="utf-8")


def open_clip_library() -> Any:
    """open_clip itself.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError("An open_clip model", "open-clip") from error
    return open_clip


def _config_of(name: str) -> dict[str, Any]:
    """The configuration of a folder that open_clip names ``local-dir:FOLDER``."""
    kind, _, folder = name.partition(":")
    if kind != "local-dir":
        raise ValueError("open_clip keeps no configuration of it")
    found: dict[str, Any] = read_json(Path(folder) / CONFIG_NAME)["model_cfg"]
    return found
