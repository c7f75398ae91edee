"""Training and test rows for multimodal recipes, over openly licensed sets of ``../shared/data``.

Names with photos of groceries (MIT), exercises (Unlicense) and emoji (OFL), in every combination
that the recipes ask for; clips and pages are those of ``data/multimodal``. No medium is in two
parts. Files have the names of ``data/multimodal``, and hold kept pictures in the place of media:
a clip is two pictures, a page its picture beside its text layer.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from held_out import lines
from PIL import Image

from mmembed.evaluation.splits import held_out
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decode import decode_item
from mmembed.inputs.decoded import Frames, Page
from mmembed.multimodal.captioned import Captioned, read_captioned

__all__ = ["write_rows"]

ROOT = Path(__file__).resolve().parents[1]
SETS = ("emoji_noto", "grocery_store", "free_exercise_db")
PARTS = ("train", "dev", "test")
DEV_IMAGES, DEV_PAGES = 0.15, 0.25  # of the training ones, whose rows choose learning rates
Keep = Callable[[list[Path]], list[Path]]
Row = dict[str, Any]


def write_rows(data: Path, folder: Path, keep: Keep) -> Path:
    """The folder with a file a kind of task and part, written once."""
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    found = [row for name in SETS for row in read_captioned(name, data)]
    known = [row for row in found if row.split == "train"]
    dev = {row.image for row in held_out(known, lambda row: str(row.image), share=DEV_IMAGES)}
    for part in PARTS:
        rows = [row for row in found if (row.image in dev) == (part == "dev")]
        rows = [row for row in rows if part == "dev" or row.split == part]
        kinds = dict(_kinds(data, rows))
        for kind in ("T-VD", "T-V", "V-T", "VT-V"):
            kinds[kind] = list(_samples(kind, part, folder / "media"))
        for kind, made in kinds.items():
            written = [_kept(row, keep) for row in made]
            random.Random(0).shuffle(written)  # so that the first rows are of every set
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written)
            (folder / f"{kind}-{part}.jsonl").write_text(text, encoding="utf-8")
    (folder / "done").touch()
    return folder


def _kinds(data: Path, rows: list[Captioned]) -> Iterator[tuple[str, list[Row]]]:
    named = [{"query": row.description, "positive": {"image": row.image}} for row in rows]
    yield "T-I", named
    yield "I-T", [{"query": row["positive"], "positive": row["query"]} for row in named]
    pairs = list(_same_name(rows))
    yield "I-I", [{"query": {"image": a}, "positive": {"image": b}} for a, b, _ in pairs]
    changed = [*_other_products(rows), *_skin_tones(data, rows)]
    yield "IT-I", changed
    yield (
        "IT-IT",
        [
            {"query": {"image": a, "text": "another photo"}, "positive": {"image": b, "text": name}}
            for a, b, name in pairs
        ],
    )
    about = [(row, row.context[0]) for row in rows if row.source != "emoji_noto"]
    yield (
        "IT-T",
        [
            {"query": {"image": row.image, "text": "What kind is this?"}, "positive": kind}
            for row, kind in about
        ],
    )
    told = [(row, row.context[1]) for row, _ in about if len(row.context) > 1]
    yield (
        "T-IT",
        [
            {"query": text, "positive": {"image": row.image, "text": row.description}}
            for row, text in told
        ],
    )


def _same_name(rows: Iterable[Captioned]) -> Iterator[tuple[Path, Path, str]]:
    """Neighbouring images of one name."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for row in rows:
        by_name[row.description].append(row.image)
    for name, images in by_name.items():
        for a, b in pairwise(images):
            yield a, b, name


def _other_products(rows: Iterable[Captioned], each: int = 4) -> Iterator[Row]:
    """A product and the name of another one of its kind."""
    by_kind: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.source == "grocery_store":
            by_kind[row.context[0]][row.description].append(row.image)
    for products in by_kind.values():
        for a, shown in products.items():
            for b, wanted in products.items():
                for one, other in zip(shown[:each], wanted[:each], strict=False):
                    if a != b:
                        query = {"image": one, "text": f"but {b}"}
                        yield {"query": query, "positive": {"image": other}}


def _skin_tones(data: Path, rows: Iterable[Captioned]) -> Iterator[Row]:
    """An emoji and a skin tone."""
    bases = {row.image.name for row in rows if row.source == "emoji_noto"}
    every = lines(data / "emoji_noto" / "emoji.jsonl")
    folder = data / "emoji_noto"
    first = {
        row["base"]: folder / row["image"]
        for row in every
        if row["kind"] == "base" and Path(row["image"]).name in bases
    }
    for row in every:
        if row["kind"].startswith("skin") and row["base"] in first:
            tone = row["names"]["en"].rpartition(": ")[2].rpartition(", ")[2]
            query = {"image": first[row["base"]], "text": f"but {tone}"}
            yield {"query": query, "positive": {"image": folder / row["image"]}}


def _samples(kind: str, part: str, folder: Path) -> Iterator[Row]:
    """Rows of ``data/multimodal`` with images in the place of clips and pages.

    Clips are too few for a development part.
    """
    source = ROOT / "data" / "multimodal"
    rows = lines(source / f"{kind}-{'test' if part == 'test' else 'train'}.jsonl")
    if part != "test":
        pages = {row["positive"]["document"]: row for row in rows if kind == "T-VD"}
        dev = set(held_out(pages, str, share=DEV_PAGES)) if pages else set()
        rows = [row for row in rows if (_page_of(row) in dev) == (part == "dev")]
    for row in rows:
        yield {side: _as_images(row[side], source, folder) for side in ("query", "positive")}


def _page_of(row: Row) -> str:
    target = row["positive"]
    return str(target.get("document", "")) if isinstance(target, dict) else ""


def _as_images(item: Any, source: Path, folder: Path) -> Any:
    if isinstance(item, str):
        return item
    made = dict(item)
    for key in ("video", "document"):
        place = made.pop(key, None)
        if place is None:
            continue
        decoded = decode_item({key: str(source / place)}, MediaBudget(max_frames=2))
        (part,) = decoded.parts
        name = Path(place).name.replace("#", "-").replace(".", "-").replace("=", "-")
        if isinstance(part, Page):
            images = [part.image]
            made["text"] = " ".join(part.text.split())[:400]
        else:
            assert isinstance(part, Frames)
            images = [Image.fromarray(one) for one in part.pixels]
        (folder / "made").mkdir(parents=True, exist_ok=True)
        made["image"] = [folder / "made" / f"{name}-{i}.png" for i in range(len(images))]
        for file, image in zip(made["image"], images, strict=True):
            image.save(file)
    return made


def _kept(row: Row, keep: Keep) -> Row:
    def side(item: Any) -> Any:
        if not isinstance(item, Mapping):
            return item
        images = item["image"] if isinstance(item["image"], list) else [item["image"]]
        kept = [str(one) for one in keep(images)]
        return {**item, "image": kept if len(kept) > 1 else kept[0]}

    return {key: side(item) for key, item in row.items()}
