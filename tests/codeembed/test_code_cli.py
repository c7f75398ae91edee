"""The ``codeembed`` command: what it prints where, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from word_model import WordModel

from codeembed import CodeIndex
from codeembed.cli import main

Tree = Callable[[Mapping[str, "str | bytes"]], Path]

FILES = {
    "a/net.py": "def retry(request):\n    for _ in range(3):\n        send(request)\n",
    "b/net.go": "package b\n\nfunc Dial() {}\n",
    "c/broken.bin": b"\0\1",
}


@pytest.fixture
def repo(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Path:
    import mmembed.embedder

    monkeypatch.setattr(
        mmembed.embedder.Embedder, "from_pretrained", staticmethod(lambda name: WordModel(name))
    )
    monkeypatch.setattr("codeembed.index.reading_of", lambda name: None)
    monkeypatch.setattr("codeembed.index.static_of", lambda name: None)
    monkeypatch.setattr("codeembed.reading.static_of", lambda name: None)
    monkeypatch.setattr("codeembed.commands.searching.start_filling", lambda *_: None)
    return tree(FILES)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_search_answers_by_words_at_once_and_by_vectors_when_they_are_there(
    repo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []
    monkeypatch.setattr(
        "codeembed.commands.searching.start_filling", lambda root, _: started.append(root)
    )
    search = ("search", "retry", str(repo), "--jsonl", "-k", "2")
    assert run(*search) == 0
    printed = capsys.readouterr()
    assert [json.loads(line)["path"] for line in printed.out.splitlines()] == ["a/net.py"]
    assert "for the first time" in printed.err
    assert "2 chunks are found by words alone so far" in printed.err
    assert started == [repo]
    assert run(*search, "--no-background") == 0
    assert len(started) == 1
    run("index", str(repo))
    capsys.readouterr()
    assert run(*search) == 0
    printed = capsys.readouterr()
    assert (len(started), printed.err) == (1, "")
    hits = [json.loads(line) for line in printed.out.splitlines()]
    assert [hit["path"] for hit in hits] == ["a/net.py", "b/net.go"]
    assert hits[0] == {
        **hits[0],
        "start_line": 1,
        "end_line": 3,
        "symbol": "retry",
        "kind": "function",
        "language": "python",
        "breadcrumb": "a/net.py > def retry",
    }


def test_text_output_points_at_the_lines(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("search", "Dial", str(repo), "-k", "1", "--lines", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("b/net.go:1-3  ")
    assert lines[0].endswith("func Dial")
    assert lines[1:] == ["    package b", ""]


def test_nothing_found_is_one(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("search", "zzzz", str(repo), "--mode", "lexical") == 1
    assert capsys.readouterr().out == ""
    assert run("search", "retry", str(repo), "--glob", "nowhere/**") == 1


def test_filters(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("index", str(repo))
    capsys.readouterr()
    assert run("search", "retry", str(repo), "--lang", "go", "--kind", "function", "--json") == 0
    assert [hit["path"] for hit in json.loads(capsys.readouterr().out)] == ["b/net.go"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "x", "{repo}/nowhere"], "is not a folder"),
        (["search", "x", "{repo}", "--lang", "pyton"], "unknown language 'pyton'"),
        (["search", " ", "{repo}"], "query: is empty"),
        (["status", "{repo}"], "codeembed index"),
        (["search", "x", "{repo}", "--mode", "fuzzy"], "fuzzy"),
    ],
)
def test_errors_are_two_and_one_line(
    repo: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*(each.format(repo=repo) for each in arguments)) == 2
    printed = capsys.readouterr()
    assert message in printed.err + printed.out
    assert "Traceback" not in printed.err


def test_index_reports_and_names_what_is_left_out(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("index", str(repo), "--json") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert (report["files"], report["added"]) == (2, 2)
    assert report["skipped_by_reason"] == {"binary": 1}
    assert "skipped c/broken.bin: binary" in printed.err
    assert run("index", str(repo)) == 0
    assert "2 unchanged; 0 chunks embedded" in capsys.readouterr().out


def test_a_folder_with_nothing_to_index_is_one(repo: Path) -> None:
    assert run("index", str(repo / "c")) == 1


def test_status(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("index", str(repo))
    capsys.readouterr()
    assert run("status", str(repo), "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["files"], status["model"], status["complete"]) == (2, "mini", True)
    assert run("status", str(repo)) == 0
    assert "1 binary" in capsys.readouterr().out


def test_search_takes_up_changes_unless_told_not_to(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("index", str(repo))
    (repo / "new.py").write_text("def freshly_written(): pass\n")
    search = ("search", "freshly_written", str(repo), "--mode", "lexical")
    assert run(*search, "--no-update") == 1
    assert run(*search) == 0


def test_search_goes_on_while_another_process_indexes(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("index", str(repo))
    other = CodeIndex.open(repo)
    assert other._store is not None
    with other._store.writing():
        assert run("search", "retry", str(repo), "--mode", "lexical") == 0
    assert "searching the index as it is" in capsys.readouterr().err


def test_a_query_may_begin_with_a_dash(repo: Path) -> None:
    (repo / "args.py").write_text("parser.add('--no-color')\n")
    assert run("search", "--mode", "lexical", "--", "--no-color", str(repo)) == 0


def test_an_interrupt_is_130(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CodeIndex, "update", interrupt)
    assert run("index", str(repo)) == 130


@pytest.mark.parametrize("command", [[], ["index"], ["search"], ["status"]])
def test_help_has_examples_and_loads_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys, atexit\n"
        "heavy = ('torch', 'numpy', 'lancedb', 'tree_sitter', 'transformers', 'tokenizers')\n"
        "atexit.register(lambda: print('LOADED', [m for m in heavy if m in sys.modules]))\n"
        f"from codeembed.cli import main; main({[*command, '--help']})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"
    if command:
        assert f"codeembed {command[0]}" in done.stdout
        assert "For example:" in done.stdout
