"""Media by URL: which hosts are asked, and which answers are taken."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from mmembed.server.api.fetching import Fetcher
from mmembed.server.errors import RequestError


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://other.org/a.png", "not one that this server fetches from"),
        ("ftp://files.test/a.png", "plain http or https"),
        ("http://user:secret@files.test/a.png", "without a password"),
        ("http://files.test:22/", "usual port"),
        ("http://[::1", "is no URL"),
        ("http://private.test/a.png", "is not a public one"),
        ("http://mapped.test/a.png", "is not a public one"),
        ("http://mixed.test/a.png", "is not a public one"),
        ("http://nowhere.test/a.png", "gave no file"),
    ],
)
def test_urls_that_are_not_fetched(url: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {
        "private.test": ["10.0.0.7"],
        "mapped.test": ["::ffff:127.0.0.1"],
        "mixed.test": ["93.184.216.34", "169.254.169.254"],
    }

    def resolve(host: str, port: int, **options: Any) -> list[Any]:
        if host not in addresses:
            raise socket.gaierror("unknown")
        return [(0, 0, 0, "", (one, port)) for one in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("dialled"))
    with pytest.raises(RequestError, match=words) as caught:
        Fetcher(["files.test", ".test"])(url)
    assert not any(part in caught.value.reason for part in ("10.0.0", "127.0", "169.254", "secret"))


def _answering(answer: bytes) -> tuple[socket.socket, int]:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return server, server.getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.7/\r\n\r\n", "302; redirects"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3000, "larger than"),
        (b"nonsense", "gave no file"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ""),
    ],
)
def test_urls_that_are_fetched(answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server, port = _answering(answer)
    dialled = []

    def dial(address: tuple[str, int], **options: Any) -> socket.socket:
        dialled.append(address)
        found = socket.socket()
        found.settimeout(5)
        found.connect(("127.0.0.1", port))
        return found

    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **_: [(0, 0, 0, "", ("93.184.216.34", port))]
    )
    monkeypatch.setattr(socket, "create_connection", dial)
    fetcher = Fetcher([".files.test"], max_bytes=2000)
    with server:
        if words:
            with pytest.raises(RequestError, match=words):
                fetcher("http://a.files.test/x.png?y=1")
        else:
            assert fetcher("http://a.files.test/x.png") == b"hello"
    assert dialled == [("93.184.216.34", 80)]
