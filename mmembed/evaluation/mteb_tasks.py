"""Local tasks as tasks of mteb, in memory: the same data measured by another evaluator.

Pictures and clips stay files: clips go to the model as paths, so that nothing decodes them twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from mmembed.errors import ConfigError, MissingDependencyError
from mmembed.evaluation.benchmarks.tasks import Clustering, Naming, Retrieval, Similarity, Task
from mmembed.inputs.items import VIDEO_SUFFIXES

__all__ = ["SAME_METRICS", "as_mteb", "mteb_scores"]

SAME_METRICS: Mapping[str, str] = {
    "ndcg@10": "ndcg_at_10",
    "ndcg@5": "ndcg_at_5",
    "map": "map_at_1000",
    "mrr": "mrr_at_1000",
    "hit@1": "hit_rate_at_1",
    "recall@1": "recall_at_1",
    "recall@5": "recall_at_5",
    "recall@10": "recall_at_10",
    "spearman": "cosine_spearman",
    "v_measure": "v_measure",
    "accuracy": "accuracy",
}
"""mteb's names of our metrics; mteb ranks no deeper than 1,000."""

_LETTERS = {"text": "t", "image": "i", "video": "v"}


def as_mteb(name: str, task: Task) -> Any:
    """A task of mteb that holds the data of a local one.

    Args:
        name: what mteb calls it.
        task: of texts, or of files of images or clips; without fused items and documents apart.

    Raises:
        ConfigError: mteb has no task for such data.
        MissingDependencyError: mteb is not installed.
    """
    try:
        import mteb  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("mteb", "eval") from error
    if isinstance(task, Similarity):
        return _similarity(name, task)
    if isinstance(task, Clustering):
        return _clustering(name, task)
    if isinstance(task, Naming):
        return _naming(name, task)
    if isinstance(task, Retrieval) and not task.apart:
        return _retrieval(name, task)
    raise ConfigError(f"{name}: {type(task).__name__} of such items has no task in mteb")


def mteb_scores(model: Any, name: str, task: Task) -> Mapping[str, Any]:
    """mteb's own metrics of a local task by their names there, e.g. ``"ndcg_at_10"``.

    Args:
        model: an :class:`mmembed.evaluation.mteb_model.MtebModel`.
        name: what mteb calls the task.
        task: as :func:`as_mteb`.
    """
    import mteb

    results = mteb.evaluate(
        model, as_mteb(name, task), cache=None, overwrite_strategy="always", show_progress_bar=False
    )
    found: Mapping[str, Any] = results[0].scores["test"][0]
    return found


def _similarity(name: str, task: Similarity) -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.sts import AbsTaskSTS

    labels = [float(x) for x in task.labels]

    class Local(AbsTaskSTS):
        metadata = _metadata(name, "STS", "cosine_spearman", ["text"], "t2t")
        min_score = int(min(labels))
        max_score = int(max(labels))

        def load_data(self, *args: Any, **options: Any) -> None:
            columns = {"sentence1": task.first, "sentence2": task.second, "score": labels}
            rows = {key: list(values) for key, values in columns.items()}
            self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
            self.data_loaded = True

    return Local()


def _clustering(name: str, task: Clustering) -> Any:
    """mteb's older kind, which fits all items once; the newer one fits samples of them."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy

    if _kind(task.items, name) != "text":
        raise ConfigError(f"{name}: only texts are clustered in mteb here")

    class Local(AbsTaskClusteringLegacy):
        metadata = _metadata(name, "Clustering", "v_measure", ["text"], "t2c")

        def load_data(self, *args: Any, **options: Any) -> None:
            rows = {"sentences": [list(task.items)], "labels": [list(task.labels)]}
            self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
            self.data_loaded = True

    return Local()


def _naming(name: str, task: Naming) -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    kind = _kind(task.items, name)
    rows = _rows(task.items, "i", kind).add_column("label", list(task.labels))
    letter = _LETTERS[kind]

    class Local(AbsTaskZeroShotClassification):
        metadata = _metadata(
            name, "ZeroShotClassification", "accuracy", sorted({kind, "text"}), f"{letter}2t"
        )
        input_column_name = kind

        def load_data(self, *args: Any, **options: Any) -> None:
            self.dataset = DatasetDict({"test": cast(Dataset, rows)})
            self.data_loaded = True

        def get_candidate_labels(self) -> list[str]:
            return list(task.names)

    return Local()


def _retrieval(name: str, task: Retrieval) -> Any:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    sides = (_kind(task.queries, name), _kind(task.documents, name))
    category = "2".join(_LETTERS[side] for side in sides)
    judged = {
        f"q{row}": {f"d{place}": int(gain) for place, gain in one.items()}
        for row, one in enumerate(task.gains)
    }
    plain = sides == ("text", "text")

    class Local(AbsTaskRetrieval):
        metadata = _metadata(
            name,
            "Retrieval" if plain else "Any2AnyRetrieval",
            "ndcg_at_10",
            sorted(set(sides)),
            category,
        )

        def load_data(self, *args: Any, **options: Any) -> None:
            split = RetrievalSplitData(
                queries=_rows(task.queries, "q", sides[0]),
                corpus=_rows(task.documents, "d", sides[1]),
                relevant_docs=judged,
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Local()


def _kind(items: Any, name: str) -> str:
    if all(isinstance(item, str) for item in items):
        return "text"
    if all(isinstance(item, Path) for item in items):
        clips = {item.suffix.lower() in VIDEO_SUFFIXES for item in items}
        if len(clips) == 1:
            return "video" if clips.pop() else "image"
    raise ConfigError(f"{name}: a side of mteb's tasks holds texts, pictures or clips, not fused")


def _rows(items: Any, letter: str, kind: str) -> Any:
    from datasets import Dataset, Image

    ids = [f"{letter}{i}" for i in range(len(items))]
    if kind == "text":
        return Dataset.from_dict({"id": ids, "text": list(items)})
    found = Dataset.from_dict({"id": ids, kind: [str(item) for item in items]})
    return found.cast_column("image", Image()) if kind == "image" else found


def _metadata(name: str, kind: str, main: str, modalities: list[str], category: str) -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    facts: Mapping[str, Any] = {
        "description": "Local files of mmembed's benchmarks.",
        "reference": None,
        "dataset": {"path": "local", "revision": "local"},
        "eval_splits": ["test"],
        "eval_langs": ["eng-Latn"],
        "date": None,
        "dialect": [],
        "domains": [],
        "task_subtypes": [],
        "license": None,
        "annotations_creators": None,
        "sample_creation": None,
        "bibtex_citation": "",
        "type": kind,
        "modalities": modalities,
        "category": category,
    }
    return TaskMetadata(name=name, main_score=main, **facts)
