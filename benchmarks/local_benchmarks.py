"""Every local benchmark of ``mmembed eval``.

    python benchmarks/local_benchmarks.py --data ../shared/data [--model mini] [--only NAME ...]
        [--most N]

A benchmark that is in --work already is not measured again, and vectors are kept there, so the
command can be repeated after a stop.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from machine import facts, write_result

from mmembed import Embedder
from mmembed.errors import ConfigError
from mmembed.evaluation.benchmarks import BENCHMARKS
from mmembed.evaluation.runs import measure_and_save, read_runs
from mmembed.vector_cache import VectorCache

MANY = 8  # more subsets than this are told by their mean and their extremes


def remembering(name: str, work: Path) -> Embedder:
    """A model whose vectors are kept below ``work``, so that a stop or a second evaluator costs
    no second pass."""
    model = Embedder.from_pretrained(name)
    model.cache = VectorCache(work / "vectors" / f"{Path(name).name}.db")
    return model


def data_of(name: str, data: Path) -> Path | None:
    """The folder named, where it holds the benchmark's files; else where they usually lie."""
    there = all((data / need).exists() for need in BENCHMARKS[name].needs)
    return data if there else None


def told(run: dict[str, Any]) -> dict[str, Any]:
    subsets = run["subsets"]
    mains = {key: one["metrics"][one["main"]] for key, one in subsets.items()}
    about = {key: run[key] for key in ("main", "score", "split", "licence", "items", "seconds")}
    if len(subsets) > MANY:
        order = sorted(mains, key=lambda key: mains[key][0])
        about["subsets"] = len(subsets)
        about["worst"] = {order[0]: mains[order[0]]}
        about["best"] = {order[-1]: mains[order[-1]]}
        for one in ("en", "de"):
            if one in mains:
                about[one] = mains[one]
    else:
        about["subsets"] = {
            key: {"value_low_high": mains[key], "queries": o["queries"], "of": o["candidates"]}
            for key, o in subsets.items()
        }
    return {**about, "curves": run["curves"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--work", type=Path, default=Path("runs/local_benchmarks"))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--most", type=int, help="cut each subset to a sample of so many")
    options = parser.parse_args()
    model = remembering(options.model, options.work)
    for name in options.only or BENCHMARKS:
        if list(options.work.glob(f"{name}--*.json")):
            continue
        try:
            result, _ = measure_and_save(
                name, model, data_of(name, options.data), options.work, most=options.most
            )
            print(name, round(result.score, 4), f"{result.seconds:.0f} s", flush=True)
        except ConfigError as error:
            print(f"left out: {error}", flush=True)
    write_result(
        "local_benchmarks",
        {
            "machine": facts("torch", "transformers"),
            "model": options.model,
            "benchmarks": {run["benchmark"]: told(run) for run in read_runs(options.work)},
        },
    )


if __name__ == "__main__":
    main()
