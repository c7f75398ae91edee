"""``/v1/search``: the index for programs, with all its steps."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from mmembed.errors import ConfigError
from mmembed.inputs.items import ItemLike
from mmembed.server.api.items import Fetch, item_of
from mmembed.server.api.schemas import Content
from mmembed.server.errors import RequestError
from mmembed.server.library import Library
from mmembed.server.search import Answer, MediaSearcher, Steps, media_result
from mmembed.server.worker import ModelWorker

__all__ = ["search_api_router"]


class SearchRequest(BaseModel):
    """``POST /v1/search``.

    Attributes:
        query: a text, or an object with text, image, video or document (base64).
        k: hits at most.
        filter: condition on fields, as text or as an object.
        mode: hybrid, dense or text.
        min_score: drop hits below this cosine similarity.
        maxsim: candidates ranked again by token vectors; 0 for none.
        rerank: hits that the server's reranker judges; 0 for none.
    """

    model_config = ConfigDict(extra="forbid")

    query: str | Content
    k: int = Field(default=10, ge=1, le=200)
    filter: str | dict[str, Any] | None = None
    mode: Literal["hybrid", "dense", "text"] = "hybrid"
    min_score: float | None = Field(default=None, ge=-1e6, le=1e6)
    maxsim: int = Field(default=0, ge=0, le=10_000)
    rerank: int = Field(default=0, ge=0, le=200)


def search_api_router(
    index: MediaSearcher,
    library: Library,
    worker: ModelWorker,
    steps: Steps,
    fetch: Fetch | None,
) -> APIRouter:
    """The routes of search for programs."""
    router = APIRouter(prefix="/v1", tags=["api"])

    def find(request: SearchRequest) -> Answer:
        started = time.perf_counter()
        query: ItemLike = item_of(request.query, fetch, "query")
        if request.rerank and steps.reranker is None:
            raise RequestError(400, "rerank", "rerank: this server has no reranker")
        try:
            hits = index.search(
                query,
                request.k,
                filter=request.filter,
                mode=request.mode,
                min_score=request.min_score,
                maxsim=request.maxsim,
                reranker=steps.reranker if request.rerank else None,
                rerank=max(request.rerank, 1),
            )
        except ConfigError as error:
            raise RequestError(400, "maxsim", str(error)) from None
        took = round((time.perf_counter() - started) * 1000, 1)
        return Answer(results=[media_result(hit, library) for hit in hits], took_ms=took)

    @router.post("/search")
    async def search(request: SearchRequest) -> Answer:
        """The items that fit a query best, with the scores of every step."""
        return await worker.run(find, request)

    @router.get("/search")
    async def search_by_text(
        q: Annotated[str, Query(min_length=1, max_length=4000)],
        k: Annotated[int, Query(ge=1, le=200)] = 10,
        filter: Annotated[str | None, Query(max_length=4000)] = None,
    ) -> Answer:
        """The same for a text alone."""
        return await worker.run(find, SearchRequest(query=q, k=k, filter=filter))

    return router
