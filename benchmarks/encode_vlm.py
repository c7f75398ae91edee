"""Throughput and peak memory of a vision-language encoder against sentence-transformers.

    python benchmarks/encode_vlm.py [--items 60] [--threads 2] [--rounds 3]

Run it in the full environment: the peer's processor needs torchvision. A random model with the
architecture of Qwen2-VL and about 100 million parameters is saved to disk, and both load it. Images
of mixed sizes, texts of mixed lengths and pairs of both come mixed in one call, in float32, on the
same threads. Each round times both in turn; memory is the peak of a fresh process encoding once.
"""

from __future__ import annotations

import argparse
import json
import random
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
from machine import facts, peak_memory, write_result
from PIL import Image

TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
)
SIZES = [(224, 224), (640, 480), (480, 640), (1024, 768), (800, 1200), (320, 200)]
MAX_PIXELS = 256 * 28 * 28


def make_model(folder: Path) -> Path:
    """A random Qwen2-VL of about 100 million parameters, with its processor."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    from mmembed.backbones.vlm.tiny import QWEN_SPECIALS, tokenizer

    fast = tokenizer(QWEN_SPECIALS, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = fast.convert_tokens_to_ids
    config = hf.Qwen2VLConfig(
        text_config={
            "hidden_size": 640,
            "intermediate_size": 2560,
            "num_hidden_layers": 12,
            "num_attention_heads": 10,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "vocab_size": len(fast),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [8, 12, 12],
            },
        },
        vision_config={"embed_dim": 384, "hidden_size": 640, "depth": 10, "num_heads": 6},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    torch.manual_seed(0)
    hf.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    hf.Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=3136, max_pixels=MAX_PIXELS),
        tokenizer=fast,
        video_processor=hf.Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def inputs(count: int) -> list[Any]:
    """Texts, images and both, in a fixed random order."""
    rng = np.random.default_rng(0)
    texts = [text[:1500] for text in docstrings(count)]
    found: list[Any] = []
    for i, text in enumerate(texts):
        width, height = SIZES[i % len(SIZES)]
        small = rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((width, height))
        found.append([text, {"image": image}, {"image": image, "text": text[:200]}][i % 3])
    random.Random(0).shuffle(found)
    return found


def ours(folder: Path) -> Callable[[list[Any]], Any]:
    from mmembed import Embedder
    from mmembed.backbones import load_backbone
    from mmembed.embedder import EmbedderConfig

    backbone = load_backbone(folder).with_settings(max_pixels=MAX_PIXELS, min_pixels=3136)  # type: ignore[attr-defined]
    config = EmbedderConfig(pooling="last", prompts=dict(backbone.prompts))
    model = Embedder(backbone.eval(), config)
    return lambda items: model.encode(items, show_progress=False)


def peer(folder: Path) -> Callable[[list[Any]], Any]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    transformer = Transformer(str(folder))
    pooling = Pooling(640, pooling_mode="lasttoken")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    return lambda items: model.encode(items, batch_size=8, show_progress_bar=False)


def own_peak() -> float:
    """Most memory of this very program in MB; the usual figure starts with its parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_memory()
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time."""
    start, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["ours", "peer"])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.folder or make_model(Path(tempfile.mkdtemp()))
    items = inputs(options.items)
    if options.only:
        {"ours": ours, "peer": peer}[options.only](folder)(items)
        print(json.dumps({"peak_mb": own_peak()}))
        return
    models = {"ours": ours(folder), "peer": peer(folder)}
    vectors = {name: np.asarray(model(items)) for name, model in models.items()}
    cosines = (vectors["ours"] * vectors["peer"]).sum(axis=1)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(options.rounds):
        for name, model in models.items():
            times[name].append(seconds(lambda model=model: model(items)))
    memory = {}
    for name in models:
        command = [sys.executable, __file__, "--only", name, "--folder", str(folder)]
        command += ["--items", str(options.items), "--threads", str(options.threads)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        memory[name] = json.loads(out.splitlines()[-1])["peak_mb"]
    ratios = [
        [p[i] / o[i] for o, p in zip(times["ours"], times["peer"], strict=True)] for i in (0, 1)
    ]
    result = {
        "machine": facts("torch", "transformers", "sentence-transformers", "torchvision"),
        "items": len(items),
        "kinds": "a third texts, a third images of six sizes, a third both",
        "threads": options.threads,
        "rounds": options.rounds,
        "seconds": {name: [round(t[0], 2) for t in found] for name, found in times.items()},
        "processor_seconds": {name: [round(t[1], 2) for t in f] for name, f in times.items()},
        "speed_over_peer_wall": round(statistics.median(ratios[0]), 3),
        "speed_over_peer_processor": round(statistics.median(ratios[1]), 3),
        "peak_memory_mb": {name: round(value) for name, value in memory.items()},
        "cosine_min": round(float(cosines.min()), 6),
        "cosine_mean": round(float(cosines.mean()), 6),
        "note": "images are resized by pillow here and by torchvision in the peer",
    }
    write_result("encode_vlm", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
