"""Collect the sample figures and photos: openly licensed, held out of training, named by hash.

The files are named by the SHA-256 of their first name, so that a name never gives an answer away
to text search; ``captions.jsonl`` keeps the first name, the description, credit and licence.

    python data/samples/tools/photos.py ../shared/data

The classic test photos come from the installed scikit-image and scikit-learn.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parents[1]
HELD_OUT_FIGURES = 400  # the evaluation split: the smallest hashes of the base names

BOOKS = {
    "astronomy": "Astronomy 2e, https://openstax.org/details/books/astronomy-2e",
    "introduction-political-science": "Introduction to Political Science, "
    "https://openstax.org/details/books/introduction-political-science",
    "us-history": "U.S. History, https://openstax.org/details/books/us-history",
    "world-history": "World History, Volumes 1 and 2, "
    "https://openstax.org/details/books/world-history-volume-2",
}

_RESTRICTED = re.compile(r"\bSA\b|-SA|\bNC\b|\bND\b|permission|all rights|GFDL|fair use", re.I)
_NASA = re.compile(
    r"^(credit[^:]*: )?(modification of work by )?"
    r"NASA(/(JPL|JPL-Caltech|GSFC|Goddard|SDO|Bill Ingalls))*$",
    re.I,
)


def digest(name: str) -> str:
    """The SHA-256 of a file name, in hexadecimal."""
    return hashlib.sha256(name.encode()).hexdigest()


def licence_of(credit: str) -> str | None:
    """The licence a figure's credit line states, or None where any part of it is not clearly open.

    >>> licence_of("(credit: modification of work by NASA/JPL)")
    'public domain (NASA)'
    >>> licence_of("(credit a: Ann/Flickr, CC BY 2.0; credit b: Bob/Flickr, CC BY-SA 4.0)")
    """
    if not credit.strip() or _RESTRICTED.search(credit):
        return None
    found = []
    for part in re.split(r";\s*", credit.strip().strip("()")):
        if re.match(r"(data )?source", part) and "CC BY" not in part:
            continue  # where the data of a chart come from; the drawing's licence follows
        licence = _licence_of_part(part)
        if licence is None:
            return None
        found.append(licence)
    return "; ".join(dict.fromkeys(found)) or None


def _licence_of_part(part: str) -> str | None:
    if re.search(r"public domain", part, re.I):
        return "public domain"
    if "CC0" in part:
        return "CC0 1.0"
    if match := re.search(r"CC[ -]BY (\d\.\d)", part):
        return f"CC BY {match[1]}"
    return "public domain (NASA)" if _NASA.match(part) else None


def figures(data: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Held-out textbook figures whose credit states an open licence."""
    folder = data / "openstax_figures"
    rows = [json.loads(line) for line in (folder / "figures.jsonl").open(encoding="utf-8")]
    rows.sort(key=lambda row: digest(Path(row["image"]).name))
    for row in rows[:HELD_OUT_FIGURES]:
        licence = licence_of(row["credit"])
        if licence is not None:
            yield (
                folder / row["image"],
                {
                    "alt": row["alt"],
                    "caption": row["caption"],
                    "credit": row["credit"],
                    "licence": licence,
                    "book": BOOKS[row["book"]],
                    "section": row["module_title"],
                },
            )


def exercises(data: Path, count: int = 60) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The start photos with the smallest hashes, one an exercise."""
    folder = data / "free_exercise_db"
    rows = [json.loads(line) for line in (folder / "exercises.jsonl").open(encoding="utf-8")]
    rows = [row for row in rows if row["images"]]
    rows.sort(key=lambda row: digest(Path(row["images"][0]).name))
    for row in rows[:count]:
        yield (
            folder / row["images"][0],
            {"alt": row["name"], "equipment": row["equipment"], "licence": "Unlicense"},
        )


def groceries(data: Path, count: int = 60) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Shelf photos, at most one a class until every class has one."""
    folder = data / "grocery_store"
    classes = {c["class_id"]: c for c in json.loads((folder / "classes.json").read_text("utf-8"))}
    rows = [json.loads(line) for line in (folder / "images.jsonl").open(encoding="utf-8")]
    rows.sort(key=lambda row: digest(Path(row["image"]).name))
    seen: set[int] = set()
    for row in rows:
        if row["class_id"] in seen or len(seen) == count:
            continue
        seen.add(row["class_id"])
        named = classes[row["class_id"]]
        yield (
            folder / row["image"],
            {"alt": named["name"].replace("-", " "), "kind": named["coarse"], "licence": "MIT"},
        )


# file, what it shows, credit, licence: from the packages' own statements
CLASSICS = [
    ("skimage/data/astronaut.png", "astronaut in an orange space suit", "NASA", "public domain"),
    ("skimage/data/chelsea.png", "face of a tabby cat", "Stefan van der Walt", "CC0 1.0"),
    ("skimage/data/coffee.png", "cup of coffee with a spoon", "Rachel Michetti", "CC0 1.0"),
    ("skimage/data/rocket.jpg", "rocket launch at night", "SpaceX", "public domain"),
    ("skimage/data/hubble_deep_field.jpg", "galaxies", "NASA", "public domain"),
    ("skimage/data/retina.jpg", "retina of an eye", "Mikael Haggstrom", "CC0 1.0"),
    ("skimage/data/camera.png", "man with a camera on a tripod", "Lav Varshney", "CC0 1.0"),
    ("skimage/data/brick.png", "brick wall", "CC0Textures", "CC0 1.0"),
    ("skimage/data/grass.png", "grass", "DimiD", "CC0 1.0"),
    ("skimage/data/gravel.png", "gravel", "CC0Textures", "CC0 1.0"),
    ("skimage/data/clock_motion.png", "wall clock", "Stefan van der Walt", "public domain"),
    ("sklearn/datasets/images/china.jpg", "Chinese palace", "danielbuechele", "CC BY 2.0"),
    ("sklearn/datasets/images/flower.jpg", "orange flower", "vultilion", "CC BY 2.0"),
]


def classics(_: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Larger photos that Python packages carry, each with its own open licence."""
    for name, alt, credit, licence in CLASSICS:
        package, _, rest = name.partition("/")
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{name}: pip install scikit-image scikit-learn")
        path = Path(spec.origin).parent / rest
        yield path, {"alt": alt, "credit": credit, "licence": licence}


def write(folder: Path, items: Iterable[tuple[Path, dict[str, Any]]]) -> int:
    """Copy ``items`` into ``folder`` under neutral names and write ``captions.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for source, about in items:
        name = digest(source.name)[:12] + source.suffix.lower()
        shutil.copyfile(source, folder / name)
        lines.append(
            json.dumps({"file": name, "original": source.name, **about}, ensure_ascii=False)
        )
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def main() -> None:
    data = Path(sys.argv[1])
    collections: dict[str, Callable[[Path], Iterable[tuple[Path, dict[str, Any]]]]] = {
        "figures": figures,
        "photos/exercises": exercises,
        "photos/groceries": groceries,
        "photos/classics": classics,
    }
    for name, collect in collections.items():
        print(f"{name}: {write(SAMPLES / name, collect(data))} files")


if __name__ == "__main__":
    main()
