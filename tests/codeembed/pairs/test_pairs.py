"""Mining pairs: what is taken, what is left out, and that nothing leaks between splits."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from codeembed.cli import app
from codeembed.pairs.clones import clone_of
from codeembed.pairs.duplicates import NearDuplicates, similarity, unique
from codeembed.pairs.functions import functions_of, name_words
from codeembed.pairs.history import mine_history
from codeembed.pairs.mining import Mined, mine_file, mine_folder, package_of
from codeembed.pairs.pair import Pair, split_of
from codeembed.pairs.quality import code_problem, summary_of, text_problem
from codeembed.pairs.translations import mine_translations
from codeembed.transform.tree import Code
from mmembed.commands.output import run
from mmembed.errors import InputError
from mmembed.gpte.config import SourceConfig
from mmembed.gpte.data.examples import Report, examples_of

SOURCE = '''
class Stack:
    @property
    def top_most_value(self):
        """Give the last value without removing it.

        Returns:
            The value.
        """
        if not self.values:
            raise IndexError("é empty")
        # Walk over all the values
        # to find the last one.
        for value in self.values:
            last = value

        return last


def plain(x):
    total = x + 1
    return total
'''
JAVA = """class A {
  /**
   * Adds up all the numbers of a list.
   * @param xs the list
   */
  int sum(int[] xs) {
    int total = 0;
    for (int x : xs) { total += x; }
    return total;
  }
}
"""


def test_docstrings_leave_the_code() -> None:
    method, plain = functions_of(Code.read(SOURCE.encode(), "python"))
    assert method.name == "top_most_value"
    assert summary_of(method.documentation) == "Give the last value without removing it."
    assert "Give the last" not in method.code
    assert method.code.startswith("@property\ndef top_most_value(self):\n    if not")
    assert method.body.startswith("if not self.values")
    assert 'IndexError("é empty")' in method.code
    assert plain.documentation == ""
    assert method.line == 3


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("java", JAVA),
        ("go", "package a\n\n// Adds up all the numbers of a list.\nfunc Sum(xs []int) int {\n"
         "\ttotal := 0\n\tfor _, x := range xs {\n\t\ttotal += x\n\t}\n\treturn total\n}\n"),
        ("javascript", "// Adds up all the numbers of a list.\nexport function sum(xs) {\n"
         "  let total = 0;\n  return total;\n}\n"),
        ("c", "// Adds up all the numbers of a list.\nint *sum(int *xs) {\n  int total = 0;\n"
         "  return xs;\n}\n"),
        ("rust", "/// Adds up all the numbers of a list.\nfn sum(xs: &[i32]) -> i32 {\n"
         "    let total = 0;\n    total\n}\n"),
        ("ruby", "# Adds up all the numbers of a list.\ndef sum(xs)\n  total = 0\n  total\nend\n"),
        ("php", "<?php\n// Adds up all the numbers of a list.\nfunction sum($xs) {\n"
         "  $total = 0;\n  return $total;\n}\n"),
    ],
)  # fmt: skip
def test_comments_above_a_function_document_it(language: str, source: str) -> None:
    found = list(mine_file(source.encode(), language, "repo", "f", kinds=["docstring"]))
    assert [pair.query for pair in found] == ["Adds up all the numbers of a list."]
    assert "Adds up" not in found[0].positive
    assert "um(" in found[0].positive


def test_a_comment_after_a_blank_line_documents_nothing() -> None:
    source = b"// Adds up all the numbers here.\n\nint f(int x) {\n  int y = x;\n  return y;\n}\n"
    assert not list(mine_file(source, "c", "repo", "f", kinds=["docstring"]))


def test_comment_blocks_and_names() -> None:
    pairs = list(mine_file(SOURCE.encode(), "python", "repo", "f.py", kinds=["comment", "name"]))
    by_kind = {pair.kind: pair for pair in pairs}
    assert by_kind["comment"].query == "Walk over all the values to find the last one."
    assert by_kind["comment"].positive == "for value in self.values:\n    last = value"
    assert by_kind["name"].query == "top most value"
    assert "top_most_value" not in by_kind["name"].positive
    assert len(pairs) == 2  # plain has one word, which says too little


def test_name_words() -> None:
    assert name_words("readHTTPHeader") == ["read", "http", "header"]
    assert name_words("run") == ["run"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Read all the bytes of a file.", ""),
        ("Read it", "too-short"),
        ("See https://example.org for how it works", "link"),
        ("Give <b>bold</b> letters to the title", "markup"),
        ("TODO make this much faster some day", "boilerplate"),
        ("Считает сумму всех чисел в списке and this too", "not-english"),
        ("xs = ys + 1; (aa, bb) -> [{}] == ### && %%% ||", "not-prose"),
    ],
)
def test_text_quality(text: str, problem: str) -> None:
    assert text_problem(text) == problem


def test_long_documentation_is_kept_and_trivial_code_is_not() -> None:
    assert text_problem("Read all the bytes of a file. " * 60) == ""
    assert code_problem("def f(): pass") == "too-short"
    assert code_problem("x = 1\n" * 3000) == "too-long"


def test_near_duplicates_never_fall_below_the_threshold() -> None:
    text = " ".join(f"word{i}" for i in range(60))
    near = text.replace("word30", "other")
    far = " ".join(f"thing{i}" for i in range(60))
    known = NearDuplicates(0.8)
    assert known.add(text)
    assert not known.add(near)
    assert known.add(far)
    assert similarity(text, near) >= 0.8
    half = " ".join(f"word{i}" for i in range(30)) + far
    assert similarity(text, half) < 0.8
    assert known.add(half)


def test_unique_drops_equal_queries_and_near_codes() -> None:
    def pair(query: str, positive: str) -> Pair:
        return Pair(query, positive, "docstring", "python", "r", "p")

    code = (
        "def f(values):\n    total = 0\n    for v in values:\n        total += v\n    return total"
    )
    pairs = [pair("Sum it up", code), pair("sum it  up", "other\ncode"), pair("Other", code + "\n")]
    assert list(unique(pairs)) == pairs[:1]


def test_a_repository_is_in_one_split() -> None:
    names = [f"repo{i}" for i in range(2000)]
    splits = [split_of(name) for name in names]
    assert splits == [split_of(name) for name in names]
    assert {0.05 < splits.count(each) / 2000 < 0.15 for each in ("dev", "test")} == {True}
    assert package_of("numpy/linalg/a.py") == "numpy"
    assert package_of("six.py") == "six"


def test_clones_run_alike_and_deviants_do_not() -> None:
    source = b"def f(a, b):\n    c = a + b\n    if c < 10:\n        return c * 2\n    return b\n"
    clone = clone_of(Code.read(source, "python"), seed=1, execute=True)
    assert clone is not None
    assert clone.executed
    assert clone.deviants

    def called(text: str, *arguments: int) -> object:
        scope: dict[str, object] = {}
        exec(text, scope)
        function = scope["f"]
        assert callable(function)
        return function(*arguments)

    inputs = [(a, b) for a in range(-3, 12) for b in range(-3, 12)]
    wanted = [called(source.decode(), *each) for each in inputs]
    assert [called(clone.code, *each) for each in inputs] == wanted
    for deviant in clone.deviants:
        # To fail is to differ, too.
        with contextlib.suppress(TypeError, UnboundLocalError, RecursionError):
            assert [called(deviant, *each) for each in inputs] != wanted


def test_unparsable_files_are_counted() -> None:
    mined = Mined()
    assert not list(mine_file(b"def f(:\n", "python", "r", "p", mined=mined))
    assert mined.unreadable == 1
    with pytest.raises(InputError, match="no transformations"):
        list(mine_file(b"x", "markdown", "r", "p"))


def test_the_command_writes_rows_that_the_trainer_reads(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "stack.py").write_text(SOURCE, encoding="utf-8")
    into = tmp_path / "out" / "pairs.jsonl"
    assert run(app, ["pairs", str(tmp_path / "lib"), "--into", str(into)]) == 0
    rows = [json.loads(line) for line in into.read_text(encoding="utf-8").splitlines()]
    assert {row["kind"] for row in rows} == {"docstring", "comment", "name", "clone"}
    assert {row["repository"] for row in rows} == {"lib"}
    examples = list(examples_of(SourceConfig(str(into)), Report("pairs")))
    assert [one.query for one in examples] == [row["query"] for row in rows]
    clones = [row for row in rows if row["kind"] == "clone"]
    assert all(row["negatives"] for row in clones[:1])
    none = str(tmp_path / "none.jsonl")
    assert run(app, ["pairs", str(tmp_path / "out"), "--into", none]) == 1


def test_folders_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        list(mine_folder(tmp_path / "missing"))


def _git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_commits_give_their_subject_and_added_lines(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    file = tmp_path / "a.py"
    file.write_text("x = 1\ny = 2\n", encoding="utf-8")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "feat: Keep the first two numbers")
    file.write_text("x = 1\ny = 3\nz = 4\n", encoding="utf-8")
    _git(tmp_path, "commit", "-qam", "Give the last number another value")
    _git(tmp_path, "commit", "-q", "--allow-empty", "-m", "Bump version to two point one")
    newest, first = mine_history(tmp_path, repository="r")
    assert newest.query == "Give the last number another value"
    assert newest.positive == "x = 1\ny = 3\nz = 4"
    assert first.query == "Keep the first two numbers"
    assert first.kind == "commit"
    with pytest.raises(InputError, match="git repository"):
        list(mine_history(tmp_path / ".git" / ".." / ".." / "nowhere"))


def test_an_issue_that_a_commit_closes_gives_its_text(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    file = tmp_path / "a.py"
    file.write_text("x = 1\ny = 2\n", encoding="utf-8")
    _git(tmp_path, "add", ".")
    body = "Fixes #12.\n\nNumbers were lost when the file was empty, fixes other/repo#3.\n\nMore."
    _git(tmp_path, "commit", "-qm", "Keep the first two numbers", "-m", body)
    file.write_text("x = 1\ny = 3\nz = 4\n", encoding="utf-8")
    _git(tmp_path, "commit", "-qam", "Fixes for the last number (#14)", "-m", "It was another one.")
    pairs = {(pair.kind, pair.query): pair.positive for pair in mine_history(tmp_path)}
    issue = "Numbers were lost when the file was empty"
    assert pairs == {
        ("commit", "Fixes for the last number (#14)"): "x = 1\ny = 3\nz = 4",
        ("commit", "Keep the first two numbers"): "x = 1\ny = 2",
        ("issue", issue): "x = 1\ny = 2",
    }


def test_translations_are_functions_of_one_name_in_two_languages(tmp_path: Path) -> None:
    for owner in ("one", "two"):
        (tmp_path / owner).mkdir()
    python = "def read_numbers(text):\n    return [int(x) for x in text.split()]\n"
    script = "function readNumbers(text) {\n  return text.split(' ').map(Number);\n}\n"
    (tmp_path / "one" / "a.py").write_text(python, encoding="utf-8")
    (tmp_path / "one" / "again.py").write_text(python, encoding="utf-8")
    (tmp_path / "one" / "a.js").write_text(script, encoding="utf-8")
    (tmp_path / "two" / "b.java").write_text(JAVA, encoding="utf-8")
    (tmp_path / "two" / "b.js").write_text(script, encoding="utf-8")
    mined = Mined()
    pairs = list(mine_translations(tmp_path, repository=package_of, mined=mined))
    assert {pair.repository for pair in pairs} == {"one"}
    assert [(pair.language, pair.kind) for pair in pairs] == [("python", "translation")] * 2
    assert all("readNumbers" in pair.query and "read_numbers" in pair.positive for pair in pairs)
    assert mined.kept == {"translation": 2}
    into = tmp_path / "pairs.jsonl"
    arguments = ["--into", str(into), "--packages", "--kind", "translation"]
    assert run(app, ["pairs", str(tmp_path), *arguments]) == 0
    rows = [json.loads(line) for line in into.read_text(encoding="utf-8").splitlines()]
    assert [row["repository"] for row in rows] == ["one"]  # near-duplicates are left out
