"""Why a result was found: where on a photo or page, and when in a clip.

Parts are embedded by themselves and compared with the query, so that any model can be asked: by the
token vectors of those that have them (MaxSim, averaged over the query's tokens), else by cosine.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel

from mmembed.errors import InputError
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decode import decode_item
from mmembed.inputs.decoded import Frames, Page
from mmembed.search.maxsim import maxsim
from mmembed.search.model import EmbeddingModel, multi_vector_model
from mmembed.server.errors import RequestError
from mmembed.server.library import Library, MediaFile
from mmembed.server.worker import ModelWorker

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Heat", "Moments", "explain_router"]

# A window is twice as long as the step between windows, so that nothing falls between two.
_STEPS = 6
_FRAMES = 16
_BUDGET = MediaBudget(max_pixels=900_000, max_input_pixels=40_000_000, max_frames=_FRAMES)
_KEPT = 256
_MAX_QUERY_CHARACTERS = 4000
_UNPROCESSABLE = 422


class Heat(BaseModel):
    """Similarity of the query with each field of a grid over a photo or page, row by row."""

    rows: int
    columns: int
    values: list[list[float]]


class Moments(BaseModel):
    """Similarity of the query with frames of a clip, and the time of the best of them."""

    seconds: list[float]
    values: list[float]
    best: float


def explain_router(model: EmbeddingModel, library: Library, worker: ModelWorker) -> APIRouter:
    """Routes that say where and when a result fits a text query."""
    router = APIRouter(prefix="/api/media", tags=["search"])
    kept: _Kept = _Kept(_KEPT)

    @router.get("/{token}/heat")
    async def heat(
        token: str, q: Annotated[str, Query(min_length=1, max_length=_MAX_QUERY_CHARACTERS)]
    ) -> Heat:
        """Where a photo or page fits the query."""
        file = library.file(token)
        if file.modality == "video":
            raise RequestError(_UNPROCESSABLE, "id", f"{file.path.name}: is a clip; see /moments")
        found: Heat = await kept.get(worker, ("heat", token, q), lambda: _heat(model, file, q))
        return found

    @router.get("/{token}/moments")
    async def moments(
        token: str, q: Annotated[str, Query(min_length=1, max_length=_MAX_QUERY_CHARACTERS)]
    ) -> Moments:
        """When a clip fits the query."""
        file = library.file(token)
        if file.modality != "video":
            raise RequestError(_UNPROCESSABLE, "id", f"{file.path.name}: is no clip; see /heat")
        key = ("moments", token, q)
        found: Moments = await kept.get(worker, key, lambda: _moments(model, file, q))
        return found

    return router


class _Kept:
    """The last answers, because a page asks for the same again when it is walked through."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    async def get(self, worker: ModelWorker, key: Hashable, make: Any) -> Any:
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        answer = await worker.run(make)
        with self._lock:
            self._answers[key] = answer
            while len(self._answers) > self._size:
                self._answers.popitem(last=False)
        return answer


def _heat(model: EmbeddingModel, file: MediaFile, words: str) -> Heat:
    part = _decoded(file)
    image: PILImage = part.image if isinstance(part, Page) else part
    width, height = image.size
    step = max(width, height) / _STEPS
    rows, columns = (max(1, round(side / step)) for side in (height, width))
    windows = []
    for row in range(rows):
        for column in range(columns):
            x, y = (column + 0.5) * width / columns, (row + 0.5) * height / rows
            box = (x - step, y - step, x + step, y + step)
            corners = (
                max(0, round(box[0])),
                max(0, round(box[1])),
                min(width, round(box[2])),
                min(height, round(box[3])),
            )
            windows.append(image.crop(corners))
    values = _similarities(model, file, words, windows).reshape(rows, columns)
    return Heat(rows=rows, columns=columns, values=np.round(values, 4).tolist())


def _moments(model: EmbeddingModel, file: MediaFile, words: str) -> Moments:
    from PIL import Image

    frames = _decoded(file)
    assert isinstance(frames, Frames)
    # The last frame is there twice where their number was odd.
    seconds, first = np.unique(frames.seconds, return_index=True)
    pictures = [Image.fromarray(frames.pixels[i]) for i in first]
    values = _similarities(model, file, words, pictures)
    return Moments(
        seconds=[round(float(each), 3) for each in seconds],
        values=np.round(values, 4).tolist(),
        best=round(float(seconds[int(values.argmax())]), 3),
    )


def _decoded(file: MediaFile) -> Any:
    try:
        return decode_item(file.item, _BUDGET).parts[0]
    except InputError as error:
        reason = f"{file.path.name}: {error.reason}"
        raise RequestError(_UNPROCESSABLE, "id", reason) from error
    except OSError as error:
        raise RequestError(404, "id", f"{file.path.name}: is gone or cannot be read") from error


def _similarities(
    model: EmbeddingModel, file: MediaFile, words: str, pictures: Sequence[PILImage]
) -> np.ndarray[Any, Any]:
    """``(n,)`` float32: of the query with each picture; -1 for one the model cannot read."""
    late = "multi" in getattr(model, "outputs", ())
    if late:
        tokens = multi_vector_model(model)
        (query,) = tokens.encode_stream([words], role="query", output=("dense", "multi"))
        found = list(tokens.encode_stream(pictures, role="document", output=("dense", "multi")))
    else:
        (query,) = model.encode_stream([words], role="query")
        found = list(model.encode_stream(pictures, role="document"))
    if query.error is not None:
        raise RequestError(_UNPROCESSABLE, "q", f"q: {query.error.reason}")
    values = np.full(len(found), -1, np.float32)
    read = [i for i, each in enumerate(found) if each.error is None]
    if late and query.multi is not None and len(query.multi):
        documents = [each for i in read if (each := found[i].multi) is not None]
        values[read] = maxsim([query.multi], documents)[0] / len(query.multi)
        return values
    for i in read:
        vector = found[i].vector
        assert vector is not None
        assert query.vector is not None
        lengths = np.linalg.norm(vector) * np.linalg.norm(query.vector)
        values[i] = float(vector @ query.vector / max(float(lengths), 1e-12))
    return values
