"""``/api/media``: the files that searches have found, and their previews."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse

from mmembed.errors import InputError
from mmembed.server.errors import RequestError
from mmembed.server.library import Library
from mmembed.server.thumbnails import Thumbnails

__all__ = ["media_router"]

_SIDES = {"small": 480, "large": 1600}
# A file opened by itself must not run or load anything.
_MEDIA_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; media-src 'self'"
_CACHE = "private, max-age=60"


def media_router(library: Library, thumbnails: Thumbnails) -> APIRouter:
    """Routes that give out files of ``library``, and no others."""
    router = APIRouter(prefix="/api/media", tags=["media"])

    @router.get("/{token}", response_class=FileResponse)
    def original(token: str) -> Response:
        """The file itself: an image, a clip (with byte ranges), or a PDF."""
        file = library.file(token)
        if file.media_type is None:
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "id",
                f"{file.path.name}: a browser cannot show this format; see its /thumb",
            )
        return FileResponse(
            file.path,
            media_type=file.media_type,
            filename=file.path.name,
            content_disposition_type="inline",
            headers={"content-security-policy": _MEDIA_POLICY, "cache-control": _CACHE},
        )

    @router.get("/{token}/thumb", response_class=Response)
    def thumb(
        token: str,
        size: Literal["small", "large"] = "small",
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """A preview in WebP: the photo, the page, or a frame of the clip."""
        file = library.file(token)
        try:
            made = thumbnails.get(file, _SIDES[size])
        except InputError as error:
            reason = f"{file.path.name}: {error.reason}"
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "id", reason) from error
        except OSError as error:
            reason = f"{file.path.name}: is gone or cannot be read"
            raise RequestError(HTTPStatus.NOT_FOUND, "id", reason) from error
        headers = {"etag": f'"{made.etag}"', "cache-control": _CACHE}
        if if_none_match == headers["etag"]:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(made.data, media_type="image/webp", headers=headers)

    return router
