"""What every code recipe adds to its start on held-out code: short runs of small models.

    python benchmarks/code_recipe_gains.py [--only NAME ...] [--starts words "mixing words"]
    python benchmarks/code_recipe_gains.py --dev --seeds 42 ...  # to choose by; writes nothing
    python benchmarks/code_gains_table.py    # puts the table in docs/code-training.md

Every recipe of ``configs/recipes/code`` runs as it is written, at the size that
``small_recipes.py`` describes, over the mined pairs of ``data/code``, whose modules are in one
split as a whole. A start is an untrained model of the recipe's own architecture, 128 wide and of
two random layers. Its tokens are 4,096 byte-level ones, made from the training pairs; their vectors
are principal components of all-MiniLM-L6-v2's for the same letters: from nothing at all, runs this
short learn nothing that holds for other words. There are two:

- ``words``: layers drawn as configurations say; 40 steps.
- ``mixing words``: layers that keep the length of what they read, 160 steps at a third of the
  rate, as in ``recipe_gains.py``, where steps and rate come from. For recipes that do not beat the
  other start: those that read one token's state, which there holds hardly a trace of the others,
  and those whose masked tokens a short run cannot learn of such layers.
- ``mixing words, slower``: as mixing words, at a rate of 2e-4, chosen on codesage's development
  splits. For recipes that lose from that one too: predicting masked tokens moves the whole table
  of word vectors, as far as the rate lets it. ``mixing words, slower and longer`` has 320 steps.

Scores are nDCG@10 of the test splits of docstrings and of clones, before and after, with the same
pooling and (random) heads; every recipe runs with three seeds of heads, batches and masks, and the
mean difference has a 95% interval of paired bootstrap draws of queries and seeds. Short runs of
small models say that a recipe learns and which way it pulls, not how good its system is.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from code_gains_table import FILE, RECIPES, runs_of
from gains import told
from machine import facts, write_result
from recipe_gains import MINILM, SHAPE, header, keep_lengths, models_over, ran, teacher_model
from small_recipes import Start, at_size, leaves, stage_at_size
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F

from codeembed.training.judging import JudgeStage, ScoreStage
from codeembed.training.matched import MatchedStage
from codeembed.training.matching import reranked
from codeembed.training.stages import (
    CODE_RUNNERS,
    CODE_STAGES,
    FilterStage,
    ViewStage,
)
from mmembed.gpte.config import EvaluationSet, SourceConfig
from mmembed.gpte.encoding import encode
from mmembed.gpte.evaluating import Measured
from mmembed.gpte.metrics import ndcg
from mmembed.gpte.outcomes import Outcome
from mmembed.gpte.recipe import Recipe, Stage, TrainStage, load_recipe
from mmembed.gpte.text_encoder import TextEncoder

DATA = Path("data/code")
VOCABULARY = 4096
BATCH = 32
TOKENS = 96
SETS = ("docstring", "clone")
DEPTH = 8  # of what a matching head reranks
SEEDS = [42, 43, 44]  # of new heads, batches and masks; the starts stay


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


def words(work: Path, recipes: Sequence[Recipe]) -> Start:
    """Random layers of the recipes' architectures over word vectors."""
    return words_under("words", work, recipes, steps=40, lr=2e-3)


def mixing_words(work: Path, recipes: Sequence[Recipe]) -> Start:
    """The same, whose layers keep the length of what they read."""
    return words_under("mixing words", work / "mixing", recipes, keep_lengths, steps=160, lr=7e-4)


def slower_mixing_words(work: Path, recipes: Sequence[Recipe]) -> Start:
    """The same models, changed more slowly."""
    return replace(mixing_words(work, recipes), name="mixing words, slower", lr=2e-4)


def longer_mixing_words(work: Path, recipes: Sequence[Recipe]) -> Start:
    """As slowly, for twice as long."""
    slower = slower_mixing_words(work, recipes)
    return replace(slower, name="mixing words, slower and longer", steps=2 * slower.steps)


STARTS: Mapping[str, Callable[[Path, Sequence[Recipe]], Start]] = {
    "words": words,
    "mixing words": mixing_words,
    "mixing words, slower": slower_mixing_words,
    "mixing words, slower and longer": longer_mixing_words,
}


