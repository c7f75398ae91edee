"""Training a connector: captioned images on one side, sentence embeddings on the other.

Four steps, each of which takes minutes on two CPU cores:

1. features of every image by the frozen vision tower, kept on disk (first set: two views more);
2. kernel ridge regression from pooled features to the embedding of the description, with some of
   the images as landmarks (Nystroem; Williams and Seeger, 2001), and from what the tower's own
   classifier sees, by the names of its classes, each of which is an example without an image;
3. a linear map behind it, by symmetric InfoNCE between images and descriptions. What the regression
   says of its own training images is too good to learn from, so the map is trained on cross-fitted
   predictions, as in stacking (Wolpert, 1992), and then folded into the regression;
4. the decoder learns from texts alone: the tokens that it writes for a text's embedding must bring
   the frozen text encoder to that embedding. What it still misses on the whole is corrected by a
   linear map ahead of it, which costs nothing as it becomes a part of the decoder's first layer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
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
from mmembed.gpte.metrics import first_ranks
from mmembed.gpte.objectives.infonce import InfoNCE
from mmembed.gpte.objectives.masks import DuplicateMask
from mmembed.gpte.protocols import Columns, Outputs
from mmembed.gpte.states import TokenStates
from mmembed.multimodal.captioned import Captioned
from mmembed.multimodal.feature_cache import RememberedTower, features_of

__all__ = ["Alignment", "AlignmentConfig", "Classes"]

logger = logging.getLogger(__name__)

_VIEWS = ("full", "flip", "crop")


@dataclass(frozen=True, slots=True)
class AlignmentConfig:
    """Hyperparameters, chosen by cross-validation and on the development figures.

    Attributes:
        bandwidth: of the kernel, as a share of the median squared distance of two images.
        ridge: weight of the regression's penalty.
        name_ridge: of the penalty on what is made of the names of classes.
        name_weight: of a class's name as an example.
        folds: of the cross-fitting.
        map_steps: batches of the third step; 0 leaves it out.
        map_batch: images of each.
        map_decay: penalty on the squared distance of the map from the identity.
        temperature: of InfoNCE.
        decoder_steps: batches of the fourth step.
        decoder_batch: texts of each.
        tokens_kept: visual tokens that its forward reads, drawn at random.
        corrections: places that the decoder's correction is fitted to.
        correction_ridge: of that fit.
        learning_rate: peak of both.
    """

    bandwidth: float = 0.3
    ridge: float = 0.3
    name_ridge: float = 10.0
    name_weight: float = 0.3
    folds: int = 5
    map_steps: int = 0
    map_batch: int = 512
    map_decay: float = 0.01
    temperature: float = 0.05
    decoder_steps: int = 1000
    decoder_batch: int = 256
    tokens_kept: int = 18
    corrections: int = 1536
    correction_ridge: float = 1.0
    learning_rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Classes:
    """The classifier that a vision tower was trained with.

    Attributes:
        weight: ``(classes, channels)``, of the tower's first channels.
        bias: ``(classes,)``.
        names: of the classes.
    """

    weight: Tensor
    bias: Tensor
    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Fit:
    """A regression: landmarks, their coefficients, and those of names ``(width, width)``."""

    landmarks: Tensor
    coefficients: Tensor
    turn: Tensor


class Alignment:
    """Trains the connector of one model.

    Args:
        model: with a fresh connector.
        rows: the captioned images to train on. The set of the first row is the main one: it has
            three views, and first claim on the landmarks.
        cache: folder for features.
        classes: the tower's classifier, where the connector has a place for it.
    """

    def __init__(
        self,
        model: ComposedVLM,
        rows: Sequence[Captioned],
        cache: Path,
        config: AlignmentConfig,
        classes: Classes | None = None,
    ) -> None:
        self.model = model.requires_grad_(False)
        self.rows = rows
        self.config = config
        self.connector: Connector = model.connector
        self._rng = np.random.default_rng(config.seed)
        torch.manual_seed(config.seed)
        tower = RememberedTower(model.vision, cache)
        self._seen = [(where, pooled_features(one)) for where, one in _see(tower, rows)]
        self._main = len(self._seen[0][0])
        self.texts = _texts_by_row(rows)
        embedder = Embedder(model)
        unique = sorted({text for texts in self.texts for text in texts})
        self.text_ids = {text: i for i, text in enumerate(unique)}
        self.embeddings = torch.from_numpy(np.asarray(embedder.encode(unique)))
        self._names = torch.zeros(0, self.embeddings.shape[1])
        if classes is not None and self.connector.classifier is not None:
            names = torch.from_numpy(np.asarray(embedder.encode(list(classes.names))))
            self._names = names - names.mean(dim=0)
            self.connector.classifier.weight.copy_(classes.weight)
            self.connector.classifier.bias.copy_(classes.bias)

    def regress(self) -> None:
        """Step 2: closed form, in float64 where it is solved."""
        connector, roots = self.connector, self._seen[0][1]
        connector.mean.copy_(roots.mean(dim=0))
        connector.std.copy_(roots.std(dim=0) + 1e-3)
        z = connector.standardised(roots)
        connector.bandwidth.copy_(self.config.bandwidth * torch.cdist(z, z).square().median())
        connector.axis.copy_(F.normalize(self._described()[: self._main].mean(dim=0), dim=0))
        fit = self._fitted(torch.ones(len(self.rows), dtype=torch.bool))
        connector.landmarks.copy_(fit.landmarks)
        connector.coefficients.copy_(fit.coefficients)
        if len(self._names):
            connector.names.copy_(self._names @ fit.turn)

    def contrast(self) -> None:
        """Step 3: symmetric InfoNCE, with images of one description masked as negatives.

        A batch is of one set, where only what tells its images apart can help.
        """
        config, connector = self.config, self.connector
        predicted = self._cross_fitted()
        sizes = np.array(
            [len(where) / sum(w == where for w, _ in predicted) for where, _ in predicted]
        )
        objective = InfoNCE(
            temperature=config.temperature,
            directions=("q2d", "d2q"),
            partition="direction",
            masks=(DuplicateMask(),),
        )
        identity = torch.eye(connector.shape.width)
        turn = identity.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([turn], lr=config.learning_rate)
        self._tell("before InfoNCE", predicted, identity)
        for _ in _steps(optimizer, config.map_steps, warm_up=0.0):
            where, found = predicted[self._rng.choice(len(predicted), p=sizes / sizes.sum())]
            picked = self._rng.permutation(len(where))[: config.map_batch]
            images = connector.placed(found[picked] @ turn)
            texts = [self.texts[where[i]] for i in picked]
            ids = torch.tensor([self.text_ids[self._rng.choice(one)] for one in texts])
            loss = objective(
                Columns(
                    query=Outputs(dense=self.embeddings[ids]),
                    positive=Outputs(dense=images),
                    meta={"query_hash": ids, "positive_hash": ids},
                )
            ).total
            (loss + config.map_decay * (turn - identity).square().sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
        turn = turn.detach()
        self._tell("after InfoNCE", predicted, turn)
        connector.coefficients.copy_(connector.coefficients @ turn)
        if len(self._names):
            connector.names.copy_(connector.names @ turn)

    def _tell(self, when: str, predicted: Sequence[tuple[range, Tensor]], turn: Tensor) -> None:
        """Log how well each set's descriptions find its images, none of which was regressed on."""
        for where, found in dict(reversed(predicted)).items():
            ids = [self.text_ids[self.rows[i].description] for i in where]
            asked = sorted(set(ids))
            scores = self.embeddings[asked] @ self.connector.placed(found @ turn).T
            ranks = first_ranks(scores.numpy(), np.array(ids) == np.array(asked)[:, None])
            logger.info(
                "%s: %s, %d images: R@1 %.3f, R@10 %.3f, mrr %.4f",
                when,
                self.rows[where[0]].source,
                len(where),
                (ranks <= 1).mean(),
                (ranks <= 10).mean(),
                (1.0 / ranks).mean(),
            )

    def _cross_fitted(self) -> list[tuple[range, Tensor]]:
        """Each set and view, and what regressions without an image say of it."""
        config = self.config
        found = [torch.zeros(len(roots), self.connector.shape.width) for _, roots in self._seen]
        fold = torch.from_numpy(self._rng.permutation(len(self.rows)) % config.folds)
        for number in range(config.folds):
            fit = self._fitted(fold != number)
            for out, (where, roots) in zip(found, self._seen, strict=True):
                held_out = fold[list(where)] == number
                ours = self._inputs(roots[held_out], fit.landmarks)
                out[held_out] = ours @ torch.cat([fit.coefficients, fit.turn])
        return [(where, out) for (where, _), out in zip(self._seen, found, strict=True)]

    def _inputs(self, roots: Tensor, landmarks: Tensor) -> Tensor:
        """What is regressed upon: nearness to each landmark, and the names that are seen."""
        near = self.connector.kernel(self.connector.standardised(roots), landmarks)
        if not len(self._names):
            return near
        return torch.cat([near, self.connector.probabilities(roots) @ self._names], dim=1)

    def _fitted(self, kept: Tensor) -> _Fit:
        """A regression over the kept rows and the names."""
        config, connector = self.config, self.connector
        described = self._described()
        seen = []
        for where, roots in self._seen:
            here = kept[list(where)]
            seen.append((where, np.asarray(where)[here.numpy()], roots[here]))
        others = [roots for where, _, roots in seen if where[0] >= self._main]
        # A fold may have fewer images than the whole has landmarks.
        count = min(connector.shape.landmarks, len(seen[0][2]) + sum(map(len, others)))
        landmarks = connector.standardised(_landmarks(seen[0][2], others, count))
        # Nystroem: (K_mn K_nm + ridge K_mm) a = K_mn y.
        near = config.ridge * connector.kernel(landmarks, landmarks).double()
        normal = torch.block_diag(
            near + 1e-6 * torch.eye(count, dtype=torch.float64),
            config.name_ridge * torch.eye(self._width, dtype=torch.float64),
        )
        right = torch.zeros(len(normal), described.shape[1], dtype=torch.float64)
        for where, rows, roots in seen:
            # Each set has its own way of describing; what tells its images apart is regressed.
            targets = described[rows] - described[list(where)].mean(dim=0)
            inputs = self._inputs(roots, landmarks).double()
            normal += inputs.T @ inputs
            right += inputs.T @ targets.double()
        if self._width:
            gram = config.name_weight * (self._names.T @ self._names).double()
            normal[count:, count:] += gram
            right[count:] += gram
        solved = torch.linalg.solve(normal, right).float()
        return _Fit(landmarks, solved[:count], solved[count:])

    @property
    def _width(self) -> int:
        """Inputs of the regression that come of names."""
        return self._names.shape[1] if len(self._names) else 0

    def _described(self) -> Tensor:
        """``(rows, width)`` embeddings of the descriptions."""
        return self.embeddings[[self.text_ids[row.description] for row in self.rows]]

    def teach_decoder(self) -> None:
        """Step 4: embeddings of texts, mixtures of them, and what the regression finds."""
        config, connector = self.config, self.connector
        parameters = _decoder_of(connector)
        for parameter in parameters:
            parameter.requires_grad_(True)
        words = self.model.text.get_input_embeddings().weight
        # Training starts from the middle of the space of words.
        middle = words[1000:].mean(dim=0)
        connector.write.bias.data.copy_(middle.repeat(connector.shape.groups))
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.01)
        places = connector.place_in_space(torch.cat([roots for _, roots in self._seen]))
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

    def keep_decoder(self, state: Mapping[str, Tensor]) -> None:
        """Take the decoder of an earlier connector, which knows no image, in place of step 4."""
        for name, parameter in self.connector.named_parameters():
            if any(parameter is one for one in _decoder_of(self.connector)):
                parameter.copy_(state[name])
        self.connector.requires_grad_(False)

    @torch.inference_mode()
    def correct_decoder(self) -> None:
        """Aim where the encoder must be aimed at to arrive at the place that was found."""
        config, connector = self.config, self.connector
        places = connector.place_in_space(torch.cat([roots for _, roots in self._seen]))
        aimed = places[self._draw(len(places), config.corrections)]
        arrived = torch.cat(
            [
                _unit_means(self.model.read_visual(connector.decode(part)[:, : config.tokens_kept]))
                for part in aimed.split(64)
            ]
        )
        # Ridge regression from where it arrived to where it was aimed at, around no change at all.
        gram = arrived.T @ arrived + config.correction_ridge * torch.eye(arrived.shape[1])
        change = torch.linalg.solve(gram, arrived.T @ (aimed - arrived))
        correction = torch.eye(arrived.shape[1]) + change
        before = (arrived * aimed).sum(dim=1).mean()
        plain = connector.expand.weight.clone()
        connector.expand.weight.copy_(plain @ correction.T)
        again = connector.decode(aimed[:256])[:, : config.tokens_kept]
        after = (_unit_means(self.model.read_visual(again)) * aimed[:256]).sum(dim=1).mean()
        logger.info("decoder: cosine %.4f, corrected %.4f", before, after)
        if after < before:
            connector.expand.weight.copy_(plain)

    def _read(self, visual: Tensor) -> Tensor:
        """Unit vectors of images of which a random part of the tokens is read."""
        kept = torch.from_numpy(self._rng.permutation(visual.shape[1])[: self.config.tokens_kept])
        with torch.autocast("cpu", torch.bfloat16):
            states = self.model.read_visual(visual[:, kept])
        return _unit_means(states)

    def _draw(self, total: int, count: int) -> Tensor:
        return torch.from_numpy(self._rng.integers(0, total, count))


