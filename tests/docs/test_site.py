"""The documentation holds together: links, the site's build, and docstrings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
UNWRITTEN = "<!-- tables: start -->\n<!-- tables: end -->"  # no command has filled the page yet
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> list[Path]:
    """Every Markdown file that people read."""
    return [*root.glob("*.md"), *(root / "docs").glob("*.md"), *(root / "mmembed").rglob("*.md")]


def anchors(file: Path) -> set[str]:
    """What a heading is linked by, as GitHub and myst make it."""
    found = set()
    for line in FENCE.sub("", file.read_text(encoding="utf-8")).splitlines():
        if line.startswith("#"):
            words = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
            found.add(words.replace(" ", "-"))
    return found


def test_links_lead_to_files_and_headings(project_root: Path) -> None:
    broken = []
    for page in pages(project_root):
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        if UNWRITTEN in text:
            continue
        for match in LINK.finditer(text):
            target = match.group(1) or match.group(2)
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.relative_to(project_root)}: {target}")
    assert broken == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(project_root: Path, tmp_path: Path) -> None:
    build = pytest.importorskip("sphinx.cmd.build")
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    arguments = ["-q", "-W", "--keep-going", "-d", str(tmp_path / "trees")]
    docs = str(project_root / "docs")
    assert build.main([*arguments, docs, str(tmp_path / "site")]) == 0
    page = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    assert "encode_query" in page
    assert "late_chunks" in page


def documented(project_root: Path) -> tuple[list[str], int]:
    """Public names without a docstring, and how many public names there are.

    Public are modules, what stands in them without an underscore before its name, and the methods
    of such classes. A method that a protocol or base class of the project documents is documented
    there.
    """
    files = [
        file
        for package in ("mmembed", "codeembed")
        for file in sorted((project_root / package).rglob("*.py"))
    ]
    trees = {file: ast.parse(file.read_bytes()) for file in files}
    contracts = {
        method.name
        for tree in trees.values()
        for one in ast.walk(tree)
        if isinstance(one, ast.ClassDef)
        for method in one.body
        if isinstance(method, FUNCTIONS) and ast.get_docstring(method)
    }
    missing, count = [], 0
    for file, tree in trees.items():
        place = file.relative_to(project_root)
        count += 1
        if not ast.get_docstring(tree):
            missing.append(f"{place}: the module")
        for node in tree.body:
            if not isinstance(node, (*FUNCTIONS, ast.ClassDef)) or node.name.startswith("_"):
                continue
            count += 1
            if not ast.get_docstring(node):
                missing.append(f"{place}:{node.lineno} {node.name}")
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if not isinstance(method, FUNCTIONS) or method.name.startswith("_"):
                    continue
                count += 1
                if not ast.get_docstring(method) and method.name not in contracts:
                    missing.append(f"{place}:{method.lineno} {node.name}.{method.name}")
    return missing, count


def test_everything_public_has_a_docstring(project_root: Path) -> None:
    missing, count = documented(project_root)
    assert count > 1500
    assert missing == []
