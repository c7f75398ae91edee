"""What every code recipe adds to its start on held-out code: short runs of small models.

    python benchmarks/code_recipe_gains.py [--only NAME ...] [--steps 40] [--again]
    python benchmarks/code_gains_table.py    # puts the table in docs/code-training.md

Every recipe of ``configs/recipes/code`` runs as it is written, at the size that
``small_recipes.py`` describes, over the mined pairs of ``data/code``, whose modules are in one
split as a whole. The start is an untrained model of the recipe's own architecture, 128 wide and of
two random layers. Its tokens are 4,096 byte-level ones, made from the training pairs; their vectors
are principal components of all-MiniLM-L6-v2's for the same letters: from nothing at all, runs this
short learn nothing that holds for other words.

Scores are nDCG@10 of the test splits of docstrings and of clones, before and after, with the same
pooling and (random) heads; the mean difference has a 95% interval of paired bootstrap draws. Short
runs of small models say that a recipe learns and which way it pulls, not how good its system is.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from code_gains_table import FILE, RECIPES, runs_of
from machine import facts, write_result
from recipe_gains import MINILM, SHAPE, compared, models_over, teacher_model
from small_recipes import Start, at_size, leaves, stage_at_size
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from codeembed.training.stages import CODE_RUNNERS, CODE_STAGES, FilterStage, ViewStage
from mmembed.gpte.config import EvaluationSet, SourceConfig
from mmembed.gpte.recipe import Recipe, Stage, TrainStage, load_recipe

DATA = Path("data/code")
VOCABULARY = 4096
BATCH = 32
TOKENS = 96
SETS = ("docstring", "clone")


def training_texts() -> Iterator[str]:
    for file in sorted(DATA.glob("*-train.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield from (row["query"], row["positive"])


def byte_tokens() -> Tokenizer:
    """Byte-level tokens: heads over code must find its bytes again."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        training_texts(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def vectors_of(tokenizer: Tokenizer) -> torch.Tensor:
    """``(tokens, SHAPE.width)``: mean vectors of the word pieces with the same letters."""
    from transformers import AutoModel

    table = AutoModel.from_pretrained(MINILM).get_input_embeddings().weight.detach()
    table = table - table.mean(dim=0)
    pieces = Tokenizer.from_file(f"{MINILM}/tokenizer.json")
    pieces.no_padding()
    pieces.no_truncation()
    texts = [tokenizer.decode([token]).strip() for token in range(tokenizer.get_vocab_size())]
    rows = [one.ids for one in pieces.encode_batch(texts, add_special_tokens=False)]
    means = torch.stack([table[ids].mean(dim=0) if ids else torch.zeros(384) for ids in rows])
    _, _, directions = torch.linalg.svd(means, full_matrices=False)
    vectors = means @ directions[: SHAPE.width].T
    return vectors / vectors.std()


def byte_words() -> tuple[Tokenizer, torch.Tensor]:
    tokens = byte_tokens()
    return tokens, vectors_of(tokens)


def start_of(work: Path, recipes: Sequence[Recipe], steps: int) -> Start:
    """Random layers of the recipes' architectures over word vectors."""
    families = {s.encoder.family for r in recipes for s in r.stages if isinstance(s, TrainStage)}
    return Start(
        name="words",
        models=models_over(byte_words, work, sorted(families)),
        masked="",
        teacher=teacher_model(work / "teacher"),
        data=DATA,
        width=SHAPE.width,
        steps=steps,
        batch=BATCH,
        tokens=TOKENS,
        lr=2e-3,
        head_lr=3e-3,
    )


def code_stage(stage: Stage, start: Start) -> Stage:
    """A stage of a code recipe from that start."""
    if isinstance(stage, ViewStage):
        return replace(stage, source=start.file(stage.source))
    if isinstance(stage, FilterStage):
        return replace(stage, model=start.teacher)
    return stage_at_size(stage, start)


def held_out() -> list[EvaluationSet]:
    return [
        EvaluationSet("retrieval", SourceConfig(str(DATA / f"{name}-test.jsonl.gz"), name=name))
        for name in SETS
    ]


def run(recipe: Recipe, start: Start, work: Path) -> dict[str, Any]:
    """One recipe, measured before and after."""
    small = at_size(recipe, start, work, code_stage)
    (last,) = leaves(Recipe(small.name, tuple(_trained(small)), output=small.output))
    return compared(small, start, {last: held_out()}, CODE_RUNNERS)


def _trained(recipe: Recipe) -> list[Stage]:
    return [stage for stage in recipe.stages if isinstance(stage, TrainStage)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--work", type=Path, default=Path("runs/code_recipe_gains"))
    parser.add_argument("--again", action="store_true", help="measure what is there anew")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipes = {
        file.stem: load_recipe(file, [], CODE_STAGES) for file in sorted(RECIPES.glob("*.yaml"))
    }
    start = start_of(args.work, list(recipes.values()), args.steps)
    for name, recipe in recipes.items():
        done = {one["recipe"] for one in runs_of()}
        if (args.only and name not in args.only) or (name in done and not args.again):
            continue
        row = run(recipe, start, args.work / f"run-{name}")
        print(json.dumps(row), flush=True)
        runs = [one for one in runs_of() if one["recipe"] != name] + [row]
        write_result(
            FILE.stem,
            {
                "what": "held-out nDCG@10 before and after short runs of code recipes",
                "command": "python benchmarks/code_recipe_gains.py",
                "runs": sorted(runs, key=lambda one: one["recipe"]),
                "machine": facts("torch", "transformers"),
            },
        )


if __name__ == "__main__":
    main()
