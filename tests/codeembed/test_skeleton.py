"""A class too big for one chunk is also seen as a whole, without the bodies of its methods."""

from __future__ import annotations

from pathlib import Path

import pytest
from word_model import WordModel, count_tokens

from codeembed import CodeIndex
from codeembed.chunk import Chunk, Chunker

PYTHON = '''import os


class Store(Base, metaclass=Meta):
    """Keeps things.

    And says much about it.
    """

    # What it may hold.
    limit: int = 10
    name = "store"

    @property
    def size(self) -> int:
        """How many."""
        total = sum(each.size for each in self.parts)
        return total

    async def take(
        self,
        thing: str,  # what
    ) -> None:
        def inner() -> None:
            pass
        self.parts.append(thing)
        self.counted += len(thing)


def after(a, b):
    return a + b
'''


def skeletons_of(text: str, path: str, limit: int) -> list[Chunk]:
    return Chunker(count_tokens, limit).chunk(text.encode(), path).skeletons


def brace(head: str, field: str, method: str, count: int = 4) -> str:
    body = "    int a = b + c;\n    use(a, a, a);\n"
    methods = "".join(f"  {method.format(i)} {{\n{body}  }}\n" for i in range(count))
    return f"{head} {{\n{field}\n{methods}}}\n"


def test_a_skeleton_has_the_signature_the_fields_and_the_methods_without_bodies() -> None:
    (view,) = skeletons_of(PYTHON, "pkg/store.py", 80)
    assert view.text.split("\n") == [
        "class Store(Base, metaclass=Meta):",
        '    """Keeps things.',
        "    limit: int = 10",
        '    name = "store"',
        "    def size(self) -> int: ...",
        "    async def take( self, thing: str, # what ) -> None: ...",
    ]
    assert (view.symbol, view.kind, view.kinds) == ("Store", "skeleton", ("skeleton",))
    assert view.breadcrumb == "pkg/store.py > class Store"
    assert (view.start_line, view.end_line) == (4, 27)


def test_the_children_stay_in_full_beside_it() -> None:
    result = Chunker(count_tokens, 80).chunk(PYTHON.encode(), "store.py")
    joined = "".join("".join(chunk.text.split()) for chunk in result.chunks)
    assert joined == "".join(PYTHON.split())
    assert all(chunk.kind != "skeleton" for chunk in result.chunks)


def test_a_class_that_fits_one_chunk_and_functions_have_none() -> None:
    assert not skeletons_of(PYTHON, "store.py", 400)
    long = "def f():\n" + "    a = b + c\n" * 60
    assert not skeletons_of(long, "a.py", 60)
    assert not skeletons_of("# A\n" + "word word\n" * 60, "a.md", 60)


@pytest.mark.parametrize(
    ("path", "head", "field", "method"),
    [
        ("A.java", "public class A<T>", "  private int z = 1;", "public int f{}(T x)"),
        ("a.js", "class A extends B", "  z = 1;", "f{}(x)"),
        ("a.ts", "export class A<T>", "  z = 1;", "f{}(x: T): number"),
        ("a.cs", "class A : B", "  int z = 1;", "public int F{}(int x)"),
        ("a.cpp", "class A : public B", "  int z = 1;", "int f{}(int x) const"),
        ("a.kt", "class A(val x: Int) : B()", "  val z = 1", "fun f{}(x: Int): Int"),
        ("a.swift", "class A: B", "  var z = 1", "func f{}(x: Int) -> Int"),
        ("a.rs", "impl<T> A<T>", "  const Z: i32 = 1;", "pub fn f{}(&self) -> i32"),
    ],
)
def test_languages_with_braces(path: str, head: str, field: str, method: str) -> None:
    (view,) = skeletons_of(brace(head, field, method), path, 90)
    methods = [f"  {method.format(i)} {{ ... }}" for i in range(4)]
    shown = head.removeprefix("export ")
    assert view.text.split("\n") == [shown + " {", field, *methods, "}"]


def test_ruby_and_php() -> None:
    ruby = "class A < B\n  attr_reader :x\n" + "".join(
        f"  def f{i}(a)\n    b = a + {i}\n    b * b\n  end\n" for i in range(5)
    )
    (view,) = skeletons_of(ruby + "end\n", "a.rb", 60)
    assert view.text.startswith("class A < B\n")
    assert "  def f0(a) ...\n  def f1(a) ..." in view.text
    php = "<?php\n" + brace("class A", "  private $z = 1;", "public function f{}($x)")
    (view,) = skeletons_of(php, "a.php", 90)
    assert "  private $z = 1;\n  public function f0($x) { ... }\n" in view.text


def test_what_does_not_fit_goes_fields_first_and_is_marked() -> None:
    fields = "\n".join(f"  int field{i} = {i};" for i in range(10))
    text = brace("class A", fields, "void m{}(int x)", 6)
    (view,) = skeletons_of(text, "A.java", 78)
    lines = view.text.split("\n")
    assert lines[:2] == ["class A {", "  ..."]
    assert [line for line in lines if "m5" in line]
    (view,) = skeletons_of(text, "A.java", 30)
    assert "m0" in view.text
    assert "m5" not in view.text
    assert view.text.endswith("...")
    assert view.tokens <= 30


def test_a_class_in_a_class_has_its_own() -> None:
    inner = brace("static class B", "    int y = 2;", "void g{}(int x)", 5)
    text = f"class A {{\n  int z = 1;\n{inner}\n  void f(int x) {{\n    use(x);\n  }}\n}}\n"
    outer, nested = skeletons_of(text, "A.java", 80)
    assert outer.text.split("\n") == [
        *("class A {", "  int z = 1;", "static class B { ... }"),
        *("  void f(int x) { ... }", "}"),
    ]
    assert nested.breadcrumb == "A.java > class A > class B"
    assert "g4" in nested.text


def test_an_index_finds_skeletons_by_kind_and_keeps_them_up_to_date(tmp_path: Path) -> None:
    file = tmp_path / "store.py"
    file.write_text(PYTHON)
    model = WordModel(max_tokens=90)
    with CodeIndex.open(tmp_path, model) as index:
        index.update()
        (hit,) = index.search("take a thing", 5, kind=["skeleton"])
        assert (hit.symbol, hit.kind, hit.start_line, hit.end_line) == ("Store", "skeleton", 4, 27)
        assert "skeleton" in {each.kind for each in index.search("Store limit name", 5)}
        assert all(each.kind != "skeleton" for each in index.search("Store", 5, kind=["class"]))
        # Line 12 is blank: the chunk beside it is like it, not the view of all.
        assert index.source().store.at("store.py", 12).kind != "skeleton"  # type: ignore[union-attr]

        model.embedded.clear()
        file.write_text(PYTHON.replace("return total", "return total + 1"))
        index.update()
        assert not [text for text in model.embedded if "..." in text]

        file.write_text(PYTHON.replace("def size", "def volume"))
        index.update()
        (hit,) = index.search("volume", 5, kind=["skeleton"])
        assert "def volume(self) -> int: ..." in hit.text

        file.write_text("x = 1\n")
        index.update()
        assert not index.search("volume", 5, kind=["skeleton"])
