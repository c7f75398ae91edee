"""The held-out tasks of ``mini_tasks.py``: queries, candidates, and which answers which.

No photo, figure, emoji, clip or page here was trained on. The sets whose licence is not open serve
to measure, and for nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.evaluation.splits import name_hash
from mmembed.multimodal.captioned import Captioned, read_captioned

__all__ = ["TASKS", "Task", "lines"]

Item = Any
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Task:
    """One retrieval task.

    Attributes:
        name: in tables.
        queries: items.
        candidates: items.
        relevant: ``(q, n)`` bool.
        source: of the data, with what its licence allows.
        note: what a reader must know to judge the numbers.
        left_out: ``(q, n)`` bool: candidates that a query does not compete with, e.g. itself.
        by_words: text of each candidate, where BM25 can be compared.
    """

    name: str
    queries: Sequence[Item]
    candidates: Sequence[Item]
    relevant: Array
    source: str
    note: str = ""
    left_out: Array | None = None
    by_words: Sequence[str] = field(default_factory=tuple)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_rows(name: str, data: Path) -> list[Captioned]:
    return [row for row in read_captioned(name, data) if row.split == "test"]


def some(rows: Sequence[Any], count: int, file: Callable[[Any], str]) -> list[Any]:
    """So many of the rows, chosen by the hash of a name."""
    return sorted(rows, key=lambda row: name_hash(file(row)))[:count]


def same(left: Sequence[Any], right: Sequence[Any]) -> Array:
    """``(len(left), len(right))`` bool: equal labels."""
    return np.array([[a == b for b in right] for a in left], dtype=bool)


def figures(data: Path) -> list[Task]:
    rows = test_rows("openstax_figures", data)
    texts, images = [row.description for row in rows], [row.image for row in rows]
    own = np.eye(len(rows), dtype=bool)
    source = "OpenStax figures, CC BY"
    return [
        Task("text → figure", texts, images, own, source),
        Task("figure → text", images, texts, own, source),
    ]


def photos(data: Path) -> list[Task]:
    rows = test_rows("grocery_store", data)
    labels = [row.description for row in rows]
    names = list(dict.fromkeys(labels))
    trained = "other photos of the same 81 products were trained on"
    exercises = test_rows("free_exercise_db", data)
    titles = list(dict.fromkeys(row.description for row in exercises))
    folder = data / "flickr8k_1k"
    flickr = some(lines(folder / "captions.jsonl"), 400, lambda row: row["image"])
    captions = [(i, text) for i, row in enumerate(flickr) for text in row["captions"][:2]]
    belongs = np.zeros((len(captions), len(flickr)), dtype=bool)
    belongs[np.arange(len(captions)), [i for i, _ in captions]] = True
    pictures = [folder / row["image"] for row in flickr]
    emoji = test_rows("emoji_noto", data)
    return [
        Task(
            "text → photo, groceries",
            names,
            [row.image for row in rows],
            same(names, labels),
            "Grocery Store, MIT",
            trained,
        ),
        Task(
            "text → photo, exercises",
            titles,
            [row.image for row in exercises],
            same(titles, [row.description for row in exercises]),
            "free-exercise-db, Unlicense",
            "two photos an exercise",
        ),
        Task(
            "text → photo, Flickr8k",
            [text for _, text in captions],
            pictures,
            belongs,
            "Flickr8k, research only",
            "no photo with such captions was trained on",
        ),
        Task(
            "photo → text, Flickr8k",
            pictures,
            [text for _, text in captions],
            belongs.T,
            "Flickr8k, research only",
            "two captions a photo",
        ),
        Task(
            "text → emoji",
            [row.description for row in emoji],
            [row.image for row in emoji],
            same([r.description for r in emoji], [r.description for r in emoji]),
            "Noto emoji, OFL",
        ),
    ]


def naming(data: Path) -> list[Task]:
    rows = test_rows("grocery_store", data)
    labels = [row.description for row in rows]
    names = sorted(set(labels))
    folder = data / "imagenet_samples"
    samples = lines(folder / "labels.jsonl")
    classes = sorted({row["name"] for row in samples})
    shown = some(samples, 500, lambda row: row["image"])
    return [
        Task(
            "class naming, groceries",
            [row.image for row in rows],
            names,
            same(labels, names),
            "Grocery Store, MIT",
            "the classes are known from training, the photos are not",
        ),
        Task(
            "class naming, ImageNet",
            [folder / row["image"] for row in shown],
            [f"a photo of a {name}" for name in classes],
            same([row["name"] for row in shown], classes),
            "ImageNet samples, research only",
            "the vision tower was trained on these 1,000 classes by its authors, and perhaps on "
            "these photos: it is no zero-shot test of the tower, only of the way from it to names",
        ),
    ]


def pages(data: Path) -> list[Task]:
    folder = data / "mmlongbench_doc_pages"
    every_page = lines(folder / "pages.jsonl")
    documents = set(some(sorted({row["doc"] for row in every_page}), 12, str))
    found = [row for row in every_page if row["doc"] in documents]
    asked = [row for row in lines(folder / "queries.jsonl") if row["doc"] in documents]
    with_text = {row["page_id"] for row in found if row["text"].strip()}
    items = [
        {"image": folder / row["image"], "text": row["text"]}
        if row["page_id"] in with_text
        else folder / row["image"]
        for row in found
    ]
    ids = [row["page_id"] for row in found]
    relevant = np.array([[one in row["relevant"] for one in ids] for row in asked], dtype=bool)
    source = "MMLongBench-Doc, research only"
    questions = [row["question"] for row in asked]
    every = Task(
        "query → page",
        questions,
        items,
        relevant,
        source,
        f"{len(found) - len(with_text)} of the {len(found)} pages have no text layer",
        by_words=[row["text"] for row in found],
    )
    # Pages as pictures alone: what is left where there is no text layer.
    seen = Task(
        "query → page, pictures alone",
        questions,
        [folder / row["image"] for row in found],
        relevant,
        source,
        "the tower cannot read at 260 pixels",
    )
    return [every, seen]


def clips(data: Path) -> list[Task]:
    emoji = data / "emoji_animated"
    held = {row.description for row in test_rows("emoji_noto", data)}
    known = lines(emoji / "clips.jsonl")
    own = some([row for row in known if row["names"]["en"] in held], 40, lambda row: row["clip"])
    others = [row for row in known if row["names"]["en"] not in held]
    others = some(others, 60 - len(own), lambda row: row["clip"])
    names = [row["names"]["en"] for row in own]
    exercise, sign = data / "video_exercise_37", data / "video_sign_avatar"
    moves = lines(exercise / "clips.jsonl")
    signs = some(lines(sign / "clips.jsonl"), 12, lambda row: row["clip"])
    return [
        Task(
            "text → clip, emoji",
            names,
            [emoji / row["clip"] for row in [*own, *others]],
            same(names, [row["names"]["en"] for row in [*own, *others]]),
            "animated Noto emoji, measured only",
            f"queries are names of emoji held out as pictures too; {len(others)} others distract",
        ),
        Task(
            "text → clip, exercises",
            [f"a person doing the {row['label']} exercise" for row in moves],
            [exercise / row["clip"] for row in moves],
            np.eye(len(moves), dtype=bool),
            "exercise clips, licence unverified, measured only",
        ),
        Task(
            "text → clip, signs",
            [row["label"] for row in signs],
            [sign / row["clip"] for row in signs],
            same([row["label"] for row in signs], [row["label"] for row in signs]),
            "sign-language avatar, licence unverified, measured only",
            "knowing signs is no part of any training set here: chance is expected",
        ),
    ]


def composed(data: Path) -> list[Task]:
    return [_skin_tones(data), _other_products(data), _other_equipment(data)]


def _skin_tones(data: Path) -> Task:
    rows = lines(data / "emoji_noto" / "emoji.jsonl")
    held = {row.image.name for row in test_rows("emoji_noto", data)}
    of_base: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"].startswith("skin"):
            of_base.setdefault(row["base"], []).append(row)
    shown, wanted, tones = [], [], []
    candidates: list[Path] = []
    for row in rows:
        if row["kind"] != "base" or Path(row["image"]).name not in held:
            continue
        variants = of_base.get(row["base"], [])
        candidates += [data / "emoji_noto" / one["image"] for one in variants]
        for one in variants:
            shown.append(data / "emoji_noto" / row["image"])
            wanted.append(data / "emoji_noto" / one["image"])
            tones.append(one["names"]["en"].rpartition(": ")[2].rpartition(", ")[2])
    return Task(
        "image + text → image, emoji",
        [{"image": a, "text": b} for a, b in zip(shown, tones, strict=True)],
        candidates,
        same(wanted, candidates),
        "Noto emoji, OFL",
        "an emoji and a skin tone; no variant was trained on",
    )


def _other_products(data: Path) -> Task:
    classes = {
        one["name"]: one["coarse"]
        for one in json.loads((data / "grocery_store" / "classes.json").read_text("utf-8"))
    }
    rows = lines(data / "grocery_store" / "images.jsonl")
    held = {row.image.name for row in test_rows("grocery_store", data)}
    names = list(classes)
    photos = [
        (data / "grocery_store" / row["image"], names[row["class_id"]])
        for row in rows
        if Path(row["image"]).name in held
    ]
    first = {name: path for path, name in reversed(photos)}
    asked, words, targets = [], [], []
    for a in first:
        for b in first:
            if a == b or classes[a] != classes[b]:
                continue
            known = {*a.split("-"), *classes[b].split("-")}
            new = [word for word in b.split("-") if word not in known]
            if new:
                asked.append(first[a])
                words.append(" ".join(new))
                targets.append(b)
    return Task(
        "image + text → image, groceries",
        [{"image": a, "text": b} for a, b in zip(asked, words, strict=True)],
        [path for path, _ in photos],
        same(targets, [name for _, name in photos]),
        "Grocery Store, MIT",
        "a product and the words that tell another one of its kind from it",
        left_out=same(asked, [path for path, _ in photos]),
    )


def _other_equipment(data: Path) -> Task:
    folder = data / "free_exercise_db"
    rows = [row for row in lines(folder / "exercises.jsonl") if row["images"]]
    held = {row.image.name for row in test_rows("free_exercise_db", data)}
    tested = [row for row in rows if Path(row["images"][0]).name in held]
    asked, words, targets = [], [], []
    for b in tested:
        for a in rows:
            alike = a["primaryMuscles"] == b["primaryMuscles"] and a["force"] == b["force"]
            if a is b or not alike or a["equipment"] == b["equipment"] or not b["equipment"]:
                continue
            asked.append(folder / a["images"][0])
            words.append(f"with {b['equipment']}")
            targets.append(b)
            break
    candidates = [(folder / image, row) for row in tested for image in row["images"]]
    muscles = np.array(
        [
            [
                (t["primaryMuscles"], t["force"], t["equipment"])
                == (c["primaryMuscles"], c["force"], c["equipment"])
                for _, c in candidates
            ]
            for t in targets
        ],
        dtype=bool,
    )
    images = [path for path, _ in candidates]
    return Task(
        "image + text → image, exercises",
        [{"image": a, "text": b} for a, b in zip(asked, words, strict=True)],
        images,
        muscles,
        "free-exercise-db, Unlicense",
        "an exercise and other equipment: same muscle, same force; the first photo may be known",
        left_out=same(asked, images),
    )


TASKS: dict[str, Callable[[Path], list[Task]]] = {
    "figures": figures,
    "photos": photos,
    "naming": naming,
    "pages": pages,
    "clips": clips,
    "composed": composed,
}
