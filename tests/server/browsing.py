"""A server in a thread, and pages of a real browser on it."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp

from mmembed.server.connections import PatientProtocol

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextmanager
def serving(app: ASGIApp, protocol: type[PatientProtocol] = PatientProtocol) -> Iterator[str]:
    """The address of an application while it is served."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, http=protocol, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


@contextmanager
def open_page(browser: Browser, address: str, **settings: Any) -> Iterator[Page]:
    """A fresh page on a laptop screen, which must have no error and no outside request."""
    settings = {"viewport": {"width": 1280, "height": 800}, **settings}
    context = browser.new_context(base_url=address, **settings)
    page = context.new_page()
    page.set_default_timeout(30_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    outside: list[str] = []
    local = re.compile(rf"^({re.escape(address)}|blob:{re.escape(address)}|data:)")
    page.on("request", lambda asked: None if local.match(asked.url) else outside.append(asked.url))
    yield page
    context.close()
    assert not problems, problems
    assert not outside, outside


def wait_until(holds: Callable[[], bool]) -> None:
    """Ask until a condition holds; the page's policy forbids the eval of a wait inside it."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
