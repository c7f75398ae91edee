"""What protects a server: hosts, keys, sizes, and headers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import os
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmembed.errors import ConfigError
from mmembed.server.errors import RequestError, error_response, unexpected_error

__all__ = ["LOCAL_HOSTS", "Guard", "check_bind_address", "read_keys"]

_SHORTEST_KEY = 16
_OPEN_PATHS = frozenset({"/health", "/ready"})

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

_PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def check_bind_address(host: str, allow_remote: bool, keys: Collection[str] = ()) -> None:
    """Refuse an address that other machines reach, unless that is wanted, or keys are asked for.

    Raises:
        ConfigError: ``host`` is not a loopback address, ``allow_remote`` is False, and there are
            no keys.
    """
    if allow_remote or keys or host == "localhost":
        return
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ConfigError(
            f"host {host!r} can be reached from other machines: use 127.0.0.1, ask for a key with "
            "--api-key-file, or give --allow-remote to open it to everybody who reaches it"
        )


def read_keys(file: Path | None) -> tuple[str, ...]:
    """The keys in a file, one a line, and in the variable ``MMEMBED_API_KEY``.

    Raises:
        ConfigError: the file cannot be read, holds none, or a key is shorter than 16 characters.
    """
    keys = [os.environ["MMEMBED_API_KEY"]] if os.environ.get("MMEMBED_API_KEY") else []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: {error}") from None
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ConfigError(f"{file}: holds no key: write one a line")
        keys += found
    if any(len(key) < _SHORTEST_KEY for key in keys):
        raise ConfigError(f"an API key has at least {_SHORTEST_KEY} characters")
    return tuple(keys)


class Guard:
    """Middleware: known hosts only, bodies up to a size, and security headers on every answer.

    A page of any site can make a browser ask a server on the same machine under a name of its own
    choice (DNS rebinding), so a server without keys must know the names it answers to.

    Args:
        app: the application.
        hosts: host names that are answered, without port; None answers to any.
        max_body: largest body of a request in bytes.
        patience: seconds to wait for the next piece of a body; connections are not without end.
        keys: asked for on every path but ``/health`` and ``/ready``, as ``Authorization: Bearer
            KEY``, or as the password of a browser's own dialog; none asks for nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str] | None,
        max_body: int,
        keys: Collection[str] = (),
        patience: float = 30.0,
    ) -> None:
        self._app = app
        self._patience = patience
        self._hosts = hosts
        self._max_body = max_body
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            message = "Host: this server does not answer to that name"
            await error_response(HTTPStatus.MISDIRECTED_REQUEST, message, "Host")(
                scope, receive, send
            )
            return
        if self._keys and scope["path"] not in _OPEN_PATHS:
            given = _key_of(headers.get("authorization", ""))
            # Every key is compared, in constant time, so that an answer tells nothing by its speed.
            if not sum(hmac.compare_digest(given, key) for key in self._keys):
                refusal = error_response(
                    HTTPStatus.UNAUTHORIZED, "Authorization: give a key as a bearer token"
                )
                refusal.headers["www-authenticate"] = 'Basic realm="mmembed", charset="UTF-8"'
                await refusal(scope, receive, send)
                return
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_body:
            await error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large(), "body")(
                scope, receive, send
            )
            return
        received, complete = 0, False

        async def counted() -> Message:
            nonlocal received, complete
            if complete:  # what follows is word of the client's going, which may take its time
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._patience)
            except TimeoutError:
                reason = f"body: nothing came for {self._patience:g} seconds"
                raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "body", reason) from None
            received += len(message.get("body", b""))
            if received > self._max_body:
                raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body", self._too_large())
            complete = not message.get("more_body", False)
            return message

        started = False

        async def protected(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, counted, protected)
        except Exception as error:
            if started:  # half an answer is out: only a broken connection tells the client
                raise
            # Here rather than in a handler of the application, which would lie outside of the
            # headers above.
            answer = unexpected_error(scope["method"], scope["path"], error)
            await answer(scope, counted, protected)

    def _too_large(self) -> str:
        return f"body: is larger than {self._max_body / 1e6:g} MB"


def _key_of(authorization: str) -> bytes:
    """The key of a header: a bearer token, or the password of any user."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
