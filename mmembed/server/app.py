"""The application: an index, a model and a page, put together and served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

import mmembed
from mmembed.errors import InputError
from mmembed.search.model import EmbeddingModel
from mmembed.server.api.service import Service, api_app
from mmembed.server.base import new_app
from mmembed.server.errors import add_error_handlers
from mmembed.server.explain import explain_router
from mmembed.server.folders import ShowFolder, file_manager, folder_router
from mmembed.server.indexing import Indexing, indexing_router
from mmembed.server.library import Library
from mmembed.server.media import media_router
from mmembed.server.memory import keep_memory_flat
from mmembed.server.overview import map_router
from mmembed.server.search import (
    MAX_IMAGE_BYTES,
    CodeSearcher,
    MediaSearcher,
    Steps,
    search_router,
)
from mmembed.server.search_api import search_api_router
from mmembed.server.security import LOCAL_HOSTS, Guard, check_bind_address
from mmembed.server.thumbnails import Thumbnails
from mmembed.server.worker import ModelWorker

if TYPE_CHECKING:
    from mmembed.embedder import Embedder
    from mmembed.reranker import Reranker
    from mmembed.search.index import Index

__all__ = ["create_app", "run"]

STATIC = Path(__file__).parent / "static"
_CANDIDATES = 200  # of late interaction
# An image and the form around it.
_MAX_BODY = MAX_IMAGE_BYTES + 100_000

_log = logging.getLogger(__name__)


def create_app(
    index: MediaSearcher,
    model: EmbeddingModel,
    *,
    code_index: CodeSearcher | None = None,
    media_roots: Sequence[Path] | None = None,
    hosts: Collection[str] | None = LOCAL_HOSTS,
    keys: Collection[str] = (),
    service: Service | None = None,
    steps: Steps | None = None,
    indexing: Indexing | None = None,
    show_folder: ShowFolder | None = None,
) -> FastAPI:
    """The search server as an ASGI application.

    Args:
        index: what is searched.
        model: the model of the index; encoded with once at the start, so that the first user does
            not wait for it.
        code_index: a code index that is searched along with it.
        media_roots: folders that files are given out from; by default a file's own folder, so that
            symbolic links do not lead out of it.
        hosts: names that the server answers to (protection against DNS rebinding); None for any.
        keys: API keys, one of which a request must bring; none asks for nothing.
        service: the embedding API, served along with the page.
        steps: what follows the first step of a search; nothing by default.
        indexing: lets the page index folders; None lets it not.
        show_folder: lets the page open a result's folder on this machine; None lets it not.
    """
    worker = ModelWorker()
    library = Library(media_roots)
    ready = asyncio.Event()
    following = steps or Steps()

    def warm_up() -> None:
        next(iter(model.encode_stream(["warm up"], role="query")))

    async def become_ready() -> None:
        try:
            await worker.run(warm_up)
        except Exception:  # The server still says why it is not ready, and serves what it can.
            _log.exception("the model failed to encode its first text")
        else:
            ready.set()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(become_ready())
        yield
        task.cancel()
        worker.close()
        if indexing is not None:
            await asyncio.to_thread(indexing.close)
        if service is not None:
            await asyncio.to_thread(service.close)

    app = new_app(lifespan)
    max_body = _MAX_BODY if service is None else max(_MAX_BODY, service.max_body)
    if service is not None:
        service.add_to(app)
    app.add_middleware(Guard, hosts=hosts, max_body=max_body, keys=keys)
    add_error_handlers(app)
    fetch = None if service is None else service.fetcher
    app.include_router(search_router(index, code_index, library, worker, following))
    app.include_router(search_api_router(index, library, worker, following, fetch))
    app.include_router(explain_router(model, library, worker))
    app.include_router(map_router(index, library, worker))
    app.include_router(media_router(library, Thumbnails()))
    if indexing is not None:
        app.include_router(indexing_router(indexing))
    if show_folder is not None:
        app.include_router(folder_router(library, show_folder))

    @app.get("/ready", tags=["state"])
    async def readiness() -> JSONResponse:
        """Answers 200 once the model has encoded something, 503 before."""
        if ready.is_set():
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "loading"}, status_code=HTTPStatus.SERVICE_UNAVAILABLE)

    @app.get("/api/info", tags=["state"])
    def info() -> dict[str, Any]:
        """What there is to search, and with which model."""
        return {
            "version": mmembed.__version__,
            "model": {"name": model.name, "dim": model.dim},
            "items": len(index),
            "modalities": dict(index.stats().modalities),
            "code": code_index is not None,
            "steps": {
                "maxsim": following.maxsim > 0,
                "reranker": following.reranker is not None,
            },
            "indexing": indexing is not None,
            "folders": show_folder is not None,
        }

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def run(
    index_path: str | Path | None,
    code_path: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    model: str = "mini",
    allow_remote: bool = False,
    media_roots: Sequence[str | Path] | None = None,
    rerankers: Sequence[str] = (),
    keys: Collection[str] = (),
    fetch_from: Collection[str] = (),
    index_from: Sequence[str | Path] = (),
) -> None:
    """Serve an index and the embedding API, or the API alone, until interrupted.

    Args:
        index_path: an index, or the folder that was indexed; None for the API alone.
        code_path: a folder indexed by codeembed, searched on the same page.
        host: address to bind; other than loopback only with ``allow_remote``.
        port: TCP port.
        model: what ``Embedder.from_pretrained`` loads.
        allow_remote: let other machines in without a key.
        media_roots: folders that files are given out from; by default the folder that was indexed.
        rerankers: what ``Reranker.from_pretrained`` loads, for ``/v1/rerank``.
        keys: API keys, one of which every request must bring.
        fetch_from: hosts that media are fetched from by URL; none fetches nothing.
        index_from: folders that may be indexed from the page.

    Raises:
        ConfigError: the address is open to other machines without ``allow_remote``.
        InputError: there is no index at ``index_path``, or no code index at ``code_path``.
    """
    check_bind_address(host, allow_remote, keys)
    keep_memory_flat()
    # Late, because they bring torch and the store.
    import uvicorn

    from mmembed.embedder import Embedder
    from mmembed.search.index import Index
    from mmembed.server.connections import PatientProtocol

    embedder = Embedder.from_pretrained(model)
    hosts = None if allow_remote or keys else {*LOCAL_HOSTS, host}
    loaded = _loaded(rerankers)
    service = Service.of({model: embedder}, loaded, fetch_from=fetch_from)
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "http": PatientProtocol,
        "log_level": "info",
        "server_header": False,
    }
    if index_path is None:
        uvicorn.run(api_app(service, hosts=hosts, keys=keys), **options)
        return
    with Index.open(Path(index_path).expanduser(), embedder, create=False) as index:
        roots = _roots(index, media_roots)
        allowed = [Path(folder).expanduser().absolute() for folder in index_from]
        app = create_app(
            index,
            embedder,
            code_index=None if code_path is None else _open_code_index(Path(code_path), embedder),
            media_roots=roots,
            hosts=hosts,
            keys=keys,
            service=service,
            steps=Steps(
                _CANDIDATES if index.keeps_tokens else 0, next(iter(loaded.values()), None)
            ),
            indexing=Indexing(index, allowed) if allowed else None,
            # A window opens before whoever sits here, so nobody else may ask for it.
            show_folder=None if hosts is None else file_manager(),
        )
        uvicorn.run(app, **options)


def _loaded(names: Sequence[str]) -> dict[str, Reranker]:
    from mmembed.reranker import Reranker

    return {name: Reranker.from_pretrained(name) for name in names}


def _roots(index: Index, given: Sequence[str | Path] | None) -> list[Path] | None:
    if given is not None:
        return [Path(root).expanduser() for root in given]
    # An index inside the folder that it indexes says which folder that is.
    return [index.path.parent] if index.path.name == ".mmembed" else None


def _open_code_index(path: Path, model: Embedder) -> CodeSearcher:
    # The root of the program may know both packages; nothing else here knows codeembed.
    from codeembed.index import CodeIndex

    index = CodeIndex.open(path, model)
    if not index.exists:
        raise InputError(str(path), "holds no code index", "run: codeembed index PATH")
    return index
