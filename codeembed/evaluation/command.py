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
    """Measure a model on a local set: MRR, nDCG@10 and MAP@R; or how it takes edits of code.

    For example:

        codeembed eval cosqa --data ../shared/data

        codeembed eval poj104 --data ../shared/data --model bm25

        codeembed eval robustness --data ../shared/data --task code

    Args:
        name: A set, "all" of them, or "robustness": finding functions again after renames of their
            variables, and telling a clone from a bug.
        data: The folder that holds the sets' folders.
        model: 'mini', a folder, a Hugging Face id, or 'bm25'.
        task: The model's task adapter to read with, such as "code".
        json: JSON lines.
    """
    from codeembed.evaluation.measuring import Scorer, bm25_scores, measure, vector_scores
    from codeembed.evaluation.sets import read_set, set_names

    output = Output(json=json)
    if name == "robustness":
        return _robustness(model, task, data, output)
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


def _robustness(model: str, task: str | None, data: Path, output: Output) -> int:
    from codeembed.evaluation.robustness import robustness_of
    from mmembed.embedder import Embedder
    from mmembed.errors import InputError

    if model == "bm25":
        raise InputError("bm25", "has no vectors", "choose a model to measure robustness")
    found = robustness_of(Embedder.from_pretrained(model), task, data)
    curve = "  ".join(f"{count} {value:.4f}" for count, value in found.renames.items())
    bugs = "  ".join(f"{count} {value:.4f}" for count, value in found.before_bugs.items())
    deviants = f"; before a bug: {bugs}" if bugs else ""
    if found.deviant_accuracy is not None:
        deviants += f"; clones before bugs {found.deviant_accuracy:.4f} of {found.deviants}"
    record = {"model": model, "task": task, "name": "robustness", **found.as_dict()}
    told = f"MRR after renames: {curve}{deviants}  ({found.functions} functions)"
    output.result(record, f"robustness         {told}")
    return EXIT_OK
