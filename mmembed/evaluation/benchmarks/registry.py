"""Local benchmarks by name, and measuring a model on one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mmembed.errors import ConfigError, InputError
from mmembed.evaluation.benchmarks import clips, code, pictures, samples, text
from mmembed.evaluation.benchmarks.benchmark import Benchmark
from mmembed.evaluation.benchmarks.measured import Measured
from mmembed.evaluation.benchmarks.sampling import sampled
from mmembed.evaluation.benchmarks.tasks import Encoder, Sides, Task

__all__ = ["BENCHMARKS", "Result", "find_benchmark", "find_data", "measure", "read_benchmark"]

Tasks: TypeAlias = Mapping[str, Task]
Transform: TypeAlias = Callable[[Sides], Sides]

BENCHMARKS: Mapping[str, Benchmark] = {
    one.name: one
    for one in (
        *text.BENCHMARKS,
        *code.BENCHMARKS,
        *pictures.BENCHMARKS,
        *clips.BENCHMARKS,
        *samples.BENCHMARKS,
    )
}
FOLDERS = (Path("../shared/data"), Path("data"))


@dataclass(frozen=True, slots=True)
class Result:
    """A model measured on a benchmark.

    Attributes:
        benchmark: what was measured.
        model: the model's name.
        subsets: what was found, by language, direction or kind.
        seconds: time of embedding and scoring.
        items: how many items were embedded.
        most: where only a sample was measured, the most queries, items or documents of a subset.
    """

    benchmark: Benchmark
    model: str
    subsets: Mapping[str, Measured]
    seconds: float
    items: int
    most: int | None = None

    @property
    def split(self) -> str:
        """What was measured: the benchmark's split, or a sample of it."""
        cut = "" if self.most is None else f"; a sample: at most {self.most} of a side"
        return self.benchmark.split + cut

    @property
    def score(self) -> float:
        """Mean of the subsets' main metrics."""
        return float(np.mean([one.score for one in self.subsets.values()]))

    @property
    def main(self) -> str:
        """The main metric's name."""
        return next(iter(self.subsets.values())).main

    def as_dict(self) -> dict[str, Any]:
        """Plain values: a record of ``mmembed eval --json``."""
        return {
            "schema_version": 1,
            "benchmark": self.benchmark.name,
            "split": self.split,
            "licence": self.benchmark.licence,
            "model": self.model,
            "main": self.main,
            "score": round(self.score, 6),
            "seconds": round(self.seconds, 2),
            "items": self.items,
            "date": datetime.now(UTC).date().isoformat(),
            "subsets": {name: one.as_dict() for name, one in self.subsets.items()},
        }

    def as_run(self) -> dict[str, Any]:
        """The same with the main metric of each query, which paired comparisons need."""
        record = self.as_dict()
        for name, one in self.subsets.items():
            record["subsets"][name]["values"] = [round(x, 4) for x in one.values]
        return record


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        ConfigError: there is none; names those that there are.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"no benchmark {name!r} (known: {', '.join(BENCHMARKS)})")
    return BENCHMARKS[name]


def find_data(benchmark: Benchmark, data: Path | None = None) -> Path:
    """The folder that holds a benchmark's files: the one named, else where such data usually lies.

    Raises:
        ConfigError: nothing is there; says where it looked.
    """
    places = FOLDERS if data is None else (data,)
    for place in places:
        if all((place / need).exists() for need in benchmark.needs):
            return place
    looked = " or ".join(str(place / need) for need in benchmark.needs for place in places)
    raise ConfigError(f"no {looked} here: name the folder of measuring data with --data")


def read_benchmark(name: str, data: Path | None = None, most: int | None = None) -> Tasks:
    """The tasks of a benchmark, by subset.

    Args:
        name: which; see :data:`BENCHMARKS`.
        data: folder of measuring data; by default where it usually lies.
        most: cut each to a sample; see :func:`mmembed.evaluation.benchmarks.sampling.sampled`.

    Raises:
        ConfigError: there is no such benchmark, its data are not there, or ``most`` is below 1.
        InputError: the data are broken.
    """
    found = find_benchmark(name)
    tasks = found.read(find_data(found, data))
    return tasks if most is None else {key: sampled(one, most) for key, one in tasks.items()}


def measure(
    name: str,
    model: Encoder,
    data: Path | None = None,
    *,
    subsets: tuple[str, ...] = (),
    transform: Transform = lambda sides: sides,
    most: int | None = None,
) -> Result:
    """Measure a model on a local benchmark.

    Args:
        name: which; see :data:`BENCHMARKS`.
        model: anything that embeds queries and documents.
        data: folder of measuring data; by default where it usually lies.
        subsets: only these; all by default.
        transform: applied to the vectors before they are scored, e.g. truncation.
        most: measure a sample of at most so many queries, items and documents of each subset.

    Raises:
        ConfigError: there is no such benchmark or subset, or its data are not there.
        InputError: the data are broken, or the model cannot read an item.
    """
    tasks = read_benchmark(name, data, most)
    if unknown := set(subsets) - set(tasks):
        raise ConfigError(f"{name} has no subset {sorted(unknown)[0]!r} ({', '.join(tasks)})")
    started = time.perf_counter()
    once = _Once(model)
    found = {}
    for subset, task in tasks.items():
        if not subsets or subset in subsets:
            found[subset] = task.score(transform(task.encode(once)))
    taken = time.perf_counter() - started
    label = str(getattr(model, "name", type(model).__name__))
    return Result(find_benchmark(name), label, found, taken, once.items, most)


class _Once:
    """Embeds a list that several subsets share once."""

    def __init__(self, model: Encoder) -> None:
        self.model = model
        self.items = 0
        self._held: dict[tuple[str, int], tuple[Any, Any]] = {}

    def encode_query(self, inputs: Any) -> Any:
        return self._encode("query", inputs)

    def encode_document(self, inputs: Any) -> Any:
        return self._encode("document", inputs)

    def _encode(self, role: str, inputs: Any) -> Any:
        key = (role, id(inputs))
        if key not in self._held:
            encode = self.model.encode_query if role == "query" else self.model.encode_document
            try:
                vectors = np.asarray(encode(inputs))
            except InputError as error:
                hint = error.hint or "choose a model that reads every kind of item of the benchmark"
                raise InputError(error.source, error.reason, hint, error.position) from error
            self.items += len(vectors)
            self._held[key] = (inputs, vectors)  # the list is kept, so that its id stays its own
        return self._held[key][1]
