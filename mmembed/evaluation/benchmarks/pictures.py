"""Pictures: by description, by caption in many languages, by name, by picture and words; pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.evaluation.benchmarks.benchmark import Benchmark
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.tasks import Naming, Retrieval, Task
from mmembed.evaluation.splits import held_out, split_of_figures

__all__ = ["BENCHMARKS"]

_TEXT_IMAGE = ("text", "image")


def _figures(folder: Path) -> dict[str, Task]:
    home = folder / "openstax_figures"
    rows = rows_of(home / "figures.jsonl")
    splits = split_of_figures([row["image"] for row in rows])
    test = [row for row, split in zip(rows, splits, strict=True) if split == "test"]
    return _both_ways([row["alt"] for row in test], [home / row["image"] for row in test])


def _flickr(folder: Path) -> dict[str, Task]:
    """Five captions a photo: each finds its photo, and each photo finds any of its five."""
    home = folder / "flickr8k_1k"
    rows = rows_of(home / "captions.jsonl")
    images: list[Any] = [home / row["image"] for row in rows]
    captions = [(i, text) for i, row in enumerate(rows) for text in row["captions"]]
    texts = [text for _, text in captions]
    back: list[dict[int, float]] = [{} for _ in rows]
    for place, (i, _) in enumerate(captions):
        back[i][place] = 1.0
    return {
        "text to image": Retrieval(texts, images, [{i: 1.0} for i, _ in captions], "recall@1"),
        "image to text": Retrieval(images, texts, back, "hit@1"),
    }


def _stamps(folder: Path) -> dict[str, Task]:
    """Descriptions in many languages over all stamps; where two are worded alike both count."""
    home = folder / "tuxpaint_stamps"
    rows = rows_of(home / "stamps.jsonl")
    images: list[Any] = [home / row["image"] for row in rows]
    tasks: dict[str, Task] = {}
    for language in sorted({name for row in rows for name in row["captions"]}):
        gains: dict[str, dict[int, float]] = {}
        for i, row in enumerate(rows):
            if text := row["captions"].get(language, "").strip():
                gains.setdefault(text, {})[i] = 1.0
        tasks[language] = Retrieval(list(gains), images, list(gains.values()))
    return tasks


def _naming(folder: Path) -> dict[str, Task]:
    home = folder / "imagenet_samples"
    rows = rows_of(home / "labels.jsonl")
    names = [f"a photo of a {row['name'].replace('_', ' ')}" for row in rows]
    grocery = folder / "grocery_store"
    classes = _classes(grocery)
    photos = [row for row in rows_of(grocery / "images.jsonl") if row["split"] == "test"]
    products = [f"a photo of {one['name'].replace('-', ' ')}" for one in classes]
    place = {one["class_id"]: i for i, one in enumerate(classes)}
    return {
        "imagenet": Naming([home / row["image"] for row in rows], names, range(len(rows))),
        "groceries": Naming(
            [grocery / row["image"] for row in photos],
            products,
            [place[row["class_id"]] for row in photos],
        ),
    }


def _composed(folder: Path) -> dict[str, Task]:
    """A person's emoji and a wish for its skin; held-out people, all people's emoji as candidates.

    Without the picture the words say nothing about who is shown, and without the words the picture
    itself is the nearest: it is taken out of the candidates.
    """
    home = folder / "emoji_noto"
    rows = [r for r in rows_of(home / "emoji.jsonl") if r["kind"].startswith(("base", "skin"))]
    toned = [row for row in rows if row["kind"].startswith("skin")]
    people = {row["base"] for row in toned}
    plain = {r["base"]: r for r in rows if r["kind"] == "base" and r["base"] in people}
    corpus = [*plain.values(), *toned]
    place = {row["image"]: i for i, row in enumerate(corpus)}
    asked = held_out(list(plain.values()), lambda row: row["image"])
    queries, gains, apart = [], [], []
    for one in asked:
        for other in (row for row in toned if row["base"] == one["base"]):
            words = f"the same, with {other['names']['en'].rpartition(': ')[2]}"
            queries.append({"image": str(home / one["image"]), "text": words})
            gains.append({place[other["image"]]: 1.0})
            apart.append(place[one["image"]])
    documents: list[Any] = [home / row["image"] for row in corpus]
    return {"skin tones": Retrieval(queries, documents, gains, "recall@5", apart)}


def _pages(folder: Path) -> dict[str, Task]:
    """Questions over pages as pictures, and over their text layers."""
    home = folder / "mmlongbench_doc_pages"
    pages = rows_of(home / "pages.jsonl")
    place = {row["page_id"]: i for i, row in enumerate(pages)}
    asked = [
        (row["question"], {place[page]: 1.0 for page in row["relevant"] if page in place})
        for row in rows_of(home / "queries.jsonl")
    ]
    asked = [(question, gains) for question, gains in asked if gains]
    questions = [question for question, _ in asked]
    judged = [gains for _, gains in asked]
    images: list[Any] = [home / row["image"] for row in pages]
    layers = [row["text"].strip() or "(no text)" for row in pages]
    return {
        "pictures": Retrieval(questions, images, judged, "ndcg@5"),
        "text layer": Retrieval(questions, layers, judged, "ndcg@5"),
    }


def _charts(folder: Path) -> dict[str, Task]:
    home = folder / "opencqa_charts"
    rows = [row for row in rows_of(home / "qa.jsonl") if row["split"] == "test"]
    images = list(dict.fromkeys(row["image"] for row in rows))
    place = {image: i for i, image in enumerate(images)}
    files: list[Any] = [home / image for image in images]
    gains = [{place[row["image"]]: 1.0} for row in rows]
    return {
        field: Retrieval([row[field] for row in rows], files, gains, "ndcg@5")
        for field in ("question", "title")
    }


def _products(folder: Path) -> dict[str, Task]:
    """A shelf photo finds the clean picture of its product, and the other way round."""
    grocery = folder / "grocery_store"
    classes = _classes(grocery)
    photos = [row for row in rows_of(grocery / "images.jsonl") if row["split"] == "test"]
    place = {one["class_id"]: i for i, one in enumerate(classes)}
    icons: list[Any] = [grocery / one["iconic"] for one in classes]
    shelf: list[Any] = [grocery / row["image"] for row in photos]
    back: dict[int, dict[int, float]] = {}
    for i, row in enumerate(photos):
        back.setdefault(place[row["class_id"]], {})[i] = 1.0
    gains = [{place[row["class_id"]]: 1.0} for row in photos]
    return {
        "shelf to icon": Retrieval(shelf, icons, gains, "hit@1"),
        "icon to shelf": Retrieval([icons[i] for i in back], shelf, list(back.values()), "map"),
    }


def _classes(grocery: Path) -> list[dict[str, Any]]:
    file = grocery / "classes.json"
    if not file.is_file():
        raise InputError(str(file), "is not there", "name the folder of measuring data with --data")
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _both_ways(texts: list[str], images: list[Any]) -> dict[str, Task]:
    own = [{i: 1.0} for i in range(len(texts))]
    return {
        "text to image": Retrieval(texts, images, own, "recall@1"),
        "image to text": Retrieval(images, texts, own, "recall@1"),
    }


def _benchmark(
    name: str,
    about: str,
    licence: str,
    split: str,
    source: str,
    needs: tuple[str, ...],
    read: Callable[[Path], dict[str, Task]],
) -> Benchmark:
    return Benchmark(name, about, licence, split, source, needs, _TEXT_IMAGE, read)


_GROCERY = "https://github.com/marcusklasson/GroceryStoreDataset"

BENCHMARKS = (
    _benchmark(
        "figures",
        "figures of textbooks and their long descriptions, both ways",
        "CC BY 4.0 books; single figures carry their own credits",
        "test: the 400 figures with the smallest hashes of names",
        "https://github.com/openstax",
        ("openstax_figures",),
        _figures,
    ),
    _benchmark(
        "flickr",
        "photos and five captions each, both ways",
        "research only",
        "696 photos of Flickr8k",
        "https://github.com/quantumnaan/sic_translator",
        ("flickr8k_1k",),
        _flickr,
    ),
    _benchmark(
        "stamps",
        "clip art and photos by their descriptions in 23 languages",
        "mixed free licences, see the Debian package's copyright file",
        "all",
        "Debian tuxpaint-stamps-default",
        ("tuxpaint_stamps",),
        _stamps,
    ),
    _benchmark(
        "naming",
        "photos by 1,000 names of ImageNet and 81 of groceries",
        "research only (ImageNet); MIT (groceries)",
        "imagenet: one photo a class; groceries: test",
        f"https://github.com/EliSchwartz/imagenet-sample-images; {_GROCERY}",
        ("imagenet_samples", "grocery_store"),
        _naming,
    ),
    _benchmark(
        "products",
        "photos of a shelf and clean pictures of the same product, both ways",
        "MIT",
        "test",
        _GROCERY,
        ("grocery_store",),
        _products,
    ),
    _benchmark(
        "composed",
        "a picture and words about what shall differ find another picture",
        "OFL-1.1; Unicode-3.0",
        "the tenth of people's emoji with the smallest hashes of names",
        "Debian fonts-noto-color-emoji; Unicode CLDR",
        ("emoji_noto",),
        _composed,
    ),
    _benchmark(
        "pages",
        "questions and the pages of documents that answer them, as pictures and as text",
        "research only",
        "all questions with evidence on these pages",
        "https://github.com/mayubo2333/MMLongBench-Doc",
        ("mmlongbench_doc_pages",),
        _pages,
    ),
    _benchmark(
        "charts",
        "questions and titles of charts",
        "research only",
        "test",
        "https://github.com/vis-nlp/OpenCQA",
        ("opencqa_charts",),
        _charts,
    ),
)
