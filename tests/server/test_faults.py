"""Broken media, malformed requests and broken clients: no 500, no path, no trace, no hang."""

from __future__ import annotations

import base64
import socket

import httpx
import pytest
from browsing import serving
from fastapi import FastAPI
from fastapi.testclient import TestClient
from malformed import Requests, broken_media, fault


@pytest.mark.parametrize("name", list(broken_media()))
def test_broken_media_are_refused_in_a_sentence(sender: TestClient, name: str) -> None:
    data = broken_media()[name]
    text = base64.b64encode(data).decode()
    answers = [sender.post("/api/search", files={"image": ("shot.png", data)})]
    for kind in ("image", "video", "document"):
        answers.append(sender.post("/v1/embeddings", json={"input": {kind: text}}))
        answers.append(sender.post("/v1/search", json={"query": {kind: text}}))
        answers.append(sender.post("/v1/rerank", json={"query": "a", "documents": [{kind: text}]}))
    for answer in answers:
        assert fault(answer.status_code, answer.text) == ""


def test_malformed_requests_are_the_client_s_fault(sender: TestClient) -> None:
    found = sender.get("/api/search", params={"q": "red", "k": 20}).json()["results"]
    requests = Requests(0, [each["id"] for each in found if each["id"]])
    statuses = set()
    for _ in range(400):
        method, path, how = requests.next()
        answer = sender.request(method, path, **how)
        assert fault(answer.status_code, answer.text) == "", (method, path, how)
        statuses.add(answer.status_code)
    assert {200, 400, 404, 422} <= statuses  # all kinds of answers were seen
    again = sender.get("/api/search", params={"q": "red", "k": 20}).json()["results"]
    assert [each["id"] for each in again] == [each["id"] for each in found]


def test_slow_and_broken_clients_hold_nobody_up(whole: FastAPI) -> None:
    body = b'{"query": "red", "k": 3}'
    head = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with serving(whole) as address:
        port = int(address.rpartition(":")[2])

        def opened() -> socket.socket:
            return socket.create_connection(("127.0.0.1", port), timeout=60)

        idle, half, slow = opened(), opened(), opened()
        half.sendall(head + b"Content-Length: 999\r\n\r\n" + body)  # and no more
        slow.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        for broken in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 50):
            with opened() as client:
                client.sendall(broken)
        with opened() as client:  # goes away with the answer on its way
            client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = httpx.post(f"{address}/v1/search", json={"query": "red", "k": 3}, timeout=60)
        assert len(answer.json()["results"]) == 3
        for i in range(len(body)):
            slow.sendall(body[i : i + 1])
        assert slow.recv(64).startswith(b"HTTP/1.1 200")
        half.close()
        assert httpx.get(f"{address}/health", timeout=60).json() == {"status": "ok"}
        idle.close()
        slow.close()
