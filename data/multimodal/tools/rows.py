"""Write the rows of this folder from ../samples: python data/multimodal/tools/rows.py

One file for each kind of task of the multimodal benchmarks, by what asks and what is found: T text,
I image, V clip, VD page, and several letters for a fused item. A row with any medium whose hash
falls into a quarter of all values is a test row, so that no task trains on a medium of the tests.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pypdfium2 as pdfium

HERE = Path(__file__).resolve().parents[1]
SAMPLES = HERE.parent / "samples"
Row = dict[str, Any]


def captions(folder: str, name: str = "captions.jsonl") -> list[Row]:
    """Rows of a folder of samples, with the medium's path from here."""
    lines = (SAMPLES / folder / name).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{**row, "path": f"../samples/{folder}/{row['file']}"} for row in rows]


FIGURES = [row for row in captions("figures") if row["alt"]]
GROCERIES = captions("photos/groceries")
PHOTOS = [*captions("photos/classics"), *captions("photos/exercises"), *GROCERIES]
CLIPS = [
    row
    for kind in ("emoji", "exercises", "film")
    for row in captions(f"clips/{kind}", "labels.jsonl")
]


def image(row: Row, text: str = "") -> Row:
    return {"image": row["path"], **({"text": text} if text else {})}


def pages() -> Iterator[tuple[str, str]]:
    """Each page and its text."""
    for file in sorted((SAMPLES / "pages").glob("*.pdf")):
        document = pdfium.PdfDocument(file)
        for number in range(len(document)):
            text = document[number].get_textpage().get_text_bounded()
            yield f"../samples/pages/{file.name}#page={number + 1}", " ".join(text.split())


def by(rows: list[Row], key: str) -> list[list[Row]]:
    """Rows with an equal value, where there are at least two."""
    found = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return [group for group in found.values() if len(group) > 1]


def sentences(text: str) -> list[str]:
    return [part.strip() + "." for part in text.split(". ") if 60 < len(part) < 240]


def t_i() -> Iterator[Row]:
    for row in [*FIGURES, *PHOTOS]:
        yield {"query": row["alt"], "positive": image(row)}


def i_t() -> Iterator[Row]:
    for row in t_i():
        yield {"query": row["positive"], "positive": row["query"]}


def i_i() -> Iterator[Row]:
    for group in by(GROCERIES, "kind"):
        for a, b in pairwise(group):
            yield {"query": image(a), "positive": image(b)}


def t_vd() -> Iterator[Row]:
    for page, text in pages():
        for sentence in sentences(text)[::3]:
            yield {"query": sentence, "positive": {"document": page}}


def t_v() -> Iterator[Row]:
    for row in CLIPS:
        yield {"query": row["label"], "positive": {"video": row["path"]}}


def v_t() -> Iterator[Row]:
    for row in t_v():
        yield {"query": row["positive"], "positive": row["query"]}


def t_it() -> Iterator[Row]:
    for row in FIGURES:
        if row["caption"]:
            yield {"query": row["alt"], "positive": image(row, row["caption"][:400])}


def it_t() -> Iterator[Row]:
    asked = "Which section of the textbook shows this?"
    for row in FIGURES:
        yield {"query": image(row, asked), "positive": row["section"]}


def it_i() -> Iterator[Row]:
    groups = by(GROCERIES, "kind")
    for ours, theirs in zip(groups, [*groups[1:], groups[0]], strict=True):
        for a, b in zip(ours, theirs, strict=False):
            yield {"query": image(a, f"the same shop, but {b['alt']}"), "positive": image(b)}


def it_it() -> Iterator[Row]:
    for group in by(FIGURES, "section"):
        for a, b in pairwise(group):
            yield {
                "query": image(a, f"another picture of: {a['section']}"),
                "positive": image(b, b["alt"][:200]),
            }


def vt_v() -> Iterator[Row]:
    for a, b in pairwise(CLIPS):
        yield {
            "query": {"video": a["path"], "text": f"a clip like this, but of {b['label']}"},
            "positive": {"video": b["path"]},
        }


TASKS = {
    "T-I": t_i,
    "I-T": i_t,
    "I-I": i_i,
    "T-VD": t_vd,
    "T-V": t_v,
    "V-T": v_t,
    "T-IT": t_it,
    "IT-T": it_t,
    "IT-I": it_i,
    "IT-IT": it_it,
    "VT-V": vt_v,
}


def held_out(row: Row) -> bool:
    """Whether a row shows any medium of the quarter that is kept for tests, in all tasks alike."""
    items = [item for item in (row["query"], row["positive"]) if isinstance(item, dict)]
    media = [item[key] for item in items for key in item if key != "text"]
    return any(hashlib.blake2b(path.encode(), digest_size=1).digest()[0] < 64 for path in media)


def main() -> None:
    counts = {}
    for task, rows in TASKS.items():
        parts: dict[str, list[Row]] = {"train": [], "test": []}
        for row in rows():
            parts["test" if held_out(row) else "train"].append({"task": task, **row})
        for part, found in parts.items():
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
            (HERE / f"{task}-{part}.jsonl").write_text(text, encoding="utf-8")
        counts[task] = {part: len(found) for part, found in parts.items()}
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
