"""The routes of ``/v1``, which also answer without that prefix."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter

from mmembed.encoded import Encoded
from mmembed.errors import ConfigError, InputError
from mmembed.server.api.batcher import Batcher, Work, bad_config
from mmembed.server.api.items import Fetch, item_of, items_of
from mmembed.server.api.schemas import EmbeddingRequest, MultiEmbeddingRequest, RerankRequest
from mmembed.server.errors import RequestError
from mmembed.server.worker import ModelWorker

if TYPE_CHECKING:
    from mmembed.reranker import Reranker

__all__ = ["api_router"]

_JINA_ROLES = {"retrieval.query": "query", "retrieval.passage": "document"}


def api_router(
    batchers: Mapping[str, Batcher],
    rerankers: Mapping[str, Reranker] | None = None,
    *,
    fetch: Fetch | None = None,
    timeout: float = 120.0,
) -> APIRouter:
    """Embeddings and reranking.

    Args:
        batchers: of every embedder, by the name that requests use; the first is the default.
        rerankers: likewise.
        fetch: gets media by URL; None refuses URLs.
        timeout: seconds after which a request is given up.
    """
    router = APIRouter(tags=["api"])
    worker = ModelWorker()
    scorers = dict(rerankers or {})
    born = int(time.time())

    async def encoded(request: Any, outputs: tuple[str, ...]) -> tuple[str, list[Encoded], int]:
        name, batcher = _named(batchers, request.model, "embedder")
        role, task = _role(request)
        # In a thread: a URL may be slow, and base64 of a clip is some megabytes.
        items, words = await asyncio.to_thread(items_of, request, fetch)
        if request.instruction is not None:
            items = [_told(item, request.instruction) for item in items]
        try:
            work = Work(items, role, task, outputs)
            rows = await asyncio.wait_for(batcher.run(work), timeout)
        except ConfigError as error:
            raise bad_config(error) from None
        except TimeoutError:
            reason = f"not done after {timeout:g} seconds: send less at once"
            raise RequestError(HTTPStatus.GATEWAY_TIMEOUT, None, reason) from None
        for i, row in enumerate(rows):
            if row.error is not None:
                raise RequestError(
                    HTTPStatus.BAD_REQUEST, f"input[{i}]", _reason(f"input[{i}]", row.error)
                )
        tokens = await asyncio.to_thread(batcher.model.count_tokens, words)
        return name, rows, sum(tokens)

    async def embeddings(request: EmbeddingRequest) -> dict[str, Any]:
        """Vectors of texts, images, clips and pages: OpenAI's call, with Jina's and vLLM's inputs.

        ``usage`` counts the tokens of texts; media are not counted.
        """
        _, batcher = _named(batchers, request.model, "embedder")
        size = batcher.model.dim
        if request.dimensions is not None and request.dimensions > size:
            reason = f"dimensions: this model's vectors have {size}"
            raise RequestError(HTTPStatus.BAD_REQUEST, "dimensions", reason)
        name, rows, tokens = await encoded(request, ("dense",))
        form = request.embedding_type or request.encoding_format or "float"
        data = []
        for i, row in enumerate(rows):
            assert row.vector is not None
            vector = _shortened(row.vector, request.dimensions)
            data.append({"object": "embedding", "index": i, "embedding": _formed(vector, form)})
        return _listed(name, data, tokens)

    async def multi_embeddings(request: MultiEmbeddingRequest) -> dict[str, Any]:
        """A vector a token of each input, of models that have them."""
        name, rows, tokens = await encoded(request, ("multi",))
        data = []
        for i, row in enumerate(rows):
            assert row.multi is not None
            data.append({"object": "embedding", "index": i, "embeddings": row.multi.tolist()})
        return _listed(name, data, tokens)

    async def rerank(request: RerankRequest) -> dict[str, Any]:
        """Documents by how well they answer a query, best first."""
        name, reranker = _named(scorers, request.model, "reranker")

        def work() -> np.ndarray[Any, Any]:
            query = item_of(request.query, fetch, "query")
            documents = [
                item_of(one, fetch, f"documents[{i}]") for i, one in enumerate(request.documents)
            ]
            return reranker.score(query, documents, instruction=request.instruction)

        try:
            scores = await asyncio.wait_for(worker.run(work), timeout)
        except InputError as error:
            where = "query" if error.position is None else f"documents[{error.position}]"
            raise RequestError(HTTPStatus.BAD_REQUEST, where, _reason(where, error)) from None
        except TimeoutError:
            reason = f"not done after {timeout:g} seconds: send less at once"
            raise RequestError(HTTPStatus.GATEWAY_TIMEOUT, None, reason) from None
        order = np.argsort(-scores, kind="stable")[: request.top_n]
        results = []
        for i in order.tolist():
            result: dict[str, Any] = {"index": i, "relevance_score": float(scores[i])}
            if request.return_documents:
                given = request.documents[i]
                shown = (
                    {"text": given}
                    if isinstance(given, str)
                    else given.model_dump(exclude_none=True)
                )
                result["document"] = shown
            results.append(result)
        return {"object": "list", "model": name, "results": results}

    def models() -> dict[str, Any]:
        """What ``model`` may name."""
        names = [*batchers, *scorers]
        data = [
            {"id": name, "object": "model", "created": born, "owned_by": "mmembed"}
            for name in names
        ]
        return {"object": "list", "data": data}

    for prefix in ("/v1", ""):
        shown = bool(prefix)
        router.post(f"{prefix}/embeddings", include_in_schema=shown)(embeddings)
        router.post(f"{prefix}/multi_embeddings", include_in_schema=shown)(multi_embeddings)
        router.post(f"{prefix}/rerank", include_in_schema=shown)(rerank)
        router.get(f"{prefix}/models", include_in_schema=shown)(models)
    return router


def _named(found: Mapping[str, Any], name: str, kind: str) -> tuple[str, Any]:
    """The model of this name, or the first.

    Raises:
        RequestError: there is none (404).
    """
    if not found:
        reason = f"this server has no {kind}"
        raise RequestError(HTTPStatus.NOT_FOUND, "model", reason)
    wanted = name or next(iter(found))
    if wanted not in found:
        reason = f"model: there is no {kind} {wanted!r} here (there is: {', '.join(found)})"
        raise RequestError(HTTPStatus.NOT_FOUND, "model", reason)
    return wanted, found[wanted]


def _role(request: Any) -> tuple[Any, str]:
    task = request.task or ""
    if task in _JINA_ROLES:
        return request.input_type or _JINA_ROLES[task], ""
    return request.input_type, task


def _told(item: Any, instruction: str) -> Any:
    from dataclasses import replace

    return item if item.instruction is not None else replace(item, instruction=instruction)


def _reason(where: str, error: InputError) -> str:
    """What is wrong, without the name that a decoder gave the bytes."""
    return f"{where}: {error.reason}" + (f" ({error.hint})" if error.hint else "")


def _shortened(vector: np.ndarray[Any, Any], size: int | None) -> np.ndarray[Any, Any]:
    if size is None or size == len(vector):
        return vector
    kept = vector[:size]
    found: np.ndarray[Any, Any] = kept / max(float(np.linalg.norm(kept)), 1e-12)
    return found


def _formed(vector: np.ndarray[Any, Any], form: str) -> Any:
    if form == "float":
        return vector.tolist()
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    bits = np.packbits(vector > 0)
    return (bits if form == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)).tolist()


def _listed(name: str, data: Sequence[dict[str, Any]], tokens: int) -> dict[str, Any]:
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": name, "data": list(data), "usage": usage}
