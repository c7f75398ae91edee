"""Every local benchmark of ``mmembed eval``, and the text sets once more by mteb's evaluator.

    python benchmarks/local_benchmarks.py --data ../shared/data [--model mini] [--only NAME ...]
        [--mteb NAME ...]

A benchmark that is in --work already is not measured again, so the command can be repeated after a
stop. mteb gets the same vectors: what is compared is how they are scored.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from machine import facts, write_result

from mmembed import Embedder
from mmembed.errors import ConfigError
from mmembed.evaluation.benchmarks import BENCHMARKS, read_benchmark
from mmembed.evaluation.benchmarks.registry import find_data
from mmembed.evaluation.mteb_model import MtebModel
from mmembed.evaluation.mteb_tasks import mteb_score
from mmembed.evaluation.remembered import Remembered
from mmembed.evaluation.runs import measure_and_save, read_runs

IN_MTEB = {
    "sts": ("en", "cosine_spearman", "spearman"),
    "cranfield": ("en", "ndcg_at_10", "ndcg@10"),
    "xquad": ("en", "ndcg_at_10", "ndcg@10"),
    "books": ("terms", "ndcg_at_10", "ndcg@10"),
    "code": ("docstring", "ndcg_at_10", "ndcg@10"),
    "cosqa": ("python", "mrr_at_1000", "mrr"),
}
MANY = 8  # more subsets than this are told by their mean and their extremes


def in_mteb(model: Embedder, data: Path, names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        subset, theirs, ours = IN_MTEB[name]
        task = read_benchmark(name, find_data(BENCHMARKS[name], data_of(name, data)))[subset]
        once: Any = Remembered(model)
        own = task.score(task.encode(once)).metrics[ours].value
        other = mteb_score(MtebModel(once), f"Local{name.title()}", task, theirs)
        found[f"{name} {subset}"] = {
            "metric": ours,
            "ours": round(own, 6),
            "mteb": round(other, 6),
            "difference": round(abs(own - other), 7),
        }
        print(name, subset, own, other, flush=True)
    return found


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
    parser.add_argument("--mteb", nargs="*", default=list(IN_MTEB), choices=list(IN_MTEB))
    options = parser.parse_args()
    model = Embedder.from_pretrained(options.model)
    for name in options.only or BENCHMARKS:
        if list(options.work.glob(f"{name}--*.json")):
            continue
        try:
            result, _ = measure_and_save(name, model, data_of(name, options.data), options.work)
            print(name, round(result.score, 4), f"{result.seconds:.0f} s", flush=True)
        except ConfigError as error:
            print(f"left out: {error}", flush=True)
    kept = options.work / "mteb"
    kept.mkdir(parents=True, exist_ok=True)
    if not (kept / "same.json").exists():
        (kept / "same.json").write_text(json.dumps(in_mteb(model, options.data, options.mteb)))
    write_result(
        "local_benchmarks",
        {
            "machine": facts("torch", "transformers", "mteb"),
            "model": options.model,
            "benchmarks": {run["benchmark"]: told(run) for run in read_runs(options.work)},
            "same_vectors_by_mteb": json.loads((kept / "same.json").read_text()),
        },
    )


if __name__ == "__main__":
    main()
