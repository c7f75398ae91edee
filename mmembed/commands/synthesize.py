"""``mmembed synthesize``."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmembed.commands.output import EXIT_OK, Output
from mmembed.errors import ConfigError, InputError

__all__ = ["synthesize"]


def synthesize(
    method: str,
    seeds: Path,
    into: Path,
    endpoint: str,
    model: str,
    examples: Path | None,
    cache: Path | None,
    budget: int | None,
    concurrency: int,
    output: Output,
) -> int:
    """Ask about every seed, and write the rows.

    Raises:
        ConfigError: there is no such method (names the nearest), or examples for one without.
        InputError, BudgetError: as :func:`mmembed.synthesis.running.make_rows`.
    """
    from mmembed.synthesis.endpoint import Endpoint
    from mmembed.synthesis.methods import METHODS, Promptagator
    from mmembed.synthesis.running import make_rows

    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(METHODS)}"
        raise ConfigError(f"no method {method!r}; {hint}")
    options: dict[str, Any] = {}
    if method == Promptagator.name:
        if examples is None:
            raise ConfigError("promptagator needs --examples of the task, two to eight")
        options["examples"] = _examples(examples)
    elif examples is not None:
        raise ConfigError(f"{method} takes no examples")
    made = make_rows(
        METHODS[method](**options),
        Endpoint(
            endpoint,
            model,
            cache or into.with_name(into.name + ".answers.jsonl"),
            budget=budget,
            concurrency=concurrency,
        ),
        seeds,
        into,
    )
    output.result(
        asdict(made),
        f"{made.rows} rows of {made.seeds} seeds in {into}; {made.unusable} answers were of no "
        f"use, and {made.failed} seeds got none",
    )
    return EXIT_OK


def _examples(file: Path) -> list[tuple[str, str]]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
        return [(row["text"], row["query"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "give text and query in every line"
        raise InputError(str(file), f"holds no examples: {error!r}", hint) from None
