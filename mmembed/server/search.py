"""``/api/search``: one question, answered from the media index and from the code index."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from fastapi import APIRouter, File, Form, Query, UploadFile
from pydantic import BaseModel

from mmembed.errors import InputError
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.image import decode_image
from mmembed.inputs.items import ItemLike
from mmembed.search.filter_parser import parse_filter
from mmembed.search.filters import And, Compare, FilterLike
from mmembed.search.results import Hit, IndexStats
from mmembed.search.steps import PairModel
from mmembed.search.store import Vector
from mmembed.server.errors import RequestError
from mmembed.server.library import Library
from mmembed.server.naming import name_of
from mmembed.server.worker import ModelWorker

__all__ = [
    "Answer",
    "CodeHitLike",
    "CodeSearcher",
    "MediaSearcher",
    "Result",
    "Steps",
    "media_result",
    "search_router",
]

MAX_IMAGE_BYTES = 20_000_000
_MAX_QUERY_CHARACTERS = 4000
_QUERY_BUDGET = MediaBudget(max_pixels=4_000_000, max_input_pixels=40_000_000)
_CODE_AMONG_ALL = 6
_TEXT_CHARACTERS = 2000

Kind: TypeAlias = Literal["all", "image", "document", "video", "text", "code"]


class MediaSearcher(Protocol):
    """What the page asks of an index; :class:`mmembed.search.index.Index` satisfies it."""

    def search(
        self,
        query: ItemLike,
        k: int = 10,
        *,
        filter: FilterLike | None = None,
        mode: Literal["hybrid", "dense", "text"] = "hybrid",
        min_score: float | None = None,
        maxsim: int = 0,
        reranker: PairModel | None = None,
        rerank: int = 20,
    ) -> Sequence[Hit]: ...

    def similar(
        self, id: str, k: int = 10, *, filter: FilterLike | None = None
    ) -> Sequence[Hit]: ...

    def sample(self, limit: int) -> Iterator[tuple[Hit, Vector]]: ...

    def stats(self) -> IndexStats: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Steps:
    """What follows the first step of a search on the page.

    Attributes:
        maxsim: candidates ranked again by token vectors, where the index has them; 0 for none.
        reranker: reads query and hit together, when a search asks for it.
        rerank: how many hits it reads.
    """

    maxsim: int = 0
    reranker: PairModel | None = None
    rerank: int = 20


class CodeHitLike(Protocol):
    """A chunk of source code that was found; lines count from 1, both ends included."""

    @property
    def path(self) -> str: ...
    @property
    def start_line(self) -> int:
        """Its first line, from 1."""
        ...

    @property
    def end_line(self) -> int:
        """Its last line."""
        ...

    @property
    def symbol(self) -> str:
        """What it defines; empty for none."""
        ...

    @property
    def breadcrumb(self) -> str:
        """Where it stands: classes and functions around it."""
        ...

    @property
    def language(self) -> str:
        """Its programming language."""
        ...

    @property
    def score(self) -> float: ...
    @property
    def scores(self) -> Mapping[str, float]: ...
    @property
    def text(self) -> str: ...


class CodeSearcher(Protocol):
    """What the page asks of a code index."""

    def search(self, query: str, k: int = 10) -> Sequence[CodeHitLike]: ...


class Result(BaseModel):
    """One result.

    Attributes:
        kind: image, document, video, text or code.
        id: opaque id of the item, for ``/api/media``; None for code.
        name: file name, ``file.pdf, page 3``, or ``path:12-30``.
        folder: where the file lies.
        score: what the results are ordered by.
        similarity: cosine similarity with the query, if that step saw the item.
        scores: the score of each step.
        preview: whether ``/api/media/{id}/thumb`` shows it.
        media_type: of the file itself, where a browser can show it.
        text: caption, page text or code; may be cut.
    """

    kind: str
    id: str | None
    name: str
    folder: str = ""
    score: float
    similarity: float | None
    scores: dict[str, float]
    preview: bool = False
    media_type: str | None = None
    page: int | None = None
    text: str = ""
    language: str | None = None
    symbol: str | None = None
    breadcrumb: str | None = None
    start_line: int | None = None
    end_line: int | None = None
    metadata: dict[str, Any] = {}


class Answer(BaseModel):
    """The results, best first: media, then code; and the time in milliseconds."""

    results: list[Result]
    took_ms: float


def search_router(
    index: MediaSearcher,
    code_index: CodeSearcher | None,
    library: Library,
    worker: ModelWorker,
    steps: Steps,
) -> APIRouter:
    """Routes that answer text, image, image-and-text and more-like-this queries."""
    router = APIRouter(prefix="/api", tags=["search"])

    def find(query: ItemLike, words: str, k: int, kind: Kind, narrow: _Narrow) -> list[Result]:
        results: list[Result] = []
        min_score = narrow.min_score
        if kind != "code":
            hits = index.search(
                query,
                k,
                filter=_filter(kind, narrow.condition),
                min_score=min_score,
                maxsim=steps.maxsim,
                reranker=steps.reranker if narrow.rerank else None,
                rerank=steps.rerank,
            )
            results += [media_result(hit, library) for hit in hits]
        if code_index is not None and words and kind in ("all", "code") and not narrow.condition:
            limit = k if kind == "code" else min(k, _CODE_AMONG_ALL)
            found = [_code_result(hit) for hit in code_index.search(words, limit)]
            results += [each for each in found if _reaches(each, min_score)]
        return results

    def find_similar(token: str, k: int, kind: Kind, condition: str) -> list[Result]:
        if kind == "code":
            return []
        hits = index.similar(library.item_id(token), k, filter=_filter(kind, condition))
        return [media_result(hit, library) for hit in hits]

    @router.get("/search")
    async def by_text(
        q: Annotated[str, Query(max_length=_MAX_QUERY_CHARACTERS)] = "",
        like: Annotated[str | None, Query(max_length=64)] = None,
        k: Annotated[int, Query(ge=1, le=200)] = 40,
        modality: Kind = "all",
        min_score: Annotated[float | None, Query(ge=-1, le=1)] = None,
        filter: Annotated[str, Query(max_length=_MAX_QUERY_CHARACTERS)] = "",
        rerank: bool = False,
    ) -> Answer:
        """Search by text (``q``), or for items like one found before (``like``)."""
        started = time.perf_counter()
        narrow = _Narrow(filter.strip(), min_score, rerank)
        if like is not None:
            results = await worker.run(find_similar, like, k, modality, filter.strip())
            results = [each for each in results if _reaches(each, min_score)]
        elif q.strip():
            results = await worker.run(find, q, q, k, modality, narrow)
        else:
            raise RequestError(
                HTTPStatus.BAD_REQUEST, "q", "q: is empty; give some text, or POST an image"
            )
        return _answer(results, started)

    @router.post("/search")
    async def by_image(
        image: Annotated[UploadFile, File()],
        q: Annotated[str, Form(max_length=_MAX_QUERY_CHARACTERS)] = "",
        k: Annotated[int, Form(ge=1, le=200)] = 40,
        modality: Annotated[Kind, Form()] = "all",
        min_score: Annotated[float | None, Form(ge=-1, le=1)] = None,
        filter: Annotated[str, Form(max_length=_MAX_QUERY_CHARACTERS)] = "",
        rerank: Annotated[bool, Form()] = False,
    ) -> Answer:
        """Search by an image of at most 20 MB and 40 million pixels, alone or with text."""
        started = time.perf_counter()
        name = image.filename or "image"
        data = await image.read(MAX_IMAGE_BYTES + 1)
        if len(data) > MAX_IMAGE_BYTES:
            reason = f"{name}: is larger than {MAX_IMAGE_BYTES / 1e6:g} MB"
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "image", reason)

        def find_by_image() -> list[Result]:
            # Decoded here, so that the limits of a stranger's image hold whatever the model is.
            try:
                picture = decode_image(data, _QUERY_BUDGET)
            except InputError as error:
                # The client knows the image by its name, not by its bytes.
                hint = f" ({error.hint})" if error.hint else ""
                reason = f"{name}: {error.reason}{hint}"
                raise RequestError(HTTPStatus.BAD_REQUEST, "image", reason) from error
            words = q.strip()
            query: ItemLike = {"image": picture, "text": words} if words else {"image": picture}
            narrow = _Narrow(filter.strip(), min_score, rerank)
            return find(query, words, k, modality, narrow)

        return _answer(await worker.run(find_by_image), started)

    return router


def _answer(results: list[Result], started: float) -> Answer:
    return Answer(results=results, took_ms=round((time.perf_counter() - started) * 1000, 1))


@dataclass(frozen=True, slots=True)
class _Narrow:
    condition: str
    min_score: float | None
    rerank: bool


def _filter(kind: Kind, condition: str) -> FilterLike | None:
    own = None if kind == "all" else Compare("modality", "==", kind)
    if not condition:
        return own
    try:
        given = parse_filter(condition)
    except InputError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, "filter", str(error)) from None
    return given if own is None else And((own, given))


def _reaches(result: Result, min_score: float | None) -> bool:
    return min_score is None or result.similarity is None or result.similarity >= min_score


def media_result(hit: Hit, library: Library) -> Result:
    """A hit as the page and programs see it."""
    token, file = library.register(hit)
    name, folder = name_of(hit, file, library)
    return Result(
        kind=hit.modality,
        id=token,
        name=name,
        folder=folder,
        score=hit.score,
        similarity=hit.scores.get("dense"),
        scores=dict(hit.scores),
        preview=file is not None,
        media_type=None if file is None else file.media_type,
        page=hit.page,
        text=hit.text[:_TEXT_CHARACTERS],
        metadata=dict(hit.metadata),
    )


def _code_result(hit: CodeHitLike) -> Result:
    return Result(
        kind="code",
        id=None,
        name=f"{hit.path}:{hit.start_line}-{hit.end_line}",
        score=hit.score,
        similarity=hit.scores.get("dense"),
        scores=dict(hit.scores),
        text=hit.text,
        language=hit.language,
        symbol=hit.symbol,
        breadcrumb=hit.breadcrumb,
        start_line=hit.start_line,
        end_line=hit.end_line,
    )
