"""Questions about a model that benchmarks do not ask: gaps, biases, leaks and weak places."""

from __future__ import annotations

from mmembed.evaluation.probes.finding import Finding, Probe
from mmembed.evaluation.probes.registry import PROBES, find_probe, probe

__all__ = ["PROBES", "Finding", "Probe", "find_probe", "probe"]
