"""The picture in docs/architecture.md, asserted."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "lancedb", "pyarrow", "PIL", "av", "pypdfium2", "peft")

# Package -> what it may import of ours. `errors` is for everybody.
ALLOWED = {
    "mmembed/gpte": ("mmembed.gpte",),
    "mmembed/inputs": ("mmembed.inputs",),
    "mmembed/backbones": ("mmembed.backbones", "mmembed.gpte", "mmembed.inputs"),
    "mmembed/search": (
        "mmembed.search",
        "mmembed.inputs",
        "mmembed.encoded",
        "mmembed.embedder",  # the default model, where an index is opened without one
    ),
    "codeembed": (
        "codeembed",
        "mmembed.embedder",
        "mmembed.encoded",
        "mmembed.search",
        "mmembed.gpte",
        "mmembed.static_vectors",
        "mmembed.commands.output",
    ),
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, lazily or not, but for type checking alone."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                f"{node.module}.{alias.name}" if node.module == "mmembed" else node.module
                for alias in node.names
            )


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package: str, project_root: Path) -> None:
    allowed = (*ALLOWED[package], "mmembed.errors")
    wrong = [
        f"{path.relative_to(project_root)}: {module}"
        for path in sorted((project_root / package).rglob("*.py"))
        for module in imports(path)
        if module.split(".")[0] in ("mmembed", "codeembed")
        and not module.startswith(allowed)
        and module not in ("mmembed.Embedder", "mmembed.__version__")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "statement",
    [
        "import mmembed",
        "import codeembed",
        "from mmembed.cli import main; main(['--help'])",
        "from codeembed.cli import main; main(['--help'])",
        "from mmembed.cli import main; main(['search', '--help'])",
    ],
)
def test_heavy_packages_are_loaded_only_when_used(statement: str) -> None:
    program = (
        f"import sys, atexit\n"
        f"atexit.register(lambda: print('LOADED', [m for m in {HEAVY} if m in sys.modules]))\n"
        f"{statement}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("package", ["mmembed", "codeembed"])
def test_files_fit_in_the_head(package: str, project_root: Path) -> None:
    long = {
        str(path.relative_to(project_root)): lines
        for path in (project_root / package).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 420
    }
    assert long == {}


def test_no_library_code_prints(project_root: Path) -> None:
    printing = [
        f"{path.relative_to(project_root)}:{node.lineno}"
        for package in ("mmembed", "codeembed")
        for path in (project_root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert printing == []
