"""``mmembed eval``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mmembed.commands.output import EXIT_NOTHING, EXIT_OK, Output

if TYPE_CHECKING:
    from mmembed.evaluation.benchmarks import Result

__all__ = ["evaluate"]


def evaluate(
    benchmark: str | None = None,
    /,
    *,
    model: Annotated[str, Parameter(help="'mini', a folder, or a Hugging Face id.")] = "mini",
    data: Path | None = None,
    subset: Annotated[list[str] | None, Parameter(negative="")] = None,
    dim: int | None = None,
    most: int | None = None,
    save: Path | None = None,
    show: Annotated[bool, Parameter(name="--list", negative="")] = False,
    json: Annotated[
        bool, Parameter(name="--json", negative="", help="JSON lines on standard output.")
    ] = False,
) -> int:
    """Measure a model on a local benchmark; nothing is fetched.

    For example:

        mmembed eval --list

        mmembed eval samples

        mmembed eval sts --model sentence-transformers/all-MiniLM-L6-v2 --data ../shared/data

        mmembed eval figures --most 100 --save runs

    Args:
        benchmark: A benchmark's name.
        data: The folder that holds the measuring data; ../shared/data or data by default.
        subset: Only this language, direction or kind; give it again for more.
        dim: Keep the first DIM dimensions of each vector.
        most: Measure a sample: at most MOST queries, items and documents of each subset.
        save: A folder that keeps the run, its curves and its failures, for "mmembed report".
        show: List the benchmarks, with their licences, and whether their data are here.
    """
    output = Output(json=json)
    if show or benchmark is None:
        return _list(data, output)
    from mmembed.embedder import Embedder
    from mmembed.evaluation.benchmarks import find_benchmark, measure
    from mmembed.evaluation.benchmarks.registry import find_data
    from mmembed.evaluation.runs import measure_and_save

    place = find_data(find_benchmark(benchmark), data)  # before a model is loaded
    loaded = Embedder.from_pretrained(model)
    chosen = tuple(subset or ())
    if save is not None:
        result, file = measure_and_save(benchmark, loaded, place, save, chosen, dim, most)
        output.say(f"saved {file}")
    else:
        result = measure(benchmark, loaded, place, subsets=chosen, transform=_cut(dim), most=most)
    _show(result, output)
    return EXIT_OK


def _cut(dim: int | None) -> Any:
    from mmembed.evaluation.curves import truncated

    return (lambda sides: sides) if dim is None else (lambda sides: truncated(sides, dim))


def _list(data: Path | None, output: Output) -> int:
    from mmembed.errors import ConfigError
    from mmembed.evaluation.benchmarks import BENCHMARKS
    from mmembed.evaluation.benchmarks.registry import find_data

    for one in BENCHMARKS.values():
        try:
            here = str(find_data(one, data))
        except ConfigError:
            here = ""
        record = {
            "benchmark": one.name,
            "about": one.about,
            "split": one.split,
            "licence": one.licence,
            "source": one.source,
            "modalities": list(one.modalities),
            "data": here or None,
        }
        found = "data here" if here else f"needs {', '.join(one.needs)}"
        output.result(record, f"{one.name:18} {one.about}\n{'':18} {one.licence}; {found}")
    return EXIT_OK if BENCHMARKS else EXIT_NOTHING


def _show(result: Result, output: Output) -> None:
    about = result.benchmark
    lines = [
        f"{about.name}: {about.about}",
        f"split {result.split}; licence: {about.licence}; model {result.model}",
    ]
    for name, one in result.subsets.items():
        over = f"{one.queries} over {one.candidates}" if one.candidates else f"{one.queries} pairs"
        lines.append(f"{name} ({over})")
        lines += _figures(one.metrics)
    if len(result.subsets) > 1:
        lines.append(f"mean {result.main} of {len(result.subsets)}: {result.score:.4f}")
    output.result(result.as_dict(), "\n".join(lines))


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    return [f"  {name:20} {figure}" for name, figure in metrics.items()]
