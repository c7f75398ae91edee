"""The languages whose grammar is installed, as data.

A :class:`Language` says which files it owns and where its tree-sitter grammar comes from. What
counts as a definition is a tree-sitter query beside this file, ``queries/<query>.scm``:

* a capture named after a kind (``@class``, ``@function``, ...) is a definition, its ``@name``
  capture is the symbol;
* ``@comment`` and ``@attached`` (decorators, attributes) mark nodes that belong to the definition
  directly below them.

To add a language, add one entry to :data:`LANGUAGES` and one query file. Those of the extra
``all-languages`` are :data:`PACK_LANGUAGES` and have no query.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import PurePath
from typing import TYPE_CHECKING

from codeembed.pack_languages import PACK_SUFFIXES, module_of
from mmembed.errors import ConfigError

if TYPE_CHECKING:
    import tree_sitter

__all__ = [
    "CONTAINER_KINDS",
    "LANGUAGES",
    "PACK_LANGUAGES",
    "TEXT_FORMATS",
    "Language",
    "detect",
    "grammar",
    "known_names",
    "language",
    "normalise_name",
    "pack_language",
    "query_source",
]

CONTAINER_KINDS = frozenset(
    {"class", "interface", "struct", "trait", "enum", "impl", "object", "extension", "protocol"}
)
"""Kinds whose functions are methods."""


@dataclass(frozen=True, slots=True)
class Language:
    """One programming language.

    Attributes:
        name: Lower-case name, as used by the ``language`` filter.
        suffixes: File suffixes with their dot, lower case.
        module: Python module of the grammar wheel.
        entry: Function of ``module`` that returns the grammar.
        query: Stem of the file in ``queries/``.
        file_names: Whole file names, for files without a suffix.
        interpreters: Names that a ``#!`` line may end with (digits and dots are ignored).
        aliases: Other names accepted by filters.
        words: Kind to the keyword shown in a breadcrumb, where it is not the kind itself.
        fragment_entry: Entry for sources without ``fragment_marker`` (PHP without ``<?php`` parses
            as plain text otherwise).
        fragment_marker: See ``fragment_entry``.
        keywords: If there are any, all that the query finds but comments of one row begins with
            one of these, holds it directly, or is held directly by what does.
        line_comment: How a comment to the end of its row begins, where there are ``keywords``.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    entry: str = "language"
    query: str = ""
    file_names: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    words: dict[str, str] = field(default_factory=dict, hash=False)
    fragment_entry: str = ""
    fragment_marker: bytes = b""
    keywords: tuple[bytes, ...] = ()
    line_comment: bytes = b""

    def word(self, kind: str) -> str:
        """The keyword for ``kind`` in a breadcrumb, e.g. ``def`` for a Python method."""
        return self.words.get(kind, kind)

    def entry_for(self, source: bytes) -> str:
        """The grammar entry that fits this source."""
        if self.fragment_entry and self.fragment_marker not in source:
            return self.fragment_entry
        return self.entry


def _functions(word: str) -> dict[str, str]:
    return {"function": word, "method": word}


