"""Local tasks as tasks of mteb, in memory: the same data measured by another evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmembed.errors import ConfigError, MissingDependencyError
from mmembed.evaluation.benchmarks.tasks import Retrieval, Similarity, Task

__all__ = ["as_mteb", "mteb_score"]


def as_mteb(name: str, task: Task) -> Any:
    """A task of mteb that holds the data of a local one, of texts or of image files.

    Args:
        name: what mteb calls it.
        task: a retrieval or similarity task without fused items, and without documents apart.

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
    if isinstance(task, Retrieval) and not task.apart:
        return _retrieval(name, task)
    raise ConfigError(f"{name}: {type(task).__name__} of such items has no task in mteb")


def mteb_score(model: Any, name: str, task: Task, metric: str) -> float:
    """One of mteb's own metrics, e.g. ``"ndcg_at_10"``, of a local task.

    Args:
        model: an :class:`mmembed.evaluation.mteb_model.MtebModel`.
        name: what mteb calls the task.
        task: as :func:`as_mteb`.
        metric: its name in mteb.
    """
    import mteb

    results = mteb.evaluate(
        model, as_mteb(name, task), cache=None, overwrite_strategy="always", show_progress_bar=False
    )
    return float(results[0].scores["test"][0][metric])


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


def _retrieval(name: str, task: Retrieval) -> Any:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    sides = (_kind(task.queries, name), _kind(task.documents, name))
    letters = {"text": "t", "image": "i"}
    category = "2".join(letters[side] for side in sides)
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
        return "image"
    raise ConfigError(f"{name}: mteb's tasks hold texts or pictures, not fused items")


def _rows(items: Any, letter: str, kind: str) -> Any:
    from datasets import Dataset, Image

    ids = [f"{letter}{i}" for i in range(len(items))]
    if kind == "text":
        return Dataset.from_dict({"id": ids, "text": list(items)})
    found = Dataset.from_dict({"id": ids, "image": [str(item) for item in items]})
    return found.cast_column("image", Image())


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
