"""Getting media by URL, where the operator allows it: named hosts, public addresses, small files.

The address is looked up once, checked, and dialled as it is, so that a name cannot point elsewhere
a moment later; no redirect is followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from mmembed.server.errors import RequestError

__all__ = ["Fetcher"]

_PORTS = {"http": 80, "https": 443}


class Fetcher:
    """Fetches from hosts that are allowed, and from no others.

    Args:
        hosts: names; ``.example.org`` allows every name below it.
        max_bytes: of one file.
        timeout: seconds for one file in all.
    """

    def __init__(
        self, hosts: Collection[str], *, max_bytes: int = 20_000_000, timeout: float = 10.0
    ) -> None:
        self.hosts = frozenset(host.lower() for host in hosts)
        self.max_bytes = max_bytes
        self.timeout = timeout

    def __call__(self, url: str) -> bytes:
        """What the URL holds.

        Raises:
            RequestError: it must not be fetched, or cannot be; never says what address it has.
        """
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            raise _refused("is no URL") from None
        if parts.scheme not in _PORTS or parts.username or parts.password:
            raise _refused("must be a plain http or https URL, without a password")
        if port not in (None, _PORTS[parts.scheme]):
            raise _refused("must be at the usual port")
        if not self._allowed(host):
            raise _refused(f"host {host!r} is not one that this server fetches from")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        deadline = time.monotonic() + self.timeout
        try:
            return self._get(
                parts.scheme, host, _public_address(host, _PORTS[parts.scheme]), path, deadline
            )
        except (OSError, http.client.HTTPException, UnicodeError):
            raise _refused(f"host {host!r} gave no file") from None

    def _allowed(self, host: str) -> bool:
        return host in self.hosts or any(
            host.endswith(one) for one in self.hosts if one.startswith(".")
        )

    def _get(self, scheme: str, host: str, address: str, path: str, deadline: float) -> bytes:
        connection = http.client.HTTPConnection(host, _PORTS[scheme], timeout=self.timeout)
        plain = socket.create_connection((address, _PORTS[scheme]), timeout=self.timeout)
        connection.sock = plain
        try:
            if scheme == "https":
                context = ssl.create_default_context()
                connection.sock = context.wrap_socket(plain, server_hostname=host)
            connection.request("GET", path, headers={"Accept-Encoding": "identity"})
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise _refused(
                    f"host {host!r} answered {answer.status}; redirects are not followed"
                )
            found = bytearray()
            while block := answer.read(65_536):
                found += block
                if len(found) > self.max_bytes:
                    raise _refused(f"is larger than {self.max_bytes / 1e6:g} MB")
                if time.monotonic() > deadline:
                    raise _refused(f"took longer than {self.timeout:g} seconds")
            return bytes(found)
        finally:
            connection.close()
            plain.close()


def _public_address(host: str, port: int) -> str:
    """The first address of a host, if every one it has is public.

    Raises:
        RequestError: one is private, of this machine, or reserved.
    """
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for one in found:
        address = ipaddress.ip_address(one)
        mapped = getattr(address, "ipv4_mapped", None)
        if not address.is_global or address.is_multicast or (mapped and not mapped.is_global):
            raise _refused(f"host {host!r} is not a public one")
    return found[0]


def _refused(reason: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, "url", f"url: {reason}")
