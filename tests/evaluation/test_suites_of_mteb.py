"""Tasks of MTEB, its code benchmark, MIEB, ViDoRe and MVEB as mteb defines them, over local data.

mteb's own task is taken, with its type, columns and main metric; only the data, which it would
fetch, are local. The same model runs in all of them, and gets the same figures as by our evaluator.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmembed import Embedder
from mmembed.errors import ConfigError, InputError
from mmembed.evaluation.benchmarks import read_benchmark
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.tasks import Clustering, Naming, Retrieval, Similarity, Task
from mmembed.evaluation.mteb_clips import clip_of
from mmembed.evaluation.mteb_model import MtebModel, items_of_batch
from mmembed.evaluation.mteb_tasks import as_mteb, mteb_scores
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decode import decode_item

mteb = pytest.importorskip("mteb")


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder.from_pretrained("mini")


def files(task: Any, kind: str, queries: int) -> Retrieval:
    """The first queries, over the files that answer them."""
    wanted = list(dict.fromkeys(i for one in task.gains[:queries] for i in one))
    place = {old: new for new, old in enumerate(wanted)}
    gains = [{place[i]: gain for i, gain in one.items()} for one in task.gains[:queries]]
    documents = [Path(task.documents[i][kind]) for i in wanted]
    return Retrieval(task.queries[:queries], documents, gains)


def first(task: Any, queries: int) -> Retrieval:
    """The first queries of a retrieval task, and all its documents."""
    return Retrieval(task.queries[:queries], task.documents, task.gains[:queries])


@pytest.fixture(scope="module")
def pages(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Retrieval:
    """Questions to pages as pictures, as ViDoRe has them."""
    task: Any = read_benchmark("samples", project_root / "data")["T-VD"]
    folder = tmp_path_factory.mktemp("pages")
    pictures = []
    for number, item in enumerate(task.documents):
        (page,) = decode_item(item, MediaBudget()).parts
        pictures.append(folder / f"{number}.png")
        page.image.save(pictures[-1])  # type: ignore[union-attr]
    return Retrieval(task.queries[:8], pictures, task.gains[:8], "ndcg@5")


@pytest.fixture(scope="module")
def local(project_root: Path, pages: Retrieval) -> dict[str, Task]:
    """Data for each task."""
    data = project_root / "data"
    graded = rows_of(data / "text/related-test.jsonl.gz")[:40]
    first_side, second_side = ([row[side] for row in graded] for side in ("query", "positive"))
    samples: Any = read_benchmark("samples", data)
    photos = files(samples["T-I"], "image", 10)
    shown = photos.documents[:6]
    return {
        "STSBenchmark": Similarity(first_side, second_side, [row["score"] for row in graded]),
        "TwentyNewsgroupsClustering": Clustering(first_side, [row["book"] for row in graded]),
        "SciFact": first(read_benchmark("books", data)["terms"], 20),
        "CosQA": first(read_benchmark("code", data)["name"], 20),
        "Flickr30kT2IRetrieval": photos,
        "FER2013ZeroShot": Naming(
            shown, mteb.get_task("FER2013ZeroShot").get_candidate_labels(), [3] * len(shown)
        ),
        "VidoreDocVQARetrieval": pages,
        "MSVDT2VRetrieval": files(samples["T-V"], "video", 4),
    }


SUITES = {
    "STSBenchmark": ("MTEB(eng, v2)", "cosine_spearman", "spearman"),
    "TwentyNewsgroupsClustering": ("MTEB(eng, v1)", "v_measure", "v_measure"),
    "SciFact": ("MTEB(eng, v1)", "ndcg_at_10", "ndcg@10"),
    "CosQA": ("MTEB(Code, v1)", "ndcg_at_10", "ndcg@10"),
    "Flickr30kT2IRetrieval": ("MIEB(eng)", "ndcg_at_10", "ndcg@10"),
    "FER2013ZeroShot": ("MIEB(eng)", "accuracy", "accuracy"),
    "VidoreDocVQARetrieval": ("ViDoRe(v1)", "ndcg_at_5", "ndcg@5"),
    "MSVDT2VRetrieval": ("MVEB(v1)", "ndcg_at_10", "ndcg@10"),
}


def columns_of(task: Any, held: Any) -> Any:
    """The local data, their columns named as the task of the suite names them."""
    held.load_data()
    names = {
        getattr(held, column): getattr(task, column)
        for column in ("input_column_name", "label_column_name")
        if getattr(held, column, "") != getattr(task, column, "")
    }
    return held.dataset.rename_columns(names) if names else held.dataset


@pytest.mark.parity
@pytest.mark.parametrize("name", SUITES)
def test_a_task_of_the_suite_gives_our_figure(
    name: str, model: Embedder, local: dict[str, Task]
) -> None:
    suite, theirs, ours = SUITES[name]
    assert name in {task.metadata.name for task in mteb.get_benchmark(suite).tasks}
    task = mteb.get_task(name)
    assert task.metadata.main_score == theirs
    task.dataset, task.data_loaded = columns_of(task, as_mteb(f"Local{name}", local[name])), True
    results = mteb.evaluate(
        MtebModel(model), task, cache=None, overwrite_strategy="always", show_progress_bar=False
    )
    found = local[name].score(local[name].encode(model)).metrics[ours].value
    assert results[0].get_score() == pytest.approx(found, abs=1e-5)
    assert name == "FER2013ZeroShot" or found > 0.0


def test_clips_come_as_decoders_tensors_or_paths(samples: Path) -> None:
    budget = MediaBudget(max_frames=4)
    frames = torch.arange(10 * 3 * 8 * 6, dtype=torch.int64).remainder(256).to(torch.uint8)
    frames = frames.reshape(10, 3, 8, 6)

    class Decoder:
        """The part of torchcodec's interface that is used."""

        metadata = SimpleNamespace(average_fps=5.0)

        def __len__(self) -> int:
            return 10

        def get_frames_at(self, indices: list[int]) -> Any:
            return SimpleNamespace(data=frames[indices])

    assert np.array_equal(clip_of(Decoder(), budget), frames[[0, 3, 6, 9]].permute(0, 2, 3, 1))
    assert clip_of(frames, budget).shape == (10, 8, 6, 3)
    assert clip_of("a.mp4", budget) == "a.mp4"
    (item,) = items_of_batch({"text": [""], "video": [Decoder()]}, budget)
    assert list(item) == ["video"]
    torchcodec = pytest.importorskip("torchcodec.decoders")
    file = next((samples / "clips" / "emoji").glob("*.mp4"))
    (part,) = decode_item(file, budget).parts
    ours = part.pixels.astype(int)  # type: ignore[union-attr]
    theirs = clip_of(torchcodec.VideoDecoder(str(file)), budget).astype(int)
    assert np.abs(ours - theirs).mean() < 3.0  # other conversions of colours, the same frames


