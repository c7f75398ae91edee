"""The sample files: all there, all open, all held out, and none named after what it shows."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

MEDIA = {".jpg", ".png", ".pdf", ".mp4"}
OPEN = re.compile(r"CC0 1\.0|CC BY \d\.\d|MIT|Unlicense|public domain( \(NASA\))?")


def described(samples: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every file that a captions or labels file speaks of, with what it says."""
    return [
        (listing.parent / row["file"], row)
        for pattern in ("captions.jsonl", "labels.jsonl")
        for listing in sorted(samples.rglob(pattern))
        for row in map(json.loads, listing.read_text(encoding="utf-8").splitlines())
    ]


def test_every_media_file_has_a_source_and_a_licence(samples: Path) -> None:
    files = [path for path in samples.rglob("*") if path.suffix in MEDIA]
    assert len(files) > 300
    assert {path.suffix for path in files} == MEDIA
    for folder in {path.parent for path in files}:
        for name in ("SOURCE", "LICENCE"):
            assert (folder / name).stat().st_size > 60, folder
    assert 8e6 < sum(path.stat().st_size for path in files) < 20e6


def test_descriptions_and_files_belong_together(samples: Path) -> None:
    listed = [path for path, _ in described(samples)]
    assert len(listed) == len(set(listed))
    there = {path for path in samples.rglob("*") if path.suffix in MEDIA - {".pdf"}}
    assert set(listed) == there


def test_every_stated_licence_is_open(samples: Path) -> None:
    stated = [row["licence"] for _, row in described(samples) if "licence" in row]
    assert len(stated) > 290
    for licence in stated:
        assert all(OPEN.fullmatch(part) for part in licence.split("; ")), licence


def test_names_give_nothing_away(samples: Path) -> None:
    for path, row in described(samples):
        words = re.findall(r"[a-z]{4,}", row.get("alt", row.get("label", "")).lower())
        assert not [word for word in words if word in path.stem.lower()], path


def test_figures_are_named_by_the_hash_that_holds_them_out(samples: Path) -> None:
    for path, row in described(samples):
        if path.parent.name == "figures":
            digest = hashlib.sha256(row["original"].encode()).hexdigest()
            assert path.stem == digest[:12]
            # The 400 smallest of 2,511 hashes are held out; none of the others is so small.
            assert int(digest[:4], 16) < 65536 * 400 / 2511 * 1.2


@pytest.mark.parametrize(
    ("credit", "licence"),
    [
        ("(credit: modification of work by NASA/JPL)", "public domain (NASA)"),
        (
            "(attribution: Copyright Rice University, OpenStax, under CC BY 4.0 license)",
            "CC BY 4.0",
        ),
        ("(credit a: Ann/Flickr, CC BY 2.0; credit b: Bob, CC0 1.0)", "CC BY 2.0; CC0 1.0"),
        ("(source: Census; attribution: OpenStax, under CC BY 4.0 license)", "CC BY 4.0"),
        ("(credit a: Ann/Flickr, CC BY 2.0; credit b: Bob/Flickr)", None),
        ("(credit: Ann/Flickr, CC BY-SA 2.0)", None),
        ("(credit: Ann/Flickr, CC BY-NC 2.0)", None),
        ("(credit: NASA, ESA, and Ann)", None),
        ("(credit: the library, used with permission)", None),
        ("", None),
    ],
)
def test_a_credit_is_open_only_if_every_part_says_so(
    credit: str, licence: str | None, samples: Path
) -> None:
    tool = runpy.run_path(str(samples / "tools" / "photos.py"))
    assert tool["licence_of"](credit) == licence
