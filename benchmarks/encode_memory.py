"""Memory of encoding many large images on the CPU: does it stay where it was after the first few?

    python benchmarks/encode_memory.py [--images 1000] [--threads 1]

A stream of photos of twelve megapixels (JPEG, made once) goes through ``mini`` and through a tiny
random Qwen2-VL, each in a process of its own. Written down is the peak beside the model after every
hundredth photo; ``tests/test_embedder_memory.py`` holds a shorter stream to the bound. A model
that is in the result already, with as many photos, is not measured again.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode_vlm import own_peak
from machine import RESULTS, facts, write_result
from PIL import Image

NAME = "encode_memory"
WIDTH, HEIGHT = 4000, 3008
BOUND_MB = 800.0


def photo() -> bytes:
    """One JPEG of twelve megapixels, smooth enough to be a photo's size."""
    pixels = np.random.default_rng(0).integers(0, 255, (188, 250, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(stream, "JPEG")
    return stream.getvalue()


def peaks(name: str, images: int) -> Iterator[tuple[int, float]]:
    """The number of photos done, and the peak in MB beside the model and its first photo."""
    from mmembed import Embedder
    from mmembed.backbones.vlm.tiny import tiny_vlm

    folder = name if name == "mini" else tiny_vlm(name, Path(tempfile.mkdtemp()))
    model = Embedder.from_pretrained(folder, device="cpu")
    one = photo()
    model.encode([one])
    before = own_peak()
    for done, encoded in enumerate(model.encode_stream(one for _ in range(images)), 1):
        if encoded.error is not None:
            raise encoded.error
        if done % 100 == 0 or done == images:
            yield done, own_peak() - before


def finished(result: dict[str, Any]) -> dict[str, Any]:
    """Models of an earlier run on the same machine, packages and photos that came to its end."""
    file = RESULTS / f"{NAME}.json"
    if not file.exists():
        return {}
    earlier = json.loads(file.read_text(encoding="utf-8"))
    same = all(earlier[key] == result[key] for key in ("machine", "photo", "images", "threads"))
    models = earlier["models"] if same else {}
    return {name: found for name, found in models.items() if found["done"] == result["images"]}


def measure(name: str, result: dict[str, Any]) -> None:
    """One model in a process of its own; every hundredth photo is written down at once."""
    command = [sys.executable, __file__, "--only", name, "--images", str(result["images"])]
    start = time.perf_counter()
    found: dict[str, int] = {}
    with subprocess.Popen(
        [*command, "--threads", str(result["threads"])], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            done, peak = json.loads(line)
            found[str(done)] = peak
            result["models"][name] = {"peak_mb_after": found, "done": done}
            write_result(NAME, result)
    if process.returncode:
        raise SystemExit(f"{name}: stopped with {process.returncode}")
    result["models"][name]["seconds"] = round(time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["mini", "qwen2_vl"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        for done, peak in peaks(options.only, options.images):
            print(json.dumps([done, round(peak)]), flush=True)
        return
    result: dict[str, Any] = {
        "machine": facts("torch", "transformers", "pillow"),
        "photo": f"{WIDTH} x {HEIGHT}, JPEG",
        "images": options.images,
        "threads": options.threads,
        "bound_mb": BOUND_MB,
        "models": {},
    }
    before = finished(result)
    for name in ("qwen2_vl", "mini"):
        if name in before:
            result["models"][name] = before[name]
        else:
            measure(name, result)
        largest = max(result["models"][name]["peak_mb_after"].values())
        result["models"][name]["within_bound"] = largest < BOUND_MB
        write_result(NAME, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
