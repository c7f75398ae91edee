"""What mini's adapter ``text-matching`` does for other languages, on held-out rows.

    python benchmarks/mini_languages.py --data ../shared/data [--cache CACHE]

Sentences of Tatoeba's test split find their English translations among those of their language;
names of the emoji that are held out as pictures find the English name, and the picture, which is
read without the adapter. Both ways of reading the query: plain, and ``task="text-matching"``. The
English side of sentences and names is read plainly, since that is where the adapter shall lead.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from held_out import lines, test_rows
from machine import facts, write_result
from mini_tasks import load_remembering

from mmembed import Embedder
from mmembed.gpte.metrics import bootstrap_interval, ndcg
from mmembed.multimodal.translations import NAMES, sentence_pairs

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"plain": "", "text-matching": "text-matching"}
Array = np.ndarray[Any, Any]


def score(queries: Array, documents: Array, relevant: Array) -> Array:
    """nDCG@10 of every query."""
    found: Array = ndcg(queries @ documents.T, relevant, 10)
    return found


def told(values: Array) -> dict[str, Any]:
    interval = [round(end, 4) for end in bootstrap_interval(values)]
    return {"ndcg@10": round(float(values.mean()), 4), "interval": interval}


def sentences(model: Embedder) -> dict[str, Any]:
    by_language: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in sentence_pairs(ROOT / "data" / "text", "test"):
        by_language[row["lang"]].append(row)
    values: dict[str, list[Array]] = {way: [] for way in WAYS}
    each: dict[str, dict[str, float]] = {}
    for language, rows in by_language.items():
        english = model.encode([row["query"] for row in rows])
        same = np.array([[a["query"] == b["query"] for b in rows] for a in rows])
        for way, task in WAYS.items():
            asked = model.encode([row["positive"] for row in rows], task=task or None)
            values[way].append(score(asked, english, same))
            each.setdefault(language, {})[way] = round(float(values[way][-1].mean()), 3)
    whole = {way: told(np.concatenate(found)) for way, found in values.items()}
    return {"queries": sum(map(len, by_language.values())), **whole, "languages": each}


def emoji(model: Embedder, data: Path) -> dict[str, Any]:
    held = {row.image.name for row in test_rows("emoji_noto", data)}
    every = lines(data / "emoji_noto" / "emoji.jsonl")
    rows = [row for row in every if row["kind"] == "base" and Path(row["image"]).name in held]
    english = model.encode([row["names"]["en"] for row in rows])
    pictures = model.encode([data / "emoji_noto" / row["image"] for row in rows])
    found: dict[str, Any] = {"candidates": len(rows)}
    for name, documents in (("English name", english), ("picture", pictures)):
        values: dict[str, list[Array]] = {way: [] for way in WAYS}
        for language in NAMES:
            own = [
                (i, row["names"][language])
                for i, row in enumerate(rows)
                if row["names"].get(language, row["names"]["en"]) != row["names"]["en"]
            ]
            relevant = np.eye(len(rows), dtype=bool)[[i for i, _ in own]]
            for way, task in WAYS.items():
                asked = model.encode([text for _, text in own], task=task or None)
                values[way].append(score(asked, documents, relevant))
        found[name] = {way: told(np.concatenate(some)) for way, some in values.items()}
        found[name]["queries"] = sum(map(len, values["plain"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    parser.add_argument("--model", default="mini")
    args = parser.parse_args()
    model = load_remembering(args.model, args.cache, "cpu")
    result = {
        "what": "nDCG@10 of queries in other languages, plain and by the adapter text-matching",
        "command": "python benchmarks/mini_languages.py",
        "sentences": sentences(model),
        "emoji": emoji(model, args.data),
        "machine": facts("torch", "transformers"),
    }
    print(json.dumps(result["emoji"]), json.dumps(result["sentences"])[:300])
    write_result("mini_languages", result)


if __name__ == "__main__":
    main()
