"""From a file of seeds to a file of training rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.synthesis.endpoint import Endpoint, EndpointError
from mmembed.synthesis.methods import Method

__all__ = ["Made", "make_rows"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Made:
    """What became of the seeds.

    Attributes:
        seeds: read.
        rows: written.
        unusable: answers that gave no row.
        failed: seeds that could not be asked about, or were not answered.
    """

    seeds: int = 0
    rows: int = 0
    unusable: int = 0
    failed: int = 0


def make_rows(method: Method, endpoint: Endpoint, seeds: Path, into: Path) -> Made:
    """Ask about every line of a JSONL file, and write the rows in its order.

    The file is written as a whole at the end; answers are kept by the endpoint as they come, so the
    same call after a stop asks for what is missing only.

    Raises:
        InputError: a line is no JSON object, or lacks what the method needs; names the line.
        BudgetError: the budget of tokens is spent.
    """
    made = Made()
    partial = into.with_name(f".{into.name}.partial")
    into.parent.mkdir(parents=True, exist_ok=True)
    found = [*_seeds(seeds)]
    # All are worded before any is paid for.
    questions = [_worded(method, seed, f"{seeds}:{number}") for number, seed in found]
    with partial.open("w", encoding="utf-8") as stream:
        for (_, seed), answer in zip(found, endpoint.ask(questions), strict=True):
            made.seeds += 1
            if isinstance(answer, EndpointError):
                made.failed += 1
                continue
            rows = method.rows(seed, answer)
            made.unusable += not rows
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                made.rows += 1
    partial.replace(into)
    _log.info("%s: %s", into, made)
    return made


def _worded(method: Method, seed: Mapping[str, Any], place: str) -> Any:
    try:
        return method.question(seed)
    except InputError as error:
        raise InputError(place, f"{error.source}: {error.reason}", error.hint) from None


def _seeds(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(file), f"cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            seed = json.loads(line)
        except ValueError:
            seed = None
        if not isinstance(seed, dict):
            raise InputError(f"{file}:{number}", "is no JSON object", "one object a line")
        yield number, seed
