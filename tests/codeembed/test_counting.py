"""The quick counter is the exact one, whatever the text."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeembed import counting
from codeembed.counting import WordPieceCounter, fast_counter
from codeembed.reading import _mini_tokenizer, reading_of, reading_of_model
from codeembed.source import Source
from codeembed.tokens import TokenizerCounter
from mmembed.static_vectors import read_tokenizer

TOKENIZER = read_tokenizer(_mini_tokenizer())
QUICK = WordPieceCounter(TOKENIZER)
EXACT = TokenizerCounter(TOKENIZER)

pieces = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "[CLS]",
            "[sep]",
            "\x0b",
            "\x00",
            "\x7f",
            "\r\n",
            "naïve",
            "日本",
            "a" * 101,
            "İ",
            "ß",
            "_x1",
        ]
    ),
    st.text(alphabet="abcXYZ019_+-/ \t\n", max_size=20),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces, max_size=6).map("".join))
def test_counts_are_the_tokenizers(text: str) -> None:
    assert QUICK([text, "x", text]) == EXACT([text, "x", text])


def test_counts_of_real_files_are_the_tokenizers() -> None:
    files = sorted(Path(__file__).parent.glob("*.py"))
    texts = [file.read_text("utf-8") for file in files]
    rows = [row for text in texts for row in text.splitlines(keepends=True)]
    assert QUICK(texts) == EXACT(texts)
    assert QUICK(rows) == EXACT(rows)


@settings(max_examples=100, deadline=None)
@given(st.lists(pieces, max_size=6).map("".join))
def test_rows_of_a_file_count_as_the_tokenizer_counts_them(text: str) -> None:
    source = Source(text.encode("utf-8", "surrogatepass"))
    special, *counts = EXACT(["", *(row.decode("utf-8", "replace") for row in source.rows)])
    found = QUICK.of_rows(source.data, source.row_starts)
    assert found == [count - special for count in counts]


def test_words_that_share_a_slot_of_the_table_are_not_taken_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "_SLOT_BITS", 1)
    counter = WordPieceCounter(TOKENIZER)
    words = [f"{head}{tail}" for head in ("self", "parse", "qzx") for tail in range(40)]
    longer = [word * 3 for word in words]
    for _ in range(2):  # what was learnt by the first round is used by the second
        assert counter([*words, *longer]) == EXACT([*words, *longer])
        assert counter([" ".join(longer)]) == EXACT([" ".join(longer)])


def test_it_travels_to_other_processes_without_what_it_learned() -> None:
    text = " ".join(f"word{number}" for number in range(2000))
    fresh = WordPieceCounter(TOKENIZER)
    size = len(pickle.dumps(fresh))
    fresh([text])
    copied = pickle.loads(pickle.dumps(fresh))
    assert len(pickle.dumps(fresh)) == size
    assert copied([text]) == EXACT([text])


def test_other_tokenizers_are_counted_exactly() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    other = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    assert isinstance(fast_counter(TOKENIZER), WordPieceCounter)
    assert isinstance(fast_counter(other), TokenizerCounter)


@pytest.mark.parametrize("text", ["", "def parse_args(x): pass", "héé 日本語 [MASK]"])
def test_what_is_known_of_mini_without_loading_it_is_what_it_says_itself(text: str) -> None:
    from mmembed.embedder import Embedder

    model = Embedder.from_pretrained("mini")
    light, loaded = reading_of("mini"), reading_of_model(model)
    assert light is not None
    assert light.static is not None
    assert loaded.static is not None
    assert light.static.digest == loaded.static.digest
    assert light.max_tokens == model.max_tokens
    assert light.count_tokens([text]) == list(model.count_tokens([text]))
