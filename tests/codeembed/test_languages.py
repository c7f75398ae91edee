"""Every grammar loads, and its query finds classes, methods and functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_model import count_tokens

from codeembed.chunk import Chunker, Method
from codeembed.languages import LANGUAGES, detect, grammar, normalise_name
from codeembed.outline import code_outline
from codeembed.parse import definition_query, parse
from codeembed.source import Source
from mmembed.errors import ConfigError

SAMPLES = {
    "python": "class A:\n  @p\n  async def f(self): pass\ndef g(): pass\n",
    "javascript": "export class A { f() {} }\nconst g = () => 1;\n",
    "typescript": "export class A<T> { @d() public f(a: number) {} }\nfunction g(): void {}\n",
    "tsx": "class A { f() { return <b/>; } }\nconst g = () => <i/>;\n",
    "java": "class A { void f() {} }\ninterface g {}\n",
    "go": "package p\ntype A struct{}\nfunc (a *A) f() {}\nfunc g() {}\n",
    "php": "<?php\nclass A { public function f() {} }\nfunction g() {}\n",
    "ruby": "class A\n  def f; end\nend\ndef g; end\n",
    "c": "struct A { int x; };\nstatic int *f(int a) { return 0; }\nvoid g(void) {}\n",
    "cpp": "class A { void f() const {} };\ntemplate <class T>\nT &g(T a) { return a; }\n",
    "csharp": "class A { void f() {} }\ninterface g {}\n",
    "rust": "struct A;\nimpl A { fn f(&self) {} }\npub fn g() {}\n",
    "kotlin": "class A {\n  fun f() {}\n}\nfun g() = 1\n",
    "scala": "class A { def f = 1 }\nobject g {}\n",
    "swift": "class A { func f() {} }\nfunc g() {}\n",
    "lua": "local A = function() end\nfunction f() end\nlocal function g() end\n",
    "bash": "A() { echo; }\nfunction f { echo; }\ng() { echo; }\n",
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_definitions_are_found(name: str) -> None:
    lang = LANGUAGES[name]
    source = Source(SAMPLES[name].encode())
    tree = parse(source.data, lang)
    assert not tree.root_node.has_error
    found = {
        each.name.rsplit(".", 1)[-1]: each
        for each in code_outline(tree.root_node, source, lang).definitions
    }
    assert {"A", "f", "g"} <= found.keys()
    if name not in ("c", "lua", "bash"):
        assert found["f"].kind == "method"


@pytest.mark.parametrize("name", LANGUAGES)
def test_every_entry_compiles_the_query(name: str) -> None:
    lang = LANGUAGES[name]
    for entry in filter(None, (lang.entry, lang.fragment_entry)):
        assert grammar(lang.module, entry) is grammar(lang.module, entry)
        assert definition_query(lang, entry).pattern_count > 1


NESTED = {
    "python": [
        *(
            "class A:",
            "def f(",
            "    # of f",
            "    a=(lambda: 1),",
            "):",
            "    def g(): pass",
            "# c",
        ),
        *(
            "async def h(): return 1",
            "@d(",
            "    1)",
            "type B = int",
            "    x = 1",
            '"""',
            "if a:",
            "",
        ),
    ],
    "ruby": [
        *(
            "class A < B",
            "module M",
            "def f",
            "def self.g; end",
            "end",
            "# c",
            "x = 1",
            "private def h",
        ),
        *("class << self", "Class.new do", "if a", "def k() = 1", "=begin", "=end", '"', ""),
    ],
    "go": [
        *(
            "package p",
            "type A struct {",
            "}",
            "func (a *A) f() {",
            "func g(",
            ") {",
            "// c",
            "/* d */",
        ),
        *("type (", "B int", "C interface {", ")", "x := func() {", "type D = A", "y int", "`", ""),
    ],
}


@pytest.mark.parametrize("name", [name for name, each in LANGUAGES.items() if each.keywords])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_looking_only_where_keywords_are_misses_no_definition(name: str, data: Any) -> None:
    rows = data.draw(st.lists(st.sampled_from(NESTED[name]), max_size=24))
    indents = data.draw(st.lists(st.sampled_from(["", "  ", "    "]), min_size=24, max_size=24))
    text = "\n".join(map("".join, zip(indents, rows, strict=False)))
    lang = LANGUAGES[name]
    source = Source(text.encode())
    root = parse(source.data, lang).root_node
    quick = code_outline(root, source, lang)
    whole = code_outline(root, source, replace(lang, keywords=()))
    # What a stray decorator belongs to is a guess either way.
    keys = [
        {(d.name, d.start, d.end, d.head_end) for d in each.definitions} for each in (quick, whole)
    ]
    assert keys[0] == keys[1]
    assert root.has_error or quick.definitions == whole.definitions


def test_rows_of_comments_are_kept_with_what_is_below_them() -> None:
    source = Source(b"def f(\n    # of a\n    a,\n):\n    # of b\n    b = '#'  # no\n\n#  end\n")
    root = parse(source.data, LANGUAGES["python"]).root_node
    assert code_outline(root, source, LANGUAGES["python"]).attached == {1, 4, 7}


def test_a_generic_cast_in_typescript_is_no_error() -> None:
    source = b"const x = <string>y;\n"
    assert not parse(source, LANGUAGES["typescript"]).root_node.has_error
    assert parse(source, LANGUAGES["tsx"]).root_node.has_error


def test_php_without_its_tag_is_still_code() -> None:
    result = Chunker(count_tokens, 40).chunk(b"function f() { return 1; }\n", "a.php")
    assert result.chunks[0].symbol == "f"


def test_go_methods_carry_their_receiver() -> None:
    result = Chunker(count_tokens, 40).chunk(SAMPLES["go"].encode(), "a.go")
    assert "A.f" in result.chunks[0].symbols


def test_code_with_errors_still_gives_what_it_defines() -> None:
    source = b"class A:\n    def f(self:\n\ndef g():\n    return 1\n)))\n"
    result = Chunker(count_tokens, 40).chunk(source, "a.py")
    assert result.method is Method.TREE
    assert "g" in {name for chunk in result.chunks for name in chunk.symbols}


@pytest.mark.parametrize(
    ("path", "head", "name"),
    [
        ("a/b.py", b"", "python"),
        ("A.PY", b"", "python"),
        ("tool", b"#!/usr/bin/env python3.11\n", "python"),
        ("tool", b"#!/usr/bin/env -S node\n", "javascript"),
        ("run", b"#!/bin/sh -e\n", "bash"),
        ("Rakefile", b"", "ruby"),
        ("x.h", b"int f(void);\n", "c"),
        ("x.h", b"namespace a {\n", "cpp"),
        ("x.d.ts", b"", "typescript"),
        ("README.md", b"", "markdown"),
        ("x.ipynb", b"", "notebook"),
        ("Makefile", b"", "make"),
        ("LICENSE", b"words", "unknown"),
        ("x.cob", b"", "unknown"),
    ],
)
def test_detection(path: str, head: bytes, name: str) -> None:
    assert detect(path, head) == name


def test_names_have_aliases_and_typos_an_error() -> None:
    assert [normalise_name(n) for n in ("py", "C++", "c#", "TS", "sh")] == [
        *("python", "cpp", "csharp", "typescript", "bash")
    ]
    with pytest.raises(ConfigError, match=r"unknown language 'pyton'; known: .*python"):
        normalise_name("pyton")
