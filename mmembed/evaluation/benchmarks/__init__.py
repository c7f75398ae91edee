"""Local benchmarks: nothing is fetched, and every figure has its candidates and its interval."""

from __future__ import annotations

from mmembed.evaluation.benchmarks.benchmark import Benchmark
from mmembed.evaluation.benchmarks.registry import (
    BENCHMARKS,
    Result,
    find_benchmark,
    measure,
    read_benchmark,
)

__all__ = ["BENCHMARKS", "Benchmark", "Result", "find_benchmark", "measure", "read_benchmark"]
