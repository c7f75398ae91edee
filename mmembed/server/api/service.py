"""The embedding API as one part of an application, or as one of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmembed.server.api.batcher import Batcher
from mmembed.server.api.fetching import Fetcher
from mmembed.server.api.routes import api_router
from mmembed.server.base import new_app
from mmembed.server.errors import add_error_handlers
from mmembed.server.security import LOCAL_HOSTS, Guard

if TYPE_CHECKING:
    from mmembed.embedder import Embedder
    from mmembed.reranker import Reranker

__all__ = ["Service", "api_app"]


@dataclass(slots=True)
class Service:
    """Models behind the API.

    Attributes:
        batchers: of every embedder, by name.
        rerankers: by name.
        fetcher: gets media by URL; None refuses URLs.
        timeout: seconds after which a request is given up.
        max_body: bytes of one request.
    """

    batchers: Mapping[str, Batcher]
    rerankers: Mapping[str, Reranker] = field(default_factory=dict)
    fetcher: Fetcher | None = None
    timeout: float = 120.0
    max_body: int = 64_000_000

    @classmethod
    def of(
        cls,
        models: Mapping[str, Embedder],
        rerankers: Mapping[str, Reranker] | None = None,
        *,
        fetch_from: Collection[str] = (),
    ) -> Service:
        """A service of these models."""
        return cls(
            {name: Batcher(model) for name, model in models.items()},
            dict(rerankers or {}),
            Fetcher(fetch_from) if fetch_from else None,
        )

    def add_to(self, app: FastAPI) -> None:
        """Its routes, and ``/metrics`` in Prometheus' format."""
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

        app.include_router(
            api_router(self.batchers, self.rerankers, fetch=self.fetcher, timeout=self.timeout)
        )
        registry = CollectorRegistry()
        labels = ("route", "status")
        requests = Counter("mmembed_requests", "Requests answered", labels, registry=registry)
        seconds = Histogram(
            "mmembed_request_seconds", "Time to answer", ("route",), registry=registry
        )
        for name, batcher in self.batchers.items():
            held = Gauge(
                "mmembed_waiting_tokens", "Tokens that wait, roughly", ("model",), registry=None
            )
            held.labels(name).set_function(partial(_waiting, batcher))
            registry.register(held)

        def seen(route: str, status: int, taken: float) -> None:
            requests.labels(route, str(status)).inc()
            seconds.labels(route).observe(taken)

        app.add_middleware(_Watch, seen=seen)

        @app.get("/metrics", tags=["state"])
        def metrics() -> Response:
            """Counts and times, for Prometheus."""
            return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    def close(self) -> None:
        """Finish what runs, refuse what waits."""
        for batcher in self.batchers.values():
            batcher.close()


def _waiting(batcher: Batcher) -> float:
    return batcher.waiting


class _Watch:
    """Middleware that tells what was answered, and after how long."""

    def __init__(self, app: ASGIApp, seen: object) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            # The pattern of a route, not the path: a path is the client's word, and without end.
            route = getattr(scope.get("route"), "path", "other")
            self._seen(route, status, time.perf_counter() - started)  # type: ignore[operator]


def api_app(
    service: Service,
    *,
    hosts: Collection[str] | None = LOCAL_HOSTS,
    keys: Collection[str] = (),
) -> FastAPI:
    """The API alone, as an ASGI application.

    Args:
        hosts: names that the server answers to; None for any.
        keys: API keys, one of which a request must bring; none asks for nothing.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = new_app(lifespan)
    service.add_to(app)
    app.add_middleware(Guard, hosts=hosts, max_body=service.max_body, keys=keys)
    add_error_handlers(app)

    @app.get("/ready", tags=["state"])
    async def ready() -> dict[str, str]:
        """Answers once the models are loaded, which they are before the server starts."""
        return {"status": "ready"}

    return app
