"""A tiny recipe, as a value and as a script that several processes run.

Usage: training_cases.py RECIPE OUTPUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.gpte.recipe import Recipe, load_recipe, recipe_from
from mmembed.gpte.run import run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.tiny import tiny_model

NOUNS = ["fox", "dog", "house", "river", "mountain", "engine", "poem", "ship"]
VERBS = ["jumps", "sleeps", "turns", "falls", "shines"]


def write_rows(path: Path, rows: int, seed: int = 0) -> Path:
    """Pairs that share words, with negatives, labels and a teacher's scores."""
    random = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as stream:
        for i in range(rows):
            noun, verb = random.choice(NOUNS), random.choice(VERBS)
            row: dict[str, Any] = {
                "query": f"where the {noun} {verb} {i}",
                "positive": f"{noun} {i} {verb} here",
                "negatives": [f"{random.choice(NOUNS)} {random.choice(VERBS)}" for _ in range(2)],
                "score": float(random.random()),
            }
            row["teacher"] = [1.0, *random.random(2).tolist()]
            stream.write(json.dumps(row) + "\n")
    return path


def recipe(folder: Path, stage: dict[str, Any], *, rows: int = 26, seed: int = 1) -> Recipe:
    """One training stage on tiny BERT; 26 rows in batches of 4 make epochs of 7 steps."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "rows.jsonl"
    if not data.exists():
        write_rows(data, rows)
    source = {"path": str(data), "name": "rows", **stage.pop("source", {})}
    more = stage.pop("data", {})
    encoder = {"backbone": str(tiny_model("bert", folder / "bert")), "dropout": 0.1}
    base = {
        "name": "only",
        "objective": {"name": "infonce", "temperature": 0.05, "masks": ["duplicates"]},
        "batch": {"size": 4},
        "schedule": {"steps": 10, "lr": 1e-3, "warmup": 0.2},
        "data": {"sources": [source], **more},
    }
    values = {**base, **stage, "encoder": {**encoder, **stage.get("encoder", {})}}
    output = str(folder / "run")
    return recipe_from({"name": "tried", "seed": seed, "output": output, "stages": [values]})


def plainly_and_cached(
    folder: Path, family: str, settings: dict[str, Any], objective: Any
) -> tuple[list[list[dict[str, Any]]], list[TextEncoder]]:
    """What three steps of a tiny model log, and the model, in one batch and by chunks."""
    backbone = str(tiny_model(family, folder / family))
    rows = str(write_rows(folder / "rows.jsonl", 12))
    logs, models = [], []
    for name, batch in {"plain": {}, "cached": {"chunk_rows": 4}}.items():
        stage = {
            "name": "only",
            "objective": objective,
            "batch": {"size": 6, **batch},
            "schedule": {"steps": 3, "lr": 1e-3, "eps": 1e-4, "clip": 0.0},
            "data": {"sources": [{"path": rows}]},
            "encoder": {"backbone": backbone, "settings": settings, "dropout": 0.0},
        }
        output = str(folder / name)
        outcome = run_recipe(recipe_from({"name": "r", "output": output, "stages": [stage]}))
        lines = (Path(output) / "only/metrics.jsonl").read_text().splitlines()
        logs.append([json.loads(line) for line in lines])
        models.append(TextEncoder.from_pretrained(outcome["only"].model or ""))
    return logs, models


if __name__ == "__main__":
    run_recipe(load_recipe(sys.argv[1], [f"output={sys.argv[2]}"]))
