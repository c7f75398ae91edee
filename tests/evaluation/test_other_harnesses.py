"""The same embedder in mteb and coir: really run, over data in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from counting_model import CountingModel

from mmembed import Embedder
from mmembed.errors import ConfigError, InputError
from mmembed.evaluation.benchmarks import read_benchmark
from mmembed.evaluation.benchmarks.tasks import Retrieval, Similarity
from mmembed.evaluation.coir_model import CoirModel
from mmembed.evaluation.mteb_model import MtebModel, items_of_batch
from mmembed.evaluation.mteb_tasks import as_mteb, mteb_score
from mmembed.evaluation.remembered import Remembered

mteb = pytest.importorskip("mteb")


@pytest.fixture(scope="module")
def model() -> Embedder:
    return Embedder.from_pretrained("mini")


@pytest.mark.parity
@pytest.mark.slow
def test_stsb_of_minilm_is_as_published_in_both(
    model: Embedder, shared_data: Callable[[str], Path]
) -> None:
    """mini's text vectors are those of all-MiniLM-L6-v2, whose published figure is 82.03."""
    task = read_benchmark("sts", shared_data("stsb_multi_mt").parent)["en"]
    once: Any = Remembered(model)
    ours = task.score(task.encode(once)).score
    assert round(100 * ours, 2) == pytest.approx(82.03, abs=0.1)
    assert mteb_score(MtebModel(once), "LocalSTS", task, "cosine_spearman") == pytest.approx(
        ours, abs=1e-5
    )


@pytest.mark.parity
def test_retrieval_is_the_same_in_both(model: Embedder, project_root: Path) -> None:
    """Texts over texts, and texts over pictures."""
    task: Any = read_benchmark("books", project_root / "data")["terms"]
    few = Retrieval(task.queries[:40], task.documents[:300], task.gains[:40])
    samples: Any = read_benchmark("samples", project_root / "data")["T-I"]
    files = [Path(item["image"]) for item in samples.documents]
    images = Retrieval(samples.queries, files, samples.gains)
    for name, one in {"LocalTerms": few, "LocalImages": images}.items():
        found = one.score(one.encode(model))
        assert 0.2 < found.score < 1.0
        wanted = {"ndcg_at_10": "ndcg@10", "mrr_at_1000": "mrr", "recall_at_5": "recall@5"}
        for theirs, ours in wanted.items():
            score = mteb_score(MtebModel(model), name, one, theirs)
            assert score == pytest.approx(found.metrics[ours].value, abs=1e-4), (name, theirs)


def test_kinds_of_tasks_of_mteb_run(model: Embedder) -> None:
    """mteb's own small tasks of every kind, texts and pictures."""
    from mteb import mocks

    wrapped = MtebModel(model)
    for kind in (
        mocks.MockClassificationTask,
        mocks.MockPairClassificationTask,
        mocks.MockBitextMiningTask,
        mocks.MockRerankingTask,
        mocks.MockInstructionRetrieval,
        mocks.MockSummarizationTask,
        mocks.MockAny2AnyRetrievalT2ITask,
        mocks.MockAny2AnyRetrievalI2TTask,
        mocks.MockZeroShotClassificationTask,
        mocks.MockSTSTask,
        mocks.MockImageClusteringFastTask,
    ):
        result = mteb.evaluate(wrapped, kind(), cache=None, show_progress_bar=False)
        assert np.isfinite(result[0].get_score()), kind.__name__


def test_the_wrapper_keeps_order_roles_and_instructions(model: Embedder) -> None:
    wrapped = MtebModel(model)
    assert isinstance(wrapped, mteb.models.EncoderProtocol)
    assert wrapped.mteb_model_meta.name == "mmembed/mini"
    assert wrapped.mteb_model_meta.embed_dim == 384
    batches = [{"text": ["a", "b"]}, {"text": ["c"]}]
    assert np.allclose(wrapped.encode(batches), model.encode(["a", "b", "c"]), atol=1e-6)
    asked: list[Any] = []
    spy: Any = SimpleNamespace(
        encode_query=lambda items, instruction: asked.append((list(items), instruction)) or [[1.0]],
        **{key: getattr(model, key) for key in ("name", "modalities", "fingerprint", "backbone")},
        **{key: getattr(model, key) for key in ("max_tokens", "dim", "config")},
    )
    told = MtebModel(spy, {"Known": "do this: "})
    told.encode([{"text": ["q"]}], task_metadata=SimpleNamespace(name="Known"), prompt_type="query")
    assert asked == [(["q"], "do this: ")]
    assert wrapped.similarity(torch.ones(2, 3), torch.ones(1, 3)).shape == (2, 1)
    assert wrapped.similarity_pairwise(torch.ones(2, 3), torch.ones(2, 3)).tolist() == (
        pytest.approx([1.0, 1.0])
    )


def test_batches_become_items() -> None:
    fused = list(items_of_batch({"text": ["a", ""], "image": ["i1", "i2"]}))
    assert fused == [{"text": "a", "image": "i1"}, {"image": "i2"}]
    clip = torch.zeros(4, 3, 8, 6, dtype=torch.uint8)
    (item,) = items_of_batch({"video": [clip]})
    assert item["video"].shape == (4, 8, 6, 3)
    with pytest.raises(InputError, match="only audio"):
        list(items_of_batch({"audio": [1]}))
    with pytest.raises(ConfigError, match="not fused items"):
        as_mteb("x", Retrieval([{"image": "a", "text": "b"}], ["d"], [{0: 1.0}]))
    assert as_mteb("Y", Similarity(["a", "b"], ["c", "d"], [0.0, 5.0])).max_score == 5


def test_coir_really_runs(tmp_path: Path, project_root: Path) -> None:
    evaluation = pytest.importorskip("coir.evaluation")
    task: Any = read_benchmark("code", project_root / "data")["name"]
    model = CountingModel()
    corpus = {f"d{i}": {"text": text, "title": ""} for i, text in enumerate(task.documents)}
    queries = {f"q{i}": text for i, text in enumerate(task.queries)}
    judged = {
        f"q{i}": {f"d{j}": int(g) for j, g in one.items()} for i, one in enumerate(task.gains)
    }
    run = evaluation.COIR({"names": (corpus, queries, judged)}, batch_size=16)
    found = run.run(CoirModel(model), str(tmp_path))
    ours = task.score(task.encode(model)).metrics["ndcg@10"].value
    assert found["names"]["NDCG"]["NDCG@10"] == pytest.approx(ours, abs=0.02)  # ties differ
    assert json.loads((tmp_path / "names.json").read_text())["metrics"]


def test_coir_reads_texts_alone() -> None:
    model = CoirModel(CountingModel())
    with_title = model.encode_corpus([{"title": "t", "text": "b"}, {"text": " "}])
    assert torch.equal(with_title[0], model.encode_queries(["b"])[0])
    assert with_title.shape == (2, 256)
