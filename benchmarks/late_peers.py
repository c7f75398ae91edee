"""Late interaction as others do it, over the same token vectors: fast-plaid, and PyLate's index."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["late_peers"]

Asking = Callable[[int], Sequence[int]]


def late_peers(
    asked: Sequence[np.ndarray], pages: Sequence[np.ndarray], folder: Path, k: int
) -> tuple[dict[str, Asking], dict[str, Any]]:
    """What answers query ``i`` with the numbers of ``k`` pages, and how long each took to build.

    What is not installed is said in place of its time. Threads are to be limited outside:
    ``OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1``.
    """
    found: dict[str, Asking] = {}
    built: dict[str, Any] = {}
    for name, make in (("fast-plaid", _fast_plaid), ("pylate PLAID", _pylate)):
        start, processor = time.perf_counter(), time.process_time()
        try:
            found[name] = make(asked, pages, folder, k)
        except ImportError:
            built[name] = "not installed"
        else:
            taken = {
                "s": time.perf_counter() - start,
                "processor_s": time.process_time() - processor,
            }
            built[name] = {unit: round(value, 1) for unit, value in taken.items()}
    return found, built


def _fast_plaid(
    asked: Sequence[np.ndarray], pages: Sequence[np.ndarray], folder: Path, k: int
) -> Asking:
    import torch
    from fast_plaid.search import FastPlaid

    torch.set_num_threads(1)
    index = FastPlaid(str(folder / "plaid"), device="cpu")
    index.create([torch.from_numpy(page) for page in pages])

    def ask(i: int) -> list[int]:
        query = torch.from_numpy(asked[i])[None]
        return [page for page, _ in index.search(query, top_k=k, show_progress=False)[0]]

    return ask


def _pylate(
    asked: Sequence[np.ndarray], pages: Sequence[np.ndarray], folder: Path, k: int
) -> Asking:
    from pylate.indexes import PLAID

    index = PLAID(str(folder / "pylate"), "pages", override=True, device="cpu", show_progress=False)
    index.add_documents([str(i) for i in range(len(pages))], [*pages])
    return lambda i: [int(hit["id"]) for hit in index([asked[i]], k=k)[0]]
