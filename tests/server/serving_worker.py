"""Run by a test in a process of its own, to be killed: ``serving_worker.py FOLDER PORT``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import uvicorn
from colour_model import ColourModel

from mmembed.inputs.items import ItemLike
from mmembed.search import writer
from mmembed.search.index import Index
from mmembed.search.model import Encoded, Role
from mmembed.server.app import create_app
from mmembed.server.indexing import Indexing

# Many small writes, so that a blow falls between, before or into one.
writer._BATCH_ROWS = 20


class SlowModel(ColourModel):
    """Spreads a run over time, as a real model does."""

    def encode_stream(self, items: Iterable[ItemLike], /, *, role: Role) -> Iterator[Encoded]:
        for encoded in super().encode_stream(items, role=role):
            time.sleep(0.01)
            yield encoded


def main(folder: Path, port: int) -> None:
    model = SlowModel()
    with Index.open(folder / "index", model) as index:
        app = create_app(index, model, indexing=Indexing(index, [folder / "media"]))
        uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
