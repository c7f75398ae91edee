"""Why a result was found: where on a photo or page, and when in a clip.

A model of token vectors that says which patch each was made of is read patch by patch, as ColPali's
maps are (Faysse et al. 2024): the mean similarity of the query's tokens with the patch. For others,
overlapping parts are embedded by themselves and compared with the query: by token vectors where
there are any (MaxSim, averaged over the query's tokens), else by cosine.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel

from mmembed.encoded import Encoded
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

_Values: TypeAlias = "np.ndarray[Any, Any]"


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
    values = _of_patches(model, file, words)
    if values is None:
        values = _of_windows(model, file, words, part.image if isinstance(part, Page) else part)
    rows, columns = values.shape
    return Heat(rows=rows, columns=columns, values=np.round(values, 4).tolist())


def _of_patches(model: EmbeddingModel, file: MediaFile, words: str) -> _Values | None:
    """``(rows, columns)`` by the model's own patches; None where it does not tell them apart."""
    if "multi" not in getattr(model, "outputs", ()):
        return None
    late = multi_vector_model(model)
    (seen,) = late.encode_stream([file.item], role="document", output=("multi",))
    if seen.multi is None or seen.boxes is None:
        return None
    (query,) = late.encode_stream([words], role="query", output=("multi",))
    _check(query)
    assert query.multi is not None
    placed = ~np.isnan(seen.boxes[:, 0])
    values = (seen.multi[placed] @ query.multi.T).mean(axis=1)
    return drawn(values, seen.boxes[placed])


def drawn(values: _Values, boxes: _Values) -> _Values:
    """Values of parts of a picture on the grid of its smallest parts: ``(rows, columns)``.

    Args:
        values: ``(n,)``.
        boxes: ``(n, 4)`` left, top, right and bottom, in fractions of the picture, all multiples of
            the smallest width and height; where several lie, their mean counts.
    """
    columns = round(1 / float((boxes[:, 2] - boxes[:, 0]).min()))
    rows = round(1 / float((boxes[:, 3] - boxes[:, 1]).min()))
    total, count = np.zeros((rows, columns)), np.zeros((rows, columns))
    edges = np.rint(boxes * [columns, rows, columns, rows]).astype(int)
    for value, (left, top, right, bottom) in zip(values, edges, strict=True):
        total[top:bottom, left:right] += value
        count[top:bottom, left:right] += 1
    found: _Values = total / count
    return found


def _of_windows(model: EmbeddingModel, file: MediaFile, words: str, image: PILImage) -> _Values:
    """``(rows, columns)`` by parts of the picture, each embedded by itself."""
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
    return _similarities(model, file, words, windows).reshape(rows, columns)


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


def _check(query: Encoded) -> None:
    if query.error is not None:
        raise RequestError(_UNPROCESSABLE, "q", f"q: {query.error.reason}")


def _similarities(
    model: EmbeddingModel, file: MediaFile, words: str, pictures: Sequence[PILImage]
) -> _Values:
    """``(n,)`` float32: of the query with each picture; -1 for one the model cannot read."""
    late = "multi" in getattr(model, "outputs", ())
    if late:
        tokens = multi_vector_model(model)
        (query,) = tokens.encode_stream([words], role="query", output=("dense", "multi"))
        found = list(tokens.encode_stream(pictures, role="document", output=("dense", "multi")))
    else:
        (query,) = model.encode_stream([words], role="query")
        found = list(model.encode_stream(pictures, role="document"))
    _check(query)
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
