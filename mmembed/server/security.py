"""What protects a server on a person's own machine: hosts, sizes, and headers."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmembed.errors import ConfigError
from mmembed.server.errors import RequestError, error_response, unexpected_error

__all__ = ["LOCAL_HOSTS", "Guard", "check_bind_address"]

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


def check_bind_address(host: str, allow_remote: bool) -> None:
    """Refuse an address that other machines reach, unless that is wanted.

    Raises:
        ConfigError: ``host`` is not a loopback address, and ``allow_remote`` is False.
    """
    if allow_remote or host == "localhost":
        return
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ConfigError(
            f"host {host!r} can be reached from other machines, and there are no API keys yet: "
            "use 127.0.0.1, or give --allow-remote to open it to everybody who reaches it"
        )


class Guard:
    """Middleware: known hosts only, bodies up to a size, and security headers on every answer.

    A page of any site can make a browser ask a server on the same machine under a name of its own
    choice (DNS rebinding), so a server without keys must know the names it answers to.

    Args:
        app: the application.
        hosts: host names that are answered, without port; None answers to any.
        max_body: largest body of a request in bytes.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, max_body: int) -> None:
        self._app = app
        self._hosts = hosts
        self._max_body = max_body

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
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_body:
            await error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large(), "body")(
                scope, receive, send
            )
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body:
                raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body", self._too_large())
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


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
