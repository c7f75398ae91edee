"""From saved runs to a report: leaderboard, then each benchmark, then each probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mmembed.evaluation.reports.blocks import (
    Block,
    Chart,
    Failure,
    Gallery,
    Paragraph,
    Report,
    Section,
    Table,
)
from mmembed.evaluation.reports.svg import bars, curves, points

__all__ = ["build_report"]

Run: TypeAlias = Mapping[str, Any]


def build_report(
    runs: Sequence[Run], earlier: Sequence[Run] = (), title: str = "Evaluation"
) -> Report:
    """The report on runs of any number of models.

    Args:
        runs: records of :func:`mmembed.evaluation.runs.read_runs`.
        earlier: older runs or baselines, which stand beside the others as ``NAME (earlier)``.
        title: the report's heading.
    """
    every = [*runs, *({**run, "model": f"{_short(run['model'])} (earlier)"} for run in earlier)]
    measured = [run for run in every if run["kind"] == "eval"]
    probed = [run for run in every if run["kind"] == "probe"]
    sections = [_leaderboard(measured)] if measured else []
    for name in dict.fromkeys(run["benchmark"] for run in measured):
        sections.append(_benchmark(name, [run for run in measured if run["benchmark"] == name]))
    for name in dict.fromkeys(run["probe"] for run in probed):
        sections.append(_probe(name, [run for run in probed if run["probe"] == name]))
    return Report(title, sections)


def _leaderboard(runs: Sequence[Run]) -> Section:
    """Models by the mean over the benchmarks that all of them ran."""
    models = list(dict.fromkeys(_short(run["model"]) for run in runs))
    names = list(dict.fromkeys(run["benchmark"] for run in runs))
    score = {(_short(run["model"]), run["benchmark"]): float(run["score"]) for run in runs}
    common = [name for name in names if all((model, name) in score for model in models)]
    mean = {m: float(np.mean([score[m, n] for n in common])) if common else 0.0 for m in models}
    order = sorted(models, key=lambda model: -mean[model])
    rows = [
        [
            model,
            f"{mean[model]:.4f}" if common else "–",
            *(f"{score[model, name]:.4f}" if (model, name) in score else "–" for name in names),
        ]
        for model in order
    ]
    about = f"the mean is over what all models ran: {', '.join(common)}" if common else "no mean"
    chart = bars({name: {m: score[m, name] for m in order if (m, name) in score} for name in names})
    return Section(
        "Leaderboard",
        [
            Paragraph(f"Main metric of each benchmark; {about}."),
            Table(["model", "mean", *names], rows),
            Chart("leaderboard", chart, "main metric by benchmark and model"),
        ],
    )


def _benchmark(name: str, runs: Sequence[Run]) -> Section:
    first = runs[0]
    about = f"Split: {first['split']}. Licence of the data: {first['licence']}."
    subsets = list(dict.fromkeys(subset for run in runs for subset in run["subsets"]))
    blocks: list[Block] = [Paragraph(about), _figures(runs, subsets)]
    by_subset = {
        subset: {
            _short(run["model"]): _main(run["subsets"][subset])[0]
            for run in runs
            if subset in run["subsets"]
        }
        for subset in subsets
    }
    blocks.append(Chart(f"{name}-subsets", bars(by_subset, first["main"]), "by subset and model"))
    for kind, words in (("dimensions", "kept dimensions"), ("quantisation", "how it is stored")):
        lines = {
            _short(run["model"]): run["curves"][kind]
            for run in runs
            if run.get("curves", {}).get(kind)
        }
        if lines:
            drawn = curves(lines, first["main"], words)
            blocks.append(Chart(f"{name}-{kind}", drawn, f"{first['main']} by {words}"))
    speed = {
        _short(run["model"]): (1000 * run["seconds"] / run["items"], float(run["score"]))
        for run in runs
        if run.get("items") and run.get("seconds")
    }
    if speed:
        drawn = points(speed, "ms an item", first["main"])
        blocks.append(Chart(f"{name}-latency", drawn, "quality by time of an item"))
    for run in runs:
        blocks += _galleries(run)
    return Section(f"Benchmark {name}", blocks)


def _figures(runs: Sequence[Run], subsets: Sequence[str]) -> Table:
    rows = []
    for run in runs:
        for subset in subsets:
            if (one := run["subsets"].get(subset)) is None:
                continue
            value, low, high = _main(one)
            rows.append(
                [
                    _short(run["model"]),
                    subset,
                    one["main"],
                    f"{value:.4f} [{low:.4f}, {high:.4f}]",
                    str(one["queries"]),
                    str(one["candidates"] or "–"),
                ]
            )
    return Table(["model", "subset", "metric", "value [95 %]", "queries", "candidates"], rows)


def _galleries(run: Run) -> list[Block]:
    galleries: list[Block] = []
    for subset, failures in run.get("failures", {}).items():
        if failures:
            found = [Failure(f["query"], f["wanted"], f["rank"], f["found"]) for f in failures]
            galleries.append(Gallery(f"Failures of {_short(run['model'])}, {subset}", found))
    return galleries


def _probe(name: str, runs: Sequence[Run]) -> Section:
    blocks: list[Block] = [Paragraph(f"After {runs[0]['reference']}.")]
    figures = list(dict.fromkeys(key for run in runs for key in run["figures"]))
    rows = [
        [key, *(f"{run['figures'][key]:.4f}" if key in run["figures"] else "–" for run in runs)]
        for key in figures
    ]
    blocks.append(Table(["figure", *(_short(run["model"]) for run in runs)], rows))
    for run in runs:
        for title, table in run["tables"].items():
            blocks.append(_cells(f"{title} ({_short(run['model'])})", table))
            if title == "hit@1 by strength":
                for row, one in table.items():
                    slug = "-".join(row.replace(":", "").split())
                    drawn = curves({_short(run["model"]): one}, "hit@1", row)
                    blocks.append(Chart(f"{name}-{slug}", drawn, f"hit@1 under {row}"))
    return Section(f"Probe {name}", blocks)


def _cells(label: str, table: Mapping[str, Mapping[str, float]]) -> Table:
    """A column a key, or where rows have keys of their own, each row's values in one cell."""
    columns = list(dict.fromkeys(key for cells in table.values() for key in cells))
    if all(list(cells) == columns for cells in table.values()):
        rows = [[row, *(f"{value:.4f}" for value in one.values())] for row, one in table.items()]
        return Table([label, *columns], rows)
    told = [
        [row, "; ".join(f"{key}: {value:.4f}" for key, value in one.items())]
        for row, one in table.items()
    ]
    return Table([label, "values"], told)


def _main(one: Mapping[str, Any]) -> tuple[float, float, float]:
    value, low, high = one["metrics"][one["main"]]
    return float(value), float(low), float(high)


def _short(model: str) -> str:
    """The last part of a path; what is added to a name stays."""
    return model.rstrip("/").rpartition("/")[2]
