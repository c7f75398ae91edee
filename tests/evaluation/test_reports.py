"""Reports stand alone and hold what was measured; comparisons fail only for what is worse."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_model import CountingModel
from PIL import Image

from mmembed.cli import app
from mmembed.commands.output import run
from mmembed.errors import InputError
from mmembed.evaluation.reports import build_report, compare_runs, write_html, write_markdown
from mmembed.evaluation.reports.pictures import thumbnail
from mmembed.evaluation.reports.svg import bars, curves, points
from mmembed.evaluation.runs import measure_and_save, read_runs, save_record

SVG = "{http://www.w3.org/2000/svg}"


def call(*arguments: object) -> int:
    return run(app, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """Runs of two sizes of a small model, and a probe."""
    folder = tmp_path_factory.mktemp("runs")
    for width in (256, 32):
        model: Any = CountingModel(width)
        model.name = f"words-{width}"
        measure_and_save("books", model, project_root / "data", folder, ("terms",))
    table = {"typing": {"0": 0.5, "0.2": 0.25}}
    record = {
        "kind": "probe",
        "probe": "robustness",
        "reference": "A paper, 2020",
        "model": "words-256",
        "figures": {"typing_kept": 0.5},
        "tables": {"hit@1 by strength": table},
        "notes": [],
    }
    save_record(record, folder, "probe-robustness", "words-256")
    return folder


def test_drawings_are_whole_and_to_scale() -> None:
    tree = ET.fromstring(bars({"a & b": {"x": 1.0, "y": 0.5}, "c": {"x": 0.25}}, "ndcg"))
    heights = {
        r.find(f"{SVG}title").text: float(r.get("height", 0))  # type: ignore[union-attr]
        for r in tree.iter(f"{SVG}rect")
        if r.find(f"{SVG}title") is not None
    }
    assert heights["a & b, x: 1.0000"] == pytest.approx(2 * heights["a & b, y: 0.5000"], abs=0.2)
    assert heights["a & b, x: 1.0000"] == pytest.approx(4 * heights["c, x: 0.2500"], abs=0.4)
    drawn = ET.fromstring(curves({"m": {"8": 0.1, "4": 0.3}}, "u", "v"))
    (line,) = drawn.iter(f"{SVG}polyline")
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in str(line.get("points")).split())
    assert x0 < x1
    assert y0 > y1  # a larger value stands higher
    assert len(list(ET.fromstring(points({"a": (1.0, 2.0)}, "ms", "u")).iter(f"{SVG}circle"))) == 1
    ET.fromstring(bars({}))


def test_html_stands_alone_and_says_what_was_measured(runs: Path, tmp_path: Path) -> None:
    found = read_runs(runs)
    file = write_html(build_report(found), tmp_path / "r.html")
    page = file.read_text()
    for one in found:
        if one["kind"] == "eval":
            assert f"{one['score']:.4f}" in page
    assert "words-256" in page
    assert "CC BY 4.0" in page
    assert "A paper, 2020" in page
    assert page.count("<svg") >= 5  # leaderboard, subsets, two curves, latency, robustness
    assert not re.search(r'(src|href)="(?!#|data:)', page)  # nothing outside
    assert "Failures of words-32" in page
    board = page[page.index("<tbody>") : page.index("</tbody>")]
    assert board.index("words-256") < board.index("words-32")  # the better first


def test_markdown_links_to_files_that_are_there(runs: Path, tmp_path: Path) -> None:
    found = read_runs(runs)
    text = write_markdown(build_report(found, found[:1]), tmp_path / "r.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    for link in links:
        ET.parse(tmp_path / link)
    assert "(earlier)" in text


def test_pictures_of_media(samples: Path, tmp_path: Path) -> None:
    Image.new("RGB", (400, 100), "red").save(tmp_path / "a.png")
    for item in (
        {"image": str(tmp_path / "a.png"), "text": "t"},
        {"video": str(next((samples / "clips" / "emoji").glob("*.mp4")))},
        {"document": f"{samples}/pages/section-a.pdf#page=1"},
    ):
        assert thumbnail(item).startswith("data:image/jpeg;base64,"), item
    assert thumbnail({"text": "x"}) == ""
    assert thumbnail({"image": str(tmp_path / "gone.png")}) == ""


def shifted(runs: list[dict[str, Any]], by: float, noise: float = 0.0) -> list[dict[str, Any]]:
    """The runs with every query's value moved, and its metrics with it."""
    rng = np.random.default_rng(0)
    after = copy.deepcopy(runs)
    for one in after:
        for subset in one.get("subsets", {}).values():
            values = np.array(subset["values"])
            values = values + by + noise * rng.standard_normal(len(values))
            subset["values"] = values.tolist()
            subset["metrics"][subset["main"]][0] = float(values.mean())
    return after


def test_what_is_worse_and_what_is_not(runs: Path) -> None:
    before = [one for one in read_runs(runs) if one.get("model") == "words-256"]
    assert not any(change.worse for change in compare_runs(before, before))
    assert all(change.worse for change in compare_runs(before, shifted(before, -0.05)))
    assert not any(change.worse for change in compare_runs(before, shifted(before, 0.05)))
    # Certain and small; large and by chance.
    assert not any(change.worse for change in compare_runs(before, shifted(before, -0.005)))
    few = copy.deepcopy(before)
    for one in few:
        for subset in one.get("subsets", {}).values():
            subset["values"] = subset["values"][:4]
    noisy = shifted(few, -0.02, noise=1.0)
    assert not all(change.worse for change in compare_runs(few, noisy, 0.0))


def test_comparing_what_cannot_be_compared_is_an_error(runs: Path) -> None:
    before = [one for one in read_runs(runs) if one["kind"] == "eval"][:1]
    other = copy.deepcopy(before)
    other[0]["benchmark"] = "other"
    with pytest.raises(InputError, match="no benchmark in common"):
        compare_runs(before, other)
    fewer = copy.deepcopy(before)
    next(iter(fewer[0]["subsets"].values()))["queries"] = 3
    with pytest.raises(InputError, match="queries and"):
        compare_runs(before, fewer)


def test_the_commands(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("report", runs, tmp_path / "x.html", "--against", runs) == 0
    assert (tmp_path / "x.html").stat().st_size > 5000
    assert call("report", runs, tmp_path / "x.pdf") == 2
    assert "html or .md" in capsys.readouterr().err
    (old := tmp_path / "old").mkdir()
    (new := tmp_path / "new").mkdir()
    (record,) = [one for one in read_runs(runs) if one["model"] == "words-256" and "subsets" in one]
    (old / "a.json").write_text(json.dumps(record))
    (new / "a.json").write_text(json.dumps(shifted([record], -0.1)[0]))
    assert call("compare", old, old) == 0
    capsys.readouterr()
    assert call("compare", old, new, "--json") == 1
    assert all(json.loads(line)["worse"] for line in capsys.readouterr().out.splitlines())
    assert call("compare", old, new, "--tolerance", 0.2) == 0
    assert call("compare", tmp_path / "none", new) == 2
