"""``/api/map``: the collection as points in a plane, like beside like."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel

from mmembed.server.library import Library
from mmembed.server.naming import name_of
from mmembed.server.search import MediaSearcher
from mmembed.server.worker import ModelWorker

__all__ = ["Point", "Points", "map_router", "plane"]


class Point(BaseModel):
    """An item of the collection, at ``x`` and ``y`` from 0 to 1."""

    id: str
    kind: str
    name: str
    preview: bool
    x: float
    y: float


class Points(BaseModel):
    """The items that are shown, and how many there are in all."""

    points: list[Point]
    items: int


def map_router(index: MediaSearcher, library: Library, worker: ModelWorker) -> APIRouter:
    """The route of the map."""
    router = APIRouter(prefix="/api", tags=["search"])

    @router.get("/map")
    async def map_of_items(limit: Annotated[int, Query(ge=1, le=5000)] = 1500) -> Points:
        """Items by their two main directions (principal components of their vectors)."""
        return await worker.run(_points, index, library, limit)

    return router


def _points(index: MediaSearcher, library: Library, limit: int) -> Points:
    rows = list(index.sample(limit))
    if not rows:
        return Points(points=[], items=0)
    places = plane(np.stack([vector for _, vector in rows]))
    points = []
    for (hit, _), (x, y) in zip(rows, places.tolist(), strict=True):
        token, file = library.register(hit)
        name, _ = name_of(hit, file, library)
        points.append(
            Point(id=token, kind=hit.modality, name=name, preview=file is not None, x=x, y=y)
        )
    return Points(points=points, items=len(index))


def plane(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``(n, 2)`` places from 0 to 1 of ``(n, d)`` vectors, by their principal components.

    Half of a place is the value and half its rank, so that one outlier does not press the rest
    together. The same vectors always give the same places.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    main = directions[:, -2:][:, ::-1] if centred.shape[1] > 1 else np.ones((1, 2))
    main = main * np.where(main.sum(axis=0) < 0, -1, 1)  # the sign of an eigenvector is arbitrary
    values = centred @ main
    span = np.ptp(values, axis=0)
    scaled = (values - values.min(axis=0)) / np.where(span > 0, span, 1)
    ranks = values.argsort(axis=0, kind="stable").argsort(axis=0) / max(len(values) - 1, 1)
    return np.round((scaled + ranks) / 2, 4)
