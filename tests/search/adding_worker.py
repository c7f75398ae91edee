"""Run by tests in a process of its own, to be killed: ``adding_worker.py INDEX (COUNT | FOLDER)``.

Prints ``adding`` once everything is imported, so that a test can time its blow from there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hash_model import HashModel

from mmembed.search import writer
from mmembed.search.index import Index

# Many small writes instead of a few large ones: more moments at which a kill may hurt.
writer._BATCH_ROWS = 100


class SlowModel(HashModel):
    """Spreads the run over time, as a real model does."""

    def encode_stream(self, items, /, *, role):  # type: ignore[no-untyped-def]
        for encoded in super().encode_stream(items, role=role):
            if encoded.position % 100 == 0:
                time.sleep(0.01)
            yield encoded


def main(path: str, what: str) -> None:
    index = Index.open(path, SlowModel())
    print("adding", flush=True)
    if what.isdigit():
        report = index.add(
            (f"text number {i} of many" for i in range(int(what))),
            metadata=({"number": i} for i in range(int(what))),
        )
    else:
        report = index.add(Path(what))
    print(report.added, report.unchanged, len(report.skipped), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
