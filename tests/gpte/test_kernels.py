"""The score engine's Triton kernels, by its interpreter, against the whole form by autograd."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mmembed.gpte import score_engine
from mmembed.gpte.objectives import (
    DuplicateMask,
    GuideMask,
    Hardness,
    InfoNCE,
    Matryoshka,
    ModalityMask,
    ThresholdMask,
    contrastive,
    fused,
)
from mmembed.gpte.objectives.contrastive import Contrastive
from mmembed.gpte.protocols import Columns, Outputs

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

N, D, K = 7, 6, 2
EVERY = ("q2d", "q2q", "d2q", "d2d")


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kernels on the CPU, in tiles of three rows; and how many tiles they did."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    from mmembed.gpte import kernels

    tiles: list[int] = []
    whole = kernels.cross_entropy_tile

    def counted(*arguments: Any) -> Any:
        tiles.append(1)
        return whole(*arguments)

    monkeypatch.setattr(kernels, "cross_entropy_tile", counted)
    monkeypatch.setattr(fused, "kernels_run", lambda device: True)
    monkeypatch.setattr(
        contrastive, "score_loss", functools.partial(score_engine.score_loss, tile_rows=3)
    )
    return tiles


def batch() -> tuple[Columns, list[torch.Tensor]]:
    g = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=g)

    leaves = [draw(n, D).requires_grad_() for n in (N, N, N * K)]
    scale = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    guide = {
        name: Outputs(dense=draw(len(x), 3))
        for name, x in zip(("query", "positive", "negative"), leaves, strict=True)
    }
    columns = Columns(
        *(Outputs(dense=leaf) for leaf in leaves),
        negatives_per_query=K,
        meta={
            "query_hash": torch.tensor([1, 2, 3, 1, 4, 5, 6]),
            "positive_hash": torch.tensor([11, 12, 13, 14, 15, 12, 16]),
            "negative_hash": torch.cat([torch.tensor([12]), torch.arange(20, 19 + N * K)]),
        },
        guide=guide,
        shared={
            "log_scale": scale,
            "queue": F.normalize(draw(4, D), dim=1),
            "queue_hash": torch.tensor([3, 11, 900, 901]),
        },
    )
    return columns, [*leaves, scale]


CASES: dict[str, Any] = {
    "plain": InfoNCE(),
    "all four, learned": InfoNCE(directions=EVERY, learn_temperature=True),
    "by sides": InfoNCE(directions=EVERY, partition="side", repeat_positive=True),
    "apart": InfoNCE(directions=("q2d", "d2q"), partition="direction", learn_temperature=True),
    "masks": InfoNCE(directions=EVERY, masks=(DuplicateMask(), ThresholdMask(0.1), GuideMask())),
    "own negatives": InfoNCE(hard_negatives="own", score="dot"),
    "prefixes": Matryoshka(InfoNCE(directions=EVERY, learn_temperature=True), (2, 6), (0.5, 1.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_autograd(
    case: str, interpreted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, leaves = batch()
    ours = CASES[case](columns)
    mine = torch.autograd.grad(ours.total, leaves, allow_unused=True)
    assert len(interpreted) >= 3
    monkeypatch.setattr(contrastive, "score_loss", score_engine.score_loss)
    interpreted.clear()
    theirs = CASES[case](columns)
    assert not interpreted  # the whole form
    torch.testing.assert_close(ours.total, theirs.total, rtol=1e-10, atol=1e-10)
    for name, part in theirs.parts.items():
        torch.testing.assert_close(ours.parts[name], part, rtol=1e-10, atol=1e-10)
    wanted = torch.autograd.grad(theirs.total, leaves, allow_unused=True)
    for a, b in zip(mine, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_columns_beyond_one_block_of_the_kernel(interpreted: list[int]) -> None:
    from mmembed.gpte.kernels import ScoredBlock, cross_entropy_tile

    torch.manual_seed(0)
    scores = torch.randn(3, 2500, requires_grad=True)
    own = torch.tensor([0, 1500, 2499])
    scale = torch.tensor(30.0)
    loss, (grad,), _ = cross_entropy_tile([ScoredBlock(scores.detach(), None, own, True)], scale, 2)
    expected = F.cross_entropy(30 * scores, own, reduction="none")
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    (wanted,) = torch.autograd.grad(2 * expected.sum(), scores)
    torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-5)


def test_what_has_no_kernel_goes_by_autograd(interpreted: list[int]) -> None:
    others: list[Contrastive] = [
        InfoNCE(focal=0.5),
        InfoNCE(margin=0.1),
        InfoNCE(hardest=2),
        InfoNCE(weights=Hardness(2.0)),
        InfoNCE(masks=(ModalityMask(0.5),)),
    ]
    columns, _ = batch()
    kinds = {"modality": torch.ones(N).long(), "negative_modality": torch.ones(N * K).long()}
    columns.meta = {**columns.meta, **kinds}
    for objective in others:
        assert not objective.fusible
        objective(columns)
    assert not interpreted


def test_a_cpu_has_no_kernels() -> None:
    assert not fused.kernels_run(torch.device("cpu"))


COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from mmembed.gpte import kernels

floats = {"scores": "*fp32", "scales": "*fp32", "lses": "*fp32", "grads": "*fp32"}
kinds = floats | {"by_scale": "*fp32", "out": "*fp32", "dropped": "*u8", "owns": "*i64"}
kinds |= {"weight": "fp32", "columns": "i32"}
for kernel in (kernels._lse_kernel, kernels._grad_kernel):
    for role in (0, 1, 2):
        signature = {name: kinds.get(name, "constexpr") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, {"block": 1024, "masked": True, "role": role})
        print(len(compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]))
"""


def test_the_kernels_compile_for_a_gpu() -> None:
    """To machine code of sm_90, which needs no such device."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", COMPILED]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr[-2000:]
    sizes = [int(line) for line in out.stdout.split()]
    assert len(sizes) == 6
    assert min(sizes) > 1000
