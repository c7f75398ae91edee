"""Every probe of ``mmembed probe`` on one model.

    python benchmarks/probes.py [--model mini] [--only NAME ...]

A probe that is in --work already is not run again, so the command can be repeated after a stop.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from machine import facts, write_result

from mmembed import Embedder
from mmembed.evaluation.probes import PROBES, probe
from mmembed.evaluation.runs import read_runs, save_record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--work", type=Path, default=Path("runs/probes"))
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    model = Embedder.from_pretrained(options.model)
    for name in options.only or PROBES:
        if list(options.work.glob(f"probe-{name}--*.json")):
            continue
        started = time.perf_counter()
        found = probe(name, model, options.data)
        record = {
            "schema_version": 1,
            "kind": "probe",
            "probe": name,
            "reference": PROBES[name].reference,
            "model": options.model,
            **found.as_dict(),
        }
        save_record(record, options.work, f"probe-{name}", options.model)
        print(name, f"{time.perf_counter() - started:.0f} s", flush=True)
    keys = ("reference", "figures", "tables", "notes")
    write_result(
        "probes",
        {
            "machine": facts("torch", "transformers"),
            "model": options.model,
            "probes": {
                run["probe"]: {key: run[key] for key in keys} for run in read_runs(options.work)
            },
        },
    )


if __name__ == "__main__":
    main()
