"""The small text that ships: licensed, whole, and with splits that share nothing."""

from __future__ import annotations

import gzip
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COLUMNS = {
    "terms": {"query", "positive", "negatives", "book"},
    "sections": {"query", "positive", "book"},
    "sentences": {"text", "repeated", "book"},
    "crops": {"query", "positive", "book"},
    "related": {"query", "positive", "score", "book"},
    "entities": {"text", "entity", "entities", "book"},
    "translations": {"query", "positive", "lang"},
}
SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def folder(project_root: Path) -> Path:
    return project_root / "data" / "text"


@pytest.fixture(scope="module")
def tool(folder: Path) -> dict[str, Any]:
    return runpy.run_path(str(folder / "tools" / "texts.py"))


@pytest.fixture(scope="module")
def rows(folder: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    return {
        (name, split): [
            json.loads(line)
            for line in gzip.open(folder / f"{name}-{split}.jsonl.gz", "rt", encoding="utf-8")
        ]
        for name in COLUMNS
        for split in SPLITS
    }


def test_it_is_small_and_says_where_it_comes_from(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.glob("*.gz")) < 3_000_000
    source = (folder / "SOURCE").read_text(encoding="utf-8")
    assert all(name in source for name in COLUMNS)
    licence = (folder / "LICENCE").read_text(encoding="utf-8")
    assert "CC BY 4.0" in licence
    assert "CC BY 2.0 FR" in licence


def test_rows_are_whole(rows: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    for (name, split), found in rows.items():
        assert len(found) > (1000 if split == "train" else 100), (name, split)
        for row in found:
            assert set(row) == COLUMNS[name]
            negatives = row.get("negatives", ["some"])
            assert negatives
            assert row.get("positive") not in negatives
            assert all(text.strip() for text in (row.get("query", row.get("text")), *negatives))
    grades = {row["score"] for row in rows["related", "dev"]}
    assert grades == {0.0, 0.3333, 0.6667, 1.0}
    assert len({row["lang"] for row in rows["translations", "train"]}) == 33


def test_no_text_is_nearly_in_two_splits(
    tool: dict[str, Any], rows: dict[tuple[str, str], list[dict[str, Any]]]
) -> None:
    texts = {
        split: [
            text for name in COLUMNS for row in rows[name, split] for text in tool["texts_of"](row)
        ]
        for split in SPLITS
    }
    held_out = tool["HeldOut"]()
    for text in texts["test"]:
        held_out.add(text)
    assert held_out.near(texts["test"][0])  # the check can fail
    assert not [text for text in texts["dev"] if held_out.near(text)]
    for text in texts["dev"]:
        held_out.add(text)
    assert not [text for text in texts["train"] if held_out.near(text)]


def test_the_tool_makes_these_rows(
    tool: dict[str, Any],
    folder: Path,
    shared_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = shared_data("openstax_text").parent
    shared_data("tatoeba_bitext")
    monkeypatch.setitem(tool["main"].__globals__, "TEXT", tmp_path)
    tool["main"](data)
    made = sorted(file.name for file in tmp_path.iterdir())
    assert made == sorted(file.name for file in folder.glob("*.gz"))
    for name in made:
        again = gzip.decompress((tmp_path / name).read_bytes())
        assert again == gzip.decompress((folder / name).read_bytes()), name
