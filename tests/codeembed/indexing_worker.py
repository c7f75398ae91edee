"""Run by tests in a process of its own, to be killed: ``indexing_worker.py ROOT``.

Prints ``indexing`` once everything is imported, so that a test can time its blow from there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from word_model import WordModel

from codeembed import CodeIndex, filling, update
from mmembed.encoded import Encoded

# Many small writes instead of a few large ones: more moments at which a kill may hurt.
update._WRITE_FILES = 2
filling._BATCH = 20


class SlowModel(WordModel):
    """Spreads the run over time, as a real model does."""

    def encode_stream(self, items: Iterable[Any], /, *, role: str) -> Iterator[Encoded]:
        for encoded in super().encode_stream(items, role=role):
            time.sleep(0.0005)
            yield encoded


if __name__ == "__main__":
    index = CodeIndex.open(sys.argv[1], SlowModel())
    sys.stdout.write("indexing\n")
    sys.stdout.flush()
    index.update()
