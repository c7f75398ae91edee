"""Pages that hold what a command writes, between two marks."""

from __future__ import annotations

from pathlib import Path

__all__ = ["between"]


def between(page: str, marks: tuple[str, str], text: str, file: Path) -> str:
    """The page with the text between its marks.

    Args:
        page: what the file holds.
        file: the page's, for the error.

    Raises:
        SystemExit: the page lacks the marks.
    """
    head, begin, rest = page.partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not begin or not end:
        raise SystemExit(f"{file}: has no {marks[0].strip()} ... {marks[1].strip()}")
    return f"{head}{begin}{text}{end}{tail}"
