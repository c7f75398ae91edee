"""The grammar of inputs: what is text, what is media, and what is neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmembed.errors import InputError
from mmembed.inputs.items import (
    DocumentPart,
    ImagePart,
    Item,
    TextPart,
    VideoPart,
    parse_item,
)


@pytest.mark.parametrize("text", ["", "photo.jpg", "/etc/passwd", "https://example.org/a.png"])
def test_a_str_is_always_text(text: str) -> None:
    assert parse_item(text).parts == (TextPart(text),)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a.JPG", ImagePart),
        ("a.webp", ImagePart),
        ("a.gif", ImagePart),
        ("clip.MP4", VideoPart),
        ("clip.mkv", VideoPart),
        ("paper.pdf", DocumentPart),
        ("paper.PDF#page=3", DocumentPart),
    ],
)
def test_paths_by_suffix(name: str, part: type) -> None:
    (parsed,) = parse_item(Path(name)).parts
    assert isinstance(parsed, part)


def test_page_of_a_document() -> None:
    assert parse_item(Path("a.pdf#page=3")).parts == (DocumentPart(Path("a.pdf"), 3),)
    assert parse_item({"document": "a.pdf#page=3"}).parts == (DocumentPart("a.pdf", 3),)
    assert parse_item(Path("a.pdf")).label == "a.pdf#page=1"
    with pytest.raises(InputError, match="count from 1"):
        parse_item(Path("a.pdf#page=0"))


def test_objects_in_memory() -> None:
    assert isinstance(parse_item(Image.new("L", (2, 2))).parts[0], ImagePart)
    assert isinstance(parse_item(np.zeros((2, 2, 3))).parts[0], ImagePart)
    assert isinstance(parse_item(np.zeros((5, 2, 2, 3))).parts[0], VideoPart)


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"%PDF-1.7", DocumentPart),
        (b"\x89PNG\r\n\x1a\n", ImagePart),
        (b"\xff\xd8\xff\xe0", ImagePart),
        (b"RIFF\0\0\0\0WEBP", ImagePart),
        (b"\0\0\0\x20ftypavif", ImagePart),
        (b"RIFF\0\0\0\0AVI ", VideoPart),
        (b"\0\0\0\x20ftypisom", VideoPart),
        (b"\x1aE\xdf\xa3", VideoPart),
        (b"no known medium", ImagePart),
    ],
)
def test_bytes_by_content(head: bytes, part: type) -> None:
    assert isinstance(parse_item(head + b"\0" * 20).parts[0], part)


def test_a_dict_is_one_fused_item_in_the_order_of_its_keys() -> None:
    item = parse_item({"text": "t", "image": ["a.png", b"x"], "video": "c.mp4", "fps": 2.0})
    assert item.parts == (
        TextPart("t"),
        ImagePart("a.png"),
        ImagePart(b"x"),
        VideoPart("c.mp4", 2.0, None),
    )
    assert item.modalities == {"text", "image", "video"}
    assert item.label == "a.png + <image of 1 bytes> + c.mp4"
    assert parse_item({"text": "t", "image": None}).parts == (TextPart("t"),)


def test_items_pass_through_and_names_label_them() -> None:
    item = Item((TextPart("t"),), name="notes.txt#p=3")
    assert parse_item(item) is item
    assert item.label == "notes.txt#p=3"
    assert Item((TextPart("t"),)).label == "<text>"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (17, "int"),
        (None, "NoneType"),
        ({}, "no text"),
        ({"instruction": "only"}, "no text"),
        ({"image": None}, "no text"),
        ({"imgae": "a.png"}, "'imgae'"),
        ({"text": 3}, "int"),
        ({"image": 3}, "int"),
        ({"text": "t", "instruction": 3}, "int"),
        (Path("a.xyz"), "'.xyz'"),
        (Path("noext"), "noext"),
        (Path("notes.txt"), "read_text"),
    ],
)
def test_bad_inputs_are_named(value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_item(value)
