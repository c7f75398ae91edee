from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.calibration import (
    Flow,
    Whitening,
    fit_flow,
    fit_whitening,
    load_calibration,
    save_calibration,
)


def skewed(n: int, d: int = 6) -> Tensor:
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, generator=g, dtype=torch.float64)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ mix + 3.0


def test_whitened_vectors_have_unit_covariance() -> None:
    x = skewed(500)
    whitening = fit_whitening(x.split(64), eps=0.0)
    y = whitening.double()(x, normalise=False)
    torch.testing.assert_close(y.mean(0), torch.zeros(6).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.T.cov(), torch.eye(6).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(whitening(x).norm(dim=1), torch.ones(500).double())


def test_fewer_dimensions_keep_the_largest_variances() -> None:
    x = skewed(500)
    whole, cut = fit_whitening([x]), fit_whitening([x], 3)
    torch.testing.assert_close(whole(x, normalise=False)[:, :3], cut(x, normalise=False))
    spread = (x - x.mean(0)) @ (cut.weight / cut.weight.norm(dim=0)).double()
    assert spread.var(0).tolist() == sorted(spread.var(0).tolist(), reverse=True)


def test_too_few_vectors_are_refused_or_shrunk() -> None:
    x = skewed(4)
    with pytest.raises(ConfigError, match="3 directions only"):
        fit_whitening([x])
    assert fit_whitening([x], 3)(x).isfinite().all()
    shrunk = fit_whitening([x], shrinkage=0.1)
    assert shrunk(x).isfinite().all()
    assert float(shrunk.weight.norm(dim=0).max()) < 100
    with pytest.raises(ConfigError, match="two vectors"):
        fit_whitening([x[:1]])
    with pytest.raises(ConfigError, match="to 7"):
        fit_whitening([skewed(50)], 7)
    with pytest.raises(ConfigError, match="shrinkage"):
        fit_whitening([x], shrinkage=2.0)


def trained() -> Flow:
    return fit_flow(skewed(300), epochs=3, hidden=8, levels=2)


def test_a_flow_inverts_and_its_determinant_is_the_jacobians() -> None:
    flow = trained()
    x = skewed(300)[:5]
    latents, log_det = flow.transform(x)
    torch.testing.assert_close(flow.inverse(latents), x)
    for row in x:
        jacobian = torch.autograd.functional.jacobian(lambda r: flow(r[None])[0], row)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det)


def test_odd_widths_invert_too() -> None:
    x = skewed(100, 11)
    flow = fit_flow(x, epochs=1)
    torch.testing.assert_close(flow.inverse(flow(x)), x)


def test_fitting_lowers_the_bits_and_leaves_the_generator_alone() -> None:
    x = skewed(300)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    few = fit_flow(x, levels=2, epochs=1, batch_size=32)
    many = fit_flow(x, levels=2, epochs=20, batch_size=32)
    assert torch.equal(torch.get_rng_state(), state)
    assert many.bits_per_dim(x) < few.bits_per_dim(x)
    assert torch.equal(many(x), fit_flow(x, levels=2, epochs=20, batch_size=32)(x))


def test_data_dependent_start_standardises_each_step() -> None:
    x = skewed(300)
    flow = Flow(6, levels=1, depth=1).double()
    z = flow(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(6).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(6).double(), atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match="8 dimensions"):
        Flow(6)


@pytest.mark.parametrize("make", [lambda: fit_whitening([skewed(50)], 4), trained])
def test_saved_and_loaded_alike(make: object, tmp_path: Path) -> None:
    made: Whitening | Flow = make().float()  # type: ignore[operator]
    path = tmp_path / "calibration.safetensors"
    save_calibration(made, path)
    loaded = load_calibration(path)
    x = skewed(5).float()
    assert torch.equal(loaded(x), made(x))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelLoadError, match="no calibration"):
        load_calibration(path)
    about = {"kind": "whitening", "settings": '{"width": 3, "dim": 2}'}
    save_file({"mean": torch.zeros(3)}, path, metadata=about)
    with pytest.raises(ModelLoadError, match="weight"):
        load_calibration(path)
