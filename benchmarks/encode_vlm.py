"""Throughput and peak memory of a vision-language encoder against sentence-transformers.

    python benchmarks/encode_vlm.py [--size small] [--items 60] [--threads 2] [--rounds 3]

Run it in the full environment: the peer's processor needs torchvision. A random model with the
architecture of Qwen2-VL and about 100 million parameters (``small``) or 2 million (``tiny``) is
saved to disk, and both load it. Images of mixed sizes, texts of mixed lengths and pairs of both
come mixed in one call, in float32, on the same threads; the images are also timed by themselves.
Each round times both in turn, and the result is written after every round; memory is the peak of
a fresh process encoding once.
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
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
)
SIZES = [(224, 224), (640, 480), (480, 640), (1024, 768), (800, 1200), (320, 200)]
MAX_PIXELS = 256 * 28 * 28


# Widths and depths of the language model and of the vision tower.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "text": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4},
        "heads": (4, 2, [4, 6, 6]),
        "vision": {"embed_dim": 64, "depth": 4, "num_heads": 2},
    },
    "small": {
        "text": {"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 12},
        "heads": (10, 2, [8, 12, 12]),
        "vision": {"embed_dim": 384, "depth": 10, "num_heads": 6},
    },
}


def make_model(folder: Path, size: str = "small") -> Path:
    """A random Qwen2-VL of one of the sizes, with its processor."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    from mmembed.backbones.vlm.tiny import QWEN_SPECIALS, tokenizer

    fast = tokenizer(QWEN_SPECIALS, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = fast.convert_tokens_to_ids
    shape = SHAPES[size]
    heads, groups, sections = shape["heads"]
    config = hf.Qwen2VLConfig(
        text_config={
            **shape["text"],
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "max_position_embeddings": 8192,
            "vocab_size": len(fast),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": sections,
            },
        },
        vision_config={**shape["vision"], "hidden_size": shape["text"]["hidden_size"]},
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
    width = json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"]
    pooling = Pooling(width, pooling_mode="lasttoken")
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


def ratios(times: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Every round's seconds, and the medians of the peer's over ours."""
    found: dict[str, Any] = {}
    for i, kind in enumerate(("wall", "processor")):
        found[f"{kind}_seconds"] = {n: [round(t[i], 2) for t in each] for n, each in times.items()}
        pairs = zip(times["ours"], times["peer"], strict=True)
        found[f"speed_over_peer_{kind}"] = round(
            statistics.median(p[i] / o[i] for o, p in pairs), 3
        )
    return found


def peaks(folder: Path, items: int, threads: int) -> dict[str, int]:
    """Peak memory in MB of a fresh process that encodes once."""
    found = {}
    for name in ("ours", "peer"):
        command = [sys.executable, __file__, "--only", name, "--folder", str(folder)]
        command += ["--items", str(items), "--threads", str(threads)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[name] = round(json.loads(out.splitlines()[-1])["peak_mb"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SHAPES), default="small")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["ours", "peer"])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.folder or make_model(Path(tempfile.mkdtemp()), options.size)
    items = inputs(options.items)
    if options.only:
        {"ours": ours, "peer": peer}[options.only](folder)(items)
        print(json.dumps({"peak_mb": own_peak()}))
        return
    result: dict[str, Any] = {
        "machine": facts("torch", "transformers", "sentence-transformers", "torchvision"),
        "size": options.size,
        "items": len(items),
        "kinds": "a third texts, a third images of six sizes, a third both",
        "threads": options.threads,
        "peak_memory_mb": peaks(folder, options.items, options.threads),
    }
    models = {"ours": ours(folder), "peer": peer(folder)}
    vectors = {name: np.asarray(model(items)) for name, model in models.items()}
    cosines = (vectors["ours"] * vectors["peer"]).sum(axis=1)
    result["cosine_min"] = round(float(cosines.min()), 6)
    result["cosine_mean"] = round(float(cosines.mean()), 6)
    result["note"] = "images are resized by pillow here and by torchvision in the peer"
    images = [item for item in items if isinstance(item, dict) and "text" not in item]
    cases = {"mixed": items, "images": images}
    times: dict[str, dict[str, list[tuple[float, float]]]] = {
        case: {name: [] for name in models} for case in cases
    }
    for done in range(1, options.rounds + 1):
        for case, given in cases.items():
            for name, model in models.items():
                times[case][name].append(seconds(lambda model=model, given=given: model(given)))
            result[case] = {"inputs": len(given), **ratios(times[case])}
        result["rounds"] = done
        write_result(f"encode_vlm_{options.size}", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
