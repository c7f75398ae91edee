"""What typing errors, misread letters, and compressed pictures cost."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.evaluation.benchmarks.registry import read_benchmark
from mmembed.evaluation.probes.finding import Finding, Instructable, Probe

__all__ = ["PROBES", "blurred", "jpeg", "misread", "mistyped", "small"]

_KEYS = {
    "q": "wa", "w": "qe", "e": "wr", "r": "et", "t": "ry", "y": "tu", "u": "yi", "i": "uo",
    "o": "ip", "p": "o", "a": "sq", "s": "ad", "d": "sf", "f": "dg", "g": "fh", "h": "gj",
    "j": "hk", "k": "jl", "l": "k", "z": "x", "x": "zc", "c": "xv", "v": "cb", "b": "vn",
    "n": "bm", "m": "n",
}  # fmt: skip
_LOOKALIKES = {
    "o": "0", "l": "1", "i": "l", "e": "c", "s": "5", "b": "6", "g": "q", "m": "rn", "w": "vv",
    "d": "cl", "h": "b", "a": "o", "u": "v", "t": "f",
}  # fmt: skip
_SHARES = (0.0, 0.1, 0.2, 0.4)
_QUALITIES = (90, 30, 10, 3)
_RADII = (1, 3, 6)
_SIDES = (128, 64, 32)


def mistyped(text: str, share: float, seed: int = 0) -> str:
    """Typing errors in a share of the words of four letters or more.

    One a word: letters swapped, one left out, doubled, or hit beside (Zhuang and Zuccon, 2021).
    """
    rng = np.random.default_rng([seed, len(text)])
    return " ".join(
        _mistype(word, rng) if len(word) > 3 and rng.random() < share else word
        for word in text.split(" ")
    )


def _mistype(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word) - 1))
    beside = _KEYS.get(word[at].lower(), word[at])
    return (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[: at + 1] + word[at:],
        word[:at] + beside[int(rng.integers(len(beside)))] + word[at + 1 :],
    )[int(rng.integers(4))]


def misread(text: str, share: float, seed: int = 0) -> str:
    """Letters that a reader of scans takes for others, a share of those that are so taken."""
    rng = np.random.default_rng([seed, len(text)])
    return "".join(
        _LOOKALIKES[one] if one in _LOOKALIKES and rng.random() < share else one for one in text
    )


def jpeg(image: Any, quality: int) -> Any:
    """A PIL image through JPEG of a quality from 1 to 95."""
    from PIL import Image

    packed = io.BytesIO()
    image.convert("RGB").save(packed, "JPEG", quality=quality)
    return Image.open(packed)


def blurred(image: Any, radius: int) -> Any:
    """A PIL image under a Gaussian blur of a radius in pixels."""
    from PIL import ImageFilter

    return image.convert("RGB").filter(ImageFilter.GaussianBlur(radius))


def small(image: Any, side: int) -> Any:
    """A PIL image whose longer side is cut down to so many pixels."""
    found = image.convert("RGB")
    found.thumbnail((side, side))
    return found


def _texts(model: Instructable, data: Path) -> dict[str, dict[str, float]]:
    task: Any = read_benchmark("books", data)["terms"]
    # The meaning asks for the term's paragraph: long queries have room for errors.
    queries = [task.documents[next(iter(gain))] for gain in task.gains]
    documents = np.asarray(model.encode_document(list(task.queries)))
    own = np.arange(len(queries))
    table: dict[str, dict[str, float]] = {}
    for name, change in (("typing", mistyped), ("misreading", misread)):
        for share in _SHARES:
            vectors = np.asarray(model.encode_query([change(text, share) for text in queries]))
            first = (vectors @ documents.T).argmax(axis=1)
            table.setdefault(name, {})[f"{share:g}"] = float((first == own).mean())
    return table


def _images(model: Instructable, data: Path) -> dict[str, dict[str, float]]:
    """A changed picture must find itself among the others, and its caption must find it."""
    from PIL import Image

    task: Any = read_benchmark("samples", data)["T-I"]
    files = [Path(item["image"]) for item in task.documents]
    pictures = [Image.open(file).convert("RGB") for file in files]
    plain = np.asarray(model.encode_document(pictures))
    queries = np.asarray(model.encode_query(task.queries))
    wanted = np.array([next(iter(gain)) for gain in task.gains])
    changes: Mapping[str, tuple[Callable[[Any, int], Any], Sequence[int]]] = {
        "jpeg quality": (jpeg, _QUALITIES),
        "blur radius": (blurred, _RADII),
        "longer side": (small, _SIDES),
    }
    table: dict[str, dict[str, float]] = {}
    found = float(((queries @ plain.T).argmax(axis=1) == wanted).mean())
    for name, (change, strengths) in changes.items():
        table[f"{name}: itself"] = {"none": 1.0}
        table[f"{name}: by caption"] = {"none": found}
        for strength in strengths:
            vectors = np.asarray(model.encode_document([change(one, strength) for one in pictures]))
            itself = (vectors @ plain.T).argmax(axis=1) == np.arange(len(pictures))
            captioned = (queries @ vectors.T).argmax(axis=1) == wanted
            table[f"{name}: itself"][str(strength)] = float(itself.mean())
            table[f"{name}: by caption"][str(strength)] = float(captioned.mean())
    return table


def _run(model: Instructable, data: Path) -> Finding:
    table = _texts(model, data)
    figures = {
        f"{name}_kept": cells[f"{_SHARES[2]:g}"] / max(cells["0"], 1e-9)
        for name, cells in table.items()
    }
    if "image" in getattr(model, "modalities", ()):
        images = _images(model, data)
        figures["jpeg_10_itself"] = images["jpeg quality: itself"]["10"]
        figures["blur_3_itself"] = images["blur radius: itself"]["3"]
        table |= images
    return Finding(figures, {"hit@1 by strength": table})


PROBES = (
    Probe(
        "robustness",
        "hit@1 under typing errors, misread letters, compression, blur and small pictures",
        "Zhuang and Zuccon, 2021 (EMNLP); Hendrycks and Dietterich, 2019 (ICLR)",
        "kept: share of hit@1 left where a fifth of words or letters are wrong",
        ("text/terms-test.jsonl.gz", "multimodal"),
        _run,
    ),
)
