"""Images with what people wrote about them: the sets that train and measure image-text alignment.

Each reader knows one set's files and gives :class:`Captioned` rows. Splits are fixed by the hash of
the image's name (:mod:`mmembed.evaluation.splits`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmembed.errors import ConfigError, InputError
from mmembed.evaluation.splits import Split, held_out, split_of_figures
from mmembed.multimodal.licences import open_licence, without_credit

__all__ = ["READERS", "Captioned", "read_captioned"]


@dataclass(frozen=True, slots=True)
class Captioned:
    """One image and its texts.

    Attributes:
        image: the file.
        source: name of the set.
        split: train, dev or test.
        licence: an open licence, or None where it is not clearly open.
        description: says what is to be seen; the text that retrieval is measured with.
        details: parts of the description, or other short descriptions.
        context: what goes with the image: captions, uses, keywords.
    """

    image: Path
    source: str
    split: Split
    licence: str | None
    description: str
    details: tuple[str, ...] = ()
    context: tuple[str, ...] = ()


def read_captioned(name: str, data: Path) -> list[Captioned]:
    """The rows of one set below the folder ``data``.

    Raises:
        ConfigError: there is no reader of that name.
        InputError: the set's folder is not there.
    """
    if name not in READERS:
        raise ConfigError(f"no captioned set {name!r} (known: {', '.join(READERS)})")
    folder = data / name
    if not folder.is_dir():
        raise InputError(str(folder), "the set is not there", "name its parent folder as data")
    return list(READERS[name](folder))


def _figures(folder: Path) -> Iterator[Captioned]:
    """Textbook photos, maps and charts with alt text, caption and credit (CC BY 4.0 books)."""
    rows = _lines(folder / "figures.jsonl")
    splits = split_of_figures([row["image"] for row in rows])
    measured = {
        _plain(row["alt"]) for row, split in zip(rows, splits, strict=True) if split != "train"
    }
    for row, split in zip(rows, splits, strict=True):
        if split == "train" and _plain(row["alt"]) in measured:
            continue  # The same picture again, in another book.
        caption = without_credit(row["caption"])
        yield Captioned(
            image=folder / row["image"],
            source="openstax_figures",
            split=split,
            licence=open_licence(row["credit"], row["caption"]),
            description=row["alt"],
            details=_sentences(row["alt"]),
            context=(caption,) if len(caption.split()) > 3 else (),
        )


def _exercises(folder: Path) -> Iterator[Captioned]:
    """Two photos an exercise, with its name, equipment and muscles (Unlicense)."""
    rows = [row for row in _lines(folder / "exercises.jsonl") if row["images"]]
    test = {row["id"] for row in held_out(rows, lambda row: row["images"][0])}
    for row in rows:
        equipment = row["equipment"]
        using = f" with {equipment}" if equipment not in (None, "body only", "other") else ""
        for image in row["images"]:
            yield Captioned(
                image=folder / image,
                source="free_exercise_db",
                split="test" if row["id"] in test else "train",
                licence="Unlicense",
                description=row["name"],
                details=(f"A person doing the {row['name']} exercise{using}",),
                context=(
                    f"{row['category']} exercise for the {', '.join(row['primaryMuscles'])}",
                    *(step for step in row["instructions"][:4] if len(step.split()) > 3),
                ),
            )


def _groceries(folder: Path) -> Iterator[Captioned]:
    """Photos from shop shelves and clean product pictures, with descriptions (MIT)."""
    classes = {c["class_id"]: c for c in json.loads((folder / "classes.json").read_text("utf-8"))}
    rows = _lines(folder / "images.jsonl")
    test = {
        row["image"] for row in held_out(rows, lambda row: row["image"], lambda r: r["class_id"])
    }
    iconic = [{"image": c["iconic"], "class_id": i} for i, c in classes.items()]
    for row in [*rows, *iconic]:
        about = classes[row["class_id"]]
        name, kind = (about[key].replace("-", " ") for key in ("name", "coarse"))
        yield Captioned(
            image=folder / row["image"],
            source="grocery_store",
            split="test" if row["image"] in test else "train",
            licence="MIT",
            description=name if kind.lower() in name.lower() else f"{name} {kind}",
            details=(f"{name} in a grocery store",),
            context=(kind, *_sentences(about["description"] or "")),
        )


def _emoji(folder: Path) -> Iterator[Captioned]:
    """Noto emoji with their English names and keywords (OFL; Unicode licence)."""
    rows = [row for row in _lines(folder / "emoji.jsonl") if row["kind"] == "base"]
    test = {row["image"] for row in held_out(rows, lambda row: row["image"])}
    for row in rows:
        name = row["names"]["en"]
        yield Captioned(
            image=folder / row["image"],
            source="emoji_noto",
            split="test" if row["image"] in test else "train",
            licence="OFL-1.1; Unicode-3.0",
            description=name,
            details=(f"An emoji of {name}",),
            context=(", ".join(row["keywords"].get("en", [])) or name,),
        )


READERS: dict[str, Callable[[Path], Iterator[Captioned]]] = {
    "openstax_figures": _figures,
    "free_exercise_db": _exercises,
    "grocery_store": _groceries,
    "emoji_noto": _emoji,
}


def _lines(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def _sentences(text: str) -> tuple[str, ...]:
    """The sentences of more than three words; none where the text is a single one."""
    parts = [part.strip() for part in re.split(r"(?<=[.!?])\s+(?=[A-Z(])", text)]
    return tuple(part for part in parts if len(part.split()) > 3)
