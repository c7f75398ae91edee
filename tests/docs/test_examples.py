"""What the documentation shows is run: Python blocks, and commands in blocks of sh."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codeembed.cli import app as code_app
from mmembed import Embedder
from mmembed.cli import app
from mmembed.commands.output import run

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"(<!-- not run: [^\n]+ -->\n)?^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
INDENTED = re.compile(r"^ {4}(?:from [\w.]+ import|import \w)", re.MULTILINE)
APPS = {"mmembed": app, "codeembed": code_app}


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The language and text of each block, but for those that say before them why not."""
    for reason, language, body in BLOCK.findall(text):
        if not reason:
            yield language, body


PAGES = [
    file.stem for file in sorted(DOCS.glob("*.md")) if any(blocks(file.read_text(encoding="utf-8")))
]


@pytest.fixture(scope="module")
def mini() -> Embedder:
    """The one model that all examples share, which would load it again and again."""
    return Embedder.from_pretrained("mini")


@pytest.fixture
def desk(
    tmp_path: Path,
    project_root: Path,
    samples: Path,
    mini: Embedder,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder with what the examples name."""
    load = Embedder.from_pretrained

    def loaded(name: str | Path = "mini", **options: Any) -> Embedder:
        return mini if name == "mini" and not options else load(name, **options)

    monkeypatch.setattr(Embedder, "from_pretrained", loaded)
    photos = tmp_path / "photos"
    photos.mkdir()
    for file in sorted((samples / "photos" / "groceries").glob("*.jpg"))[:3]:
        shutil.copy(file, photos)
    first = next(photos.glob("*.jpg"))
    shutil.copy(first, tmp_path / "a.jpg")
    shutil.copy(first, photos / "a.jpg")
    shutil.copy(next((samples / "clips" / "emoji").glob("*.mp4")), tmp_path / "clip.mp4")
    shutil.copy(samples / "pages" / "section-a.pdf", tmp_path / "paper.pdf")
    code = tmp_path / "project"
    code.mkdir()
    for name in ("errors.py", "fingerprint.py"):
        shutil.copy(project_root / "mmembed" / name, code)
    (code / "args.py").write_text("def parse_args(argv):\n    return [a for a in argv if a]\n")
    for folder in ("data", "configs"):
        (tmp_path / folder).symlink_to(project_root / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(line: str) -> int:
    """Run a line of a block of sh in this process."""
    name, *arguments = shlex.split(line, comments=True)
    return run(APPS[name], arguments)


def run_page(text: str) -> int:
    """Run a page's blocks one after the other; how many there were."""
    names: dict[str, Any] = {}
    count = 0
    for language, body in blocks(text):
        count += 1
        if language == "python":
            exec(compile(body, "example", "exec"), names)
            continue
        for line in body.strip().splitlines():
            assert command(line) == 0, line
    return count


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_examples_of_the_documentation_run(page: str, desk: Path) -> None:
    assert run_page((DOCS / f"{page}.md").read_text(encoding="utf-8")) > 0


def test_python_stands_in_blocks_that_are_run_or_say_why_not() -> None:
    assert len(PAGES) >= 12
    for file in DOCS.glob("*.md"):
        text = file.read_text(encoding="utf-8")
        outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        assert INDENTED.findall(outside) == [], file.name
        assert len(re.findall(r"<!-- not run", text)) == sum(
            bool(m[0]) for m in BLOCK.findall(text)
        )
    reason = "<!-- not run: it needs a hub -->\n"
    assert list(blocks(f"{reason}```python\nx\n```\n\n```sh\ny\n```\n")) == [("sh", "y\n")]


@pytest.mark.slow
def test_the_twenty_lines_of_the_readme_run(desk: Path, project_root: Path) -> None:
    text = (project_root / "README.md").read_text(encoding="utf-8")
    shown = text[text.index("## The API in twenty lines") :]
    (code, *_) = (body for language, body in blocks(shown) if language == "python")
    exec(compile(code, "README", "exec"), {})


def test_blocks_are_found_and_failures_fail(desk: Path) -> None:
    assert run_page("```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 1\n```\n") == 2
    with pytest.raises(AssertionError):
        run_page("```python\nassert False\n```\n")
    with pytest.raises(AssertionError, match="nope"):
        run_page("```sh\nmmembed eval nope\n```\n")
