"""Requests that schemathesis makes of a server's own schema, right ones and wrong ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from malformed import fault


def schema_faults(
    app: FastAPI, sender: TestClient, examples: int
) -> tuple[Counter[str], list[str]]:
    """So many requests an operation: how many were sent to each, and what went wrong."""
    import schemathesis

    found = {}
    for result in schemathesis.openapi.from_dict(app.openapi()).get_all_operations():
        operation = result.ok()
        found[operation.label] = _sent(operation, sender, examples)
    tried = Counter({label: count for label, (count, _) in found.items()})
    return tried, [f"{label} {fault}" for label, (_, faults) in found.items() for fault in faults]


def _sent(operation: Any, sender: TestClient, examples: int) -> tuple[int, list[str]]:
    answers: list[str] = []

    @given(case=operation.as_strategy())
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url="http://127.0.0.1")
        sent = {name: sent[name] for name in sent if name not in ("cookies", "timeout")}
        answer = sender.request(**sent)
        wrong = fault(answer.status_code, answer.text)
        answers.append(f"{sent}: {wrong}" if wrong else "")

    send()
    return len(answers), [answer for answer in answers if answer]
