"""``mmembed report`` and ``mmembed compare``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mmembed.commands.output import EXIT_NOTHING, EXIT_OK, Output
from mmembed.errors import ConfigError

__all__ = ["compare", "report"]


def report(
    runs: Path,
    output: Path = Path("report.html"),
    /,
    *,
    against: Path | None = None,
    title: str = "Evaluation",
) -> int:
    """Write a report on saved runs: leaderboard, plots, failures with their pictures, probes.

    For example:

        mmembed report runs

        mmembed report runs report.md --against runs-of-last-month

    Args:
        runs: A folder of mmembed eval --save and mmembed probe --save.
        output: The report's file, .html or .md.
        against: A folder of earlier runs or baselines that stand beside these.
        title: The report's heading.
    """
    from mmembed.evaluation.reports import build_report, write_html, write_markdown
    from mmembed.evaluation.runs import read_runs

    writers = {".html": write_html, ".md": write_markdown}
    if output.suffix not in writers:
        raise ConfigError(f"{output}: reports are .html or .md files")
    earlier = read_runs(against) if against is not None else []
    made = build_report(read_runs(runs), earlier, title)
    Output().result({}, str(writers[output.suffix](made, output)))
    return EXIT_OK


def compare(
    before: Path,
    after: Path,
    /,
    *,
    tolerance: float = 0.01,
    json: Annotated[
        bool, Parameter(name="--json", negative="", help="JSON lines on standard output.")
    ] = False,
) -> int:
    """Compare two folders of saved runs; status 1 if something became worse.

    For example:

        mmembed compare runs-of-main runs-of-this-branch --tolerance 0.005

    Args:
        before: The earlier runs.
        after: The later runs.
        tolerance: How much a main metric may fall; falls that may be chance are not counted.
    """
    from mmembed.evaluation.reports.compare import compare_runs
    from mmembed.evaluation.runs import read_runs

    output = Output(json=json)
    changes = compare_runs(read_runs(before), read_runs(after), tolerance)
    for change in changes:
        output.result(asdict(change), str(change))
    return EXIT_NOTHING if any(change.worse for change in changes) else EXIT_OK
