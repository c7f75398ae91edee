"""Static token vectors: made from a model, read without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from mmembed.distilling import distill, token_frequencies, write_static
from mmembed.errors import ConfigError, ModelLoadError
from mmembed.static_vectors import STATIC_NAME, StaticVectors

WORDS = ["[UNK]", "red", "blue", "car", "##s", "the", "bus", "green"]


def a_tokenizer() -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


class Model:
    """Knows which words are colours and which are vehicles."""

    dim = 3
    meanings = {  # noqa: RUF012
        **dict.fromkeys(["red", "blue", "green"], (5.0, 0.0, 0.1)),
        **dict.fromkeys(["car", "bus"], (0.0, 5.0, 0.1)),
    }

    def encode_document(self, texts: list[str], **_: Any) -> np.ndarray[Any, Any]:
        return np.array([self.meanings.get(text, (0.0, 0.0, 1.0)) for text in texts], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = a_tokenizer()
    counts = token_frequencies(["the the the the the the the red car"] * 3, tokenizer)
    assert counts[WORDS.index("the")] == 21
    table, scales = distill(Model(), tokenizer, dim=2, frequencies=counts)  # type: ignore[arg-type]
    write_static(tmp_path, table, scales, {"model": "colours"})
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_words_of_like_meaning_are_near(folder: Path) -> None:
    static = StaticVectors.read(folder / STATIC_NAME, folder / "tokenizer.json")
    assert static.dim == 2
    red, green, car, empty = static.encode(["red", "Green", "car", ""])
    assert red @ green > 0.99
    assert red @ car < 0.5
    assert not empty.any()
    assert np.linalg.norm(red) == pytest.approx(1)


def test_a_bag_of_words_weighs_as_its_text(folder: Path) -> None:
    static = StaticVectors.read(folder / STATIC_NAME, folder / "tokenizer.json")
    (text,) = static.encode(["red red cars"])
    bags = static.of_counts([{"red": 2.0, "cars": 1.0}, {}])
    np.testing.assert_allclose(bags[0], text, atol=1e-6)
    assert not bags[1].any()
    # Words that were learned later share the table with those before.
    again = static.of_counts([{"bus": 1.0}, {"red": 2.0, "cars": 1.0}])
    np.testing.assert_allclose(again[1], text, atol=1e-6)


def test_frequent_words_say_less(folder: Path) -> None:
    static = StaticVectors.read(folder / STATIC_NAME, folder / "tokenizer.json")
    plain, with_the = static.encode(["blue", "the the blue"])
    assert plain @ with_the > 0.99


def test_the_digest_tells_tables_apart(folder: Path, tmp_path: Path) -> None:
    one = StaticVectors.read(folder / STATIC_NAME, folder / "tokenizer.json")
    table, scales = distill(Model(), a_tokenizer(), dim=2)  # type: ignore[arg-type]
    other = StaticVectors(table, scales, a_tokenizer())
    assert one.digest != other.digest
    same = StaticVectors.read(folder / STATIC_NAME, folder / "tokenizer.json")
    assert same.digest == one.digest


def test_errors_name_the_file(folder: Path) -> None:
    with pytest.raises(ConfigError, match="dim 4"):
        distill(Model(), a_tokenizer(), dim=4)  # type: ignore[arg-type]
    file = folder / STATIC_NAME
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json: is not there"):
        StaticVectors.read(file, folder / "nowhere" / "tokenizer.json")
    file.write_bytes(b"no tensors")
    with pytest.raises(ModelLoadError, match="holds no static vectors"):
        StaticVectors.read(file, folder / "tokenizer.json")
    with pytest.raises(ModelLoadError, match="another model"):
        StaticVectors(np.zeros((2, 2), np.int8), np.zeros(2), a_tokenizer())
