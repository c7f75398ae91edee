"""Local sets of queries, documents and what answers what."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmembed.errors import InputError

__all__ = ["SETS", "RetrievalSet", "read_set", "set_names"]


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """Queries, documents, and the documents that answer each query.

    Attributes:
        name: Of the set.
        queries: Texts or code.
        documents: Code.
        relevant: For every query the numbers of its documents, at least one.
        own: Queries are the documents themselves, and none may find itself (clone search).
    """

    name: str
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevant: tuple[frozenset[int], ...]
    own: bool = False


Row = Mapping[str, Any]
Reader = Callable[[Path], RetrievalSet]


def _rows(file: Path) -> list[Row]:
    opener = lzma.open if file.suffix == ".xz" else gzip.open
    try:
        with opener(file, "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]
    except FileNotFoundError as error:
        raise InputError(str(file), "is not here", "name the folder of data with --data") from error
    except (OSError, ValueError, EOFError, lzma.LZMAError) as error:
        raise InputError(str(file), f"cannot be read: {error}") from error


def _pairs(name: str, pairs: Iterable[tuple[str, str]]) -> RetrievalSet:
    """Of pairs; documents of equal text are one, and equal queries share their answers."""
    answers: dict[str, set[int]] = {}
    numbers: dict[str, int] = {}
    for query, document in pairs:
        answers.setdefault(query, set()).add(numbers.setdefault(document, len(numbers)))
    relevant = tuple(frozenset(found) for found in answers.values())
    return RetrievalSet(name, tuple(answers), tuple(numbers), relevant)


def _classes(name: str, members: Iterable[tuple[str, str]]) -> RetrievalSet:
    """Of (class, code): what is of the same class as a program answers it."""
    groups: dict[str, list[int]] = {}
    codes: list[str] = []
    for label, code in members:
        groups.setdefault(label, []).append(len(codes))
        codes.append(code)
    relevant: list[frozenset[int]] = [frozenset()] * len(codes)
    for group in groups.values():
        if len(group) < 2:
            raise InputError(name, "has a class of one program, which nothing answers")
        for number in group:
            relevant[number] = frozenset(group) - {number}
    return RetrievalSet(name, tuple(codes), tuple(codes), tuple(relevant), own=True)


def _cosqa(data: Path) -> RetrievalSet:
    """500 web queries against 6,267 Python functions."""
    documents = tuple(row["code"] for row in _rows(data / "cosqa" / "codes.jsonl.gz"))
    rows = _rows(data / "cosqa" / "retrieval_dev.jsonl.gz")
    relevant = tuple(frozenset({int(row["retrieval_idx"])}) for row in rows)
    return RetrievalSet("cosqa", tuple(row["query"] for row in rows), documents, relevant)


def _keywords(data: Path) -> RetrievalSet:
    """CoSQA's queries cut down to their three rarest words, in their order."""
    full = _cosqa(data)
    texts = [re.findall(r"\w+", query.lower()) for query in full.queries]
    counts = Counter(word for words in texts for word in set(words))
    short = []
    for words in texts:
        rare = sorted(set(words) - {"python"}, key=lambda word: (counts[word], word))[:3]
        short.append(" ".join(dict.fromkeys(word for word in words if word in rare)))
    return RetrievalSet("keywords", tuple(short), full.documents, full.relevant)


def _documentation(language: str) -> Reader:
    def read(data: Path) -> RetrievalSet:
        rows = _rows(data / "csn_cloze_nl_code" / "pairs.jsonl.gz")
        return _pairs(
            f"csn-{language}", ((r["nl"], r["code"]) for r in rows if r["lang"] == language)
        )

    return read


def _concode(data: Path) -> RetrievalSet:
    """Descriptions against Java methods whose names are hidden."""
    rows = _rows(data / "concode_java" / "pairs.jsonl.gz")
    return _pairs("concode", ((row["nl"], row["code"]) for row in rows))


