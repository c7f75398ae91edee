"""The fuzzer of the schema that the server itself gives out; `make test-full` runs this."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from schema_faults import schema_faults

pytest.importorskip("schemathesis", reason="schemathesis is not installed")


def test_the_schema_s_own_fuzzer_finds_nothing(whole: FastAPI, sender: TestClient) -> None:
    tried, faults = schema_faults(whole, sender, examples=5)
    assert faults == []
    assert min(tried.values()) > 0
    assert {"POST /v1/embeddings", "POST /v1/rerank", "POST /v1/search"} <= set(tried)
