from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmembed.gpte import onednn
from mmembed.gpte.onednn import linear, matmul_nt, onednn_helps, use_onednn


@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (1, 12), (0, 12)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_its_gradients_equal_torch(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    values = [torch.randn(shape), torch.randn(7, 12), torch.randn(7) if bias else None]
    ours, theirs = (
        [None if v is None else v.clone().requires_grad_() for v in values] for _ in range(2)
    )
    out, expected = linear(*ours), F.linear(*theirs)
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(expected)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a.grad, b.grad)


def test_other_dtypes_take_the_ordinary_path() -> None:
    a, b = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    assert torch.equal(matmul_nt(a, b), F.linear(a, b))


def test_swapping_leaves_state_and_results_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    swapped = use_onednn(copy.deepcopy(model))
    assert model.state_dict().keys() == swapped.state_dict().keys()
    x = torch.randn(6, 4)
    torch.testing.assert_close(swapped(x), model(x))


def test_without_support_it_is_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "onednn_helps", lambda: False)
    a, b = torch.randn(3, 4), torch.randn(5, 4)
    assert torch.equal(matmul_nt(a, b), F.linear(a, b))


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    if not onednn.onednn_helps():
        pytest.skip("this machine takes the ordinary path")
    x = torch.randn(3, 4, requires_grad=True)
    out = linear(x, torch.randn(5, 4))
    (grad,) = torch.autograd.grad(out.pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.skipif(not onednn_helps(), reason="oneDNN is not used on this machine")
def test_slices_of_columns_are_copied_before_they_are_multiplied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """oneDNN multiplies matrices with gaps between their rows by a loop, 1,000 times as slow."""
    seen: list[torch.Tensor] = []

    def product(x: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
        seen.extend((x, weight))
        return x @ weight.T

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", product)
    a, b = torch.randn(5, 12), torch.randn(7, 12)
    torch.testing.assert_close(matmul_nt(a[:, 2:6], b[:, 2:6]), a[:, 2:6] @ b[:, 2:6].T)
    c = torch.randn(5, 7)
    torch.testing.assert_close(matmul_nt(c, b[:, 2:6].T), c @ b[:, 2:6])
    assert len(seen) == 4
    assert all(x.is_contiguous() or x.mT.is_contiguous() for x in seen)


def test_many_numbers_of_rows_are_few_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = set()

    def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        shapes.add(x.shape)
        return F.linear(x, weight, bias)

    monkeypatch.setattr(onednn, "onednn_helps", lambda: True)
    monkeypatch.setattr(onednn, "_product", product)
    weight, bias = torch.randn(5, 4), torch.randn(5)
    with torch.inference_mode():
        for rows in range(1, 1500):
            x = torch.randn(rows, 1, 4)
            torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))
    assert len(shapes) < 80
    assert max(len(shape) for shape in shapes) == 2
    assert max(shape[0] for shape in shapes) < 1500 * 1.125
