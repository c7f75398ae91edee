"""MMEB-V2's layout on disk and its rules: own candidates, first is right, ties are no success."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.evaluation.mmeb import OwnCandidates, read_mmeb

EYE = np.eye(4, dtype=np.float32)


def picture(file: Path, colour: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), colour).save(file)
    return file.name


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_hit_at_1_among_own_candidates_only() -> None:
    task = OwnCandidates(["a", "b", "c"], list("wxyz"), [[0, 1], [1, 2], [3, 3, 0]])
    # a: right wins. b: its wrong candidate ties. c: equal candidates are one, and the right wins
    # although w, which is no candidate of b, is nearer to b.
    queries = np.stack([EYE[0], EYE[1] + EYE[2] + 3 * EYE[0], EYE[3]])
    assert task.score((queries, EYE)).values == [1.0, 0.0, 1.0]


def test_image_tasks_as_parquet(tmp_path: Path) -> None:
    picture(tmp_path / "red.png", "red")
    rows = [
        {
            "qry_inst": "<|image_1|> What colour?",
            "qry_text": "",
            "qry_img_path": "red.png",
            "tgt_text": ["red", "blue", "green"],
            "tgt_img_path": ["", "", ""],
        },
        {
            "qry_inst": "",
            "qry_text": "a red square",
            "qry_img_path": "",
            "tgt_text": ["blue", "red"],
            "tgt_img_path": ["", "red.png"],
        },
    ]
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tables" / "Colours.parquet")
    (task,) = read_mmeb(tmp_path / "tables", tmp_path).values()
    assert isinstance(task, OwnCandidates)
    assert task.queries == [
        {"image": str(tmp_path / "red.png"), "text": "What colour?"},
        "a red square",
    ]
    assert task.candidates == [
        "red",
        "blue",
        "green",
        {"image": str(tmp_path / "red.png"), "text": "red"},
    ]
    assert task.choices == [[0, 1, 2], [1, 3]]
    found = task.score(task.encode(Embedder.from_pretrained("mini")))
    assert found.main == "hit@1"
    assert found.queries == 2
    assert found.candidates == 3


def test_documents_rank_over_the_whole_corpus_with_linear_gains(tmp_path: Path) -> None:
    folder = tmp_path / "ViDoRe_x"
    for name, colour in zip("pqr", ("red", "green", "blue"), strict=True):
        picture(folder / f"{name}.png", colour)
    write(folder / "queries.jsonl", [{"query-id": i, "query": t} for i, t in enumerate("abc")])
    write(folder / "corpus.jsonl", [{"corpus-id": n, "image": f"{n}.png"} for n in "pqr"])
    qrels = [(0, "p", 2), (0, "q", 1), (1, "r", 1), (2, "q", 0)]
    write(
        folder / "qrels.jsonl", [{"query-id": q, "corpus-id": c, "score": s} for q, c, s in qrels]
    )
    (task,) = read_mmeb(tmp_path).values()
    assert task.queries == ["a", "b"]  # the third has no relevant page
    found = task.score((EYE[[1, 2]], EYE[:3]))
    dcg = 1 + 2 / np.log2(4)  # q first, then the tie of p and r, the less relevant one before
    assert found.values[0] == pytest.approx(dcg / (2 + 1 / np.log2(3)), abs=1e-4)
    assert found.main == "ndcg@5"


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no task"):
        read_mmeb(tmp_path)
    row = {"qry_text": "a", "qry_img_path": "gone.png", "tgt_text": ["b"]}
    write(tmp_path / "T.jsonl", [row])
    with pytest.raises(InputError, match=r"gone\.png: is not there .*row 0"):
        read_mmeb(tmp_path)
    write(tmp_path / "T.jsonl", [{"qry_text": "a", "tgt_text": ["b"], "tgt_img_path": ["", ""]}])
    with pytest.raises(InputError, match="unequal numbers"):
        read_mmeb(tmp_path)
