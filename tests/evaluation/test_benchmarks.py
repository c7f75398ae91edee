"""The registry, its tasks and the command, on data that ship with the project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_model import CountingModel

from mmembed.cli import app
from mmembed.commands.output import run
from mmembed.errors import ConfigError, InputError
from mmembed.evaluation.benchmarks import BENCHMARKS, measure, read_benchmark
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.sampling import sampled
from mmembed.evaluation.benchmarks.tasks import Clustering, Naming, Retrieval, Similarity
from mmembed.evaluation.curves import (
    binary,
    cut_curve,
    default_cuts,
    int8,
    quantisation_curve,
    truncated,
)
from mmembed.evaluation.runs import failures, read_runs

EYE = np.eye(6, dtype=np.float32)


def test_every_benchmark_says_what_it_is() -> None:
    assert len(BENCHMARKS) >= 18
    for one in BENCHMARKS.values():
        assert one.licence, one.name
        assert one.split
        assert one.source
        assert one.needs
        assert len(one.about) < 100


def test_a_retrieval_task_by_hand() -> None:
    task = Retrieval(list("abc"), list("xyzuvw"), [{0: 1.0}, {1: 2.0, 2: 1.0}, {5: 1.0}])
    found = task.score((EYE[[0, 1, 2]], EYE))
    assert found.metrics["hit@1"].value == pytest.approx(2 / 3)
    # The second query finds its better document first and ties on the other: last among the ties.
    assert found.queries == 3
    assert found.candidates == 6
    assert found.metrics["mrr"].low <= found.metrics["mrr"].value <= found.metrics["mrr"].high
    assert found.score == pytest.approx(np.mean(found.values))


def test_what_stands_apart_is_never_found() -> None:
    task = Retrieval(["a"], ["a", "b"], [{1: 1.0}], apart=[0])
    assert task.score((EYE[[0]], EYE[[0, 1]])).metrics["hit@1"].value == 1.0
    without = Retrieval(["a"], ["a", "b"], [{1: 1.0}])
    assert without.score((EYE[[0]], EYE[[0, 1]])).metrics["hit@1"].value == 0.0


def test_other_tasks_by_hand() -> None:
    naming = Naming(list("abc"), ["x", "y"], [0, 1, 1])
    assert naming.score((EYE[[0, 1, 0]], EYE[[0, 1]])).score == pytest.approx(2 / 3)
    pairs = Similarity(list("abc"), list("xyz"), [0.0, 1.0, 2.0])
    second = np.array([[0, 1.0], [1, 1], [1, 0]], dtype=np.float32)
    assert pairs.score((EYE[[0, 0, 0], :2], second)).score == pytest.approx(1.0)
    pytest.importorskip("sklearn")
    groups = Clustering(list("abcdef"), [0, 0, 0, 1, 1, 1])
    vectors = EYE[[0, 0, 0, 1, 1, 1]] + 0.01 * EYE
    found = groups.score((vectors, vectors))
    assert found.score == pytest.approx(1.0)
    assert found.metrics["neighbour_accuracy"].value == 1.0


def test_judgements_must_name_documents() -> None:
    with pytest.raises(InputError, match="query 1"):
        Retrieval(["a", "b"], ["x"], [{0: 1.0}, {}])
    with pytest.raises(InputError, match="query 0"):
        Retrieval(["a"], ["x"], [{3: 1.0}])


def test_samples_are_spread_and_keep_the_answers() -> None:
    task = Retrieval(list("abcde"), list("uvwxyz"), [{i: 2.0} for i in range(5)], "mrr", [5] * 5)
    few = sampled(task, 3)
    assert few.queries == ["a", "c", "e"]
    assert few.documents == ["u", "w", "y", "z"]  # answers, and what stands apart
    assert few.gains == [{0: 2.0}, {1: 2.0}, {2: 2.0}]
    assert (few.main, list(few.apart)) == ("mrr", [3, 3, 3])
    filled = sampled(Retrieval(["a"], list("uvwxyz"), [{2: 1.0}]), 3)
    assert filled.documents == ["u", "w", "z"]
    pairs = sampled(Similarity(list("abc"), list("xyz"), [0.0, 1.0, 2.0]), 2)
    assert (pairs.first, pairs.second, pairs.labels) == (["a", "c"], ["x", "z"], [0.0, 2.0])
    named = sampled(Naming(list("abc"), ["x", "y"], [0, 1, 1]), 2)
    assert (named.items, list(named.names), named.labels) == (["a", "c"], ["x", "y"], [0, 1])
    assert sampled(Clustering(list("abc"), [0, 1, 2]), 9).labels == [0, 1, 2]
    with pytest.raises(ConfigError, match="at least 1"):
        sampled(task, 0)
    with pytest.raises(ConfigError, match="str cannot be cut"):
        sampled("x", 1)


def test_measuring_a_benchmark_of_the_project(project_root: Path) -> None:
    model = CountingModel()
    found = measure("books", model, project_root / "data")
    tasks = read_benchmark("books", project_root / "data")
    assert set(found.subsets) == set(tasks)
    assert found.main == "ndcg@10"
    assert 0.1 < found.score < 0.9  # words in common find much, and not everything
    assert found.items == model.asked > 100
    record = json.loads(json.dumps(found.as_dict()))
    assert record["licence"] == "CC BY 4.0"
    cut = measure("books", model, project_root / "data", transform=lambda s: truncated(s, 8))
    assert cut.score < found.score
    few = measure("books", model, project_root / "data", subsets=("terms",), most=20)
    assert (few.subsets["terms"].queries, few.as_dict()["split"]) == (
        20,
        "test; a sample: at most 20 of a side",
    )


def test_the_mixed_corpus_is_one_list_of_all_targets(project_root: Path) -> None:
    alone = read_benchmark("samples", project_root / "data")
    mixed = read_benchmark("mixed", project_root / "data")
    corpora = {id(task.documents) for task in mixed.values()}  # type: ignore[attr-defined]
    assert len(corpora) == 1
    for name, task in alone.items():
        own: Any = task
        every: Any = mixed[name]
        assert own.queries == every.queries
        assert len(every.documents) > len(own.documents)
        for row, (a, b) in enumerate(zip(own.gains, every.gains, strict=True)):
            wanted = [own.documents[i] for i in a]
            assert [every.documents[i] for i in b] == wanted, (name, row)


def test_unknown_names_and_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no benchmark 'nope'.*cranfield"):
        measure("nope", CountingModel(), tmp_path)
    with pytest.raises(ConfigError, match=r"cranfield.*--data"):
        measure("cranfield", CountingModel(), tmp_path)
    (tmp_path / "cranfield").mkdir()
    with pytest.raises(InputError, match=r"docs\.jsonl\.gz.*is not there"):
        measure("cranfield", CountingModel(), tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n[2]\n')
    with pytest.raises(InputError, match=r"bad\.jsonl:2: is no JSON object"):
        rows_of(tmp_path / "bad.jsonl")


def test_unknown_subsets_are_named(project_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"no subset 'xx' .*terms"):
        measure("books", CountingModel(), project_root / "data", subsets=("xx",))


def test_curves(project_root: Path) -> None:
    task = read_benchmark("books", project_root / "data")["terms"]
    sides = task.encode(CountingModel())
    assert default_cuts(256) == [256, 128, 64, 32, 16]
    curve = cut_curve(task, sides, default_cuts(256))
    assert curve[256] > curve[64] > curve[16]
    by_bits = quantisation_curve(task, sides)
    assert by_bits["float16"] == pytest.approx(by_bits["float32"], abs=0.01)
    assert by_bits["binary"] < by_bits["int8"]
    _, second = int8(sides)
    assert np.abs(second - sides[1]).max() <= np.ptp(sides[1], axis=0).max() / 255
    assert set(np.unique(binary(sides)[0])) <= {-1.0, 1.0}
    with pytest.raises(ConfigError, match="256 dimensions"):
        truncated(sides, 300)


def test_failures_are_the_worst_ranks_with_what_was_found() -> None:
    task = Retrieval(
        ["a", "b"], [Path("x.jpg"), "y", {"image": "z.jpg", "text": "t"}], [{0: 1.0}, {2: 1.0}]
    )
    found = failures(task, (EYE[[0, 0]], EYE[[0, 1, 1]]))
    assert [one["query"] for one in found] == [{"text": "b"}]
    assert found[0]["wanted"] == {"image": str(Path("z.jpg").absolute()), "text": "t"}
    assert found[0]["found"][0] == {"image": str(Path("x.jpg").absolute())}
    assert found[0]["rank"] == 3


def call(*arguments: object) -> int:
    return run(app, [str(one) for one in arguments])


def test_the_command_lists_and_measures(
    capsys: pytest.CaptureFixture[str], project_root: Path, tmp_path: Path
) -> None:
    assert call("eval", "--list", "--json") == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["benchmark"] for one in listed} == set(BENCHMARKS)
    place = project_root / "data"
    options = ["--data", place, "--subset", "T-VD", "--save", tmp_path, "--json"]
    assert call("eval", "samples", *options) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["subsets"]["T-VD"]["candidates"] == 7
    assert record["score"] > 0.7  # pages have a text layer
    (saved,) = read_runs(tmp_path)
    assert saved["score"] == record["score"]
    assert saved["curves"]["dimensions"]["384"] == pytest.approx(record["score"], abs=1e-4)
    assert len(saved["subsets"]["T-VD"]["values"]) == 40
    assert call("eval", "nope") == 2
    assert "no benchmark 'nope'" in capsys.readouterr().err


def test_reading_runs_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no runs"):
        read_runs(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match=r"x\.json: is no saved run"):
        read_runs(tmp_path)


@pytest.mark.parametrize("name", [one for one in BENCHMARKS if one not in ("samples", "mixed")])
def test_every_set_reads(name: str, shared_data: Callable[[str], Path], project_root: Path) -> None:
    """Whole and consistent: tasks check their judgements when they are made."""
    about = BENCHMARKS[name]
    inside = (project_root / "data" / about.needs[0]).exists()
    data = project_root / "data" if inside else shared_data(about.needs[0]).parent
    for task in read_benchmark(name, data).values():
        for side in ("queries", "documents", "items"):
            for item in list(getattr(task, side, ()))[:50]:
                if isinstance(item, Path):
                    assert item.is_file()
