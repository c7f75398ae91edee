"""Ignore files as git reads them.

A pattern is matched against one path only, never against the folders above it: the walk goes from
the top down and does not enter an ignored folder. (``pathspec`` matches parents along, so that the
allow-list ``*``, ``!*/``, ``!*.go`` takes no folder with it.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["IgnoreRules"]

_POSIX_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
_WILDCARD = re.compile(r"[*?\[\\]")
_POSIX_CLASS = re.compile(r"\[:(\w+):\]")


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: re.Pattern[str]
    ignores: bool
    folders_only: bool
    whole_path: bool

    def matches(self, path: str) -> bool:
        """Whether it matches this very path; a folder ends with ``/``."""
        if self.folders_only and not path.endswith("/"):
            return False
        path = path.rstrip("/")
        name = path if self.whole_path else path.rsplit("/", 1)[-1]
        return self.regex.fullmatch(name) is not None


class IgnoreRules:
    """The patterns of one ignore file, for paths relative to the folder that it is in."""

    def __init__(self, lines: Iterable[str]) -> None:
        # The last pattern that matches decides, so they are tried from the end.
        self._patterns = list(_patterns(lines))[::-1]

    def verdict(self, path: str) -> bool | None:
        """True for ignored, False for taken back, None where no pattern matches.

        Args:
            path: With ``/``; a folder ends with one.
        """
        return next((each.ignores for each in self._patterns if each.matches(path)), None)

    def verdict_below(self, path: str) -> bool | None:
        """The same where a pattern that matches a folder holds for everything inside it."""
        parts = path.rstrip("/").split("/")
        above = ["/".join(parts[:depth]) + "/" for depth in range(1, len(parts))]
        for pattern in self._patterns:
            if any(pattern.matches(each) for each in (path, *above)):
                return pattern.ignores
        return None


def _patterns(lines: Iterable[str]) -> Iterator[_Pattern]:
    for line in lines:
        text = _without_trailing_spaces(line.removesuffix("\n").removesuffix("\r"))
        if not text or text.startswith("#"):
            continue
        ignores = not text.startswith("!")
        text = text if ignores else text[1:]
        folders_only = text.endswith("/")
        text = text.removesuffix("/")
        whole_path = "/" in text
        expression = _translate(text.removeprefix("/"))
        if expression is None or not text:
            continue
        try:
            regex = re.compile(expression, re.DOTALL)
        except re.error:
            continue  # git, too, passes over a pattern that it cannot read
        yield _Pattern(regex, ignores, folders_only, whole_path)


def _without_trailing_spaces(text: str) -> str:
    stripped = text.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    # An odd backslash keeps the space behind it.
    return stripped + " " if backslashes % 2 and len(stripped) < len(text) else stripped


def _translate(glob: str) -> str | None:
    """A wildmatch pattern as a regular expression; None where it can match nothing."""
    parts = []
    at = 0
    while at < len(glob):
        char = glob[at]
        if char == "*":
            stars = len(glob) - at - len(glob[at:].lstrip("*"))
            before, after = glob[:at], glob[at + stars :]
            at += stars
            ends = not after or after.startswith(("/", "\\/"))
            # git matches what is before the first wildcard apart: to it `a**/b` begins with `**`.
            begins = before.endswith("/") or not _WILDCARD.search(before)
            if stars > 1 and begins and ends:
                if after.startswith("/"):
                    parts.append("(?:.*/)?")
                    at += 1
                else:
                    parts.append(".*")
            else:
                parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
            at += 1
        elif char == "[":
            found = _bracket(glob, at)
            if found is None:
                return None
            part, at = found
            parts.append(part)
        elif char == "\\":
            if at + 1 == len(glob):
                return None
            parts.append(re.escape(glob[at + 1]))
            at += 2
        else:
            parts.append(re.escape(char))
            at += 1
    return "".join(parts)


def _bracket(glob: str, start: int) -> tuple[str, int] | None:
    """A ``[...]`` at ``start`` as a character class, and where it ends."""
    at = start + 1
    negated = glob[at : at + 1] in ("!", "^")
    at += negated
    body = ""
    first = True
    while first or glob[at : at + 1] != "]":
        first = False
        if at >= len(glob):
            return None
        posix = _POSIX_CLASS.match(glob, at)
        if posix:
            if posix[1] not in _POSIX_CLASSES:
                return None
            body += _POSIX_CLASSES[posix[1]]
            at = posix.end()
            continue
        char = glob[at]
        if char == "\\":
            at += 1
            if at >= len(glob):
                return None
            char = glob[at]
        elif char == "-" and body and glob[at + 1 : at + 2] not in ("", "]"):
            body += "-"
            at += 1
            continue
        body += re.escape(char)
        at += 1
    return (f"(?!/)[{'^' if negated else ''}{body}]", at + 1)
