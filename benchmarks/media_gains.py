"""What each multimodal recipe adds to its start, and to plain InfoNCE at the same budget.

    python benchmarks/media_gains.py --data ../shared/data [--seeds 0 1 2] [--only NAME ...]
    python benchmarks/media_tables.py             # benchmarks/results/recipes.md, of the results

Every recipe of configs/recipes/multimodal runs through the trainer with its own stages, objectives,
masks, mining, communities, mixture and instructions, but from one small start (``small_vlm.py``):
mini's frozen vision tower, a connector, and the first layer of mini's text encoder. As the recipes
start from published weights, which know words and pictures, the connector has learned names with
photos before, by plain InfoNCE. The connector and LoRA adapters learn, in all runs the same. Data
are names with photos, and whatever else a recipe asks for (``media_data.py``); steps and batch are
the same for all. Plain InfoNCE learns from the recipe's own pairs, mixed, in one stage. What is
measured is the recipe's idea at a laptop's size, not the published system.

Of the learning rates, the first seed's development rows choose one for each run, plain or not.
Finished runs are kept in the result, so that the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, facts, write_result
from media_data import write_rows
from media_recipes import ASKED, DEV, SHORTLIST, Setting, at_size, kinds_of, plain
from small_vlm import Pictures, small_models, start_folder

from mmembed import Embedder
from mmembed.gpte.outcomes import Outcome
from mmembed.gpte.recipe import MergeStage, Recipe, load_recipe
from mmembed.gpte.run import run_recipe
from mmembed.multimodal.encoder import MediaEncoder
from mmembed.multimodal.evaluating import MediaEvaluator, vector_scores
from mmembed.multimodal.stage import MediaTrainStage
from mmembed.multimodal.stages import MEDIA_RUNNERS, MEDIA_STAGES

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "configs" / "recipes" / "multimodal"
Make = Callable[[Recipe, Setting, Path], Recipe]
METRIC = "ndcg@10"
ALIGNED = "clip"  # plain InfoNCE on whose pairs gives the start
ALIGNING_RATE = 2e-3
# A decoder that writes captions is no part of the small model: coca_gains.py runs it.
APART = {"coca": "infonce T-I coca"}


def measured(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Mean of the test sets before and after, set by set, the curve over all stages' steps, and the
    mean of the development sets."""
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
            curve.append((step, _mean(_test(found))))
        last = 0
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            last = int(row["step"])
            if scores := _scores(row):
                after = scores
                curve.append((step + last, _mean(_test(scores))))
            elif last % 20 == 0:
                losses.append((step + last, round(row["loss"], 4)))
        step += last
    return {
        "before": _test(before),
        "after": _test(after),
        "start": _mean(_test(before)),
        "end": _mean(_test(after)),
        "dev": _mean({k: v for k, v in after.items() if k.endswith(DEV)}),
        "curve": curve,
        "losses": losses,
        "steps": step,
    }


def with_merged(recipe: Recipe, outcomes: Mapping[str, Outcome], found: dict[str, Any]) -> None:
    """Measure the model of a last stage that merges, which has no evaluation of its own."""
    model = list(outcomes.values())[-1].model
    if not isinstance(recipe.stages[-1], MergeStage) or model is None:
        return
    trained = [one for one in recipe.stages if isinstance(one, MediaTrainStage)]
    config = next(one.evaluation for one in reversed(trained) if one.evaluation is not None)
    evaluator = MediaEvaluator(config, lambda source: source, vector_scores)
    scores = _scores(evaluator(MediaEncoder(Embedder.from_pretrained(model, device="cpu"))))
    found["after"] = _test(scores)
    found["end"] = _mean(found["after"])
    found["dev"] = _mean({k: v for k, v in scores.items() if k.endswith(DEV)})
    found["curve"].append((found["steps"], found["end"]))


def _scores(values: Mapping[str, float]) -> dict[str, float]:
    return {
        key.removesuffix(f"/{METRIC}"): round(value, 4)
        for key, value in values.items()
        if key.endswith(f"/{METRIC}")
    }


def _test(scores: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in scores.items() if not key.endswith(DEV)}


def _mean(scores: Mapping[str, float]) -> float:
    return round(statistics.mean(scores.values()), 4)


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """One run from its start."""
    shutil.rmtree(folder, ignore_errors=True)
    busy = time.process_time()
    outcomes = run_recipe(recipe, more=MEDIA_RUNNERS)
    found = measured(outcomes)
    with_merged(recipe, outcomes, found)
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
    parser.add_argument("--rates", type=float, nargs="*", default=[5e-4, 2e-3])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--result", default="recipes_aligned")
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
    file = RESULTS / f"{args.result}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    budget = {"steps": args.steps, "batch": args.batch, "rates": args.rates}
    if kept.get("budget") != budget:
        kept = {}
    runs, tried = kept.get("runs", {}), kept.get("tried", {})

    def setting_of(seed: int, start: Path, rate: float) -> Setting:
        return Setting(start, rows, args.steps, args.batch, rate, seed)

    def start_of(seed: int) -> Path:
        """The model that this seed's runs go on from."""
        work = args.work.resolve() / f"seed-{seed}"
        model = work / "aligned" / "train" / "model"
        if not model.exists():
            empty = setting_of(seed, start_folder(work / "start", some, seed), ALIGNING_RATE)
            run(plain(recipes[ALIGNED], empty, work / "aligned"), work / "aligned")
        return model

    def once(make: Make, name: str, seed: int, rate: float) -> dict[str, Any]:
        folder = args.work.resolve() / "run"
        found = run(make(recipes[name], setting_of(seed, start_of(seed), rate), folder), folder)
        return {**found, "rate": rate}

    with small_models():
        for name in args.only or recipes:
            for key, make in ((plain_name(recipes[name]), plain), (name, at_size)):
                done = runs.setdefault(key, {})
                first, *others = args.seeds
                if str(first) not in done:
                    found = {rate: once(make, name, first, rate) for rate in args.rates}
                    tried[key] = {str(rate): one["dev"] for rate, one in found.items()}
                    done[str(first)] = max(found.values(), key=lambda one: one["dev"])
                for seed in others:
                    if str(seed) not in done:
                        done[str(seed)] = once(make, name, seed, done[str(first)]["rate"])
                    _write(args.result, runs, tried, recipes, budget)
                ends = {seed: (one["start"], one["end"]) for seed, one in done.items()}
                print(key, tried[key], ends, done[str(first)]["cpu_seconds"], flush=True)


def _write(result: str, runs: Any, tried: Any, recipes: Mapping[str, Recipe], budget: Any) -> None:
    write_result(
        result,
        {
            "what": f"held-out {METRIC} of short runs of multimodal recipes over a small start",
            "command": "python benchmarks/media_gains.py",
            "budget": budget,
            "asked": ASKED,
            "shortlist": SHORTLIST,
            "plain": {name: plain_name(recipe) for name, recipe in recipes.items()} | APART,
            "tried": tried,
            "runs": runs,
            "machine": facts("torch", "transformers"),
        },
    )


if __name__ == "__main__":
    main()
