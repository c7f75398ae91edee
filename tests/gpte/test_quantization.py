from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmembed.errors import ConfigError
from mmembed.gpte.objectives import InfoNCE, Matryoshka, Quantized, learned_parameters
from mmembed.gpte.objectives.quantization import binarize, fake_int8
from mmembed.gpte.protocols import Columns, Outputs


def test_int8_rounds_and_learns_its_step_as_lsq_does() -> None:
    x = torch.tensor([0.0, 0.26, -0.9, 20.0, -20.0], dtype=torch.float64, requires_grad=True)
    step = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    out = fake_int8(x, step)
    torch.testing.assert_close(out, torch.tensor([0.0, 0.3, -0.9, 12.7, -12.7]).double())
    out.backward(torch.ones(5).double())
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 0, 0]
    assert step.grad is not None
    # round(v) - v inside the range, the bound outside.
    assert step.grad.item() == pytest.approx((3 - 2.6) + (-9 + 9) + 127 - 127)


def test_binary_keeps_signs_and_passes_gradients() -> None:
    x = torch.tensor([0.5, -0.1, 0.0, 3.0], requires_grad=True)
    out = binarize(x)
    assert out.tolist() == [1.0, -1.0, 1.0, 1.0]
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("kind", ["int8", "binary"])
def test_the_objective_adds_the_loss_of_quantised_vectors(kind: str) -> None:
    torch.manual_seed(0)
    leaves = [torch.randn(6, 8, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    objective = Quantized(Matryoshka(InfoNCE(), (8, 4)), kind, weight=0.5)  # type: ignore[arg-type]
    learned = learned_parameters(objective, 8).double()
    columns = Columns(*(Outputs(dense=x) for x in leaves), shared=dict(learned.items()))
    loss = objective(columns)
    units = [F.normalize(x, dim=1) for x in leaves]
    if kind == "int8":
        step = learned["quant_log_step"].exp().item()
        low = [(u / step).round() * step for u in units]
    else:
        low = [u.sign() for u in units]
    inner = Matryoshka(InfoNCE(), (8, 4))
    expected = inner(columns).total + 0.5 * inner(Columns(*(Outputs(dense=x) for x in low))).total
    torch.testing.assert_close(loss.total, expected)
    loss.total.backward()
    assert all(x.grad is not None and x.grad.any() for x in [*leaves, *learned.values()])
    assert set(loss.parts) == {"infonce@8", "infonce@4", f"infonce@8@{kind}", f"infonce@4@{kind}"}


def test_weights_are_positive() -> None:
    with pytest.raises(ConfigError, match="positive"):
        Quantized(InfoNCE(), weight=0.0)
