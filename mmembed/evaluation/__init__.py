"""Metrics, local benchmarks, other harnesses, probes and reports."""
