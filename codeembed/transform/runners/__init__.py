"""What runs the functions of each language."""

from __future__ import annotations

from collections.abc import Mapping

from codeembed.transform.runners.c import C
from codeembed.transform.runners.cpp import Cpp
from codeembed.transform.runners.csharp import CSharp
from codeembed.transform.runners.go import Go
from codeembed.transform.runners.java import Java
from codeembed.transform.runners.runner import Runner
from codeembed.transform.runners.rust import Rust
from codeembed.transform.runners.scripted import JAVASCRIPT, PHP, PYTHON, RUBY, TYPESCRIPT

__all__ = ["RUNNERS"]

RUNNERS: Mapping[str, Runner] = {
    "python": PYTHON,
    "javascript": JAVASCRIPT,
    "typescript": TYPESCRIPT,
    "php": PHP,
    "ruby": RUBY,
    "c": C(),
    "cpp": Cpp(),
    "java": Java(),
    "csharp": CSharp(),
    "go": Go(),
    "rust": Rust(),
}
"""Languages that are executed where their programs are installed."""
