"""The languages that code can be transformed in: :class:`Syntax` for each, data only."""

from __future__ import annotations

from codeembed.transform.syntax import Syntax
from codeembed.transform.syntaxes.compiled import CPP, CSHARP, GO, JAVA, RUST, C
from codeembed.transform.syntaxes.scripted import JAVASCRIPT, PHP, PYTHON, RUBY, TYPESCRIPT

__all__ = ["SYNTAXES"]

SYNTAXES: dict[str, Syntax] = {
    "python": PYTHON,
    "javascript": JAVASCRIPT,
    "typescript": TYPESCRIPT,
    "tsx": TYPESCRIPT,
    "java": JAVA,
    "go": GO,
    "c": C,
    "cpp": CPP,
    "php": PHP,
    "ruby": RUBY,
    "csharp": CSHARP,
    "rust": RUST,
}
"""Syntax by the language's name; other languages have no transformations."""
