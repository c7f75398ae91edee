"""The ``codeembed eval`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mmembed.commands.output import EXIT_OK, Output

__all__ = ["evaluate"]


def evaluate(
    name: str,
    /,
    *,
    data: Path,
    model: str = "mini",
    task: str | None = None,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Measure a model on a local set: MRR, nDCG@10 and MAP@R.

    For example:

        codeembed eval cosqa --data ../shared/data

        codeembed eval poj104 --data ../shared/data --model bm25

    Args:
        name: A set, or "all".
        data: The folder that holds the sets' folders.
        model: 'mini', a folder, a Hugging Face id, or 'bm25'.
        task: The model's task adapter to read with, such as "code".
        json: JSON lines.
    """
    from codeembed.evaluation.measuring import Scorer, bm25_scores, measure, vector_scores
    from codeembed.evaluation.sets import read_set, set_names

    output = Output(json=json)
    if model == "bm25":
        scorer: Scorer = bm25_scores
    else:
        from mmembed.embedder import Embedder

        scorer = vector_scores(Embedder.from_pretrained(model), task)
    for each in set_names() if name == "all" else (name,):
        found = measure(read_set(each, data), scorer)
        told = f"MRR {found.mrr:.4f}  nDCG@10 {found.ndcg10:.4f}  MAP@R {found.map_r:.4f}"
        sizes = f"{found.queries} queries, {found.documents} documents"
        record = {"model": model, "task": task, **found.as_dict()}
        output.result(record, f"{each:18} {told}  ({sizes})")
    return EXIT_OK
