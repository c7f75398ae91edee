"""The mean gradient of two processes equals that of one process on the joined batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from processes import run_in_two

WORLD = 2


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the processes found; one start for all cases."""
    folder = tmp_path_factory.mktemp("gloo")
    script = Path(__file__).with_name("distributed_cases.py")
    out = folder / "report.json"
    run_in_two(script, folder / "store", out)
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(WORLD)]


def test_every_objective_is_invariant_to_the_number_of_processes(
    reports: list[dict[str, Any]],
) -> None:
    for report in reports:
        cases = {name: case for name, case in report.items() if ":" in name}
        assert len(cases) > 60
        wrong = {
            name: case
            for name, case in cases.items()
            if case["gradient"] > 1e-6 or case["value"] > 1e-6 or case["parts"] > 1e-6
        }
        assert not wrong
        assert report["registered"] == []  # every registered objective had a case


def test_accumulated_steps_are_invariant_too(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert len(report["accumulation"]) > 120  # every case, plainly and through the cache
        assert {k: error for k, error in report["accumulation"].items() if error > 1e-6} == {}


def test_the_queue_is_the_same_everywhere(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert report["queue"]["keys"] < 1e-12
        assert report["queue"]["hashes"] == list(range(7))


def test_collectives(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        assert report["empty process"] == [1, 2, 2]
        assert report["averaged"] == [0.5, 0.5]
        assert "different numbers of negatives per query: [0, 1]" in report["disagreement"]
        assert "one process holds rows with a positive or negatives" in report["other kinds"]
        assert report["neighbours"]
        assert report["rounds"] == {"query": 2, "positive": 0, "negative": 0}
    # Rows travel in bfloat16, are scored in float32, and gradients of both processes add up.
    assert reports[0]["half"] == ["torch.float32", "torch.bfloat16", [0.0]]
    assert reports[1]["half"] == ["torch.float32", "torch.bfloat16", [2.0, 4.0]]
