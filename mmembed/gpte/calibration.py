"""Maps fitted to a trained model's vectors afterwards: whitening, and a normalising flow.

Both make the vectors of a corpus more isotropic without touching the model. Fit them on training
text only, and save them with the model: a query whitened by other statistics is in another space.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.objectives.base import wide

__all__ = ["Flow", "Whitening", "fit_flow", "fit_whitening", "load_calibration", "save_calibration"]


class Whitening(nn.Module):
    """``normalise((x - mean) W)`` with ``W = U S^(-1/2)`` of the covariance (Su et al. 2021).

    Attributes:
        mean: ``(d,)`` float32.
        weight: ``(d, k)`` float32.
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("weight", torch.zeros(width, dim))

    def settings(self) -> dict[str, Any]:
        """The arguments that make an equal module."""
        width, dim = self.weight.shape
        return {"width": width, "dim": dim}

    def forward(self, vectors: Tensor, *, normalise: bool = True) -> Tensor:
        """``(..., d)`` to ``(..., k)``, unit vectors unless told otherwise."""
        x = wide(vectors)
        out = (x - self.mean.to(x)) @ self.weight.to(x)
        return F.normalize(out, dim=-1) if normalise else out


def fit_whitening(
    batches: Iterable[Tensor],
    dim: int | None = None,
    *,
    shrinkage: float = 0.0,
    eps: float = 1e-6,
) -> Whitening:
    """Whitening of the covariance of these vectors, accumulated in float64.

    Args:
        batches: ``(n, d)`` tensors; they are read once and not kept.
        dim: keep the directions of the largest variance; all by default.
        shrinkage: in 0..1, move the covariance towards a multiple of the identity (Ledoit and Wolf
            2004). Needed where there are fewer vectors than dimensions.
        eps: added to the variances, as a share of their mean.

    Raises:
        ConfigError: there are too few vectors, or directions without variance would be blown up.
    """
    count, total, products = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for batch in batches:
        x = batch.detach().double()
        count += len(x)
        total = total + x.sum(dim=0)
        products = products + x.T @ x
    if count < 2:
        raise ConfigError(f"whitening needs two vectors at least, not {count}")
    mean = total / count
    covariance = (products - count * torch.outer(mean, mean)) / (count - 1)
    width = len(mean)
    dim = width if dim is None else dim
    if not 1 <= dim <= width:
        raise ConfigError(f"cannot whiten vectors of {width} dimensions to {dim}")
    if not 0.0 <= shrinkage <= 1.0:
        raise ConfigError(f"shrinkage lies in 0..1, not {shrinkage}")
    level = covariance.trace() / width
    covariance = (1 - shrinkage) * covariance + (shrinkage * level) * torch.eye(width).to(mean)
    variances, directions = torch.linalg.eigh(covariance)
    variances, directions = variances.flip(0)[:dim], directions.flip(1)[:, :dim]
    if float(variances[-1]) <= 1e-10 * float(level):
        rank = int((variances > 1e-10 * level).sum())
        raise ConfigError(
            f"{count} vectors vary in {rank} directions only, and whitening to {dim} would divide "
            f"by zero; set dim to {rank} or less, or shrinkage above 0"
        )
    made = Whitening(width, dim)
    made.mean.copy_(mean)
    made.weight.copy_(directions * (variances + eps * level).rsqrt())
    return made


