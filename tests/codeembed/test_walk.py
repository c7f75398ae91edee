"""Which files are taken, and that every other one is accounted for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from codeembed.walk import Skip, Skipped, read_source, walk
from mmembed.errors import InputError

Tree = Callable[[Mapping[str, "str | bytes"]], Path]


def taken(root: Path) -> list[str]:
    found = walk(root)
    return [file.path for file in found.files if isinstance(read_source(root, file.path), bytes)]


def reasons(root: Path) -> dict[str, Skip]:
    found = walk(root)
    late = [read_source(root, file.path) for file in found.files]
    skipped = [*found.skipped, *(each for each in late if isinstance(each, Skipped))]
    return {each.path: each.reason for each in skipped}


def test_nested_ignore_files_with_negation(tree: Tree) -> None:
    root = tree(
        {
            ".gitignore": "*.tmp.py\n/build/\nnotes/**\n!keep.tmp.py\n",
            "a.py": "a",
            "a.tmp.py": "a",
            "keep.tmp.py": "a",
            "build/x.py": "a",
            "src/build/y.py": "a",
            "sub/.gitignore": "!b.tmp.py\nc.py\n",
            "sub/b.tmp.py": "a",
            "sub/c.py": "a",
            "c.py": "a",
            "notes/x.py": "a",
        }
    )
    expected = [".gitignore", "a.py", "c.py", "keep.tmp.py", "src/build/y.py"]
    assert taken(root) == [*expected, "sub/.gitignore", "sub/b.tmp.py"]
    assert reasons(root)["build/"] is Skip.IGNORED
    assert reasons(root)["sub/c.py"] is Skip.IGNORED


def test_an_allow_list_takes_every_folder(tree: Tree) -> None:
    # `*` then `!*/` once left only main.go (semble#88).
    root = tree(
        {
            ".gitignore": "*\n!*/\n!*.go\n",
            "main.go": "package a",
            "x.py": "a",
            "cmd/run/run.go": "package b",
            "cmd/run/run.txt": "no",
        }
    )
    assert taken(root) == ["cmd/run/run.go", "main.go"]


def test_the_own_ignore_file_has_the_last_word(tree: Tree) -> None:
    root = tree(
        {
            ".gitignore": "gen/\nb.py\n",
            ".codeembedignore": "!b.py\na.py\n",
            "a.py": "a",
            "b.py": "b",
            "gen/c.py": "c",
        }
    )
    assert [path for path in taken(root) if path.endswith(".py")] == ["b.py"]


def test_ignore_rules_never_see_the_path_of_the_root(tmp_path: Path) -> None:
    # A rule `tmp` once emptied every folder under /tmp (ck#154).
    root = tmp_path / "tmp" / "node_modules" / "build"
    root.mkdir(parents=True)
    (root / "a.py").write_text("a = 1")
    (root / ".gitignore").write_text("tmp\nbuild\nnode_modules\n")
    assert "a.py" in taken(root)


def test_a_subfolder_is_seen_as_git_sees_it(tree: Tree) -> None:
    root = tree(
        {
            ".git/HEAD": "ref",
            ".gitignore": "/sub/out/\nsecret.py\n",
            "sub/.gitignore": "local.py\n",
            "sub/out/a.py": "a",
            "sub/in/secret.py": "a",
            "sub/in/local.py": "a",
            "sub/in/b.py": "b",
        }
    )
    assert taken(root / "sub") == [".gitignore", "in/b.py"]
    assert taken(root / "sub" / "in") == ["b.py"]


def test_a_repository_inside_a_repository_is_its_own_top(tree: Tree) -> None:
    root = tree(
        {
            ".git/HEAD": "ref",
            ".gitignore": "*.py\n",
            "inner/.git/HEAD": "ref",
            "inner/a.py": "a",
        }
    )
    assert taken(root / "inner") == ["a.py"]
    # Its own rules count from outside as well, and not those of the repository around it.
    (root / "inner" / ".gitignore").write_text("b.py\n")
    (root / "inner" / "b.py").write_text("b")
    (root / "inner" / "c.py").write_text("c")
    (root / ".codeembedignore").write_text("c.py\n")
    assert [path for path in taken(root) if path.endswith(".py")] == ["inner/a.py"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_submodules_and_worktrees_are_walked_as_folders(tmp_path: Path) -> None:
    def git(folder: Path, *words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)

    library, root = tmp_path / "library", tmp_path / "root"
    for folder, name in ((library, "part.py"), (root, "main.py")):
        folder.mkdir()
        git(folder, "init")
        (folder / name).write_text("x = 1\n")
        (folder / ".gitignore").write_text("out.py\n")
        git(folder, "add", ".")
        git(folder, "commit", "-m", "first")
    git(root, "submodule", "add", str(library), "vendor/library")
    git(root, "commit", "-m", "second")
    git(root, "worktree", "add", "trees/other")
    for place in (root, root / "vendor" / "library", root / "trees" / "other"):
        (place / "out.py").write_text("y = 2\n")
    python = [path for path in taken(root) if path.endswith(".py")]
    assert python == ["main.py", "trees/other/main.py", "vendor/library/part.py"]
    # From inside, a submodule and a worktree end at their own top.
    assert "part.py" in taken(root / "vendor" / "library")
    assert taken(root / "trees" / "other") == [".gitignore", ".gitmodules", "main.py"]


def test_links_are_not_followed(tree: Tree, tmp_path: Path) -> None:
    root = tree({"src/a.py": "a = 1"})
    outside = tmp_path / "secret.py"
    outside.write_text("password = 1")
    (root / "src" / "up").symlink_to(root)
    (root / "twice.py").symlink_to(root / "src" / "a.py")
    (root / "gone.py").symlink_to(root / "nothing.py")
    (root / "self.py").symlink_to(root / "self.py")
    (root / "out.py").symlink_to(outside)
    assert taken(root) == ["src/a.py"]
    assert reasons(root) == {
        "gone.py": Skip.BROKEN_LINK,
        "out.py": Skip.OUTSIDE,
        "self.py": Skip.SYMLINK_LOOP,
        "src/up/": Skip.SYMLINK_LOOP,
        "twice.py": Skip.SYMLINK,
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.py", b"", Skip.EMPTY),
        ("blank.py", b"\n \n", Skip.EMPTY),
        ("program", b"\x7fELF\0\0\0", Skip.BINARY),
        ("photo.png", b"\x89PNG\r\n\x1a\n\0\0", Skip.BINARY),
        ("wide.py", "x = 1\n".encode("utf-16"), Skip.UTF16),
        ("bundle.js", b"var a=1;" * 400, Skip.MINIFIED),
        ("table.py", b"x = 1\n" * 300 + b"y" * 60_000, Skip.MINIFIED),
        ("a.min.js", b"a", Skip.GENERATED),
        ("api_pb2.py", b"a = 1", Skip.GENERATED),
        ("a.go", b"// Code generated by x. DO NOT EDIT.\npackage a\n", Skip.GENERATED),
        ("a.ts", b"/**\n * @generated by x\n */\nlet a;\n", Skip.GENERATED),
        ("package-lock.json", b"{}", Skip.LOCK_FILE),
        ("rows.csv", b"a,b\n", Skip.DATA),
        ("big.py", b"x = 1\n" * 200_000, Skip.TOO_LARGE),
    ],
)
def test_what_is_no_source_code_is_left_out(
    tree: Tree, name: str, content: bytes, reason: Skip
) -> None:
    root = tree({name: content, "good.py": "x = 1"})
    assert taken(root) == ["good.py"]
    assert reasons(root) == {name: reason}


def test_default_folders_are_left_out_and_counted(tree: Tree) -> None:
    kept_apart = ("node_modules/a/b.js", ".venv/x.py", "a/__pycache__/x.py", ".mmembed/writer.pid")
    root = tree(dict.fromkeys(kept_apart, "a"))
    assert taken(root) == []
    assert set(reasons(root).values()) == {Skip.DEFAULT_DIR}


def test_speaking_of_generated_code_is_not_being_it(tree: Tree) -> None:
    root = tree({"a.py": 'MARK = "@generated"\n', "b.py": "# Long prose\n" + "word " * 50})
    assert taken(root) == ["a.py", "b.py"]


def test_prose_with_a_paragraph_a_line_is_taken(tree: Tree) -> None:
    assert taken(tree({"a.md": "word " * 500})) == ["a.md"]


def test_text_that_is_not_utf8_is_taken(tree: Tree) -> None:
    assert taken(tree({"a.py": b"x = 'caf\xe9'\n"})) == ["a.py"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folders_and_files_are_told(tree: Tree) -> None:
    root = tree({"locked/a.py": "a", "b.py": "b", "c.py": "c"})
    (root / "locked").chmod(0)
    (root / "b.py").chmod(0)
    try:
        assert taken(root) == ["c.py"]
        assert reasons(root) == {"locked/": Skip.UNREADABLE, "b.py": Skip.UNREADABLE}
    finally:
        (root / "locked").chmod(0o755)


def test_a_folder_that_cannot_be_listed_is_told(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree({"locked/a.py": "a", "b.py": "b"})
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert taken(root) == ["b.py"]
    assert reasons(root) == {"locked/": Skip.UNREADABLE}


def test_special_files_are_not_opened(tree: Tree) -> None:
    root = tree({"a.py": "a"})
    os.mkfifo(root / "pipe.py")
    assert taken(root) == ["a.py"]
    assert reasons(root) == {"pipe.py": Skip.SPECIAL}


def test_names_that_are_not_unicode_are_told(tree: Tree) -> None:
    root = tree({"a.py": "a"})
    try:
        (root / os.fsdecode(b"b\xff.py")).write_text("b")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert reasons(root) == {"b\\udcff.py": Skip.BAD_NAME}


def test_a_root_that_is_no_folder_is_an_error(tree: Tree) -> None:
    root = tree({"a.py": "a"})
    with pytest.raises(InputError, match="is not a folder"):
        walk(root / "a.py")
