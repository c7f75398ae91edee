"""Text files in passages: nothing lost, none too long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmembed.errors import InputError
from mmembed.inputs.textfile import PASSAGE_WORDS, iter_passages


def _write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def _letters(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_short_paragraphs_are_joined_and_kept_whole(tmp_path: Path) -> None:
    paragraphs = [f"# Title {n}\n\n" + f"word{n} " * 79 for n in range(4)]
    path = _write(tmp_path / "a.md", "\n\n".join(paragraphs))
    passages = list(iter_passages(path))
    assert [passage.split("\n")[0] for passage in passages] == ["# Title 0", "# Title 2"]
    assert all("\n\n" in passage for passage in passages)


@pytest.mark.parametrize(
    "text",
    [
        "word " * 5000,
        "A sentence of six words here. " * 300,
        "x" * 100_000,
        "这是一个没有空格的句子。" * 2000,
        "line\n" * 3000,
        "one\r\n\r\ntwo\r\n" * 500,
        "\n\n\n  lead\n\n\n\n  tail  \n\n",
    ],
)
def test_nothing_is_lost_and_no_passage_is_too_long(tmp_path: Path, text: str) -> None:
    passages = list(iter_passages(_write(tmp_path / "a.txt", text)))
    assert _letters("".join(passages)) == _letters(text)
    assert all(passage.strip() for passage in passages)
    for passage in passages:
        assert len(passage.split()) <= PASSAGE_WORDS
        assert len(passage) <= PASSAGE_WORDS * 20


def test_long_paragraph_is_cut_between_sentences(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.txt", "A sentence of six words here. " * 300)
    passages = list(iter_passages(path))
    assert len(passages) > 5
    assert all(passage.endswith("here.") for passage in passages)


def test_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    assert list(iter_passages(_write(tmp_path / "a.txt", "grüße", "utf-8-sig"))) == ["grüße"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_an_error_before_the_first_passage(
    tmp_path: Path, encoding: str
) -> None:
    path = _write(tmp_path / "a.txt", "plain words\n\n" * 20_000 + "grüße", encoding)
    with pytest.raises(InputError, match="not UTF-8") as caught:
        next(iter_passages(path))
    assert str(path) in str(caught.value)
    assert "iconv" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "is empty"), (b" \n\n \t", "no text"), (b"MZ\0\0\x01binary", "not a text file")],
)
def test_files_without_text(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        next(iter_passages(path))
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        next(iter_passages(tmp_path / "none.txt"))
