"""Grammars of the extra: allow-listed, in a process that may be killed, else cut by lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from word_model import WordModel, count_tokens

from codeembed import CodeIndex
from codeembed.chunk import Chunker, Method
from codeembed.languages import LANGUAGES, PACK_LANGUAGES, Language, detect, normalise_name
from codeembed.pack_languages import has_pack, module_of
from codeembed.parse import ParseTimeoutError
from codeembed.parse_worker import ParserFailedError, ParseWorker

needs_pack = pytest.mark.skipif(not has_pack(), reason="tree-sitter-language-pack is absent")
PATIENT = 60.0

SAMPLES = {
    "dart": (
        "/// Doc.\nclass A {\n  int f(int x) {\n    return x;\n  }\n}\nint g() => 1;\n",
        "Afg",
    ),
    "solidity": ("contract A {\n  function f(uint x) public {\n    x;\n  }\n}\n", "Af"),
    "perl": ("package P;\nsub f {\n  return 1;\n}\nsub g { 2 }\n", "fg"),
    "gdscript": ("class A:\n\tfunc f(x):\n\t\treturn x\nfunc g():\n\tpass\n", "Afg"),
    "julia": ("module A\nfunction f(x)\n  x\nend\nend\n", "Af"),
    "haskell": ("module M where\nf :: Int -> Int\nf x = x\n", "f"),
    "objc": ("@interface A : NSObject\n- (void)f;\n@end\n", "A"),
    "nim": ("proc f(x: int): int =\n  x\n", "f"),
    "erlang": ("-module(a).\nf(X) ->\n  X.\n", "f"),
    "clojure": ("(ns a)\n(defn f [x]\n  x)\n", ""),
}


class Impatient(ParseWorker):
    """Waits a fifth of a second whatever it is told."""

    def run(self, language: str, time_limit: float, *arguments: object) -> Any:
        return super().run(language, 0.2, *arguments)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[ParseWorker]:
    monkeypatch.setattr("codeembed.parse_worker._GRACE", 0.0)
    worker = ParseWorker("hanging_grammar:structure")
    yield worker
    worker.close()


@pytest.fixture
def pretend_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeembed.chunk.has_pack", lambda: True)


@needs_pack
def test_files_of_the_pack_are_cut_along_their_tree() -> None:
    chunker = Chunker(count_tokens, 40, PATIENT)
    for name, (text, symbols) in SAMPLES.items():
        suffix = PACK_LANGUAGES[name].suffixes[0]
        result = chunker.chunk(text.encode(), f"a{suffix}", name)
        assert result.method is Method.TREE, name
        found = {each for chunk in result.chunks for each in chunk.symbols}
        assert set(symbols) <= found, name


@needs_pack
def test_a_big_file_of_the_pack_is_cut_between_functions_and_loses_nothing() -> None:
    body = "".join(
        f"  int f{i}(int x) {{\n    var y = x + {i};\n    return y;\n  }}\n" for i in range(30)
    )
    text = f"class A {{\n{body}}}\n"
    result = Chunker(count_tokens, 40, PATIENT).chunk(text.encode(), "a.dart")
    assert result.method is Method.TREE
    assert len(result.chunks) > 3
    assert "".join("".join(c.text.split()) for c in result.chunks) == "".join(text.split())
    assert all(chunk.tokens <= 40 for chunk in result.chunks)
    assert all(chunk.breadcrumb.startswith("a.dart > class A") for chunk in result.chunks)
    methods = [chunk for chunk in result.chunks if "f7" in chunk.symbols]
    assert "return y" in methods[0].text
    assert result.skeletons[0].text.startswith("class A {\n  int f0(int x) { ... }\n")


@needs_pack
def test_a_grammar_that_is_known_to_hang_is_stopped_and_not_allowed() -> None:
    assert "cobol" not in PACK_LANGUAGES
    assert detect("a.cob") == detect("a.cobol") == "unknown"
    cobol = Language("cobol", (".cob",), module_of("cobol"))
    worker = ParseWorker()
    try:
        with pytest.raises(ParseTimeoutError):
            worker.run("cobol", 0.2, b"x\n", cobol, [1], 10)
    finally:
        worker.close()


@needs_pack
@pytest.mark.parametrize("name", PACK_LANGUAGES)
def test_every_allowed_grammar_is_there(name: str) -> None:
    result = Chunker(count_tokens, 40, PATIENT).chunk(b"x\n((\n'{\n\xff\n", "a", name)
    assert result.method is Method.TREE


@pytest.mark.usefixtures("pretend_pack")
def test_a_grammar_that_hangs_costs_its_limit_and_the_file_is_cut_by_lines(
    worker: ParseWorker,
) -> None:
    chunker = Chunker(count_tokens, 40, 0.2, worker)
    result = chunker.chunk(b"hang\nhere\n", "a.dart")
    assert result.method is Method.LINES_AFTER_TIMEOUT
    assert result.language == "dart"
    assert [chunk.text.split() for chunk in result.chunks] == [["hang", "here"]]


@pytest.mark.parametrize("word", [b"crash", b"raise"])
@pytest.mark.usefixtures("pretend_pack")
def test_a_grammar_that_breaks_leaves_the_file_cut_by_lines(
    worker: ParseWorker, word: bytes
) -> None:
    result = Chunker(count_tokens, 40, PATIENT, worker).chunk(word, "a.zig")
    assert result.method is Method.LINES_AFTER_FAILURE
    assert result.chunks[0].text == word.decode()


def test_a_worker_goes_on_after_a_hang_and_gives_a_language_up_after_three(
    worker: ParseWorker,
) -> None:
    first = worker.run("zig", PATIENT, b"process")
    assert worker.run("zig", PATIENT, b"process") == first
    for _ in range(3):
        with pytest.raises(ParseTimeoutError, match="not parsed within"):
            worker.run("dart", 0.1, b"hang")
    with pytest.raises(ParserFailedError, match="dart failed 3 times"):
        worker.run("dart", PATIENT, b"process")
    assert worker.run("zig", PATIENT, b"process") != first


@pytest.mark.usefixtures("pretend_pack", "worker")
def test_an_index_counts_files_whose_grammar_hung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = Impatient("hanging_grammar:structure")
    (tmp_path / "a.dart").write_text("hang here\n")
    (tmp_path / "b.py").write_text("def f():\n    return 1\n")
    monkeypatch.setattr("codeembed.chunk.shared_worker", lambda: impatient)
    with CodeIndex.open(tmp_path, WordModel()) as index:
        report = index.update()
        assert report.by_method == {"lines-after-timeout": 1, "tree": 1}
        assert [hit.path for hit in index.search("hang", 1, language=["dart"])] == ["a.dart"]
    impatient.close()


def test_without_the_pack_files_are_cut_by_lines_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("codeembed.chunk.has_pack", lambda: False)
    result = Chunker(count_tokens, 40).chunk(b"class A {}\n", "a.dart")
    assert (result.method, result.language) == (Method.LINES_WITHOUT_GRAMMAR, "dart")


def test_names_and_suffixes_of_the_pack_do_not_shadow_others() -> None:
    assert not PACK_LANGUAGES.keys() & LANGUAGES.keys()
    taken = [suffix for lang in LANGUAGES.values() for suffix in lang.suffixes]
    own = [suffix for lang in PACK_LANGUAGES.values() for suffix in lang.suffixes]
    assert len(own) == len(set(own))
    assert not set(own) & set(taken)
    assert normalise_name("Dart") == "dart"
    assert detect("a.m", b"#import <A.h>\n") == "objc"
    assert detect("a.m", b"x = 1;\n") == "matlab"
    assert detect("a.v", b"module a(input x);\n") == "verilog"
    assert detect("a.v", b"module main\n") == "v"