def words_under(
    name: str,
    work: Path,
    recipes: Sequence[Recipe],
    draw: Callable[[torch.nn.Module], None] = lambda model: None,
    *,
    steps: int,
    lr: float,
) -> Start:
    """The recipes' architectures over word vectors, with layers that ``draw`` may draw anew."""
    families = {s.encoder.family for r in recipes for s in r.stages if isinstance(s, TrainStage)}
    return Start(
        name=name,
        models=models_over(byte_words, work, sorted(families), draw),
        masked="",
        teacher=teacher_model(work / "teacher"),
        data=DATA,
        width=SHAPE.width,
        steps=steps,
        batch=BATCH,
        tokens=TOKENS,
        lr=lr,
        head_lr=3e-3,
    )


def code_stage(stage: Stage, start: Start) -> Stage:
    """A stage of a code recipe from that start."""
    if isinstance(stage, ViewStage):
        return replace(stage, source=start.file(stage.source))
    if isinstance(stage, FilterStage | MatchedStage):
        return replace(stage, model=start.teacher)
    if isinstance(stage, ScoreStage):
        return stage
    small = stage_at_size(stage, start)
    if isinstance(stage, TrainStage) and any(s.teacher == "teacher" for s in stage.data.sources):
        # The recipe's own judge teaches, by log-odds as they are.
        return replace(small, objective=stage.objective)
    return small


def held_out(split: str) -> list[EvaluationSet]:
    return [
        EvaluationSet("retrieval", SourceConfig(str(DATA / f"{name}-{split}.jsonl.gz"), name=name))
        for name in SETS
    ]


def run(
    recipe: Recipe, start: Start, work: Path, seeds: Sequence[int], split: str
) -> dict[str, Any]:
    """One recipe with every seed, before and after; with a matching head, also what that adds."""
    small = at_size(recipe, start, work, code_stage)
    embedding = [s for s in small.stages if isinstance(s, TrainStage)]
    embedding = [s for s in embedding if not isinstance(s, JudgeStage)]
    (last,) = leaves(Recipe(small.name, tuple(embedding), output=small.output))
    judges = any("match_token" in s.encoder.settings for s in embedding if s.name == last)

    def matched(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
        return {"matching": reranked_sets(outcomes[last], split)} if judges else {}

    runs = [
        ran(replace(small, seed=seed), {last: held_out(split)}, CODE_RUNNERS, matched)
        for seed in seeds
    ]
    return header(small, start) | {"seeds": list(seeds), **told(runs)}


def reranked_sets(trained: Outcome, split: str) -> tuple[dict[str, Measured], dict[str, Measured]]:
    """nDCG@10 of docstrings by an encoder, and with its best reranked by its matching head."""
    encoder = TextEncoder.from_pretrained(str(trained.model)).eval()
    with gzip.open(DATA / f"docstring-{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    queries, documents = [row["query"] for row in rows], [row["positive"] for row in rows]
    sides = [
        F.normalize(encode(encoder, texts, role=role), dim=1)
        for texts, role in ((queries, "query"), (documents, "document"))
    ]
    cosines = (sides[0] @ sides[1].T).double().numpy()
    relevant = np.array([[a == b for b in documents] for a in documents], dtype=float)
    name = f"the best {DEPTH} of each docstring"
    before = Measured(ndcg(cosines, relevant, 10))
    after = Measured(ndcg(reranked(cosines, queries, documents, encoder, DEPTH), relevant, 10))
    return {name: before}, {name: after}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--starts", nargs="*", default=["words"], choices=STARTS)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--work", type=Path, default=Path("runs/code_recipe_gains"))
    parser.add_argument("--again", action="store_true", help="measure what is there anew")
    parser.add_argument("--dev", action="store_true", help="development splits; write nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipes = {
        file.stem: load_recipe(file, [], CODE_STAGES) for file in sorted(RECIPES.glob("*.yaml"))
    }
    starts = [STARTS[name](args.work, list(recipes.values())) for name in args.starts]
    for start, name in product(starts, args.only or recipes):
        done = {key_of(one): one["seeds"] for one in runs_of()}.get((name, start.name), [])
        if set(args.seeds) <= set(done) and not (args.again or args.dev):
            continue
        work = args.work / f"run-{name}-{start.name}"
        row = run(recipes[name], start, work, args.seeds, "dev" if args.dev else "test")
        print(json.dumps(row), flush=True)
        if args.dev:
            continue
        runs = [one for one in runs_of() if key_of(one) != key_of(row)] + [row]
        write_result(
            FILE.stem,
            {
                "what": "held-out nDCG@10 before and after short runs of code recipes",
                "command": "python benchmarks/code_recipe_gains.py",
                "runs": sorted(runs, key=key_of),
                "machine": facts("torch", "transformers"),
            },
        )


def key_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """What tells runs apart."""
    return row["recipe"], row["start"]


if __name__ == "__main__":
    main()
