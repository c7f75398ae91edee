"""Merging of models of one architecture: weighted means, and spherical interpolation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mmembed.errors import ConfigError
from mmembed.gpte.outcomes import Context, Outcome
from mmembed.gpte.recipe import MergeStage
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["linear", "merge_states", "run_merge", "slerp"]

Tensors = Mapping[str, Tensor]


def run_merge(stage: MergeStage, context: Context) -> Outcome:
    """Merge the stage's models into ``model``; settings and tokenizer are those of the first.

    Raises:
        ConfigError: the models or weights do not go together.
        ModelLoadError: a model cannot be loaded.
    """
    folders = [found for name in stage.models for found in context.models(name)]
    encoder = TextEncoder.from_pretrained(folders[0])
    if encoder.calibration is not None:
        raise ConfigError(f"stage {stage.name}: {folders[0]} is calibrated: merge before that")

    def state_of(folder: str) -> Tensors:
        return TextEncoder.from_pretrained(folder, encoder.settings).state_dict()

    merged = merge_states(stage, encoder.state_dict(), folders, state_of)
    encoder.load_state_dict({k: v.to(encoder.state_dict()[k].dtype) for k, v in merged.items()})
    encoder.save_pretrained(context.folder / "model")
    return Outcome(context.folder, context.folder / "model")


def merge_states(
    stage: MergeStage, first: Tensors, folders: Sequence[str], state_of: Callable[[str], Tensors]
) -> dict[str, Tensor]:
    """The tensors of a stage's models, merged as it says; memory for two models at a time.

    Args:
        first: tensors of the first folder.
        folders: of all models.
        state_of: reads the tensors of another one.

    Raises:
        ConfigError: the models or weights do not go together.
    """
    weights = list(stage.weights) or [1.0] * len(folders)
    if len(folders) < 2 or len(weights) != len(folders):
        raise ConfigError(
            f"stage {stage.name}: {len(folders)} models and {len(weights)} weights; give two or "
            "more models, and one weight each"
        )
    if min(weights) < 0 or sum(weights) <= 0:
        raise ConfigError(f"stage {stage.name}: weights are 0 or more, and not all 0")
    share = [weight / sum(weights) for weight in weights]
    if stage.method == "slerp":
        if len(folders) != 2:
            raise ConfigError(f"stage {stage.name}: slerp lies between two models")
        return slerp(first, state_of(folders[1]), share[1])
    merged = linear([first], share[:1])
    for folder, weight in zip(folders[1:], share[1:], strict=True):
        merged = linear([merged, state_of(folder)], [1.0, weight])
    return merged


def linear(states: Sequence[Tensors], weights: Sequence[float]) -> dict[str, Tensor]:
    """``sum_i w_i states_i`` in float32 (model soups, Wortsman et al. 2022).

    Raises:
        ConfigError: names or shapes differ.
    """
    for other in states[1:]:
        _check(states[0], other)
    return {
        name: _sum(
            [weight * state[name].float() for state, weight in zip(states, weights, strict=True)]
        )
        for name in states[0]
    }


def slerp(first: Tensors, second: Tensors, share: float) -> dict[str, Tensor]:
    """Spherical interpolation, tensor by tensor (Shoemake 1985), in float32.

    ``sin((1 - t) w) / sin w * a + sin(t w) / sin w * b`` with ``w`` the angle between the flattened
    tensors; nearly parallel ones are interpolated linearly.

    Args:
        share: ``t``, of the second.

    Raises:
        ConfigError: names or shapes differ.
    """
    _check(first, second)
    return {name: _slerp(first[name].float(), second[name].float(), share) for name in first}


def _slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    lengths = a.norm().double() * b.norm().double()
    cosine = (
        (a.flatten().double() @ b.flatten().double()) / lengths if lengths > 0 else torch.ones(())
    )
    angle = torch.arccos(cosine.clamp(-1.0, 1.0))
    if float(angle.sin()) < 1e-6:
        return (1.0 - share) * a + share * b
    near, far = ((1.0 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin()
    return near.float() * a + far.float() * b


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _check(first: Tensors, second: Tensors) -> None:
    differing = sorted(first.keys() ^ second.keys())
    differing += [n for n in first.keys() & second.keys() if first[n].shape != second[n].shape]
    if differing:
        shown = ", ".join(differing[:3]) + (", ..." if len(differing) > 3 else "")
        raise ConfigError(f"models of different architectures cannot be merged: {shown}")
