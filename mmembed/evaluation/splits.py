"""Held-out splits that are fixed by the names of the media files, for ever and on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import PurePath
from typing import Literal, TypeAlias, TypeVar

__all__ = ["DEV_FIGURES", "TEST_FIGURES", "Split", "held_out", "name_hash", "split_of_figures"]

Split: TypeAlias = Literal["train", "dev", "test"]

TEST_FIGURES = 400
DEV_FIGURES = 300

_Row = TypeVar("_Row")


def name_hash(file: str) -> str:
    """SHA-256 of a media file's base name, in hexadecimal."""
    return hashlib.sha256(PurePath(file).name.encode()).hexdigest()


def split_of_figures(files: Sequence[str]) -> list[Split]:
    """The split of each figure of ``openstax_figures``, given all of their files.

    The 400 smallest hashes are the test split, the next 300 the development split.
    """
    order = sorted(range(len(files)), key=lambda i: name_hash(files[i]))
    splits: list[Split] = ["train"] * len(files)
    for rank, i in enumerate(order[: TEST_FIGURES + DEV_FIGURES]):
        splits[i] = "test" if rank < TEST_FIGURES else "dev"
    return splits


def held_out(
    rows: Iterable[_Row],
    file: Callable[[_Row], str],
    group: Callable[[_Row], Hashable] = lambda row: None,
    share: float = 0.1,
) -> list[_Row]:
    """The ``share`` of each group with the smallest hashes, at least one of every group."""
    groups: dict[Hashable, list[_Row]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    chosen: list[_Row] = []
    for members in groups.values():
        members.sort(key=lambda row: name_hash(file(row)))
        chosen += members[: max(1, -int(-len(members) * share // 1))]
    return chosen
