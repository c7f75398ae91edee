"""Text to image over the 400 held-out figures: mini beside a perceptron on the same features.

    python benchmarks/mini_figures.py --data ../shared/data --cache CACHE [--seeds 3]

The baseline is an MLP on the mean-pooled last feature map of EfficientNet-Lite2 (1,280 channels)
against the MiniLM vectors of the descriptions, trained by symmetric InfoNCE on every figure outside
the test split, whatever its licence; its epochs are chosen on the development figures. A second one
gets all features that mini has. Mini has seen the openly licensed figures outside the test split.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline_mlp import perceptron
from machine import facts, write_result
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed import Embedder
from mmembed.backbones.composed import ComposedVLM
from mmembed.evaluation.figures import evaluate_figures, retrieval_report
from mmembed.multimodal.captioned import read_captioned
from mmembed.multimodal.feature_cache import RememberedTower, features_of


@torch.no_grad()
def recall_of(model: nn.Module, images: Tensor, texts: Tensor) -> dict[int, float]:
    vectors = F.normalize(model(images), dim=1)
    return retrieval_report(texts.numpy(), vectors.numpy()).text_to_image.recall


def mean_recall(found: list[dict[int, float]]) -> dict[int, float]:
    return {k: round(float(np.mean([one[k] for one in found])), 4) for k in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("runs/features"))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    model = Embedder.from_pretrained("mini")
    backbone = model.backbone
    assert isinstance(backbone, ComposedVLM)
    rows = read_captioned("openstax_figures", args.data)
    tower = RememberedTower(backbone.vision, args.cache)
    every = features_of(tower, [r.image for r in rows])[:, 0]
    texts = torch.from_numpy(np.asarray(model.encode([r.description for r in rows])))
    split = np.array([r.split for r in rows])
    of = {name: torch.from_numpy(split == name) for name in ("train", "dev", "test")}
    known = of["train"] | of["dev"]

    def baseline(pooled: Tensor, fitted: Tensor, measured: Tensor, epochs: int) -> dict[int, float]:
        x = (pooled - pooled[fitted].mean(dim=0)) / (pooled[fitted].std(dim=0) + 1e-6)
        return mean_recall(
            [
                recall_of(
                    perceptron(seed, x[fitted], texts[fitted], epochs), x[measured], texts[measured]
                )
                for seed in range(args.seeds)
            ]
        )

    def best_baseline(pooled: Tensor) -> dict[str, Any]:
        dev = {
            epochs: baseline(pooled, of["train"], of["dev"], epochs) for epochs in (4, 8, 16, 32)
        }
        best = max(dev, key=lambda epochs: dev[epochs][1])
        return {
            "recall": baseline(pooled, known, of["test"], best),
            "features": pooled.shape[1],
            "seeds": args.seeds,
            "epochs": best,
            "trained_on_figures": int(known.sum()),
            "dev_recall_by_epochs": dev,
        }

    last = int(backbone.vision.network._conv_head.out_channels)
    found, same = best_baseline(every[:, :last]), best_baseline(every)
    report = evaluate_figures(model, args.data)
    result: dict[str, Any] = {
        "what": "text to image and back over held-out figures",
        "command": "python benchmarks/mini_figures.py",
        "candidates": report.candidates,
        "baseline_mlp": found,
        "mlp_on_all_features": same,
        "mini": report.as_dict(),
        "recall_at_1_ratio": round(report.text_to_image.recall[1] / found["recall"][1], 3),
        "machine": facts("torch", "transformers"),
    }
    write_result("mini_figures", result)


if __name__ == "__main__":
    main()
