"""Languages and tasks that a model keeps together whatever is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.registry import read_benchmark
from mmembed.evaluation.benchmarks.tasks import Array
from mmembed.evaluation.probes.finding import Finding, Instructable, Probe, unit

__all__ = ["PROBES", "group_pull", "language_rows"]

_DEPTH = 10


def group_pull(
    queries: Array, documents: Array, query_groups: Sequence[str], groups: Sequence[str]
) -> dict[str, float]:
    """How much more of a query's own group is found than there is.

    Args:
        queries: ``(q, d)`` vectors.
        documents: ``(n, d)`` vectors.
        query_groups: the group of each query, such as its language.
        groups: the group of each document.

    Returns:
        By group, the share of the first 10 documents that are of the query's group, less the
        group's share of all documents: 0 is no pull, and at most 1.
    """
    asked, held = np.array(query_groups), np.array(groups)
    order = np.argsort(-(unit(queries) @ unit(documents).T), axis=1)[:, :_DEPTH]
    own = (held[order] == asked[:, None]).mean(axis=1)
    expected = np.array([(held == group).mean() for group in asked])
    pull = own - expected
    return {str(group): float(pull[asked == group].mean()) for group in np.unique(asked)}


def language_rows(data: Path, least: int = 20) -> list[tuple[str, str, str]]:
    """``(language, text, its English)`` of languages with enough sentences."""
    rows = rows_of(data / "text/translations-test.jsonl.gz")
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["lang"]] = counts.get(row["lang"], 0) + 1
    return [
        (row["lang"], row["query"], row["positive"]) for row in rows if counts[row["lang"]] >= least
    ]


def _run_language(model: Instructable, data: Path) -> Finding:
    """English sentences ask; their translations and as many other English ones can be found."""
    rows = language_rows(data)
    asked, others = rows[::2], rows[1::2]
    texts = [text for _, text, _ in asked] + [english for _, _, english in others]
    groups = [language for language, _, _ in asked] + ["eng"] * len(others)
    english = np.asarray(model.encode_query([english for _, _, english in asked]))
    foreign = np.asarray(model.encode_query([text for _, text, _ in others]))
    documents = np.asarray(model.encode_document(texts))
    pull = group_pull(english, documents, ["eng"] * len(english), groups)
    pull |= group_pull(foreign, documents, [language for language, _, _ in others], groups)
    scores = unit(english) @ unit(documents).T
    own = np.arange(len(asked))
    first = scores.argmax(axis=1)
    ranks = 1 + (scores >= scores[own, own][:, None]).sum(axis=1) - 1
    right: dict[str, float] = {}
    for language in sorted({language for language, _, _ in asked}):
        mine = [i for i, (one, _, _) in enumerate(asked) if one == language]
        right[language] = float((first[mine] == own[mine]).mean())
    figures = {
        "english_pull": pull["eng"],
        "own_language_pull": float(np.mean([v for k, v in pull.items() if k != "eng"])),
        "translation_first": float((first == own).mean()),
        "median_rank_of_translation": float(np.median(ranks)),
        "worst_language_first": min(right.values()),
    }
    table = {one: {"translation_first": right[one], "pull": pull.get(one, 0.0)} for one in right}
    return Finding(figures, {"by language": table})


def _run_task(model: Instructable, data: Path) -> Finding:
    """Corpora of several tasks in one: does a query land in its own task's, and where else?"""
    books, code = read_benchmark("books", data), read_benchmark("code", data)
    tasks = {**books, **{key: code[key] for key in ("docstring", "comment")}}
    vectors, groups = [], []
    queries: dict[str, Array] = {}
    gains: dict[str, list[int]] = {}
    start = 0
    for name, one in tasks.items():
        sides = one.encode(model)
        queries[name] = unit(sides[0])
        vectors.append(unit(sides[1]))
        groups += [name] * len(sides[1])
        gains[name] = [start + next(iter(gain)) for gain in one.gains]  # type: ignore[attr-defined]
        start += len(sides[1])
    documents = np.concatenate(vectors)
    held = np.array(groups)
    table = {}
    for name, asked in queries.items():
        scores = asked @ documents.T
        alone = np.where(held == name, scores, -2.0)
        table[name] = {
            "own_task_first": float((held[scores.argmax(axis=1)] == name).mean()),
            "right_alone": float((alone.argmax(axis=1) == gains[name]).mean()),
            "right_among_all": float((scores.argmax(axis=1) == gains[name]).mean()),
        }
    grand = documents.mean(axis=0)
    between = sum(
        (held == name).sum() * ((documents[held == name].mean(axis=0) - grand) ** 2).sum()
        for name in tasks
    )
    explained = between / ((documents - grand) ** 2).sum()
    lost = [row["right_alone"] - row["right_among_all"] for row in table.values()]
    figures = {
        "variance_explained_by_task": float(explained),
        "own_task_first": float(np.mean([row["own_task_first"] for row in table.values()])),
        "hit_lost_to_other_tasks": float(np.mean(lost)),
    }
    return Finding(figures, {"by task": table})


PROBES = (
    Probe(
        "language-bias",
        "whether sentences of one language find each other rather than their translations",
        "Roy et al., 2020, LAReQA (EMNLP)",
        "pull 0: language does not matter; 1: only the query's language is found",
        ("text/translations-test.jsonl.gz",),
        _run_language,
    ),
    Probe(
        "task-bias",
        "whether vectors tell the task they come from, and what that costs in a pooled corpus",
        "Menon et al., 2022, Task Bias in Vision-Language Models",
        "variance explained 0: tasks share one space; hit lost: right answers that go missing",
        ("text/terms-test.jsonl.gz", "code/docstring-test.jsonl.gz"),
        _run_task,
    ),
)
