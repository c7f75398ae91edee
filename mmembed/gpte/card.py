"""The model card of a trained stage: what it is, what it learned from, how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mmembed.gpte.recipe import MergeStage, Recipe, TrainStage, to_yaml

__all__ = ["write_card"]


def write_card(
    folder: Path,
    recipe: Recipe,
    stage: TrainStage,
    weights: str | None,
    sizes: Mapping[str, int],
    start: Mapping[str, float],
    metrics: Mapping[str, float],
) -> None:
    """Write ``README.md`` with the hub's front matter into a model's folder.

    Args:
        weights: what the stage started from; None for the recipe's backbone.
        sizes: rows of every source by name, -1 where not known.
        start: metrics before training.
        metrics: metrics of the saved model.
    """
    sources = {s.name or Path(s.path).name.partition(".")[0]: s for s in stage.data.sources}
    licences = {name: _licence(source, recipe) for name, source in sources.items()}
    front: dict[str, Any] = {
        "library_name": "mmembed",
        "pipeline_tag": "sentence-similarity",
        "tags": ["mmembed", "text-embeddings", recipe.name],
    }
    if recipe.size == "full" and not Path(stage.encoder.backbone).exists():
        front["base_model"] = stage.encoder.backbone
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {recipe.name}: {stage.name}",
        "",
    ]
    if recipe.about:
        lines += [recipe.about.strip(), ""]
    if recipe.size == "tiny":
        lines += ["A tiny random stand-in, trained for a few steps: it is of no use.", ""]
    origin = Path(weights).parent.name if weights and Path(weights).is_dir() else weights
    lines += [f"Started from: {origin or stage.encoder.backbone}.", "", "## Trained on", ""]
    lines += ["| data | rows | licence |", "|---|---|---|"]
    for name, licence in licences.items():
        count = sizes.get(name, -1)
        rows = "streamed" if count < 0 else str(count)
        lines.append(f"| {name} | {rows} | {licence or 'not stated'} |")
    if not all(licences.values()):
        lines += ["", "The licence of some data is not stated: find out before you pass these on."]
    lines += ["", "## Measured", ""]
    if metrics:
        lines += ["| metric | at the start | after training |", "|---|---|---|"]
        for name, value in metrics.items():
            if name != "step":
                before = f"{start[name]:.4f}" if name in start else ""
                lines.append(f"| {name} | {before} | {value:.4f} |")
    else:
        lines.append("Not measured: the recipe names no held-out data.")
    lines += ["", "## Recipe", "", "```yaml", to_yaml(stage).rstrip(), "```", ""]
    made = ", ".join(f"{name} {version(name)}" for name in ("mmembed", "torch", "transformers"))
    lines += [f"Made with {made}.", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _licence(source: Any, recipe: Recipe) -> str:
    """A source's licence; rows that a stage made are under those of the texts that it read."""
    kind, _, name = source.path.partition("://")
    if source.licence or kind != "stage":
        return str(source.licence)
    (made,) = (stage for stage in recipe.stages if stage.name == name)
    origins = () if isinstance(made, MergeStage) else made.data.sources
    stated = dict.fromkeys(_licence(origin, recipe) for origin in origins)
    return ", ".join(stated) if all(stated) else ""
