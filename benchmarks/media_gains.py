"""What each multimodal recipe adds to its start, and to plain InfoNCE at the same budget.

    python benchmarks/media_gains.py --data ../shared/data [--seeds 0 1 2] [--only NAME ...]
    python benchmarks/media_tables.py             # benchmarks/results/recipes.md, of the results

Every recipe of configs/recipes/multimodal runs through the trainer with its own stages, objectives,
masks, mining, communities, mixture and instructions, but from one small start (``small_vlm.py``):
mini's frozen vision tower, an untrained connector, and the first layer of mini's text encoder. The
connector and LoRA adapters learn, in all runs the same. Data are names with photos, and whatever
else a recipe asks for (``media_data.py``); steps, batch and learning rate are the same for all.
Plain InfoNCE learns from the recipe's own pairs, mixed, in one stage. What is measured is the
recipe's idea at a laptop's size, not the published system.

Seed by seed; finished runs are kept in the result, so that the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, facts, write_result
from media_data import write_rows
from media_recipes import PAIRS, Setting, at_size, kinds_of, plain
from small_vlm import Pictures, small_models, start_folder

from mmembed.gpte.outcomes import Outcome
from mmembed.gpte.recipe import Recipe, load_recipe
from mmembed.gpte.run import run_recipe
from mmembed.multimodal.stages import MEDIA_RUNNERS, MEDIA_STAGES

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "configs" / "recipes" / "multimodal"
METRIC = "ndcg@10"
ALIGNED = "clip"  # whose plain run gives the aligned model
# A decoder that writes captions is no part of the small model: coca_gains.py runs it.
APART = {"coca": "infonce T-I coca"}


def measured(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Mean of the sets before and after, set by set, and the curve over all stages' steps."""
    curve: list[tuple[int, float]] = []
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    losses: list[tuple[int, float]] = []
    step = 0
    for outcome in outcomes.values():
        file = outcome.folder / "metrics.jsonl"
        if not file.exists():
            continue
        found = _scores(outcome.start)
        if found and not curve:
            before = found
            curve.append((step, _mean(found)))
        last = 0
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            last = int(row["step"])
            if scores := _scores(row):
                after = scores
                curve.append((step + last, _mean(scores)))
            elif last % 20 == 0:
                losses.append((step + last, round(row["loss"], 3)))
        step += last
    return {
        "before": before,
        "after": after,
        "start": _mean(before),
        "end": _mean(after),
        "curve": curve,
        "losses": losses,
        "steps": step,
    }


def _scores(values: Mapping[str, float]) -> dict[str, float]:
    return {
        key.removesuffix(f"/{METRIC}"): round(value, 4)
        for key, value in values.items()
        if key.endswith(f"/{METRIC}")
    }


def _mean(scores: Mapping[str, float]) -> float:
    return round(statistics.mean(scores.values()), 4)


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """One run from its start."""
    shutil.rmtree(folder, ignore_errors=True)
    busy = time.process_time()
    found = measured(run_recipe(recipe, more=MEDIA_RUNNERS))
    return {**found, "cpu_seconds": round(time.process_time() - busy, 1)}


def plain_name(recipe: Recipe) -> str:
    """Plain runs are shared by recipes of the same pairs and test sets."""
    small = "rerank" if "rerank" in repr([stage.kind for stage in recipe.stages]) else ""
    late = "late" if "maxsim" in repr(recipe.stages) and kinds_of(recipe) == {"T-VD"} else ""
    return " ".join(filter(None, ["infonce", *sorted(kinds_of(recipe)), small, late]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/media_gains"))
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--result", default="recipes")
    args = parser.parse_args()
    logging.getLogger("mmembed").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    pictures = Pictures(args.work / "pictures", args.cache)
    rows = write_rows(args.data.resolve(), args.work.resolve() / "rows", pictures)
    some = sorted((args.work / "pictures").glob("*.png"))[::10]
    recipes = {
        file.stem: load_recipe(file, [], MEDIA_STAGES)
        for file in sorted(RECIPES.glob("*.yaml"))
        if file.stem not in APART
    }
    order = [ALIGNED, *(name for name in recipes if name != ALIGNED)]
    file = RESULTS / f"{args.result}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    budget = {"steps": args.steps, "batch": args.batch, "lr": args.lr}
    runs = kept.get("runs", {}) if kept.get("budget") == budget else {}
    with small_models():
        for seed in args.seeds:
            work = args.work.resolve() / f"seed-{seed}"
            setting = Setting(
                start_folder(work / "start", some, seed),
                work / f"plain-{ALIGNED}" / "train" / "model",
                rows,
                **budget,
                seed=seed,
            )
            for name in order:
                if args.only and name not in args.only and name != ALIGNED:
                    continue
                jobs = {
                    plain_name(recipes[name]): (plain, work / f"plain-{name}"),
                    name: (at_size, work / name),
                }
                for key, (make, folder) in jobs.items():
                    done = runs.setdefault(key, {})
                    if str(seed) in done:
                        continue
                    done[str(seed)] = run(make(recipes[name], setting, folder), folder)
                    told = {k: done[str(seed)][k] for k in ("start", "end", "cpu_seconds")}
                    print(key, seed, told, flush=True)
                    if name != ALIGNED:
                        shutil.rmtree(folder)
                    _write(args.result, runs, recipes, budget)


def _write(result: str, runs: Any, recipes: Mapping[str, Recipe], budget: Any) -> None:
    write_result(
        result,
        {
            "what": f"held-out {METRIC} of short runs of multimodal recipes over a small start",
            "command": "python benchmarks/media_gains.py",
            "budget": budget,
            "pairs": PAIRS,
            "plain": {name: plain_name(recipe) for name, recipe in recipes.items()} | APART,
            "runs": runs,
            "machine": facts("torch", "transformers"),
        },
    )


if __name__ == "__main__":
    main()
