"""What shorter vectors lose: recall@10 of an index of truncated vectors against the full ones.

    python benchmarks/search_truncated.py --data DATA [--passages 3000] [--queries 200]

Passages of about 40 words of openstax_text, and as queries the first 14 words of others, embedded
by ``mini``. Each width has an index of its own (``Index.open(..., dim=WIDTH)``, searched exactly);
what counts is the ten best by brute force over full vectors.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import tempfile
from pathlib import Path

import numpy as np
from machine import facts, write_result
from search import QUERY_WORDS, WORDS, K, Table

from mmembed import Embedder
from mmembed.search.index import Index


class Embedded(Table):
    """Looks vectors of ``mini`` up."""

    dim = 384


def passages_of(data: Path, count: int) -> list[str]:
    with lzma.open(data / "openstax_text" / "paragraphs.jsonl.xz", "rt") as lines:
        texts = [json.loads(line)["text"].split() for line in lines]
    pieces = [words[:WORDS] for words in texts if len(words) >= WORDS]
    chosen = np.random.default_rng(0).permutation(len(pieces))[:count]
    return [" ".join(pieces[i]) for i in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=3000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--widths", type=int, nargs="+", default=[384, 256, 192, 128, 64, 32])
    options = parser.parse_args()
    texts = passages_of(options.data, options.passages + options.queries)
    asked = [" ".join(text.split()[:QUERY_WORDS]) for text in texts[options.passages :]]
    model = Embedder.from_pretrained("mini", device="cpu")
    documents = model.encode_document(texts[: options.passages])
    queries = model.encode_query(asked)
    truth = [set(np.argsort(-row)[:K].tolist()) for row in queries @ documents.T]
    lookup = Embedded([one[None] for one in queries], [one[None] for one in documents])
    ids = [f"d{i}" for i in range(len(documents))]
    result = {
        "machine": facts("lancedb", "numpy"),
        "passages": len(documents),
        "queries": len(queries),
        "recall_at_10": {},
    }
    for width in options.widths:
        folder = Path(tempfile.mkdtemp())
        try:
            with Index.open(folder, lookup, dim=width) as index:  # type: ignore[arg-type]
                index.add(ids, ids=ids)
                found = [
                    {int(hit.id[1:]) for hit in index.search(f"q{i}", K, mode="dense")}
                    for i in range(len(queries))
                ]
        finally:
            shutil.rmtree(folder)
        recall = float(np.mean([len(a & b) / K for a, b in zip(truth, found, strict=True)]))
        result["recall_at_10"][str(width)] = round(recall, 4)
        print(width, result["recall_at_10"][str(width)], flush=True)
    print(write_result("search_truncated", result))


if __name__ == "__main__":
    main()
