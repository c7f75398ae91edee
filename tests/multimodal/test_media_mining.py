"""Mining negatives of any modality, and merging what was trained."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from media_cases import media_recipe, run, write_media_rows

from mmembed import Embedder, Reranker
from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.errors import ConfigError
from mmembed.gpte.data.examples import Report
from mmembed.gpte.data.sources import Place
from mmembed.gpte.recipe import Recipe, recipe_from
from mmembed.inputs.items import Item, parse_item
from mmembed.multimodal.config import MediaDataConfig, MediaSourceConfig
from mmembed.multimodal.data.rows import MediaExample, item_hash, media_examples
from mmembed.multimodal.mining import MediaMineStage, item_record, mine_media_negatives
from mmembed.multimodal.stage import tiny_judge
from mmembed.multimodal.stages import MEDIA_STAGES
from mmembed.reranker import log_odds


def mining(folder: Path, **options: object) -> Recipe:
    model = str(tiny_vlm("qwen2_vl", folder / "model"))
    source = {"path": str(write_media_rows(folder))}
    stage = {
        "name": "mined",
        "kind": "multimodal-mine",
        "model": model,
        "data": {"sources": [source]},
        "negatives": 3,
        **options,
    }
    return recipe_from(
        {"name": "m", "output": str(folder / "run"), "stages": [stage]}, MEDIA_STAGES
    )


def test_mined_negatives_are_the_best_ranked_targets_that_are_no_answer(tmp_path: Path) -> None:
    recipe = mining(tmp_path)
    outcome = run(recipe)["mined"]
    rows = [json.loads(line) for line in outcome.rows.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 14
    model = Embedder.from_pretrained(recipe.stages[0].model)  # type: ignore[union-attr]
    source = MediaSourceConfig(str(tmp_path / "rows.jsonl"))
    examples = list(media_examples(source, Report("rows")))
    targets = {item_hash(one.positive): one.positive for one in examples}
    documents = model.encode_document(list(targets.values()))
    keys = list(targets)
    for example, row in zip(examples, rows, strict=True):
        scores = model.encode_query([example.query])[0] @ documents.T
        order = [keys[i] for i in np.argsort(-scores)]
        own = {item_hash(one.positive) for one in examples if one.query == example.query}
        wanted = [key for key in order if key not in own and key != item_hash(example.query)][:3]
        got = [item_hash(parse_item(record)) for record in row["negatives"]]
        found = {k: float(scores[keys.index(k)]) for k in (*wanted, *got)}
        assert [round(found[k], 5) for k in got] == [round(found[k], 5) for k in wanted]
        assert len(row["scores"]) == 4
        assert row["scores"][1:] == sorted(row["scores"][1:], reverse=True)


def test_a_judge_leaves_its_probabilities_and_their_log_odds(tmp_path: Path) -> None:
    judge = tiny_judge(tmp_path)
    recipe = mining(tmp_path, reranker=str(judge), reranker_share=math.inf, negatives=2)
    rows = run(recipe)["mined"].rows
    assert rows is not None
    plain = run(replace(mining(tmp_path, negatives=2), output=str(tmp_path / "plain")))[
        "mined"
    ].rows
    assert plain is not None
    scorer = Reranker.from_pretrained(judge, device="cpu")
    for line, unjudged in zip(rows.open(), plain.open(), strict=True):
        row = json.loads(line)
        assert row["scores"] == json.loads(unjudged)["scores"]  # cosines, whoever judges
        found = scorer.score(row["query"], [row["positive"], *row["negatives"]])
        np.testing.assert_allclose(row["reranker_probabilities"], found, atol=1e-5)
        odds = [math.log(p / (1 - p)) for p in row["reranker_probabilities"]]
        np.testing.assert_allclose(row["reranker_scores"], odds, rtol=1e-9)


def test_a_judge_drops_what_it_finds_as_good(tmp_path: Path) -> None:
    examples = [
        MediaExample(Place("rows", i), parse_item(t), parse_item(u))
        for i, (t, u) in enumerate((("a", "b"), ("c", "d")))
    ]
    stage = MediaMineStage(
        "mined", MediaDataConfig((MediaSourceConfig("rows"),)), reranker_share=0.9
    )
    model = Embedder.from_pretrained(tiny_vlm("qwen2_vl", tmp_path))

    class Judge:
        def score(self, query: Item, documents: list[Item]) -> np.ndarray:
            return np.array([0.5, 0.44 if query == examples[0].query else 0.46], np.float32)

    first, second = mine_media_negatives(model, examples, stage, Judge())  # type: ignore[arg-type]
    assert first["negatives"] == [{"text": "d"}]
    np.testing.assert_allclose(first["reranker_scores"], [0.0, math.log(0.44 / 0.56)], atol=1e-6)
    assert second["negatives"] == []
    assert len(second["reranker_scores"]) == 1


def test_log_odds_of_certainty_are_finite() -> None:
    found = log_odds(np.array([0.0, 0.5, 1.0], np.float32))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, [-16.118, 0.0, 16.118], atol=1e-3)


def test_mined_rows_are_training_rows(tmp_path: Path) -> None:
    mine = mining(tmp_path).stages[0]
    train = media_recipe(tmp_path / "train", {"source": {"negatives": ["negatives"]}})
    stage = train.stages[0]
    source = MediaSourceConfig("stage://mined", negatives=("negatives",), teacher="scores")
    data = replace(stage.data, sources=(source,), negatives=2)  # type: ignore[union-attr]
    both = replace(train, stages=(mine, replace(stage, start="base", data=data)))
    outcomes = run(both)
    assert set(outcomes) == {"mined", "only"}


def test_a_stream_cannot_be_mined() -> None:
    data = MediaDataConfig((MediaSourceConfig("rows.jsonl"),), streaming=True)
    with pytest.raises(ConfigError, match=r"not with data\.streaming"):
        MediaMineStage("mined", data)


def test_no_negative_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of 14 queries .* ranks 90 and 100"):
        run(mining(tmp_path, ranks=[90, 100]))
    assert not (tmp_path / "run/mined/rows.jsonl").exists()


def test_records_of_items_read_back_as_the_same_items(tmp_path: Path) -> None:
    path = str(tmp_path / "a.png")
    for value in (
        "words",
        {"image": path},
        {"image": [path, path], "text": "both"},
        {"video": path, "instruction": "find"},
        {"document": f"{path}#page=3"},
    ):
        item = parse_item(value)
        again = parse_item(item_record(item))
        assert item_hash(again) == item_hash(item)
        assert again.instruction == item.instruction
    with pytest.raises(ConfigError, match="bytes"):
        item_record(parse_item({"image": b"\x89PNG"}))


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_merged_models_lie_between_their_parts(method: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    one, two = tmp_path / "one", tmp_path / "two"
    for folder, shift in ((one, 0.0), (two, 1e-2)):
        model = Embedder.from_pretrained(tiny_vlm("qwen2_vl", tmp_path / "model"))
        with torch.no_grad():
            for parameter in model.backbone.parameters():  # type: ignore[attr-defined]
                parameter.add_(shift)
        model.save_pretrained(folder)
    stage = {
        "name": "merged",
        "kind": "multimodal-merge",
        "models": [str(one), str(two)],
        "method": method,
    }
    values = {"name": "m", "output": str(tmp_path / "run"), "stages": [stage]}
    run(recipe_from(values, MEDIA_STAGES))
    a, b, merged = (
        load_file(folder / "model.safetensors")
        for folder in (one, two, tmp_path / "run/merged/model")
    )
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (a[name] + b[name]) / 2, rtol=0.0, atol=1e-3)
    assert np.isfinite(Embedder.from_pretrained(tmp_path / "run/merged/model").encode("a")).all()
