"""Training embedders of any modality: exact resume, processes, caches, and what happens when
things break."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "gpte"))
from media_cases import media_recipe, run, write_media_rows
from processes import run_in_two

from mmembed import Embedder
from mmembed.errors import ConfigError, InputError
from mmembed.gpte.data.examples import Report
from mmembed.gpte.recipe import Recipe, to_yaml
from mmembed.gpte.trainer import Step
from mmembed.inputs.items import parse_item
from mmembed.multimodal.config import MediaDataConfig, MediaEvaluationSet, MediaSourceConfig
from mmembed.multimodal.data.batches import Ahead, MediaExamples
from mmembed.multimodal.data.reading import read_sources
from mmembed.multimodal.data.rows import media_examples
from mmembed.multimodal.encoder import start_media_encoder
from mmembed.multimodal.evaluating import vector_scores

NEGATIVES = {"source": {"negatives": ["negatives"]}, "data": {"negatives": 1}}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "hard negatives": NEGATIVES,
    "cached by rows": {"batch": {"size": 4, "chunk_rows": 3}, **NEGATIVES},
    "cached by tokens": {"batch": {"size": 4, "chunk_tokens": 90}},
    "multi-vector": {
        "encoder": {"settings": {"pooling": "last", "multi_dim": 8}},
        "objective": {
            "name": "joint",
            "parts": [
                {"objective": {"name": "infonce", "temperature": 0.05}},
                {
                    "objective": {"name": "infonce", "temperature": 0.05, "score": "mean_maxsim"},
                    "label": "late",
                },
            ],
        },
    },
    "task adapter": {"encoder": {"train": "none", "task": "own", "lora": {"rank": 4}}},
    "checkpointed task": {
        "encoder": {
            "train": "none",
            "task": "own",
            "lora": {"rank": 4},
            "gradient_checkpointing": True,
        }
    },
    "lora": {"encoder": {"train": "none", "lora": {"rank": 4, "dropout": 0.1}}},
}


def weights(recipe: Recipe) -> dict[str, Tensor]:
    return load_file(Path(recipe.output) / "only/model/model.safetensors")


@pytest.mark.parametrize("case", sorted(CASES))
def test_training_lowers_the_loss_and_saves_a_model_that_embeds(case: str, tmp_path: Path) -> None:
    losses: list[float] = []
    stage = {**CASES[case], "schedule": {"steps": 12, "lr": 3e-3}}

    def keep(_: str, step: Step) -> None:
        losses.append(step.loss)

    outcome = run(media_recipe(tmp_path, stage), on_step=keep)["only"]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    model = Embedder.from_pretrained(outcome.model)
    vectors = model.encode(["a red card", {"image": str(tmp_path / "0-0.png")}])
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("case", ["plain", "cached by rows", "lora"])
def test_a_resumed_run_is_the_same_run(case: str, tmp_path: Path) -> None:
    stage = {**CASES[case], "checkpoint": {"every": 5}}
    whole = media_recipe(tmp_path, stage)
    run(whole)
    parts = replace(whole, output=str(tmp_path / "parts"))
    for stop in (2, 5, None):  # the second stop lies behind the end of an epoch
        run(parts, stop_after=stop)
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(parts)[name], tensor), name


def test_the_gradient_cache_trains_the_model_that_plain_batches_do(tmp_path: Path) -> None:
    schedule = {"steps": 3, "lr": 1e-3, "eps": 1e-4}
    found = []
    for name, batch in (
        ("plain", {"size": 6}),
        ("rows", {"size": 6, "chunk_rows": 4}),
        ("tokens", {"size": 6, "chunk_tokens": 100}),
    ):
        one = media_recipe(tmp_path, {**NEGATIVES, "batch": batch, "schedule": schedule})
        one = replace(one, output=str(tmp_path / name))
        run(one)
        found.append(weights(one))
    for other in found[1:]:
        for name, tensor in found[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain", "hard negatives", "multi-vector"])
def test_two_processes_train_the_model_that_one_does(case: str, tmp_path: Path) -> None:
    # A third of the rows have no image, and the vision tower learns: in batches of 2 a process
    # often has none, and must not keep the other one waiting.
    stage = {
        **CASES[case],
        "batch": {"size": 2},
        "schedule": {"steps": 4, "lr": 1e-3, "eps": 1e-2},  # Adam's first steps magnify noise
    }
    one = media_recipe(tmp_path, stage)
    run(one)
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(one), encoding="utf-8")
    script = Path(__file__).with_name("media_cases.py")
    run_in_two(script, file, tmp_path / "two")
    two = load_file(tmp_path / "two/only/model/model.safetensors")
    for name, tensor in weights(one).items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=4e-6, msg=name)


def test_what_is_frozen_stays(tmp_path: Path) -> None:
    one = media_recipe(tmp_path, {"encoder": {"train": "language"}})
    run(one)
    backbone = one.stages[0].encoder.backbone  # type: ignore[union-attr]
    folders = (backbone, Path(one.output) / "only/model")
    before, after = (Embedder.from_pretrained(each).backbone.state_dict() for each in folders)  # type: ignore[attr-defined]
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert any("layers" in key for key in changed)
    assert not any("visual" in key for key in changed)


def test_a_modality_mask_reads_the_items(tmp_path: Path) -> None:
    objective = {"name": "infonce", "temperature": 0.05, "masks": ["modality"]}
    losses: list[float] = []
    for name in ("modality", "duplicates"):
        one = media_recipe(tmp_path, {"objective": {**objective, "masks": [name]}})
        one = replace(one, output=str(tmp_path / name))
        run(one, on_step=lambda _, step: losses.append(step.loss), stop_after=1)
    assert losses[0] < losses[1]  # fewer documents compete


def test_communities_need_contextual_batches_and_train(tmp_path: Path) -> None:
    communities = {"skip": 1, "keep": 4, "size": 2}
    with pytest.raises(ConfigError, match="contextual"):
        media_recipe(tmp_path, {"communities": communities})
    stage = {"communities": communities, "batch": {"size": 4, "order": "contextual"}}
    assert run(media_recipe(tmp_path, stage))["only"].model


def test_interleaved_batches_hold_blocks_of_one_source(tmp_path: Path) -> None:
    one = media_recipe(tmp_path, {"batch": {"size": 4, "order": "interleaved", "block": 2}})
    stage = one.stages[0]
    two = replace(stage.data, sources=(stage.data.sources[0],) * 2)  # type: ignore[union-attr]
    assert run(replace(one, stages=(replace(stage, data=two),)))["only"].model


def test_metrics_are_measured_before_and_after(tmp_path: Path) -> None:
    source = {"path": str(write_media_rows(tmp_path)), "name": "rows"}
    sets = [{"source": source}, {"source": source, "reverse": True}]
    stage = {"evaluation": {"sets": sets, "best": "rows/recall@5"}}
    outcome = run(media_recipe(tmp_path, stage))["only"]
    assert set(outcome.start) == set(outcome.metrics) - {"step"}
    assert {"rows/recall@1", "rows-reverse/ndcg@10"} <= set(outcome.start)
    card = (outcome.model / "README.md").read_text(encoding="utf-8")
    assert "| rows/recall@1 |" in card


# --- bad input ------------------------------------------------------------------------------


def rows_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "rows.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def rewrite(folder: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")


def test_a_medium_that_goes_missing_stops_the_run_or_is_left_out(tmp_path: Path) -> None:
    write_media_rows(tmp_path)
    (tmp_path / "3-0.png").unlink()
    with pytest.raises(InputError, match=r"rows\.jsonl:4.*3-0\.png.*bad_rows: skip"):
        run(media_recipe(tmp_path, {}))
    outcome = run(
        media_recipe(
            tmp_path / "skip",
            {"source": {"path": str(tmp_path / "rows.jsonl")}, "data": {"bad_rows": "skip"}},
        )
    )
    assert outcome["only"].model


def test_other_rows_than_the_run_began_with_are_refused(tmp_path: Path) -> None:
    built = media_recipe(tmp_path, {"checkpoint": {"every": 2}})
    run(built, stop_after=2)
    rows = rows_of(tmp_path)
    rewrite(tmp_path, [*rows[1:], rows[0]])
    with pytest.raises(ConfigError, match=r"rows\.jsonl changed since this run began"):
        run(built)
    rewrite(tmp_path, rows)
    assert run(built)["only"].model


def test_media_can_be_checked_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_media_rows(tmp_path)
    (tmp_path / "0-0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    source = MediaSourceConfig(str(tmp_path / "rows.jsonl"))
    with pytest.raises(InputError, match=r"rows\.jsonl:1.*0-0\.png"):
        read_sources(MediaDataConfig((source,), check_media=True))
    (found,) = read_sources(MediaDataConfig((source,), bad_rows="skip", check_media=True))
    assert len(found) == 13
    assert "1 unreadable media" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive": ""}, "positive: holds nothing"),
        ({"query": None}, "query: a NoneType is no item"),
        ({"query": 5}, "query: a int is no item"),
        ({"positive": {"picture": "a.png"}}, "unknown key 'picture'"),
        ({"teacher": [1.0]}, "teacher holds 1 scores for 3 targets"),
        ({"score": "high"}, "score: 'high' is no number"),
        ({"negatives": []}, "no negative in negatives"),
    ],
)
def test_broken_rows_are_named_or_counted(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_media_rows(tmp_path)
    rows = rows_of(tmp_path)
    rows[2] |= change
    rewrite(tmp_path, rows)
    source = MediaSourceConfig(
        str(tmp_path / "rows.jsonl"), negatives=("negatives",), teacher="teacher", label="score"
    )
    with pytest.raises(InputError, match=r"rows\.jsonl:3") as caught:
        list(media_examples(source, Report("rows")))
    assert message in str(caught.value)
    report = Report("rows")
    assert len(list(media_examples(source, report, "skip"))) == 13
    assert report.problems.total() == 1


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    write_media_rows(tmp_path)
    source = MediaSourceConfig(str(tmp_path / "rows.jsonl"), query={"text": "caption"})
    with pytest.raises(ConfigError, match=r"no column 'caption' .*positive, query"):
        list(media_examples(source, Report("rows")))


def test_rows_held_out_for_testing_are_not_trained_on(tmp_path: Path) -> None:
    write_media_rows(tmp_path)
    rows = rows_of(tmp_path)
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[5]) + "\n", encoding="utf-8")
    source = MediaSourceConfig(str(tmp_path / "rows.jsonl"))
    held_out = (MediaSourceConfig(str(tmp_path / "test.jsonl")),)
    with pytest.raises(InputError, match=r"rows\.jsonl:6.*held out"):
        read_sources(MediaDataConfig((source,), held_out=held_out))
    (found,) = read_sources(MediaDataConfig((source,), held_out=held_out, bad_rows="skip"))
    assert len(found) == 13
    rewrite(tmp_path, [*rows, rows[0]])
    (found,) = read_sources(MediaDataConfig((source,)))
    assert len(found) == 14  # an equal row counts once


def test_batches_made_ahead_are_the_same_and_errors_arrive(tmp_path: Path) -> None:
    from mmembed.gpte.batching import Plan
    from mmembed.gpte.config import BatchConfig
    from mmembed.gpte.data.batches import PlannedBatches

    one = media_recipe(tmp_path, {})
    backbone = Embedder.from_pretrained(one.stages[0].encoder.backbone).backbone  # type: ignore[union-attr]
    (rows,) = read_sources(MediaDataConfig((MediaSourceConfig(str(tmp_path / "rows.jsonl")),)))
    planned = PlannedBatches(
        MediaExamples([rows], backbone), Plan((len(rows),), BatchConfig(size=4), 3)
    )
    ahead = Ahead(planned, 2).start_at(1)
    plain = planned.start_at(1)
    for _ in range(5):
        a, b = next(ahead), next(plain)
        assert [row.input_ids for row in a.query] == [row.input_ids for row in b.query]
        assert list(a.places) == list(b.places)
    ahead.close()
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        for _ in Ahead(planned, 2).start_at(0):
            pass


def test_parquet_and_shards_bring_media_as_bytes(tmp_path: Path) -> None:
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    write_media_rows(tmp_path)
    media = [(tmp_path / f"{i}-0.png").read_bytes() for i in range(3)]
    table = pa.table({"caption": ["a", "b", "c"], "image": [{"bytes": b} for b in media]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with tarfile.open(tmp_path / "rows.tar", "w") as shard:
        for i in range(3):
            (tmp_path / f"{i}.txt").write_text(f"caption {i}", encoding="utf-8")
            shard.add(tmp_path / f"{i}.txt", f"{i}.txt")
            shard.add(tmp_path / f"{i}-0.png", f"{i}.png")
    for path, text, image in (("rows.parquet", "caption", "image"), ("rows.tar", "txt", "png")):
        source = MediaSourceConfig(
            str(tmp_path / path), query={"text": text}, positive={"image": image}
        )
        found = list(media_examples(source, Report("rows")))
        assert [example.positive.parts[0].source for example in found] == media


def test_a_task_adapter_is_measured_and_not_the_model_alone(tmp_path: Path) -> None:
    recipe = media_recipe(
        tmp_path, {"encoder": {"train": "none", "task": "own", "lora": {"rank": 4}}}
    )
    stage: Any = recipe.stages[0]
    encoder = start_media_encoder(stage.encoder).eval()
    items = [parse_item("red"), parse_item("a blue card")]
    one = MediaEvaluationSet(MediaSourceConfig("rows.jsonl"))
    base = vector_scores(encoder, one, items, items)
    for parameter in encoder.embedder.adapters.parameters("own"):
        with torch.no_grad():
            parameter.normal_(std=0.5)
    found = vector_scores(encoder, one, items, items)
    assert np.abs(found - base).max() > 1e-3
    vectors = encoder.embedder.encode(["red", "a blue card"], task="own")
    np.testing.assert_allclose(found, vectors @ vectors.T, atol=1e-6)
