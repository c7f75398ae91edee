"""Training a connector: captioned images on one side, sentence embeddings on the other.

Four steps, each of which takes minutes on two CPU cores:

1. features of every image by the frozen vision tower, kept on disk (first set: three views);
2. kernel ridge regression from pooled features to the embedding of the description, with some of
   the images as landmarks (Nystroem; Williams and Seeger, 2001);
3. the decoder learns from texts alone: the tokens that it writes for a text's embedding must bring
   the frozen text encoder to that embedding;
4. the decoder and what the patches add, by symmetric InfoNCE between images and descriptions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmembed.backbones.composed import ComposedVLM
from mmembed.backbones.connector import Connector, pooled_features
from mmembed.embedder import Embedder
from mmembed.errors import ConfigError
from mmembed.evaluation.figures import FiguresReport, retrieval_report
from mmembed.gpte.objectives.infonce import InfoNCE
from mmembed.gpte.objectives.masks import DuplicateMask
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.gpte.states import TokenStates
from mmembed.multimodal.captioned import Captioned
from mmembed.multimodal.feature_cache import Features, cached_features

__all__ = ["Alignment", "AlignmentConfig"]

logger = logging.getLogger(__name__)

_VIEWS = ("full", "flip", "crop")


@dataclass(frozen=True, slots=True)
class AlignmentConfig:
    """Hyperparameters, chosen on the development figures.

    Attributes:
        bandwidth: of the kernel, as a share of the median squared distance of two images.
        ridge: weight of the regression's penalty.
        decoder_steps: batches of the third step.
        decoder_batch: texts of each.
        epochs: of the fourth step; 0 leaves it out.
        batch: images of its batches.
        tokens_kept: visual tokens of an image that a training forward reads, drawn at random.
        learning_rate: peak of the third step; the fourth takes a tenth.
        temperature: of InfoNCE.
    """

    bandwidth: float = 0.3
    ridge: float = 0.3
    decoder_steps: int = 450
    decoder_batch: int = 256
    epochs: int = 4
    batch: int = 192
    tokens_kept: int = 18
    learning_rate: float = 1e-3
    temperature: float = 0.05
    seed: int = 0


class Alignment:
    """Trains the connector of one model.

    Args:
        model: with a fresh connector.
        rows: the captioned images to train on. The set of the first row is the main one: it has
            three views, and first claim on the landmarks.
        cache: folder for features.
    """

    def __init__(
        self, model: ComposedVLM, rows: Sequence[Captioned], cache: Path, config: AlignmentConfig
    ) -> None:
        self.model = model.requires_grad_(False)
        self.rows = rows
        self.config = config
        self.connector: Connector = model.connector
        self._rng = np.random.default_rng(config.seed)
        torch.manual_seed(config.seed)
        self._seen = list(_see(model, rows, cache))
        self.texts = _texts_by_row(rows)
        embedder = Embedder(model)
        unique = sorted({text for texts in self.texts for text in texts})
        self.text_ids = {text: i for i, text in enumerate(unique)}
        self.embeddings = torch.from_numpy(np.asarray(embedder.encode(unique)))
        self._objective = InfoNCE(
            temperature=config.temperature,
            directions=("q2d", "d2q"),
            partition="direction",
            masks=(DuplicateMask(),),
        )

    def regress(self) -> None:
        """Step 2: closed form, in float64 where it is solved."""
        connector = self.connector
        seen = [(where, _pooled(features)) for where, features in self._seen]
        main, others = seen[0][1], [roots for where, roots in seen if where[0] != 0]
        connector.mean.copy_(main.mean(dim=0))
        connector.std.copy_(main.std(dim=0) + 1e-3)
        connector.landmarks.copy_(
            connector.standardised(_landmarks(main, others, connector.shape.landmarks))
        )
        squared = torch.cdist(connector.standardised(main), connector.standardised(main)).square()
        connector.bandwidth.copy_(self.config.bandwidth * squared.median())
        described = torch.stack([self.embeddings[self.text_ids[r.description]] for r in self.rows])
        connector.axis.copy_(F.normalize(described[: len(main)].mean(dim=0), dim=0))
        # Nystroem: (K_mn K_nm + ridge K_mm) a = K_mn y.
        normal = self.config.ridge * connector.kernel(connector.landmarks, connector.landmarks)
        normal = normal.double() + 1e-6 * torch.eye(len(normal), dtype=torch.float64)
        right = torch.zeros(len(normal), described.shape[1], dtype=torch.float64)
        for where, roots in seen:
            # Each set has its own way of describing; what tells its images apart is regressed.
            targets = described[list(where)] - described[list(where)].mean(dim=0)
            kernel = connector.kernel(connector.standardised(roots), connector.landmarks).double()
            normal += kernel.T @ kernel
            right += kernel.T @ targets.double()
        connector.coefficients.copy_(torch.linalg.solve(normal, right))

    def teach_decoder(self) -> None:
        """Step 3: embeddings of texts, mixtures of them, and what the regression finds."""
        config, connector = self.config, self.connector
        parameters = _decoder_of(connector)
        for parameter in parameters:
            parameter.requires_grad_(True)
        words = self.model.text.get_input_embeddings().weight
        # Training starts from the middle of the space of words.
        middle = words[1000:].mean(dim=0)
        connector.write.bias.data.copy_(middle.repeat(connector.shape.groups))
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.01)
        places = connector.place_in_space(torch.cat([_pooled(f) for _, f in self._seen]))
        third = config.decoder_batch // 3
        losses: list[float] = []
        for step in _steps(optimizer, config.decoder_steps):
            texts = self.embeddings[self._draw(len(self.embeddings), third)]
            mixed = self.embeddings[self._draw(len(self.embeddings), third * 6)].view(third, 6, -1)
            share = (2 * torch.randn(third, 6)).softmax(dim=1)
            mixtures = F.normalize((share[:, :, None] * mixed).sum(dim=1), dim=1)
            target = torch.cat([texts, mixtures, places[self._draw(len(places), third)]])
            loss = 1.0 - (self._read(connector.decode(target)) * target).sum(dim=1).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if step % 50 == 49:
                logger.info("decoder step %d: 1 - cosine %.4f", step + 1, np.mean(losses[-50:]))
        connector.requires_grad_(False)

    def contrast(self, after_epoch: Callable[[int], None] | None = None) -> None:
        """Step 4: symmetric InfoNCE, with images of one description masked as negatives."""
        config, connector = self.config, self.connector
        parameters = [*_decoder_of(connector), connector.local.weight]
        for parameter in parameters:
            parameter.requires_grad_(True)
        batches = len(self.rows) // config.batch
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate / 10, weight_decay=0.05)
        order: list[int] = []
        losses: list[float] = []
        for step in _steps(optimizer, config.epochs * batches):
            if step % batches == 0:
                order = list(self._rng.permutation(len(self.rows)))
            picked = order[step % batches * config.batch :][: config.batch]
            features = torch.stack([self._any_view(i) for i in picked])
            ids = torch.tensor([self.text_ids[self._rng.choice(self.texts[i])] for i in picked])
            images = self._read(connector(features))
            loss = self._objective(
                Columns(
                    query=Outputs(dense=self.embeddings[ids]),
                    positive=Outputs(dense=images),
                    meta={"query_hash": ids, "positive_hash": ids},
                )
            ).total
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if step % batches == batches - 1:
                epoch = step // batches + 1
                logger.info("epoch %d: InfoNCE %.4f", epoch, np.mean(losses[-batches:]))
                if after_epoch is not None:
                    after_epoch(epoch)
        connector.requires_grad_(False)

    def _read(self, visual: Tensor) -> Tensor:
        """Unit vectors of images of which a random part of the tokens is read."""
        kept = torch.from_numpy(self._rng.permutation(visual.shape[1])[: self.config.tokens_kept])
        with torch.autocast("cpu", torch.bfloat16):
            states = self.model.read_visual(visual[:, kept])
        return _unit_means(states)

    def _any_view(self, row: int) -> Tensor:
        views = [f[row - where[0]] for where, f in self._seen if where[0] <= row <= where[-1]]
        return torch.from_numpy(views[self._rng.integers(len(views))].astype(np.float32))

    def _draw(self, total: int, count: int) -> Tensor:
        return torch.from_numpy(self._rng.integers(0, total, count))


@torch.inference_mode()
def measure(model: ComposedVLM, rows: Sequence[Captioned], cache: Path) -> FiguresReport:
    """Retrieval over held-out rows from cached features; equals what the embedder gives."""
    features = cached_features(cache, model.vision, [row.image for row in rows], "full")
    images = [
        _unit_means(model.read_visual(model.connector(torch.from_numpy(part.astype(np.float32)))))
        for part in np.array_split(features, max(1, len(features) // 64))
    ]
    texts = Embedder(model).encode([row.description for row in rows])
    return retrieval_report(texts, torch.cat(images).numpy(), rows[0].split)


def _decoder_of(connector: Connector) -> list[torch.nn.Parameter]:
    return [*connector.expand.parameters(), *connector.write.parameters(), connector.place]


def _unit_means(states: TokenStates) -> Tensor:
    rows = states.offsets.numel() - 1
    return F.normalize(states.hidden.view(rows, -1, states.hidden.shape[1]).float().mean(1), dim=1)


def _see(
    model: ComposedVLM, rows: Sequence[Captioned], cache: Path
) -> Iterator[tuple[range, Features]]:
    """Numbers of the rows of each set, which are neighbours, and their features, view by view."""
    start = 0
    for _, group in groupby(rows, key=lambda row: row.source):
        images = [row.image for row in group]
        where = range(start, start + len(images))
        for view in _VIEWS if start == 0 else _VIEWS[:1]:
            yield where, cached_features(cache, model.vision, images, view)
        start = where.stop


def _landmarks(main: Tensor, others: Sequence[Tensor], count: int) -> Tensor:
    """``count`` images: those of the main set, then an even share of the others."""
    chosen = [main[:count]]
    room = count - len(chosen[0])
    for i, roots in enumerate(others):
        share = min(len(roots), room // (len(others) - i))
        chosen.append(roots[torch.linspace(0, len(roots) - 1, share).long()])
        room -= share
    found = torch.cat(chosen)
    if len(found) < count:
        raise ConfigError(
            f"the connector wants {count} landmarks, and there are {len(found)} images"
        )
    return found


def _texts_by_row(rows: Sequence[Captioned]) -> list[list[str]]:
    """What is said of each image; its description counts thrice."""
    return [[row.description] * 3 + [*row.details, *row.context] for row in rows]


def _pooled(features: Features) -> Tensor:
    """``(n, channels)`` float32, without ever holding all features in float32."""
    parts = np.array_split(features, max(1, len(features) // 64))
    return torch.cat([pooled_features(torch.from_numpy(part.astype(np.float32))) for part in parts])


def _steps(optimizer: torch.optim.Optimizer, total: int) -> Iterator[int]:
    """Numbers the steps, with a short linear warm-up and a cosine decay of the learning rate."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step in range(total):
        factor = min(1.0, (step + 1) / (0.1 * total)) * (0.5 + 0.5 * np.cos(np.pi * step / total))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        yield step
