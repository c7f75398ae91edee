"""Every error leaves the server as the same JSON body, and without a trace or a path."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mmembed.errors import InputError

__all__ = ["RequestError", "add_error_handlers", "error_response", "unexpected_error"]

_log = logging.getLogger(__name__)


class RequestError(HTTPException):
    """A request that cannot be answered.

    An ``HTTPException``, because the framework lets no other through while it reads a body.

    Attributes:
        status_code: the HTTP status.
        param: the field of the request that is at fault, or None.
        reason: what is wrong and what to do, in one sentence.
    """

    def __init__(self, status: int, param: str | None, reason: str) -> None:
        super().__init__(status, reason)
        self.param = param
        self.reason = reason


def error_response(status: int, message: str, param: str | None = None) -> JSONResponse:
    """The error body of the OpenAI API: ``{"error": {message, type, param, code}}``."""
    phrase = HTTPStatus(status).name.lower()
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": message, "type": kind, "param": param, "code": phrase}
    return JSONResponse({"error": body}, status_code=status)


def unexpected_error(method: str, path: str, error: Exception) -> JSONResponse:
    """The answer to a failure of our own: everything in the log, nothing in the body."""
    _log.error("%s %s failed", method, path, exc_info=error)
    message = f"{method} {path}: the server failed; its log says why"
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, message)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every expected error in the one form."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> JSONResponse:
        response = error_response(error.status_code, error.reason, error.param)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(InputError)
    async def bad_input(request: Request, error: InputError) -> JSONResponse:
        return error_response(HTTPStatus.BAD_REQUEST, str(error), None)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first: Any = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:]) or "body"
        message = f"{name}: {first['msg']}"
        return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, message, name)

    @app.exception_handler(HTTPException)
    async def refused_by_framework(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}"
        response = error_response(error.status_code, message)
        response.headers.update(error.headers or {})
        return response