def test_batches_become_items() -> None:
    budget = MediaBudget()
    batch = {"text": ["a", ""], "image": ["i1", "i2"]}
    assert list(items_of_batch(batch, budget)) == [{"text": "a", "image": "i1"}, {"image": "i2"}]
    with pytest.raises(InputError, match="only audio"):
        list(items_of_batch({"audio": [1]}, budget))


def test_what_mteb_has_no_task_for_is_refused(model: Embedder) -> None:
    with pytest.raises(ConfigError, match="not fused"):
        as_mteb("x", Retrieval([{"image": "a", "text": "b"}], ["d"], [{0: 1.0}]))
    with pytest.raises(ConfigError, match="not fused"):
        as_mteb("x", Retrieval([Path("a.png"), Path("b.mp4")], ["d"], [{0: 1.0}] * 2))
    with pytest.raises(ConfigError, match="Retrieval of such items"):
        as_mteb("x", Retrieval(["a"], ["a", "b"], [{1: 1.0}], apart=[0]))
    with pytest.raises(ConfigError, match="only texts"):
        as_mteb("x", Clustering([Path("a.png")] * 2, [0, 1]))
    assert as_mteb("Y", Similarity(["a", "b"], ["c", "d"], [0.0, 5.0])).max_score == 5
    tiny = Naming(["a dog", "a law"], ["dog", "law"], [0, 1])
    assert mteb_scores(MtebModel(model), "LocalNames", tiny)["accuracy"] == 1.0
