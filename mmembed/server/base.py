"""What every application of this package begins with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

import mmembed

__all__ = ["new_app"]


def new_app(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    """An application that says that it is alive, and nothing else yet."""
    # No pages of API documentation: they load scripts from other hosts. /openapi.json stays.
    app = FastAPI(
        title="mmembed",
        version=mmembed.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )

    @app.get("/health", tags=["state"])
    async def health() -> dict[str, str]:
        """Answers while the server runs."""
        return {"status": "ok"}

    return app
