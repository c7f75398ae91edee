"""Learn the task ``retrieval`` of ``mini``: a rotation that puts first what matters most.

    python -m mmembed.multimodal.rotation --texts data/text --code data/code --data DATA \\
        --cache CACHE --output mmembed/models/mini

Whole vectors keep all their cosines, as rotations do, and vectors that are cut (Matryoshka,
Kusupati et al. 2022) keep more of them. The start is the eigenvectors of what queries and their
answers have in common, the largest first; InfoNCE and similarities of the whole vectors teach the
rest. Vectors are kept in CACHE, so an interrupted run goes on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from cyclopts import App
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from mmembed.backbones import load_backbone
from mmembed.backbones.composed import ComposedVLM
from mmembed.embedder import Embedder
from mmembed.embedder_config import CONFIG_NAME, EmbedderConfig
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.gpte.objectives import build_objective
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.multimodal.captioned import read_captioned
from mmembed.multimodal.feature_cache import RememberedTower
from mmembed.vector_cache import VectorCache

__all__ = ["TASK", "Pairs", "RotationConfig", "common_axes", "learn_rotation"]

app = App(help=__doc__)
logger = logging.getLogger(__name__)

TASK = "retrieval"
_TEXTS = ("terms", "sections", "crops")
_CODE = ("docstring", "comment", "name")
_FIGURES = "openstax_figures"  # other pictures made cuts of development sets worse


@dataclass(frozen=True, slots=True)
class Pairs:
    """Queries and their answers, of one set.

    Attributes:
        queries: ``(n, d)`` float32 unit vectors.
        answers: likewise; row by row.
        asked: ``(n,)`` int64, equal where queries are.
        told: ``(n,)`` int64, equal where answers are.
    """

    queries: Tensor
    answers: Tensor
    asked: Tensor
    told: Tensor

    def __len__(self) -> int:
        return len(self.queries)

    def columns(self, rows: Tensor, turned: nn.Module) -> Columns:
        """Some of the pairs as an objective reads them: turned, and whole as their guide."""
        queries, answers = self.queries[rows], self.answers[rows]
        return Columns(
            query=Outputs(dense=turned(queries)),
            positive=Outputs(dense=turned(answers)),
            meta={"query_hash": self.asked[rows], "positive_hash": self.told[rows]},
            guide={"query": Outputs(dense=queries), "positive": Outputs(dense=answers)},
        )


@dataclass(frozen=True)
class RotationConfig:
    """How the rotation is learned.

    Attributes:
        dims: lengths that vectors are cut to.
        steps: batches, each of one set, which is drawn by the root of its size.
        batch: pairs of one.
        lr: highest learning rate of Adam.
        temperature: of InfoNCE.
        softness: temperature of the similarities that are taught.
        seed: of the draws.
    """

    dims: tuple[int, ...] = (32, 64, 128, 256, 384)
    steps: int = 400
    batch: int = 128
    lr: float = 1e-3
    temperature: float = 0.05
    softness: float = 0.02
    seed: int = 0

    @property
    def objective(self) -> dict[str, Any]:
        """See :func:`mmembed.gpte.objectives.build_objective`."""
        contrast = {
            "name": "infonce",
            "temperature": self.temperature,
            "directions": ["q2d", "d2q"],
            "partition": "direction",
            "masks": ["duplicates"],
        }
        whole = {"name": "similarity_kd", "temperature": self.softness}
        parts = [{"objective": contrast}, {"objective": whole}]
        return {
            "name": "matryoshka",
            "dims": list(self.dims),
            "objective": {"name": "joint", "parts": parts},
        }


@app.default
def learn(
    texts: Path,
    code: Path,
    data: Path,
    cache: Path,
    output: Path,
    *,
    config: RotationConfig | None = None,
) -> None:
    """Learn the rotation and write it beside the packaged model.

    Args:
        texts: folder of pairs from textbooks, ``NAME-train.jsonl.gz``.
        code: folder of pairs of descriptions and code, likewise.
        data: the folder that holds the captioned figures.
        cache: where features and vectors are kept.
        output: the folder of the packaged model.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = config or RotationConfig()
    backbone = load_backbone(output)
    assert isinstance(backbone, ComposedVLM)
    backbone.vision = RememberedTower(backbone.vision, cache)
    model = Embedder(backbone)
    model.cache = VectorCache(cache / "vectors.sqlite")
    sets: dict[str, Pairs] = {}
    for name, queries, answers in training_pairs(texts, code, data):
        sets[name] = encoded(model, queries, answers)
        logger.info("%s: %d pairs", name, len(queries))
    write_rotation(learn_rotation(list(sets.values()), config), output)
    about = {"pairs": {name: len(pairs) for name, pairs in sets.items()}, **asdict(config)}
    (output / "rotation.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def training_pairs(
    texts: Path, code: Path, data: Path
) -> Iterator[tuple[str, list[str], list[Any]]]:
    """Openly licensed pairs of the training splits: name, queries, and their answers."""
    for folder, names in ((texts, _TEXTS), (code, _CODE)):
        for name in names:
            pairs = rows_of(folder / f"{name}-train.jsonl.gz")
            yield name, [pair["query"] for pair in pairs], [pair["positive"] for pair in pairs]
    rows = [row for row in read_captioned(_FIGURES, data) if row.split == "train" and row.licence]
    yield _FIGURES, [row.description for row in rows], [row.image for row in rows]


