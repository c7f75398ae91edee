"""Vision-language encoding on a GPU: ours, sentence-transformers and plain transformers.

    python benchmarks/encode_vlm_gpu.py [--shapes qwen2_vl_2b qwen3_vl_2b] [--rounds 3] [--compile]
    python benchmarks/encode_vlm_gpu.py --trial     # a tiny model, on the CPU, writes nothing

Random weights of the published shapes in bfloat16, the same folder and inputs for all. Images come
in mixed sizes, clips have eight frames, texts run from a line to a page. A result holds inputs and
tokens a second, the arithmetic of the linear layers a second, its share of this card's own bfloat16
matrix rate, and peak memory of the card. A peer that is not installed, or needs torchvision where
there is none, is listed with its reason. No result of it is kept yet: it has run on no GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode_text import docstrings
from encode_vlm import SIZES, TEMPLATE
from machine import facts, write_result
from PIL import Image
from torch import nn

MAX_PIXELS = 1280 * 28 * 28
FRAME_PIXELS = 256 * 28 * 28
SYSTEM = "You are a helpful assistant."
Encode = Callable[[list[Any]], Any]

_QWEN2: dict[str, Any] = {
    "config": "Qwen2VLConfig",
    "model": "Qwen2VLForConditionalGeneration",
    "processor": "Qwen2VLProcessor",
    "videos": "Qwen2VLVideoProcessor",
    "clip_pixels": {"shortest_edge": 3136, "longest_edge": FRAME_PIXELS},
    "patch": 14,
    "theta": 1e6,
}
_QWEN3: dict[str, Any] = {
    "config": "Qwen3VLConfig",
    "model": "Qwen3VLForConditionalGeneration",
    "processor": "Qwen3VLProcessor",
    "videos": "Qwen3VLVideoProcessor",
    # Of the whole clip, of eight frames, where the other processor counts a frame.
    "clip_pixels": {"shortest_edge": 3136, "longest_edge": 8 * FRAME_PIXELS},
    "patch": 16,
    "theta": 5e6,
}
# The published shapes, and tiny ones that show on a CPU whether the benchmark runs.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2_vl_2b": {
        **_QWEN2,
        "text": {
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
        },
        "sections": [16, 24, 24],
        "vision": {"embed_dim": 1280, "hidden_size": 1536, "depth": 32, "num_heads": 16},
    },
    "qwen3_vl_2b": {
        **_QWEN3,
        "text": {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        "sections": [24, 20, 20],
        "vision": {
            "hidden_size": 1024,
            "out_hidden_size": 2048,
            "intermediate_size": 4096,
            "depth": 24,
            "num_heads": 16,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    },
    "trial": {
        **_QWEN2,
        "text": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        "sections": [2, 3, 3],
        "vision": {"embed_dim": 32, "hidden_size": 64, "depth": 2, "num_heads": 2},
    },
    "trial_qwen3": {
        **_QWEN3,
        "text": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
        },
        "sections": [4, 2, 2],
        "vision": {
            "hidden_size": 32,
            "out_hidden_size": 64,
            "intermediate_size": 64,
            "depth": 3,
            "num_heads": 2,
            "deepstack_visual_indexes": [0, 1],
        },
    },
}


def make_model(shape: str, folder: Path, device: torch.device) -> Path:
    """Random weights and processors, in the layout of a published checkpoint."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from mmembed.backbones.vlm.tiny import QWEN_SPECIALS, tokenizer

    wanted = SHAPES[shape]
    fast = tokenizer(QWEN_SPECIALS, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = fast.convert_tokens_to_ids
    config = getattr(hf, wanted["config"])(
        text_config={
            **wanted["text"],
            "max_position_embeddings": 32768,
            "vocab_size": len(fast),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": wanted["theta"],
                "mrope_section": wanted["sections"],
            },
        },
        vision_config=wanted["vision"],
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = getattr(hf, wanted["model"])(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    del model
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    Qwen2VLImageProcessorPil(**image_options(shape)).save_pretrained(folder)
    return folder


def image_options(shape: str) -> dict[str, int]:
    """Settings of the image processor, whichever backend it has."""
    return {"patch_size": SHAPES[shape]["patch"], "min_pixels": 3136, "max_pixels": MAX_PIXELS}


def with_whole_processor(shape: str, folder: Path) -> Path:
    """The same folder with the processor that the peers read; it needs torchvision."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    wanted = SHAPES[shape]
    getattr(hf, wanted["processor"])(
        image_processor=Qwen2VLImageProcessor(**image_options(shape)),
        tokenizer=hf.AutoTokenizer.from_pretrained(folder),
        video_processor=getattr(hf, wanted["videos"])(
            patch_size=wanted["patch"], do_sample_frames=False, size=wanted["clip_pixels"]
        ),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def cases(images: int, texts: int, clips: int) -> dict[str, list[Any]]:
    """Inputs by what is measured, in a fixed order of mixed sizes."""
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(images):
        width, height = SIZES[i % len(SIZES)]
        small = rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
        pictures.append({"image": Image.fromarray(small).resize((width, height))})
    words = [text[:3000] for text in docstrings(texts)]
    moving = [
        {"video": rng.integers(0, 255, (8, 240, 320, 3), dtype=np.uint8)} for _ in range(clips)
    ]
    mixed: list[Any] = [one for pair in zip(pictures, words, strict=False) for one in pair]
    return {"images": pictures, "texts": words, "mixed": mixed, "clips": moving}


def our_backbone(folder: Path) -> Any:
    """The model in the folder, with the peers' limits."""
    from mmembed.backbones.vlm.loading import load_vision_language

    return load_vision_language(folder, dtype=torch.bfloat16).with_settings(
        min_pixels=3136, max_pixels=MAX_PIXELS, max_frame_pixels=FRAME_PIXELS, fps=None
    )


def ours(folder: Path, device: torch.device, compiled: bool) -> Encode:
    from mmembed import Embedder
    from mmembed.backbones.vlm.compiling import compile_blocks
    from mmembed.embedder import EmbedderConfig

    backbone = our_backbone(folder).to(device).eval()
    if compiled:
        compile_blocks(backbone)
    config = EmbedderConfig(pooling="last", prompts={"": SYSTEM}, batch_tokens=16384)
    model = Embedder(backbone, config)
    return lambda items: model.encode(items, show_progress=False)


def sentence_transformers(folder: Path, device: torch.device) -> Encode:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    transformer = Transformer(str(folder), model_kwargs={"dtype": torch.bfloat16})
    width = json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"]
    modules: list[nn.Module] = [
        transformer,
        Pooling(width, pooling_mode="lasttoken"),
        Normalize(),
    ]
    model = SentenceTransformer(modules=modules, device=str(device))
    return lambda items: model.encode(items, batch_size=16, show_progress_bar=False)


def plain(folder: Path, device: torch.device) -> Encode:
    """transformers' own model and processor, sixteen inputs a batch, in their order."""
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    head = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
    tail = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    frame = "<|vision_start|><|{}_pad|><|vision_end|>"

    def worded(item: Any) -> str:
        kind = "" if isinstance(item, str) else next(iter(item))
        return head + (frame.format(kind) if kind else item) + tail

    @torch.inference_mode()
    def encode(items: list[Any]) -> Any:
        found = []
        for start in range(0, len(items), 16):
            some = items[start : start + 16]
            media = {
                f"{kind}s": [one[kind] for one in some if not isinstance(one, str) and kind in one]
                or None
                for kind in ("image", "video")
            }
            batch = processor(
                text=[worded(one) for one in some], padding=True, return_tensors="pt", **media
            ).to(device, torch.bfloat16)
            states = model(**batch, use_cache=False).last_hidden_state[:, -1].float()
            found.append(nn.functional.normalize(states, dim=1).cpu())
        return torch.cat(found)

    return encode


def matrix_rate(device: torch.device, size: int) -> float:
    """This device's own bfloat16 rate on square matrices, in TFLOP/s; the best of several."""
    a = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    rates = []
    for _ in range(6):
        taken = timed(lambda: [a @ a for _ in range(5)], device)
        rates.append(5 * 2 * size**3 / taken / 1e12)
    return max(rates)


def timed(call: Callable[[], object], device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def work_of(folder: Path, items: list[Any]) -> tuple[int, float]:
    """Tokens of the inputs, and the arithmetic of the linear layers over them and their patches."""
    from mmembed.inputs.decode import decode_item

    backbone = our_backbone(folder)

    def weights(module: nn.Module) -> int:
        return sum(one.weight.numel() for one in module.modules() if isinstance(one, nn.Linear))

    rows = backbone.prepare([decode_item(one, backbone.media_budget) for one in items])
    tokens = sum(row.tokens for row in rows)
    names = ("pixel_values", "pixel_values_videos")
    patches = sum(len(row.extras[name]) for row in rows for name in names if name in row.extras)
    vision: nn.Module = backbone.model.visual
    return tokens, 2.0 * (tokens * weights(backbone.language_model) + patches * weights(vision))


def systems_of(
    shape: str, folder: Path, device: torch.device, *, compiled: bool
) -> dict[str, Callable[[], Encode]]:
    """How each system is loaded from the folder."""

    def peer(make: Callable[[Path, torch.device], Encode]) -> Encode:
        return make(with_whole_processor(shape, folder), device)

    found: dict[str, Callable[[], Encode]] = {
        "ours": lambda: ours(folder, device, compiled=False),
        "sentence-transformers": lambda: peer(sentence_transformers),
        "transformers": lambda: peer(plain),
    }
    if compiled:
        found["ours, compiled"] = lambda: ours(folder, device, compiled=True)
    return found


_FAILURES = (ImportError, OSError, ValueError, RuntimeError, TypeError, KeyError)


def measured(
    make: Callable[[], Encode],
    inputs: dict[str, list[Any]],
    work: dict[str, tuple[int, float]],
    rate: float,
    rounds: int,
    device: torch.device,
    reference: dict[str, Any],
) -> dict[str, Any]:
    """Rates of one system over every case, or why it has none.

    The first system's vectors go into ``reference``, and the others are compared with them: who
    reads other tokens shows.
    """
    try:
        encode = make()
    except _FAILURES as error:
        return {"not_measured": f"{type(error).__name__}: {error}"[:400]}
    found: dict[str, Any] = {}
    for case, items in inputs.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            # Warm: kernels are chosen, and compiled where wanted.
            vectors = torch.as_tensor(encode(items)).float()
            times = [timed(lambda items=items: encode(items), device) for _ in range(rounds)]
        except _FAILURES as error:
            found[case] = {"not_measured": f"{type(error).__name__}: {error}"[:400]}
            continue
        cosines = (vectors * reference.setdefault(case, vectors)).sum(dim=1)
        tokens, flops = work[case]
        median = statistics.median(times)
        found[case] = {
            "seconds": [round(t, 3) for t in times],
            "cosine_to_first_mean": round(cosines.mean().item(), 4),
            "cosine_to_first_min": round(cosines.min().item(), 4),
            "inputs_per_second": round(len(items) / median, 2),
            "tokens_per_second": round(tokens / median),
            "linear_tflops": round(flops / median / 1e12, 3),
            "share_of_matrix_rate": round(flops / median / 1e12 / rate, 4),
        }
        if device.type == "cuda":
            found[case]["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["qwen2_vl_2b", "qwen3_vl_2b"])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--compile", action="store_true", help="ours once more, with blocks compiled"
    )
    parser.add_argument("--trial", action="store_true", help="tiny and on the CPU: does it run?")
    options = parser.parse_args()
    if not options.trial and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here: --trial runs a tiny model on the CPU")
    device = torch.device("cpu" if options.trial else "cuda")
    shapes = ["trial", "trial_qwen3"] if options.trial else options.shapes
    counts = (6, 6, 2) if options.trial else (options.images, options.texts, options.clips)
    inputs = cases(*counts)
    rate = matrix_rate(device, 512 if options.trial else 8192)
    result: dict[str, Any] = {
        "machine": facts("torch", "transformers", "sentence-transformers", "torchvision"),
        "device": "cpu" if options.trial else torch.cuda.get_device_name(device),
        "matrix_rate_tflops": round(rate, 1),
        "inputs": {case: len(items) for case, items in inputs.items()},
        "note": "arithmetic is of the linear layers alone; preprocessing is part of the time",
    }
    for shape in shapes:
        with tempfile.TemporaryDirectory() as name:
            folder = make_model(shape, Path(name), device)
            work = {case: work_of(folder, items) for case, items in inputs.items()}
            systems = systems_of(shape, folder, device, compiled=options.compile)
            result[shape] = {}
            reference: dict[str, Any] = {}
            for system, make in systems.items():
                found = measured(make, inputs, work, rate, options.rounds, device, reference)
                result[shape][system] = found
                print(json.dumps({shape: {system: found}}), flush=True)
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    write_result("encode_vlm_gpu", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
