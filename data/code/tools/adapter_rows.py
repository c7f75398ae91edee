"""Training rows of mini's code adapter: mined pairs and MBXP, nothing of a local test set.

    codeembed pairs FOLDER --packages --kind docstring --kind comment --kind name --into java.jsonl
    python data/code/tools/adapter_rows.py *.jsonl --data ../shared/data --into rows

FOLDER holds permissively licensed packages (PSF, MIT, BSD, Apache, ISC), one folder each. A row is
left out whose query is one of a local set, or whose code shares half of its token triples with a
document of one. Writes ``train.jsonl`` (packages of the split train, and MBXP) and ``dev.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codeembed.evaluation.sets import read_set, set_names

_TOKEN = re.compile(r"\w+|[^\w\s]")
_TRAINED_ON = ("mbxp",)
_MOST = {"docstring": 3200, "comment": 700, "name": 700}  # of a file of pairs
_CHARACTERS = 480
_SHARED = 0.5


def triples(text: str) -> frozenset[int]:
    tokens = _TOKEN.findall(text)
    return frozenset(hash(tuple(tokens[i : i + 3])) for i in range(max(1, len(tokens) - 2)))


def held_out(data: Path) -> tuple[set[str], list[frozenset[int]], dict[int, list[int]]]:
    queries: set[str] = set()
    documents: list[frozenset[int]] = []
    where: dict[int, list[int]] = {}
    for name in set_names():
        if name in (*_TRAINED_ON, "keywords"):
            continue
        found = read_set(name, data)
        queries.update(" ".join(query.lower().split()) for query in found.queries)
        for text in found.documents:
            shingles = triples(text)
            for each in shingles:
                where.setdefault(each, []).append(len(documents))
            documents.append(shingles)
    return queries, documents, where


def leaks(code: str, documents: list[frozenset[int]], where: dict[int, list[int]]) -> bool:
    shingles = triples(code)
    counts: dict[int, int] = {}
    for each in shingles:
        found = where.get(each, ())
        if len(found) > 200:  # such a triple says nothing
            continue
        for number in found:
            counts[number] = counts.get(number, 0) + 1
    return any(
        count >= _SHARED * min(len(shingles), len(documents[number]))
        for number, count in counts.items()
    )


def mbxp(data: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(data / "mbxp_multilingual" / "problems.jsonl.xz", "rt") as stream:
        for line in stream:
            row = json.loads(line)
            bodies = {
                name: each["solution"]
                for name, each in row["langs"].items()
                if (each.get("solution") or "").strip()
            }
            names = sorted(bodies)
            for name in names:
                yield {"query": row["description"], "positive": bodies[name], "kind": "task"}
            for one, other in zip(names, names[1:] + names[:1], strict=True):
                if one != other:
                    yield {
                        "query": bodies[one][:_CHARACTERS],
                        "positive": bodies[other],
                        "kind": "translation",
                    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    options = parser.parse_args()
    rng = random.Random(0)
    queries, documents, where = held_out(options.data)
    train: list[dict[str, Any]] = []
    dev: list[dict[str, Any]] = []
    left_out = 0
    for file in options.files:
        rows = [json.loads(line) for line in file.open(encoding="utf-8")]
        rng.shuffle(rows)
        taken: dict[str, int] = {}
        for row in rows:
            kind, held = row["kind"], row["split"] != "train"
            key = f"{kind}-{held}"
            if taken.get(key, 0) >= (_MOST[kind] if not held else 60 * (kind == "docstring")):
                continue
            asked = " ".join(row["query"].lower().split())
            if asked in queries or leaks(row["positive"], documents, where):
                left_out += 1
                continue
            taken[key] = taken.get(key, 0) + 1
            small = {
                "query": row["query"][:_CHARACTERS],
                "positive": row["positive"][:_CHARACTERS],
                "kind": f"{kind}-{row['language']}",
            }
            (dev if held else train).append(small)
        print(file.name, taken, "left out so far:", left_out, flush=True)
    tasks = list(mbxp(options.data))
    rng.shuffle(tasks)
    train += [{**row, "positive": row["positive"][:_CHARACTERS]} for row in tasks[:4000]]
    train = list({(row["query"], row["positive"]): row for row in train}.values())
    rng.shuffle(train)
    options.into.mkdir(parents=True, exist_ok=True)
    for name, found in (("train", train), ("dev", dev)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        (options.into / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(name, len(found))


if __name__ == "__main__":
    main()
