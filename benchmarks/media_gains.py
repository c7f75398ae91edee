"""What each multimodal recipe adds over its start, and over plain InfoNCE at the same budget.

    python benchmarks/media_gains.py --data ../shared/data [--steps 200] [--seeds 3] [--only NAME]

Every recipe of configs/recipes/multimodal runs with its own stages, objective, masks, mining and
batches, but on one small random Qwen2-VL (all parameters learn), with the same data, steps, batch
size and learning rate: photos of groceries and the names of their classes, split as their makers
did. What is measured is the recipe's idea at a laptop's size, not the published system.
Finished runs are kept, so the command can be repeated after a stop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import facts, write_result

from mmembed.gpte.recipe import MineStage, Recipe, TrainStage, load_recipe, recipe_from
from mmembed.gpte.run import run_recipe
from mmembed.multimodal.config import (
    MediaEncoderConfig,
    MediaEvaluationConfig,
    MediaEvaluationSet,
    MediaSourceConfig,
)
from mmembed.multimodal.stages import MEDIA_RUNNERS, MEDIA_STAGES

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "configs" / "recipes" / "multimodal"
NAMES = ("vlm2vec", "vlm2vec_v2", "llave", "unime_v2", "unite", "b3", "gme", "mme5", "colqwen2")
METRIC = "ndcg@10"


def small_model(folder: Path) -> Path:
    """A random Qwen2-VL of about two million parameters."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from mmembed.backbones.vlm.tiny import QWEN_SPECIALS, tokenizer

    if (folder / "preprocessor_config.json").exists():
        return folder
    fast = tokenizer(QWEN_SPECIALS, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = fast.convert_tokens_to_ids
    config = hf.Qwen2VLConfig(
        text_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "vocab_size": len(fast),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [4, 6, 6],
            },
        },
        vision_config={"embed_dim": 96, "hidden_size": 128, "depth": 4, "num_heads": 4},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    torch.manual_seed(0)
    hf.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=784 * 4, max_pixels=784 * 9).save_pretrained(folder)
    return folder


def write_data(data: Path, folder: Path) -> tuple[Path, Path]:
    """Training and test rows of names and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    grocery = data / "grocery_store"
    classes = json.loads((grocery / "classes.json").read_text(encoding="utf-8"))
    names = {int(one["class_id"]): one["name"] for one in classes}
    for line in (grocery / "images.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        part = "train" if row["split"] == "train" else "test"
        item = {
            "query": f"a photo of {names[int(row['class_id'])]}",
            "positive": {"image": str(grocery / row["image"])},
        }
        rows[part].append(item)
    files = []
    for part, found in rows.items():
        files.append(folder / f"{part}.jsonl")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        files[-1].write_text(text, encoding="utf-8")
    return files[0], files[1]


def at_size(
    recipe: Recipe, model: Path, train: Path, test: Path, options: Any, seed: int
) -> Recipe:
    """The recipe on the small model and the common data; its ideas stay."""
    encoder = MediaEncoderConfig(str(model), "qwen2_vl", train="all")
    learning = [stage for stage in recipe.stages if isinstance(stage, TrainStage)]
    stages: list[Any] = []
    for stage in recipe.stages:
        source = MediaSourceConfig(str(train), name="train")
        if isinstance(stage, MineStage):
            data = replace(stage.data, sources=(source,))
            stages.append(replace(stage, data=data, reranker=None, margin=None, relative=None))
            continue
        if not isinstance(stage, TrainStage):
            stages.append(stage)
            continue
        mined = [one for one in stage.data.sources if one.path.startswith("stage://")]
        settings = {k: v for k, v in stage.encoder.settings.items() if k != "multi_bias"}
        if settings.get("multi_dim"):
            settings["multi_dim"] = 32
        order = "mixed" if stage.batch.order == "homogeneous" else stage.batch.order
        batch = replace(
            stage.batch, size=options.batch, order=order, block=16, mixture="all", chunk_rows=None
        )
        found = stage.communities
        if found is not None:
            found = replace(found, teacher="", skip=10, keep=50, size=8)
        score = "maxsim" if settings.get("multi_dim") else "cosine"
        held_out = MediaEvaluationSet(MediaSourceConfig(str(test), name="test"), score=score)
        stages.append(
            replace(
                stage,
                data=replace(stage.data, sources=tuple(mined) or (source,), guide=None),
                encoder=replace(encoder, settings=settings),
                batch=batch,
                communities=found,
                schedule=replace(
                    stage.schedule,
                    steps=max(1, options.steps // len(learning)),
                    lr=options.lr,
                    warmup=0.1,
                ),
                evaluation=MediaEvaluationConfig((held_out,)),
                precision="no",
            )
        )
    return replace(recipe, stages=tuple(stages), seed=seed)


def plain(model: Path) -> Recipe:
    """InfoNCE over the batch, and nothing else."""
    stage = {
        "name": "train",
        "kind": "multimodal",
        "data": {"sources": [{"path": "train"}]},
        "encoder": {"backbone": str(model), "settings": {"pooling": "last"}},
        "objective": {"name": "infonce", "temperature": 0.02, "masks": ["duplicates"]},
    }
    return recipe_from({"name": "infonce", "stages": [stage]}, MEDIA_STAGES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/media_gains"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    model = small_model(options.work / "model")
    train, test = write_data(options.data.resolve(), options.work / "data")
    names = options.only or ["infonce", *NAMES]
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for name in names:
            made = plain(model)
            if name != "infonce":
                made = load_recipe(RECIPES / f"{name}.yaml", [], MEDIA_STAGES)
            recipe = at_size(made, model, train, test, options, seed)
            recipe = replace(recipe, output=str(options.work / f"{name}-{options.steps}-{seed}"))
            started = time.perf_counter()
            outcomes = run_recipe(recipe, more=MEDIA_RUNNERS)
            measured = [one for one in outcomes.values() if one.metrics.get(f"test/{METRIC}")]
            score, start = (
                measured[-1].metrics[f"test/{METRIC}"],
                measured[0].start[f"test/{METRIC}"],
            )
            taken = time.perf_counter() - started
            found.setdefault(name, []).append({"start": start, "after": score, "seconds": taken})
            print(name, seed, round(start, 4), round(score, 4), f"{taken:.0f} s", flush=True)
            _write(found, options, train, test)


def _write(found: dict[str, Any], options: Any, train: Path, test: Path) -> None:
    table = {}
    base = [run["after"] for run in found.get("infonce", [])]
    for name, runs in found.items():
        after = [run["after"] for run in runs]
        table[name] = {
            "start": [round(run["start"], 4) for run in runs],
            "after": [round(value, 4) for value in after],
            "mean": round(statistics.mean(after), 4),
            "deviation": round(statistics.stdev(after), 4) if len(after) > 1 else None,
        }
        if base:
            pairs = list(zip(after, base, strict=False))
            table[name]["over_infonce"] = round(statistics.mean(a - b for a, b in pairs), 4)
    write_result(
        "media_gains",
        {
            "machine": facts("torch", "transformers"),
            "what": f"test {METRIC}, text to image, of a random Qwen2-VL of two million parameters",
            "rows": {
                p.stem: len(p.read_text(encoding="utf-8").splitlines()) for p in (train, test)
            },
            "steps": options.steps,
            "batch": options.batch,
            "lr": options.lr,
            "seeds": options.seeds,
            "recipes": table,
        },
    )


if __name__ == "__main__":
    main()