def encoded(model: Embedder, queries: Sequence[Any], answers: Sequence[Any]) -> Pairs:
    """Pairs of items as vectors."""
    numbers: dict[str, int] = {}
    asked, told = (
        torch.tensor([numbers.setdefault(f"{one}", len(numbers)) for one in side])
        for side in (queries, answers)
    )
    first, second = (model.encode(side, convert_to="torch") for side in (queries, answers))
    return Pairs(first, second, asked, told)


def common_axes(sets: Sequence[Pairs]) -> Tensor:
    """``(d, d)`` orthogonal rows: eigenvectors of the mean symmetric cross-covariance of the sets.

    The first ones tell most of where an answer lies by where its query does.
    """
    together = torch.stack([_common(pairs) for pairs in sets]).mean(dim=0)
    _, axes = torch.linalg.eigh((together + together.T) / 2)
    return axes.flip(1).T.float()


def _common(pairs: Pairs) -> Tensor:
    """``(d, d)`` float64 covariance of queries with their answers."""
    queries, answers = (
        side.double() - side.double().mean(dim=0) for side in (pairs.queries, pairs.answers)
    )
    return queries.T @ answers / len(pairs)


def learn_rotation(sets: Sequence[Pairs], config: RotationConfig) -> Tensor:
    """``(d, d)`` orthogonal; a vector's new coordinates are ``rotation @ vector``."""
    draw = torch.Generator().manual_seed(config.seed)
    start = common_axes(sets)
    # Cayley's map keeps it orthogonal at every step (Lezcano-Casado 2019).
    turned = parametrizations.orthogonal(
        nn.Linear(len(start), len(start), bias=False), orthogonal_map="cayley"
    )
    turned.weight = start
    optimizer = torch.optim.Adam(turned.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.steps, pct_start=0.1
    )
    objective = build_objective(config.objective)
    shares = torch.tensor([float(len(pairs)) for pairs in sets]).sqrt()
    for step in range(config.steps):
        pairs = sets[int(torch.multinomial(shares, 1, generator=draw))]
        rows = torch.randperm(len(pairs), generator=draw)[: config.batch]
        loss = objective(pairs.columns(rows, turned)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            logger.info("step %d: loss %.4f", step, loss.item())
    return turned.weight.detach()


def write_rotation(rotation: Tensor, folder: Path) -> None:
    """Write the rotation as the head of the task, beside a model's other files."""
    file = folder / CONFIG_NAME
    config = EmbedderConfig.read(file) if file.exists() else EmbedderConfig()
    config = replace(config, dense_tasks=[TASK])
    # In float32: in half of it, whole vectors would not keep their cosines to the last place.
    save_file({f"task_dense.{TASK}.weight": rotation.contiguous()}, folder / "heads.safetensors")
    file.write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
