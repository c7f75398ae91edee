"""A contrastive training step of a vision-language model, beside sentence-transformers'.

    python benchmarks/train_step_vlm.py [--size tiny] [--batch 16] [--steps 3] [--rounds 2]
    python benchmarks/train_step_vlm.py --curve [--size tiny]

Run it in the full environment: the peer's processor needs torchvision. A random Qwen2-VL, pairs of
a text and an image of 224 x 224 pixels, float32, AdamW, all parameters learn; preprocessing and the
optimiser are part of the step. The first step's losses must agree. Every run is a process of its
own, the sides in turn, for its peak memory; with other work on the machine, trust processor time.

``--curve`` measures our peak memory by batch size, plain, with the gradient cache and with its
token budget, each up to less than 2 GB. What 24 or 80 GiB would hold is then a line through the
points, and no measurement; how far the points lie from the line is told beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode_text import docstrings
from encode_vlm import MAX_PIXELS, SHAPES, make_model, own_peak
from machine import facts, write_result
from PIL import Image
from torch import nn

TEMPERATURE = 0.05
CHUNKS: dict[str, dict[str, int]] = {
    "plain": {},
    "chunk_rows 4": {"chunk_rows": 4},
    "chunk_tokens 512": {"chunk_tokens": 512},
}
# The cache's memory hardly grows, so its line needs points that lie further apart.
BATCHES = {"plain": (8, 16, 32), "chunk_rows 4": (8, 32, 128), "chunk_tokens 512": (8, 32, 128)}
GIB = 2**30 / 1e6


def pairs(count: int) -> list[tuple[str, Image.Image]]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (count, 14, 14, 3), dtype=np.uint8)
    texts = [text[:200] for text in docstrings(count)]
    return [(t, Image.fromarray(i).resize((224, 224))) for t, i in zip(texts, images, strict=True)]


def ours(folder: Path, args: argparse.Namespace) -> tuple[nn.Module, Callable[[], float]]:
    from accelerate import Accelerator

    from mmembed.backbones import load_backbone
    from mmembed.embedder import Embedder, EmbedderConfig
    from mmembed.gpte.config import BatchConfig
    from mmembed.gpte.data.batches import ExampleBatch
    from mmembed.gpte.objectives import InfoNCE, learned_parameters
    from mmembed.gpte.stepping import Goal, Stepper, Trainee
    from mmembed.inputs.decoded import DecodedItem
    from mmembed.multimodal.encoder import MediaEncoder

    backbone: Any = load_backbone(folder)
    backbone = backbone.with_settings(max_pixels=MAX_PIXELS, min_pixels=3136)
    model = Embedder(backbone, EmbedderConfig(pooling="last", prompts=dict(backbone.prompts)))
    encoder = MediaEncoder(model).train()
    encoder.requires_grad_(True)
    objective = InfoNCE(temperature=TEMPERATURE)
    chunks = CHUNKS[args.chunks]
    stepper = Stepper(
        accelerator := Accelerator(cpu=True),
        accelerator.prepare_model(Trainee(encoder, {})),
        encoder,
        {-1: Goal(objective, learned_parameters(objective, encoder.dim))},
        {},
        BatchConfig(size=args.batch, **chunks),  # type: ignore[arg-type]
    )
    data = pairs(args.batch)

    told = backbone.prompts[""]  # which the peer's template writes

    def backward() -> float:
        columns = (
            backbone.prepare([DecodedItem((row[i],), told) for row in data]) for i in range(2)
        )
        return float(stepper.backward(ExampleBatch(*columns), 0, 1.0, True).total)

    return encoder, backward


def theirs(folder: Path, args: argparse.Namespace) -> tuple[nn.Module, Callable[[], float]]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.models import Normalize, Pooling, Transformer

    width = json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"]
    modules = [Transformer(str(folder)), Pooling(width, pooling_mode="lasttoken"), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu").train()
    loss = MultipleNegativesRankingLoss(model, scale=1.0 / TEMPERATURE)
    data = pairs(args.batch)

    def backward() -> float:
        columns = [model.preprocess([row[i] for row in data]) for i in range(2)]
        found = loss(columns, None)
        found.backward()
        return float(found.detach())

    return model, backward


SIDES = {"ours": ours, "theirs": theirs}


def timed(model: nn.Module, backward: Callable[[], float], steps: int) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    found: dict[str, Any] = {"seconds": [], "cpu_seconds": [], "losses": []}
    for _ in range(steps):
        start, busy = time.perf_counter(), time.process_time()
        found["losses"].append(backward())
        optimizer.step()
        optimizer.zero_grad()
        found["seconds"].append(time.perf_counter() - start)
        found["cpu_seconds"].append(time.process_time() - busy)
    return {**found, "peak_memory_mb": own_peak()}


def measure(side: str, args: argparse.Namespace, batch: int, chunks: str) -> dict[str, Any]:
    """One fresh process."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(args.folder)]
    command += ["--batch", str(batch), "--chunks", chunks]
    command += ["--steps", str(args.steps), "--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(side, batch, chunks, json.dumps(found), flush=True)
    return found


def compare(args: argparse.Namespace) -> dict[str, Any]:
    rounds = [
        {side: measure(side, args, args.batch, "plain") for side in SIDES}
        for _ in range(args.rounds)
    ]
    ratio = {
        key: statistics.median(min(r["ours"][key]) / min(r["theirs"][key]) for r in rounds)
        for key in ("seconds", "cpu_seconds")
    }
    memory = [r["ours"]["peak_memory_mb"] / r["theirs"]["peak_memory_mb"] for r in rounds]
    cpu = {side: min(min(r[side]["cpu_seconds"]) for r in rounds) for side in SIDES}
    return {
        "what": "one training step, ours / sentence-transformers'",
        "batch": args.batch,
        "time_ratio": round(ratio["seconds"], 3),
        "cpu_time_ratio": round(ratio["cpu_seconds"], 3),
        "peak_memory_ratio": round(statistics.median(memory), 3),
        "samples_per_cpu_second": {side: round(args.batch / s, 2) for side, s in cpu.items()},
        "rounds": rounds,
    }


def curve(args: argparse.Namespace) -> dict[str, Any]:
    """Peak memory by batch size, and where the line through it reaches 24 and 80 GiB."""
    args.steps = 1
    found: dict[str, Any] = {}
    for chunks in CHUNKS:
        batches = BATCHES[chunks]
        peaks = [measure("ours", args, batch, chunks)["peak_memory_mb"] for batch in batches]
        slope, first = np.polyfit(batches, peaks, 1)
        off = np.abs(np.polyval((slope, first), batches) - peaks).max()
        reach = {
            f"{gib} GiB": int((gib * GIB - first) / slope) if slope > 0 else None
            for gib in (24, 80)
        }
        found[chunks] = {
            "peak_memory_mb": dict(zip(map(str, batches), map(round, peaks), strict=True)),
            "mb_per_pair": round(float(slope), 2),
            "largest_distance_from_the_line_mb": round(float(off), 1),
            "batch_by_the_line": reach,
        }
    return {"what": "our peak memory by batch size; the last numbers are extrapolated", **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--chunks", choices=CHUNKS, default="plain")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.side:
        print(json.dumps(timed(*SIDES[args.side](args.folder, args), args.steps)))
        return
    args.folder = make_model(Path(tempfile.mkdtemp()), args.size)
    found = curve(args) if args.curve else compare(args)
    name = f"train_step_vlm_{'curve_' if args.curve else ''}{args.size}"
    versions = facts("torch", "transformers", "sentence-transformers")
    write_result(name, {**found, "size": args.size, "threads": args.threads, "machine": versions})


if __name__ == "__main__":
    main()
