"""One index of everything: does a query find its answer, and is the asked-for modality first?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from held_out import Task, clips, pages, test_rows

from mmembed.gpte.metrics import bootstrap_interval, first_ranks

Array = np.ndarray[Any, Any]

__all__ = ["measure_mixed"]


class Encoder(Protocol):
    def encode(self, inputs: Any, *, instruction: str | None = None) -> Array: ...


def measure_mixed(
    data: Path, systems: Mapping[str, Encoder], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Text, images, clips, pages and images with words in one index, and who asks for which.

    Each query comes three times: as it is; with words that ask for a modality ahead of it; and as
    it is, with the index filtered by modality, which is how the product is meant to be asked.
    """
    figures = test_rows("openstax_figures", data)
    captioned = [row for row in figures if row.context]
    emoji = clips(data)[0]
    paged: Task = pages(data)[0]
    answered = paged.relevant.any(axis=1).nonzero()[0]
    groceries = test_rows("grocery_store", data)
    index: dict[str, list[Any]] = {
        "image": [row.image for row in figures],
        "text": [row.context[0] for row in captioned],
        "video": list(emoji.candidates),
        "document": list(paged.candidates),
        "fused": [{"image": row.image, "text": row.context[-1]} for row in groceries],
    }
    asked: dict[str, tuple[str, list[str], Array]] = {
        "image": ("Find an image: ", [row.description for row in figures], np.eye(len(figures))),
        "text": (
            "Find a text: ",
            [row.description for row in captioned],
            np.eye(len(captioned)),
        ),
        "video": ("Find a video clip: ", list(emoji.queries), emoji.relevant),
        "document": (
            "Find a document page: ",
            [paged.queries[i] for i in answered],
            paged.relevant[answered],
        ),
        "fused": (
            "Find a product photo with its description: ",
            [row.description for row in groceries],
            np.array([[a.description == b.description for b in groceries] for a in groceries]),
        ),
    }
    kinds = np.repeat(list(index), [len(items) for items in index.values()])
    found: dict[str, Any] = dict(known.get("found", {}))
    for name, system in systems.items():
        vectors = np.concatenate([system.encode(items) for items in index.values()])
        found[name] = {
            modality: _asked(system, vectors, kinds, modality, *query)
            for modality, query in asked.items()
        }
    return {"candidates": {kind: len(items) for kind, items in index.items()}, "found": found}


def _asked(
    system: Encoder,
    vectors: Array,
    kinds: Array,
    modality: str,
    prompt: str,
    queries: list[str],
    relevant: Array,
) -> dict[str, Any]:
    inside = kinds == modality
    wanted = np.zeros((len(queries), len(kinds)), dtype=bool)
    wanted[:, inside] = relevant.astype(bool)
    plain = system.encode(queries) @ vectors.T
    told = system.encode(queries, instruction=prompt) @ vectors.T
    return {
        "queries": len(queries),
        "prompt": prompt,
        "as it is": _report(plain, wanted, inside),
        "asked in words": _report(told, wanted, inside),
        "filtered": _report(np.where(inside, plain, -1e9), wanted, inside),
    }


def _report(scores: Array, wanted: Array, inside: Array) -> dict[str, Any]:
    ranks = first_ranks(scores, wanted)
    values = {
        "modality first": inside[scores.argmax(axis=1)].astype(float),
        **{f"R@{k}": (ranks <= k).astype(float) for k in (1, 5, 10)},
    }
    return {
        name: {
            "value": round(float(one.mean()), 4),
            "interval": [round(end, 4) for end in bootstrap_interval(one)],
        }
        for name, one in values.items()
    }
