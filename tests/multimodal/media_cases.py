"""Tiny multimodal recipes, as values and as a script that several processes run.

Usage: media_cases.py RECIPE OUTPUT [LAST]

With LAST, the main process is killed once so many steps are done, as a node that fails is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.gpte.recipe import Recipe, load_recipe, recipe_from
from mmembed.gpte.run import run_recipe
from mmembed.gpte.trainer import Step
from mmembed.multimodal.stages import MEDIA_RUNNERS, MEDIA_STAGES

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (30, 60, 220), "grey": (128,) * 3}


def write_media_rows(folder: Path, rows: int = 14) -> Path:
    """Rows of text, images, several images and fused items; every third one has no image."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = list(COLOURS)
    file = folder / "rows.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for i in range(rows):
            colour = names[i % len(names)]
            paths = []
            for j in range(2):
                pixels = np.clip(rng.normal(COLOURS[colour], 25, (40 + 8 * i, 56, 3)), 0, 255)
                paths.append(f"{i}-{j}.png")
                Image.fromarray(pixels.astype(np.uint8)).save(folder / paths[-1])
            query: Any = f"a {colour} card, number {i}"
            positive: Any = {"image": paths[0]}
            if i % 3 == 1:
                query, positive = {"image": paths[0], "text": "of this colour"}, {"image": paths}
            elif i % 3 == 2:
                positive = f"{colour} number {i}"
            negatives = [f"not {colour}", {"image": paths[1], "text": "other"}]
            row = {"query": query, "positive": positive, "negatives": negatives, "score": i / rows}
            row["teacher"] = [1.0, 0.1, 0.3]
            stream.write(json.dumps(row) + "\n")
    return file


def media_recipe(folder: Path, stage: dict[str, Any], *, family: str = "qwen2_vl") -> Recipe:
    """One multimodal stage on a tiny model; 14 rows in batches of 4 make epochs of 4 steps."""
    folder.mkdir(parents=True, exist_ok=True)
    stage = dict(stage)
    data = folder / "rows.jsonl"
    if not data.exists():
        write_media_rows(folder)
    source = {"path": str(data), "name": "rows", **stage.pop("source", {})}
    more = stage.pop("data", {})
    encoder = {
        "backbone": str(tiny_vlm(family, folder / family)),
        "train": "all",
        "settings": {"pooling": "last"},
        **stage.pop("encoder", {}),
    }
    base = {
        "name": "only",
        "kind": "multimodal",
        "objective": {"name": "infonce", "temperature": 0.05, "masks": ["duplicates"]},
        "batch": {"size": 4},
        "schedule": {"steps": 6, "lr": 1e-3, "warmup": 0.2},
        "data": {"sources": [source], **more},
        "encoder": encoder,
    }
    values = {"name": "tried", "seed": 1, "output": str(folder / "run"), "stages": [base | stage]}
    return recipe_from(values, MEDIA_STAGES)


def run(recipe: Recipe, **options: Any) -> Any:
    """Run a recipe of multimodal stages."""
    return run_recipe(recipe, more=MEDIA_RUNNERS, **options)


def killed_after(last: int) -> Callable[[str, Step], None]:
    """A callback of a run that kills its process after so many steps."""

    def watch(_: str, step: Step) -> None:
        if step.number == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


if __name__ == "__main__":
    recipe, output, *last = sys.argv[1:]
    loaded = load_recipe(recipe, [f"output={output}"], MEDIA_STAGES)
    run(loaded, on_step=killed_after(int(last[0])) if last else None)