class _Step(nn.Module):
    """Actnorm, a fixed permutation, and an additive coupling of two halves."""

    permutation: Tensor
    ready: Tensor

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(width))
        self.log_scale = nn.Parameter(torch.zeros(width))
        self.register_buffer("permutation", torch.randperm(width))
        self.register_buffer("ready", torch.tensor(False))
        self.kept = width // 2
        last = nn.Linear(hidden, width - self.kept)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(
            nn.Linear(self.kept, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(n, width)`` to the same shape, and the 0-d log-determinant of every row."""
        if not self.ready:
            with torch.no_grad():  # data-dependent start: outputs of mean 0 and variance 1
                self.shift.copy_(-x.mean(dim=0))
                self.log_scale.copy_(-x.std(dim=0).clamp_min(1e-6).log())
                self.ready.fill_(True)
        x = ((x + self.shift) * self.log_scale.exp())[:, self.permutation]
        kept, moved = x[:, : self.kept], x[:, self.kept :]
        return torch.cat([kept, moved + self.net(kept)], dim=1), self.log_scale.sum()

    def inverse(self, y: Tensor) -> Tensor:
        """The input of :meth:`forward`."""
        kept, moved = y[:, : self.kept], y[:, self.kept :]
        x = torch.cat([kept, moved - self.net(kept)], dim=1)[:, self.permutation.argsort()]
        return x * (-self.log_scale).exp() - self.shift


class Flow(nn.Module):
    """A Glow over vectors (BERT-flow, Li et al. 2020): isotropic Gaussian outputs, invertible.

    After each level half of the dimensions is done and leaves; the output holds them all again.
    Additive couplings and fixed permutations, as in the paper.

    Args:
        width: dimensions of the vectors.
        levels, depth, hidden: 3, 3 and 32 in the paper.
    """

    def __init__(self, width: int, levels: int = 3, depth: int = 3, hidden: int = 32) -> None:
        super().__init__()
        if width < 2**levels:
            raise ConfigError(f"{levels} levels of a flow need {2**levels} dimensions, not {width}")
        self.width, self.hidden, self.depth = width, hidden, depth
        self.widths = [width]  # of the dimensions that each level still moves, and of the rest
        for _ in range(levels):
            self.widths.append(self.widths[-1] - self.widths[-1] // 2)
        self.steps = nn.ModuleList(_Step(w, hidden) for w in self.widths[:-1] for _ in range(depth))

    def settings(self) -> dict[str, Any]:
        """The arguments that make an equal module."""
        levels = len(self.widths) - 1
        return {"width": self.width, "levels": levels, "depth": self.depth, "hidden": self.hidden}

    def _levels(self) -> list[list[_Step]]:
        steps = [step for step in self.steps if isinstance(step, _Step)]
        return [steps[i : i + self.depth] for i in range(0, len(steps), self.depth)]

    def transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(n, width)`` latents and the 0-d log-determinant, equal for all rows."""
        x = wide(x)
        log_det = x.new_zeros(())
        done: list[Tensor] = []
        for level in self._levels():
            for step in level:
                x, extra = step(x)
                log_det = log_det + extra
            half = x.shape[1] // 2
            done.append(x[:, :half])
            x = x[:, half:]
        return torch.cat([*done, x], dim=1), log_det

    def forward(self, vectors: Tensor) -> Tensor:
        """``(n, width)`` vectors to latents, not normalised."""
        return self.transform(vectors)[0]

    def inverse(self, latents: Tensor) -> Tensor:
        """The vectors that :meth:`forward` maps to ``latents``."""
        gone = [w // 2 for w in self.widths[:-1]]
        *done, x = latents.split([*gone, self.widths[-1]], dim=1)
        for level, out in zip(reversed(self._levels()), reversed(done), strict=True):
            x = torch.cat([out, x], dim=1)
            for step in reversed(level):
                x = step.inverse(x)
        return x

    def bits_per_dim(self, vectors: Tensor) -> Tensor:
        """0-d ``-log p(x) / (width ln 2)``, the mean over rows: the loss to minimise."""
        z, log_det = self.transform(vectors)
        log_p = -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1) + log_det
        return -log_p.mean() / (self.width * math.log(2))


def fit_flow(
    vectors: Tensor,
    *,
    levels: int = 3,
    depth: int = 3,
    hidden: int = 32,
    epochs: int = 1,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Flow:
    """Fit a flow by maximum likelihood; the vectors stay as they are.

    Args:
        vectors: ``(n, d)`` of training text.

    Raises:
        ConfigError: too few vectors to tell their spread.
    """
    if len(vectors) < 2:
        raise ConfigError(f"a flow needs two vectors at least, not {len(vectors)}")
    x = wide(vectors.detach())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = Flow(x.shape[1], levels, depth, hidden).to(x)
        with torch.no_grad():
            flow(x[:4096])  # sets the actnorms
        optimiser = torch.optim.Adam(flow.parameters(), lr=learning_rate)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(batch_size):
                optimiser.zero_grad()
                flow.bits_per_dim(x[rows]).backward()
                optimiser.step()
    return flow.eval().requires_grad_(False)


_KINDS: dict[str, type[Whitening] | type[Flow]] = {"whitening": Whitening, "flow": Flow}


def save_calibration(calibration: Whitening | Flow, path: Path) -> None:
    """Write one safetensors file, whole or not at all."""
    (kind,) = (name for name, cls in _KINDS.items() if type(calibration) is cls)
    about = {"kind": kind, "settings": json.dumps(calibration.settings())}
    tensors = {k: v.detach().contiguous().cpu() for k, v in calibration.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata=about)
    partial.replace(path)


def load_calibration(path: Path) -> Whitening | Flow:
    """Read what :func:`save_calibration` wrote.

    Raises:
        ModelLoadError: the file is no calibration, or a tensor is missing or of another shape.
    """
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if about.get("kind") not in _KINDS:
        raise ModelLoadError(f"{path} holds no calibration ({', '.join(_KINDS)})")
    made = _KINDS[about["kind"]](**json.loads(about["settings"]))
    try:
        made.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelLoadError(f"{path}: {error}") from None
    return made.eval().requires_grad_(False)
