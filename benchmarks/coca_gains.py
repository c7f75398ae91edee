"""CoCa's real run, in the full environment: it needs open_clip.

    python benchmarks/coca_gains.py --data ../shared/data [--seeds 0 1 2]

The small start of ``media_gains.py`` has no decoder that writes captions, so CoCa starts from
towers and a decoder of random weights (``tiny_towers``), and reads the images themselves. Steps,
batch and learning rate are those of ``recipes.json``, which it adds to.
Plain InfoNCE learns from the same start, for as many steps in one stage.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path

import torch
from machine import RESULTS, write_result
from media_data import write_rows
from media_gains import RECIPES, run
from media_recipes import POINTS

from mmembed.backbones.towers.tiny import tiny_towers
from mmembed.gpte.config import CheckpointConfig
from mmembed.gpte.recipe import Recipe, load_recipe
from mmembed.multimodal.config import (
    MediaEvaluationConfig,
    MediaEvaluationSet,
    MediaSourceConfig,
)
from mmembed.multimodal.stage import MediaTrainStage
from mmembed.multimodal.stages import MEDIA_STAGES

PAIRS = 40  # test rows, every one with every one
NAME, PLAIN = "coca", "infonce T-I coca"
OBJECTIVE = {"name": "infonce", "temperature": 0.02, "masks": ["duplicates"]}


def start_of(folder: Path, seed: int) -> Path:
    """Towers and a decoder of random weights."""
    torch.manual_seed(seed)
    return tiny_towers("coca", folder)


def at_size(
    recipe: Recipe, start: Path, rows: Path, budget: dict[str, float], seed: int, output: Path
) -> Recipe:
    """The recipe from this start, its steps cut to the budget."""
    steps = int(budget["steps"]) // len(recipe.stages)
    test = MediaSourceConfig(str(rows / "T-I-test.jsonl"), name="T-I", limit=PAIRS)
    evaluation = MediaEvaluationConfig((MediaEvaluationSet(test),), every=max(1, steps // POINTS))
    stages = []
    for stage in recipe.stages:
        assert isinstance(stage, MediaTrainStage)
        source = MediaSourceConfig(str(rows / "T-I-train.jsonl"), name="T-I")
        stages.append(
            replace(
                stage,
                data=replace(stage.data, sources=(source,)),
                encoder=replace(stage.encoder, backbone=str(start)),
                batch=replace(stage.batch, size=int(budget["batch"]), chunk_rows=None),
                schedule=replace(stage.schedule, steps=steps, lr=budget["lr"], warmup=0.1),
                evaluation=evaluation,
                checkpoint=CheckpointConfig(every=0),
                precision="no",
            )
        )
    return replace(recipe, stages=tuple(stages), seed=seed, output=str(output))


def plain(recipe: Recipe) -> Recipe:
    """InfoNCE alone, from the base."""
    contrast = replace(recipe.stages[-1], start="base", objective=OBJECTIVE)  # type: ignore[call-arg]
    return replace(recipe, name="infonce", stages=(contrast,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/coca_gains"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    args = parser.parse_args()
    logging.getLogger("mmembed").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    result = json.loads((RESULTS / "recipes.json").read_text(encoding="utf-8"))
    recipe = load_recipe(RECIPES / f"{NAME}.yaml", [], MEDIA_STAGES)
    work = args.work.resolve()
    rows = write_rows(args.data.resolve(), work / "rows", list)
    for seed in args.seeds:
        start = start_of(work / f"start-{seed}", seed)
        for name, one in ((PLAIN, plain(recipe)), (NAME, recipe)):
            done = result["runs"].setdefault(name, {})
            if str(seed) in done:
                continue
            folder = work / f"{name}-{seed}"
            done[str(seed)] = run(at_size(one, start, rows, result["budget"], seed, folder), folder)
            print(name, seed, done[str(seed)]["start"], done[str(seed)]["end"], flush=True)
            result["plain"][NAME] = PLAIN
            write_result("recipes", result)


if __name__ == "__main__":
    main()