@torch.inference_mode()
def measure(model: ComposedVLM, rows: Sequence[Captioned], cache: Path) -> FiguresReport:
    """Retrieval over held-out rows from cached features; equals what the embedder gives."""
    features = features_of(RememberedTower(model.vision, cache), [row.image for row in rows])
    images = [_unit_means(model.read_visual(model.connector(part))) for part in features.split(64)]
    texts = Embedder(model).encode([row.description for row in rows])
    return retrieval_report(texts, torch.cat(images).numpy(), rows[0].split)


def _decoder_of(connector: Connector) -> list[torch.nn.Parameter]:
    return [*connector.expand.parameters(), *connector.write.parameters(), connector.place]


def _unit_means(states: TokenStates) -> Tensor:
    rows = states.offsets.numel() - 1
    return F.normalize(states.hidden.view(rows, -1, states.hidden.shape[1]).float().mean(1), dim=1)


def _see(tower: RememberedTower, rows: Sequence[Captioned]) -> Iterator[tuple[range, Tensor]]:
    """Numbers of the rows of each set, which are neighbours, and their features, view by view."""
    start = 0
    for _, group in groupby(rows, key=lambda row: row.source):
        images = [row.image for row in group]
        where = range(start, start + len(images))
        for view in _VIEWS if start == 0 else _VIEWS[:1]:
            yield where, features_of(tower, images, view)
        start = where.stop


def _landmarks(main: Tensor, others: Sequence[Tensor], count: int) -> Tensor:
    """``count`` images: those of the main set, then an even share of the others."""
    chosen = [main[:count]]
    room = count - len(chosen[0])
    # The smallest first: what they leave of their share goes to the larger ones.
    for i, roots in enumerate(sorted(others, key=len)):
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


def _steps(optimizer: torch.optim.Optimizer, total: int, warm_up: float = 0.1) -> Iterator[int]:
    """Numbers the steps, with a linear warm-up and a cosine decay of the learning rate."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step in range(total):
        rise = min(1.0, (step + 1) / (warm_up * total)) if warm_up else 1.0
        factor = rise * (0.5 + 0.5 * np.cos(np.pi * step / total))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        yield step
