"""Connections that ask for nothing, or take nothing, and are given up."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PatientProtocol"]


class PatientProtocol(H11Protocol):
    """uvicorn's own, with an end to its patience.

    By itself uvicorn waits for ever for the first request of a connection, for headers that come
    byte by byte, and for a client that does not read its answer. What comes after the headers is
    for :class:`mmembed.server.security.Guard` to wait for; how long an answer takes to be made is
    nobody's business here.

    Attributes:
        patience: seconds for the whole head of a request, and for a client to read on.
    """

    patience: ClassVar[float] = 30.0

    _head: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of the first request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; wait no longer for a head that is complete."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_awaiting_head()
        elif self._head is None:  # a further request on the same connection has begun
            self._await_head()

    def pause_writing(self) -> None:
        """Begin to wait for a client that reads more slowly than it is written to."""
        super().pause_writing()
        self._reading = self._giving_up()

    def resume_writing(self) -> None:
        """Wait no longer: the client has read on."""
        super().resume_writing()
        self._stop_awaiting_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for a client that is gone."""
        self._stop_awaiting_head()
        self._stop_awaiting_reader()
        super().connection_lost(exc)

    def _giving_up(self) -> asyncio.TimerHandle:
        # Not closed: that would wait until what is written has been read.
        return self.loop.call_later(self.patience, self.transport.abort)

    def _await_head(self) -> None:
        self._head = self._giving_up()

    def _stop_awaiting_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_awaiting_reader(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
