"""Prompts and tokenisation: cuts, end tokens and spans."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast as Fast

from mmembed.errors import ConfigError, InputError, ModelLoadError
from mmembed.gpte.prompts import PROMPTS, Prompt
from mmembed.gpte.rows import Row
from mmembed.gpte.tokenizing import Tokenizing

TEXT = "the quick brown fox jumps over the lazy dog"


def row(tokenizing: Tokenizing, prompt: Prompt, text: str, instruction: str | None = None) -> Row:
    return tokenizing.rows(prompt, [text], [instruction])[0]


def pooled(made: Row) -> list[int]:
    left_out = {i for a, b in made.spans.get("unpooled", []) for i in range(a, b)}
    return [token for i, token in enumerate(made.input_ids) if i not in left_out]


@pytest.mark.parametrize("max_tokens", [64, 6])
def test_plain_rows_equal_the_tokenizers_own(wordpiece: Fast, max_tokens: int) -> None:
    texts = [TEXT, "fox", "no more, no less: " * 9]
    rows = Tokenizing(wordpiece, max_tokens).rows(Prompt(), texts, [None] * 3)
    expected = wordpiece(texts, truncation=True, max_length=max_tokens)["input_ids"]
    assert [r.input_ids for r in rows] == expected
    assert [r.tokens for r in rows] == [len(ids) for ids in expected]
    assert all(r.spans == {} for r in rows)


def test_settings_inside_the_tokenizer_file_do_not_cut(wordpiece: Fast) -> None:
    wordpiece.backend_tokenizer.enable_truncation(4)
    wordpiece.backend_tokenizer.enable_padding(length=50)
    assert row(Tokenizing(wordpiece, 64), Prompt(), "no " * 30).tokens == 32


@pytest.mark.parametrize("name", ["promptbert", "echo", "prompteol", "instruct", "sgpt_document"])
@pytest.mark.parametrize("max_tokens", [26, 32, 64])
def test_a_cut_keeps_everything_but_text(wordpiece: Fast, name: str, max_tokens: int) -> None:
    prompt = PROMPTS[name]
    instruction = "answers" if name == "instruct" else None
    made = row(Tokenizing(wordpiece, max_tokens), prompt, "no more no less " * 20, instruction)
    assert max_tokens - 2 < made.tokens <= max_tokens
    inside = [i for a, b in made.spans["text"] for i in range(a, b)]
    around = [t for i, t in enumerate(made.input_ids) if i not in inside]
    empty = row(Tokenizing(wordpiece, 64), prompt, "fox", instruction)
    inside = [i for a, b in empty.spans["text"] for i in range(a, b)]
    assert around == [t for i, t in enumerate(empty.input_ids) if i not in inside]


def test_echo_cuts_both_copies_alike_and_pools_the_second(wordpiece: Fast) -> None:
    made = row(Tokenizing(wordpiece, 30), PROMPTS["echo"], "fox dog hello world " * 20)
    first, second = (made.input_ids[a:b] for a, b in made.spans["text"])
    assert first == second
    assert len(second) > 3
    assert pooled(made) == [*second, wordpiece.sep_token_id]


def test_promptbert_pools_its_mask_and_not_one_in_the_text(wordpiece: Fast) -> None:
    made = row(Tokenizing(wordpiece, 64), PROMPTS["promptbert"], "a [MASK] in the text [MASK]")
    assert made.input_ids.count(wordpiece.mask_token_id) == 3
    assert pooled(made) == [wordpiece.mask_token_id]
    kept = [i for i in range(made.tokens) if not any(a <= i < b for a, b in made.spans["unpooled"])]
    assert kept == [max(i for i, t in enumerate(made.input_ids) if t == wordpiece.mask_token_id)]


@pytest.mark.parametrize("kind", ["wordpiece", "bytes_bpe"])
def test_instruction_span_is_exact(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Fast = request.getfixturevalue(kind)
    prompt = Prompt(PROMPTS["instruct"].template, pooled="text")
    made = row(Tokenizing(tokenizer, 64), prompt, TEXT, "find the passage")
    ((start, stop),) = made.spans["instruction"]
    assert start == 0
    ahead = tokenizer.decode(made.input_ids[:stop], skip_special_tokens=True)
    after = tokenizer.decode(made.input_ids[stop:], skip_special_tokens=True)
    assert ahead.replace(" ", "").lower() == "instruct:findthepassage\nquery:".replace(
        "\n", "\n" if kind == "bytes_bpe" else ""
    )
    assert after.strip() == TEXT
    assert pooled(made) == made.input_ids[stop:]


def test_without_words_ahead_the_start_token_is_pooled(wordpiece: Fast) -> None:
    made = row(Tokenizing(wordpiece, 64), Prompt("{text} means nothing", pooled="text"), "fox")
    assert made.spans["instruction"] == []
    (fox,) = wordpiece("fox", add_special_tokens=False)["input_ids"]
    assert pooled(made) == [wordpiece.cls_token_id, fox, wordpiece.sep_token_id]


@pytest.mark.parametrize("max_tokens", [5, 64])
@pytest.mark.parametrize("text", [TEXT, TEXT + "<|endoftext|>"])
def test_end_token_survives_any_cut(bytes_bpe: Fast, max_tokens: int, text: str) -> None:
    end = bytes_bpe.eos_token_id
    made = row(Tokenizing(bytes_bpe, max_tokens, end_id=end), Prompt(), text)
    assert made.input_ids[-1] == end
    assert made.tokens <= max_tokens
    assert row(Tokenizing(bytes_bpe, 64, end_id=end), Prompt(), "fox").input_ids.count(end) == 1


def test_end_token_that_the_tokenizer_adds_is_not_doubled(wordpiece: Fast) -> None:
    made = row(Tokenizing(wordpiece, 6, end_id=3), Prompt(), TEXT)
    assert made.input_ids.count(3) == 1
    assert made.tokens == 6


def test_empty_texts(wordpiece: Fast, bytes_bpe: Fast) -> None:
    assert row(Tokenizing(wordpiece, 64), Prompt(), "").input_ids == [2, 3]
    with pytest.raises(InputError, match="item 1: text: has no tokens"):
        Tokenizing(bytes_bpe, 64).rows(Prompt(), ["fox", ""], [None, None])
    with pytest.raises(InputError, match="no tokens to pool"):
        row(Tokenizing(wordpiece, 64), Prompt.prefix("query: ", pooled="text"), "")


def test_errors_name_the_text_and_the_numbers(wordpiece: Fast) -> None:
    prompt = PROMPTS["instruct"]
    with pytest.raises(InputError, match=r"item 1: .* take \d+ of 12 tokens"):
        Tokenizing(wordpiece, 12).rows(prompt, ["a", "fox " * 9], ["find", "find the passage " * 9])
    with pytest.raises(InputError, match="item 1: text: is not Unicode"):
        Tokenizing(wordpiece, 12).rows(Prompt(), ["a", "b\ud800"], [None, None])
    with pytest.raises(InputError, match="item 0: text: is a int"):
        Tokenizing(wordpiece, 12).rows(Prompt(), [3], [None])  # type: ignore[list-item]


def test_prompt_mistakes_are_errors() -> None:
    for template, words in [
        ("no slot", "no {text} slot"),
        ("{text} {sentence}", "no slot"),
        ("{text", "expected"),
    ]:
        with pytest.raises(ConfigError, match=words):
            Prompt(template)
    with pytest.raises(ConfigError, match="cannot pool 'mask'"):
        Prompt("{text}", pooled="mask")
    with pytest.raises(ConfigError, match=r"nothing to put into \{instruction\}"):
        PROMPTS["instruct"].render("x")
    with pytest.raises(ConfigError, match="no slot for an instruction"):
        Prompt().render("x", "find")
    with pytest.raises(ConfigError, match=r"nothing to put into \{mask\}"):
        PROMPTS["promptbert"].render("x")


def test_braces_in_texts_and_prefixes_are_just_braces() -> None:
    assert Prompt.prefix("{q} ").render("{text}").string == "{q} {text}"
    assert PROMPTS["sgpt_document"].render("a}").string == "{a}}"


def test_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelLoadError, match="Slow has no fast version"):
        Tokenizing(Slow(), 8)  # type: ignore[arg-type]