_ALL = (
    Language(
        "python",
        (".py", ".pyi", ".pyw"),
        "tree_sitter_python",
        file_names=("SConstruct", "SConscript", "wscript"),
        interpreters=("python", "pypy"),
        aliases=("py",),
        words=_functions("def"),
        keywords=(b"def", b"class", b"type ", b"@"),
        line_comment=b"#",
    ),
    Language(
        "javascript",
        (".js", ".mjs", ".cjs", ".jsx"),
        "tree_sitter_javascript",
        interpreters=("node", "nodejs"),
        aliases=("js", "jsx"),
        words={"method": "function"},
    ),
    Language(
        "typescript",
        (".ts", ".mts", ".cts"),
        "tree_sitter_typescript",
        "language_typescript",
        interpreters=("deno", "bun", "ts-node"),
        aliases=("ts",),
        words={"method": "function"},
    ),
    # The TSX grammar reads `<T>x` as an element, so it must not be used for plain .ts files.
    Language(
        "tsx",
        (".tsx",),
        "tree_sitter_typescript",
        "language_tsx",
        query="typescript",
        words={"method": "function"},
    ),
    Language("java", (".java",), "tree_sitter_java"),
    Language(
        "go",
        (".go",),
        "tree_sitter_go",
        aliases=("golang",),
        words=_functions("func"),
        keywords=(b"func", b"type", b"/*"),
        line_comment=b"//",
    ),
    Language(
        "php",
        (".php", ".phtml", ".inc"),
        "tree_sitter_php",
        "language_php",
        interpreters=("php",),
        words={"method": "function"},
        fragment_entry="language_php_only",
        fragment_marker=b"<?",
    ),
    Language(
        "ruby",
        (".rb", ".rake", ".gemspec", ".ru"),
        "tree_sitter_ruby",
        file_names=("Rakefile", "Gemfile", "Guardfile", "Vagrantfile", "Podfile"),
        interpreters=("ruby",),
        aliases=("rb",),
        words=_functions("def"),
        keywords=(b"def", b"class", b"module", b"=begin"),
        line_comment=b"#",
    ),
    Language("c", (".c", ".h"), "tree_sitter_c"),
    Language(
        "cpp",
        (".cpp", ".cc", ".cxx", ".c++", ".hpp", ".hh", ".hxx", ".h++", ".ipp", ".cu", ".cuh"),
        "tree_sitter_cpp",
        aliases=("c++", "cxx"),
        words={"module": "namespace"},
    ),
    Language(
        "csharp",
        (".cs",),
        "tree_sitter_c_sharp",
        aliases=("c#", "cs", "c-sharp"),
        words={"module": "namespace"},
    ),
    Language(
        "rust",
        (".rs",),
        "tree_sitter_rust",
        aliases=("rs",),
        words={**_functions("fn"), "module": "mod"},
    ),
    Language(
        "kotlin", (".kt", ".kts"), "tree_sitter_kotlin", aliases=("kt",), words=_functions("fun")
    ),
    Language("scala", (".scala", ".sc", ".sbt"), "tree_sitter_scala", words=_functions("def")),
    Language("swift", (".swift",), "tree_sitter_swift", words=_functions("func")),
    Language(
        "lua",
        (".lua",),
        "tree_sitter_lua",
        interpreters=("lua", "luajit"),
        words={"method": "function"},
    ),
    Language(
        "bash",
        (".sh", ".bash", ".zsh", ".ksh"),
        "tree_sitter_bash",
        file_names=(".bashrc", ".bash_profile", ".profile", ".zshrc"),
        interpreters=("sh", "bash", "zsh", "dash", "ksh"),
        aliases=("sh", "shell", "zsh"),
    ),
)

LANGUAGES: dict[str, Language] = {language.name: language for language in _ALL}

PACK_LANGUAGES: dict[str, Language] = {
    name: Language(name, tuple(suffixes.split()), module_of(name))
    for name, suffixes in PACK_SUFFIXES.items()
}
"""Languages without a query, of the extra ``all-languages``: see :mod:`codeembed.foreign`."""

TEXT_FORMATS: dict[str, str] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".mdx": "markdown",
    ".rst": "rst",
    ".txt": "text",
    ".ipynb": "notebook",
    ".json": "json",
    ".jsonc": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
    ".ini": "ini",
    ".cfg": "ini",
    ".conf": "ini",
    ".xml": "xml",
    ".html": "html",
    ".htm": "html",
    ".css": "css",
    ".scss": "css",
    ".less": "css",
    ".sql": "sql",
    ".proto": "proto",
    ".cmake": "cmake",
    ".tex": "tex",
}
"""Suffix to name of formats that are cut by lines or headings: no grammar, not "unknown" either."""

