"""Judges of text and code, their labels, and functions that are matched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from codeembed.training.joined import Joiner
from codeembed.training.judging import CrossJudge
from codeembed.training.matched import judged_pairs, name_of
from codeembed.training.stages import CODE_RUNNERS, CODE_STAGES
from mmembed.errors import ConfigError
from mmembed.gpte.outcomes import Outcome
from mmembed.gpte.recipe import recipe_from
from mmembed.gpte.rows import Row
from mmembed.gpte.run import run_recipe
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import tiny_model

ROWS = [
    {"query": "adds two", "positive": "def add(a, b):\n    return a + b", "negatives": ["x", "yz"]},
    {"query": "reads", "positive": "def read(f):\n    return f.read()", "negatives": ["z", "y"]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("roberta", tmp_path_factory.mktemp("m") / "roberta")


def run(folder: Path, *stages: dict[str, object]) -> dict[str, Outcome]:
    recipe = recipe_from({"name": "r", "output": str(folder), "stages": list(stages)}, CODE_STAGES)
    return run_recipe(recipe, more=CODE_RUNNERS)


def rows_in(folder: Path, rows: list[dict[str, object]]) -> str:
    file = folder / "in.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def judge_stage(model: Path, source: str, **values: object) -> dict[str, object]:
    return {
        "name": "judge",
        "kind": "judge",
        "start": "base",
        "encoder": {
            "backbone": str(model),
            "family": "roberta",
            "settings": {"pooling": "first", "projections": [{"out": 1}]},
        },
        "data": {"sources": [{"path": source, "negatives": ["negatives"]}], "negatives": 2},
        "batch": {"size": 2},
        "schedule": {"steps": 2, "lr": 1e-3},
        **values,
    }


def test_a_judge_reads_both_together_and_its_logits_become_labels(
    model: Path, tmp_path: Path
) -> None:
    source = rows_in(tmp_path, ROWS)
    score = {"name": "taught", "kind": "scored", "source": source, "model": "stage://judge"}
    outcomes = run(tmp_path / "out", judge_stage(model, source), score)
    taught = outcomes["taught"].rows
    assert taught is not None
    found = [json.loads(line) for line in taught.read_text(encoding="utf-8").splitlines()]
    encoder = TextEncoder.from_pretrained(str(outcomes["judge"].model)).eval()
    for row, given in zip(found, ROWS, strict=True):
        assert {key: row[key] for key in given} == given
        for code, logit in zip([row["positive"], *row["negatives"]], row["teacher"], strict=True):
            text, own = encoder.tokenize([row["query"], code])
            ids = [*text.input_ids, *own.input_ids[1:]]
            own.input_ids, own.tokens = ids, len(ids)
            with torch.inference_mode():
                dense = encoder(encoder.collate([own])).dense
            assert dense is not None
            assert logit == pytest.approx(float(dense), abs=1e-5)


def test_a_judge_goes_on_from_a_judge(model: Path, tmp_path: Path) -> None:
    source = rows_in(tmp_path, ROWS)
    again = judge_stage(
        model,
        source,
        name="again",
        start="stage://judge",
        schedule={"steps": 1, "lr": 1e-12, "head_lr": 1e-12},
    )
    outcomes = run(tmp_path / "out", judge_stage(model, source), again)
    pairs = [(str(row["query"]), str(row["positive"])) for row in ROWS]
    first, second = (CrossJudge(str(outcomes[name].model))(pairs) for name in ("judge", "again"))
    assert second == pytest.approx(first, abs=1e-5)


def test_a_code_is_cut_where_there_is_no_room(model: Path) -> None:
    encoder = TextEncoder.from_pretrained(str(model), TextSettings(max_tokens=12))
    text, code = encoder.tokenize(["adds", "a + b"])
    row = Joiner(encoder)(text, code)
    assert len(row.input_ids) == row.tokens == 12
    (long,) = encoder.tokenize(["abcdefghijkl"])
    row = Joiner(encoder)(text, long)
    assert row.input_ids == [*text.input_ids, *long.input_ids[1:6], text.input_ids[-1]]
    assert row.spans == {"code": [(6, 11)]}
    with pytest.raises(ConfigError, match="leave prompts"):
        Joiner(encoder)(text, Row([7], 1))


def test_wrong_judges_are_told(model: Path, tmp_path: Path) -> None:
    source = rows_in(tmp_path, ROWS)
    with pytest.raises(ConfigError, match="gives one logit"):
        run(tmp_path / "a", judge_stage(model, source, encoder={"backbone": str(model)}))
    with pytest.raises(ConfigError, match=r"needs data\.negatives"):
        run(tmp_path / "b", judge_stage(model, source, data={"sources": [{"path": source}]}))
    with pytest.raises(ConfigError, match="not one logit"):
        CrossJudge(str(model))


def test_pairs_fit_each_others_documentation() -> None:
    base = np.eye(8)
    base[1] = base[0]  # the first two document, and do, the same
    texts = [f"t{i}" for i in range(8)]
    codes = [f"c{i}" for i in range(8)]
    chances = judged_pairs(texts, codes, base, base, [(0, 1), (0, 2), (3, 5)])
    assert chances[0] > 0.9
    assert (chances[1:] < 0.1).all()


def test_functions_of_one_name_are_paired(model: Path, tmp_path: Path) -> None:
    codes = [
        "def read_all(f):\n    return f.read()",
        "def readAll(file):\n    return b''.join(file)",
        "def close_all(fs):\n    for f in fs:\n        f.close()",
    ]
    assert [name_of(code, "python") for code in codes] == ["read_all", "readAll", "close_all"]
    assert name_of("def (", "python") == ""
    rows: list[dict[str, object]] = [{"query": f"q{i}", "positive": c} for i, c in enumerate(codes)]
    source = rows_in(tmp_path, rows)
    stage = {
        "name": "matched",
        "kind": "matched",
        "model": str(model),
        "data": {"sources": [{"path": source}]},
        "least": 1.0,
        "sure": 0.0,
    }
    made = run(tmp_path / "out", stage)["matched"].rows
    assert made is not None
    found = [json.loads(line) for line in made.read_text(encoding="utf-8").splitlines()]
    assert found == [{"query": codes[0], "positive": codes[1]}]
    with pytest.raises(ConfigError, match="none of 1 pairs passes"):
        run(tmp_path / "none", {**stage, "sure": 1.0})