def _translation(source: str, target: str) -> Reader:
    def read(data: Path) -> RetrievalSet:
        rows = _rows(data / "codetrans_java_cs" / "test.jsonl.gz")
        return _pairs(f"codetrans-{source}-{target}", ((r[source], r[target]) for r in rows))

    return read


def _geeks(source: str, target: str) -> Reader:
    def read(data: Path) -> RetrievalSet:
        rows = _rows(data / "transcoder_gfg" / "functions.jsonl.gz")
        kept = [row for row in rows if row.get(source) and row.get(target)]
        return _pairs(f"gfg-{source}-{target}", ((row[source], row[target]) for row in kept))

    return read


def _poj(data: Path) -> RetrievalSet:
    """The 24 test problems of POJ-104, 100 programs each."""
    rows = _rows(data / "poj104" / "programs.jsonl.xz")
    return _classes("poj104", ((r["label"], r["code"]) for r in rows if r["split"] == "test"))


def _exercises(data: Path) -> RetrievalSet:
    """Python solutions against the Java, Go and JavaScript ones of the same exercise."""
    found: list[tuple[str, str]] = []
    for row in _rows(data / "exercism_parallel" / "problems.jsonl.gz"):
        codes = row["langs"]
        if "python" in codes:
            found += [(codes["python"], code) for name, code in codes.items() if name != "python"]
    return _pairs("exercism", found)


def _exercise_texts(data: Path) -> RetrievalSet:
    """Descriptions of exercises against their solutions in four languages."""
    rows = _rows(data / "exercism_parallel" / "problems.jsonl.gz")
    kept = [
        (r["description"], code) for r in rows if r["description"] for code in r["langs"].values()
    ]
    return _pairs("exercism-text", kept)


def _humaneval(data: Path) -> RetrievalSet:
    """Signatures with their docstrings against the bodies, in Python."""
    rows = _rows(data / "humaneval_multilingual" / "problems.jsonl.gz")
    kept = [row["langs"]["python"] for row in rows if "python" in row["langs"]]
    return _pairs("humaneval", ((one["prompt"], one["solution"]) for one in kept))


def _mbxp(data: Path) -> RetrievalSet:
    """Python bodies against Java, JavaScript and PHP ones of the same task.

    Bodies alone: prompts repeat the task in words, which would answer for the code.
    """
    found: list[tuple[str, str]] = []
    for row in _rows(data / "mbxp_multilingual" / "problems.jsonl.xz"):
        bodies = {name: each.get("solution") or "" for name, each in row["langs"].items()}
        query = bodies.get("python", "")
        others = [bodies.get(name, "") for name in ("java", "javascript", "php")]
        if query.strip():
            found += [(query, body) for body in others if body.strip()]
    return _pairs("mbxp", found)


SETS: Mapping[str, Reader] = {
    "cosqa": _cosqa,
    "keywords": _keywords,
    **{
        f"csn-{name}": _documentation(name)
        for name in ("python", "java", "php", "javascript", "go", "ruby")
    },
    "concode": _concode,
    "codetrans-java-cs": _translation("java", "cs"),
    "codetrans-cs-java": _translation("cs", "java"),
    "gfg-python-java": _geeks("python", "java"),
    "gfg-cpp-python": _geeks("cpp", "python"),
    "poj104": _poj,
    "exercism": _exercises,
    "exercism-text": _exercise_texts,
    "humaneval": _humaneval,
    "mbxp": _mbxp,
}
"""Readers by name; each takes the folder that holds the data."""


def set_names() -> tuple[str, ...]:
    """The names of all sets."""
    return tuple(SETS)


def read_set(name: str, data: Path) -> RetrievalSet:
    """A set by its name.

    Raises:
        InputError: there is no such set, or its files are missing or broken.
    """
    if name not in SETS:
        raise InputError(name, "is no set", f"choose one of {', '.join(SETS)}")
    return SETS[name](data)
