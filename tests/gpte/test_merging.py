"""Merging of models against its formulas, and stages that merge, whiten and flow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from training_cases import recipe, write_rows

from mmembed.errors import ConfigError
from mmembed.gpte.encoding import encode
from mmembed.gpte.merging import linear, slerp
from mmembed.gpte.recipe import recipe_from
from mmembed.gpte.run import run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.tiny import tiny_model


def test_linear_is_a_weighted_sum() -> None:
    a, b = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}
    torch.testing.assert_close(linear([a, b], [0.25, 0.75])["w"], torch.tensor([2.5, 5.0]))


def test_slerp_follows_the_arc() -> None:
    a, b = {"w": torch.tensor([[1.0], [0.0]])}, {"w": torch.tensor([[0.0], [1.0]])}
    half = slerp(a, b, 0.5)["w"]
    torch.testing.assert_close(half, torch.full((2, 1), 0.5**0.5))
    torch.testing.assert_close(slerp(a, b, 0.0)["w"], a["w"])
    torch.testing.assert_close(slerp(a, b, 1.0)["w"], b["w"])
    third = slerp(a, b, 1 / 3)["w"].flatten()
    torch.testing.assert_close(third, torch.tensor([3**0.5 / 2, 0.5]))


def test_parallel_and_zero_tensors_are_interpolated_linearly() -> None:
    a = {"w": torch.tensor([1.0, 1.0]), "z": torch.zeros(2)}
    b = {"w": torch.tensor([3.0, 3.0]), "z": torch.ones(2)}
    found = slerp(a, b, 0.25)
    torch.testing.assert_close(found["w"], torch.tensor([1.5, 1.5]))
    torch.testing.assert_close(found["z"], torch.full((2,), 0.25))


@pytest.mark.parametrize("other", [{"v": torch.zeros(2)}, {"w": torch.zeros(3)}])
def test_other_architectures_are_refused(other: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ConfigError, match="different architectures"):
        linear([{"w": torch.zeros(2)}, other], [0.5, 0.5])


def test_stages_merge_kept_checkpoints(tmp_path: Path) -> None:
    built = recipe(tmp_path, {"checkpoint": {"every": 5, "models": True}})
    merge = {"kind": "merge", "name": "merged", "models": ["stage://only@all", "base"]}
    merge["weights"] = [1.0, 1.0, 2.0]
    arc = {"kind": "merge", "name": "arc", "method": "slerp"}
    arc["models"] = ["stage://only@5", "stage://only@10"]
    (trained,) = built.stages
    both = recipe_from({"name": "x", "stages": [merge, arc]})
    from dataclasses import replace

    outcomes = run_recipe(replace(built, stages=(trained, *both.stages)))
    assert outcomes["merged"].model is not None
    models = Path(built.output) / "only/models"
    parts = [models / "step-00000005", models / "step-00000010", tmp_path / "bert"]
    states = [TextEncoder.from_pretrained(part).state_dict() for part in parts]
    merged = TextEncoder.from_pretrained(outcomes["merged"].model).state_dict()
    for name, value in merged.items():
        first, second, base = (state[name] for state in states)
        torch.testing.assert_close(value, first / 4 + second / 4 + base / 2)
    assert outcomes["arc"].model is not None


def test_wrong_merges(tmp_path: Path) -> None:
    bert = str(tiny_model("bert", tmp_path / "bert"))

    def run(**options: Any) -> None:
        stage = {"kind": "merge", "name": "m", **options}
        run_recipe(recipe_from({"name": "r", "output": str(tmp_path / "o"), "stages": [stage]}))

    with pytest.raises(ConfigError, match="1 models and 1 weights"):
        run(models=[bert])
    with pytest.raises(ConfigError, match=r"stage://late: no stage of that name comes before"):
        run(name="n", models=["stage://late", bert])
    with pytest.raises(ConfigError, match="slerp lies between two"):
        run(name="o", models=[bert] * 3, method="slerp")


@pytest.mark.parametrize("method", ["whitening", "flow"])
def test_calibrated_models_are_saved_with_what_calibrates_them(method: str, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 60)
    stage: dict[str, Any] = {"kind": "calibrate", "name": "c", "method": method}
    stage["model"] = str(tiny_model("bert", tmp_path / "bert"))
    stage["data"] = {"sources": [{"path": str(rows)}]}
    if method == "whitening":
        stage |= {"dim": 8}
    values = {"name": "r", "output": str(tmp_path / "run"), "stages": [stage]}
    outcome = run_recipe(recipe_from(values))["c"]
    assert outcome.model is not None
    encoder = TextEncoder.from_pretrained(outcome.model)
    texts = [f"the fox {i} jumps" for i in range(5)]
    found = encode(encoder, texts)
    plain = TextEncoder.from_pretrained(tmp_path / "bert")
    with torch.no_grad():
        raw = torch.cat([plain(plain.collate(plain.tokenize([t]))).dense for t in texts])
        assert encoder.calibration is not None
        expected = F.normalize(encoder.calibration(raw), dim=1)
    assert found.shape == (5, 8 if method == "whitening" else 32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    again = tmp_path / "again"
    encoder.save_pretrained(again)
    torch.testing.assert_close(encode(TextEncoder.from_pretrained(again), texts), found)
    stage = {**stage, "name": "d", "model": str(again)}
    with pytest.raises(ConfigError, match="calibrated already"):
        run_recipe(recipe_from({**values, "stages": [stage]}))
