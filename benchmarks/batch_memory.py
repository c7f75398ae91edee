"""Memory of a process that encodes batches of all lengths, as a server does: does it level off?

    python benchmarks/batch_memory.py [--batches 60]

Batches of 1 to 31 inputs are drawn from the requests of ``load.py`` (texts, photos, pages, clips),
the same ones in every process, one after another: as released; with products of every length kept
apart (as before they were filled up to few sizes); and as released with two arenas of malloc
(``MALLOC_ARENA_MAX=2``). ``resident`` is what /proc says, ``in_use`` what malloc has given out and
not got back: only growth of the latter is held by somebody.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import subprocess
import sys
import time
from typing import Any

from load import memory_of, requests
from machine import facts, write_result

MEDIA = ("text", "image", "document", "video")
WAYS: dict[str, tuple[dict[str, str], bool]] = {
    "as released": ({}, False),
    "every length apart": ({}, True),
    "as released, two arenas": ({"MALLOC_ARENA_MAX": "2"}, False),
}


class Malloc(ctypes.Structure):
    """``struct mallinfo2`` of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def measure(batches: int, apart: bool) -> list[dict[str, float]]:
    """Megabytes after each tenth of the batches."""
    import torch

    from mmembed import Embedder
    from mmembed.gpte import onednn
    from mmembed.server.api.items import items_of
    from mmembed.server.api.schemas import EmbeddingRequest

    if apart:
        onednn._few_sizes = lambda rows: rows  # type: ignore[assignment]
    torch.set_num_threads(1)
    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = Malloc
    model = Embedder.from_pretrained("mini", device="cpu")
    asked = [request for request in requests() if request[0] in MEDIA]
    rng = random.Random(0)
    seen = []
    for number in range(batches):
        items = []
        for _, _, _, body in rng.choices(asked, k=rng.randrange(1, 32)):
            items += items_of(EmbeddingRequest(**(body or {})), None)[0]
        for encoded in model.encode_stream(items, role=None, output=("dense",)):
            assert encoded.error is None
        if number % (batches // 10) == batches // 10 - 1:
            told = libc.mallinfo2()
            seen.append(
                {
                    "batches": number + 1,
                    "resident": round(memory_of(os.getpid())),
                    "in_use": (told.uordblks + told.hblkhd) >> 20,
                    "processor_seconds": round(time.process_time(), 1),
                }
            )
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--way", choices=[*WAYS])
    options = parser.parse_args()
    if options.way is not None:
        print(json.dumps(measure(options.batches, WAYS[options.way][1])))
        return
    result: dict[str, Any] = {"machine": facts("torch"), "batches": options.batches}
    for way, (settings, _) in WAYS.items():
        command = [sys.executable, __file__, "--batches", str(options.batches), "--way", way]
        done = subprocess.run(
            command, env={**os.environ, **settings}, check=True, capture_output=True, text=True
        )
        result[way] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result, indent=1), write_result("batch_memory", result))


if __name__ == "__main__":
    main()
