"""Commit messages and issue texts with the code that the commits brought."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from codeembed.languages import UNKNOWN, detect
from codeembed.pairs.mining import Mined
from codeembed.pairs.pair import Kind, Pair
from codeembed.pairs.quality import code_problem, text_problem
from mmembed.errors import InputError

__all__ = ["mine_history"]

_RECORD, _FIELD = "\x1e", "\x1f"
_MOST_FILES = 3
_TRAILER = re.compile(
    r"^\s*(?:[\w-]+\([^)]*\)!?:|(?:feat|fix|chore|docs|refactor|test|perf)!?:)\s*"
)
_CLOSES = re.compile(
    r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?)\b:?\s+(?:[\w./-]*#|GH-|https?://\S+/issues/)\d+",
    re.I,
)
_FOOTER = re.compile(r"^[A-Z][\w-]+-by: ")
_NOISE = re.compile(r"^(?:merge|revert|bump|release|version|update changelog|wip)\b", re.I)


def mine_history(
    folder: Path, *, limit: int = 5000, repository: str = "", mined: Mined | None = None
) -> Iterator[Pair]:
    """A pair for every small commit: the subject, and the lines it added to a source file.

    Where the message closes an issue (``Fixes #12``), its first paragraph below the subject says
    what the issue was: it makes a pair of kind ``issue`` with the same lines.

    Merges, reverts and version bumps are left out, and so are commits of more than three files,
    whose subject says little of each.

    Args:
        folder: A git repository, or a folder in one.
        limit: Newest commits to read.
        repository: Its name; the folder's by default.
        mined: Where to count.

    Raises:
        InputError: git is not installed, or the folder is in no repository.
    """
    counts = mined if mined is not None else Mined()
    form = f"--format={_RECORD}%h{_FIELD}%s{_FIELD}%b{_FIELD}"
    command = ["git", "-C", str(folder), "log", "--no-merges", f"-n{limit}", form, "-p", "-U2"]
    command += ["--no-color", "--no-ext-diff", "--no-textconv", "--diff-filter=AM", "--", "."]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise InputError(str(folder), "git is not installed", "leave commits out") from error
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = told[-1] if told else "git log failed"
        raise InputError(str(folder), reason, "name a git repository with a commit") from error
    owner = repository or folder.resolve().name
    for record in done.stdout.decode("utf-8", "replace").split(_RECORD)[1:]:
        parts = record.split(_FIELD, 3)
        if len(parts) < 4:  # a record separator inside a diff
            continue
        commit, subject, body, diff = parts
        message = _TRAILER.sub("", subject).strip()
        texts: dict[Kind, str] = {"commit": message}
        if _CLOSES.search(f"{subject}\n{body}"):
            texts["issue"] = _first_paragraph(body)
        files = _added(diff)
        for kind, text in texts.items():
            problem = "noise" if _NOISE.match(message) else text_problem(text)
            if len(files) > _MOST_FILES:
                problem = "many-files"
            for path, code in files.items():
                language = detect(path)
                known = "" if language != UNKNOWN else "language"
                reason = problem or code_problem(code) or known
                if reason:
                    counts.dropped[f"{kind}: {reason}"] += 1
                    continue
                counts.kept[kind] += 1
                yield Pair(text, code, kind, language, owner, f"{commit}:{path}")


def _first_paragraph(body: str) -> str:
    """The first paragraph that is more than references to issues, on one line without them."""
    for paragraph in re.split(r"\n\s*\n", body):
        lines = [line for line in paragraph.splitlines() if not _FOOTER.match(line)]
        text = " ".join(_CLOSES.sub("", " ".join(lines)).split()).strip(" .,;:")
        if text:
            return text
    return ""


def _added(diff: str) -> dict[str, str]:
    """By file, the lines that a diff adds with the unchanged ones around them."""
    found: dict[str, list[str]] = {}
    path, inside = "", False
    for line in diff.splitlines():
        if line.startswith("diff --git "):
            path, inside = line.rpartition(" b/")[2], False
        elif line.startswith("@@"):
            inside = True
        elif inside and line[:1] in ("+", " "):
            found.setdefault(path, []).append(line[1:])
    return {path: "\n".join(lines) for path, lines in found.items()}