_BY_SUFFIX = {
    suffix: lang for lang in (*PACK_LANGUAGES.values(), *_ALL) for suffix in lang.suffixes
}
_BY_FILE_NAME = {name: lang for lang in _ALL for name in lang.file_names}
_BY_INTERPRETER = {name: lang for lang in _ALL for name in lang.interpreters}
_BY_ALIAS = {alias: lang.name for lang in _ALL for alias in lang.aliases}
_TEXT_FILE_NAMES = {"Dockerfile": "dockerfile", "Makefile": "make", "CMakeLists.txt": "cmake"}
_CPP_HEADER = re.compile(
    rb"^\s*(?:class\s+\w|namespace\b|template\s*<|using\s+\w|public:|private:|extern\s+\"C\")",
    re.MULTILINE,
)
# Suffixes of two languages, and what the one that is not in _BY_SUFFIX looks like.
_SHARED_SUFFIXES = {
    ".h": ("cpp", _CPP_HEADER),
    ".m": (
        "objc",
        re.compile(rb"^\s*(?:#import\b|@(?:interface|implementation|import|class)\b)", re.M),
    ),
    ".v": ("verilog", re.compile(rb"^\s*(?:module\s+\w+\s*[(#;]|`timescale\b)", re.M)),
}
UNKNOWN = "unknown"


def detect(path: str, head: bytes = b"") -> str:
    """Name of the language or text format of a file; ``"unknown"`` when there is none.

    Args:
        path: File name or path; only its last part is read.
        head: First bytes of the file, for ``#!`` lines and suffixes that two languages share.
    """
    pure = PurePath(path)
    suffix = pure.suffix.lower()
    if suffix in _SHARED_SUFFIXES:
        other, look = _SHARED_SUFFIXES[suffix]
        if look.search(head):
            return other
    lang = _BY_FILE_NAME.get(pure.name) or _BY_SUFFIX.get(suffix)
    if lang is not None:
        return lang.name
    text = _TEXT_FILE_NAMES.get(pure.name) or TEXT_FORMATS.get(suffix)
    if text is not None:
        return text
    if not suffix and head.startswith(b"#!"):
        lang = _BY_INTERPRETER.get(_interpreter(head))
        if lang is not None:
            return lang.name
    return UNKNOWN


def _interpreter(head: bytes) -> str:
    """The program of a ``#!`` line, past ``env`` and its options, without a version."""
    line = head.partition(b"\n")[0].removeprefix(b"#!").decode("utf-8", "replace")
    programs = [PurePath(word).name for word in line.split() if not word.startswith("-")]
    if programs[:1] == ["env"]:
        del programs[0]
    return programs[0].rstrip("0123456789.") if programs else ""


def language(name: str) -> Language | None:
    """The language of that name, or None for those without a query, text formats and unknown."""
    return LANGUAGES.get(name)


def pack_language(name: str) -> Language | None:
    """The language of that name if its grammar comes with ``all-languages``, else None."""
    return PACK_LANGUAGES.get(name)


def known_names() -> list[str]:
    """Every name that a file can be given by :func:`detect`, sorted."""
    texts = {*TEXT_FORMATS.values(), *_TEXT_FILE_NAMES.values(), UNKNOWN}
    return sorted({*LANGUAGES, *PACK_LANGUAGES, *texts})


def normalise_name(name: str) -> str:
    """The canonical name behind ``py``, ``C++``, ``sh`` and the like.

    Raises:
        ConfigError: if no language or text format has that name.
    """
    lowered = name.lower()
    lowered = _BY_ALIAS.get(lowered, lowered)
    if lowered not in known_names():
        raise ConfigError(f"unknown language {name!r}; known: {', '.join(known_names())}")
    return lowered


@cache
def grammar(module: str, entry: str) -> tree_sitter.Language:
    """The loaded grammar; one object per process, since it cannot be pickled."""
    import tree_sitter

    return tree_sitter.Language(getattr(importlib.import_module(module), entry)())


def query_source(lang: Language) -> str:
    """Text of the query that finds this language's definitions."""
    name = f"{lang.query or lang.name}.scm"
    return (resources.files("codeembed") / "queries" / name).read_text(encoding="utf-8")
