"""The same embedder in mteb: really run, over data in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmembed import Embedder
from mmembed.evaluation.benchmarks import read_benchmark
from mmembed.evaluation.benchmarks.tasks import Retrieval
from mmembed.evaluation.mteb_model import MtebModel
from mmembed.evaluation.mteb_tasks import SAME_METRICS, mteb_scores
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
    theirs = mteb_scores(MtebModel(once), "LocalSTS", task)["cosine_spearman"]
    assert theirs == pytest.approx(ours, abs=1e-5)


@pytest.mark.parity
def test_retrieval_is_the_same_in_both(model: Embedder, project_root: Path) -> None:
    """Every metric that both have."""
    task: Any = read_benchmark("books", project_root / "data")["terms"]
    rows = [row for row, one in enumerate(task.gains) if max(one) < 80]
    few = Retrieval(
        [task.queries[row] for row in rows], task.documents[:80], [task.gains[row] for row in rows]
    )
    found = few.score(few.encode(model))
    assert len(rows) > 20
    assert 0.2 < found.score < 1.0
    scores = mteb_scores(MtebModel(model), "LocalTerms", few)
    for ours, theirs in SAME_METRICS.items():
        if ours in found.metrics:
            assert scores[theirs] == pytest.approx(found.metrics[ours].value, abs=1e-5), ours


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
