"""Ignore rules decide as git does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeembed.ignore import IgnoreRules
from codeembed.walk import walk


@pytest.mark.parametrize(
    ("pattern", "path", "verdict"),
    [
        ("a.py", "a.py", True),
        ("a.py", "x/a.py", True),
        ("/a.py", "x/a.py", None),
        ("x/a.py", "x/a.py", True),
        ("x/a.py", "y/x/a.py", None),
        ("build/", "build", None),
        ("build/", "build/", True),
        ("build/", "x/build/", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("**/b", "a/b", True),
        ("a/**", "a/", None),
        ("a/**", "a/x/y", True),
        ("*.p?", "a.py", True),
        ("*/a", "x/a", True),
        ("*/a", "x/y/a", None),
        ("[!a-c].py", "d.py", True),
        ("[!a-c].py", "b.py", None),
        ("[[:digit:]].py", "1.py", True),
        ("[]x].py", "].py", True),
        ("[x.py", "[x.py", None),
        (r"\#a", "#a", True),
        (r"\!a", "!a", True),
        (r"a\ ", "a ", True),
        ("a  ", "a", True),
        ("!a", "a", False),
        ("# a", "# a", None),
        ("a\r", "a", True),
    ],
)
def test_patterns(pattern: str, path: str, verdict: bool | None) -> None:
    assert IgnoreRules([pattern]).verdict(path) is verdict


FILES = ["a", "b.py", "x/a", "x/b.py", "x/y/a", "x/y/b.py", "x/y/c d", "y/a", "y/x/a", "y/x/b.py"]
PATTERN = st.lists(
    st.sampled_from(["a", "b", ".py", "x", "y", "*", "**", "/", "?", "[ab]", "[!a]", "\\", " "]),
    min_size=1,
    max_size=5,
).map("".join)
LINES = st.lists(st.tuples(st.sampled_from(["", "!"]), PATTERN).map("".join), max_size=6)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@given(top=LINES, inner=LINES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_walk_takes_what_git_would(
    tmp_path_factory: pytest.TempPathFactory, top: list[str], inner: list[str]
) -> None:
    root = tmp_path_factory.mktemp("repo")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    (root / ".gitignore").write_text("\n".join(top))
    (root / "x" / ".gitignore").write_text("\n".join(inner))
    assert {file.path for file in walk(root).files} & set(FILES) == taken_by_git(root) & set(FILES)


def taken_by_git(root: Path) -> set[str]:
    git = ["git", "-c", "core.excludesFile=", "-C", str(root)]
    subprocess.run([*git, "init", "-q"], check=True)
    command = [*git, "ls-files", "-z", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(listed.split("\0"))
