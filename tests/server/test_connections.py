"""Connections that ask for nothing or take nothing are closed; slow answers are not."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

import httpx
from browsing import serving
from starlette.types import Receive, Scope, Send

from mmembed.server.connections import PatientProtocol

ASKING = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MUCH = 200  # megabytes, more than any buffers of sockets


class Impatient(PatientProtocol):
    patience = 2.0


class Answers:
    """``/slow`` takes longer than the patience is, ``/much`` is more than a socket holds."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/slow":
            await asyncio.sleep(1.2 * Impatient.patience)
        pieces = MUCH if scope["path"] == "/much" else 1
        length = str(pieces * 2**20).encode()
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-length", length)]})
        for i in range(pieces):
            body = bytes(2**20)
            await send({"type": "http.response.body", "body": body, "more_body": i < pieces - 1})
        if scope["path"] == "/much":
            self.ended.set()


def opened(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=60)


def answer_of(client: socket.socket) -> None:
    """Read one whole answer."""
    found = b""
    while len(found) - found.find(b"\r\n\r\n") - 4 < 2**20:
        piece = client.recv(2**20)
        assert piece
        found += piece
    assert found.startswith(b"HTTP/1.1 200")


def assert_closed(client: socket.socket) -> None:
    with suppress(ConnectionResetError):
        assert client.recv(1) == b""


def test_a_head_that_does_not_end_is_given_up() -> None:
    pieces = (b"", b"GET / HT", ASKING, ASKING + b"X: " + b"y" * 100)
    with serving(Answers(), Impatient) as address:
        clients = [opened(address) for _ in pieces]
        for client, sent in zip(clients, pieces, strict=True):
            client.sendall(sent)
        assert httpx.get(address, timeout=60).status_code == 200
        closed = threading.Event()

        def drip() -> None:
            with suppress(OSError):  # as it should come
                while not closed.wait(0.05):
                    clients[-1].sendall(b"y")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            for client in reversed(clients):
                assert_closed(client)
        finally:
            closed.set()
            dripping.join()
            for client in clients:
                client.close()


def test_a_second_request_on_a_connection_has_no_more_time() -> None:
    with serving(Answers(), Impatient) as address, opened(address) as client:
        for path in (b"/", b"/slow"):  # as long as it takes
            client.sendall(ASKING.replace(b"/", path, 1) + b"\r\n")
            answer_of(client)
        client.sendall(b"GET / HT")
        assert_closed(client)


def test_a_client_that_does_not_read_is_given_up() -> None:
    answers = Answers()
    with serving(answers, Impatient) as address, opened(address) as client:
        client.sendall(ASKING.replace(b"/", b"/much", 1) + b"\r\n")
        assert answers.ended.wait(60)
        assert httpx.get(address, timeout=60).status_code == 200
