"""Merging of embedders of one architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from mmembed.embedder import Embedder
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.merging import merge_states
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.recipe import MergeStage

__all__ = ["MediaMergeStage", "run_media_merge"]


@dataclass(frozen=True)
class MediaMergeStage(MergeStage):
    """As :class:`mmembed.gpte.recipe.MergeStage`, for embedders of any modality."""

    kind: ClassVar[str] = "multimodal-merge"

    def tiny(self, folder: Path) -> MediaMergeStage:
        """The stage over tiny models; stages keep their names."""
        from mmembed.multimodal.stage import tiny_named

        return replace(
            self, models=tuple(tiny_named(name, "qwen2_vl", folder) for name in self.models)
        )


def run_media_merge(stage: MediaMergeStage, context: Context) -> Outcome:
    """Merge the stage's models into ``model``; everything else is the first one's.

    Raises:
        ConfigError: the models or weights do not go together.
        ModelLoadError: a model cannot be loaded.
    """
    folders = [found for name in stage.models for found in context.models(name)]
    embedder = Embedder.from_pretrained(folders[0], device="cpu")
    parts = _parts(embedder)

    def state_of(folder: str) -> dict[str, Tensor]:
        return _parts(Embedder.from_pretrained(folder, device="cpu")).state_dict()

    own = parts.state_dict()
    merged = merge_states(stage, own, folders, state_of)
    parts.load_state_dict({name: value.to(own[name].dtype) for name, value in merged.items()})
    with whole_folder(context.folder / "model") as partial:
        embedder.save_pretrained(partial)
    return Outcome(context.folder, context.folder / "model")


def _parts(embedder: Embedder) -> nn.ModuleDict:
    """Backbone and heads under one state dict."""
    assert isinstance(embedder.backbone, nn.Module)
    return nn.ModuleDict({"backbone": embedder.backbone, "heads": embedder.heads})
