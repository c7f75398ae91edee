"""From what a request holds to inputs of a model; nothing here ever opens a path."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeAlias

from mmembed.errors import InputError
from mmembed.inputs.items import Item, parse_item
from mmembed.inputs.unicode import valid_text
from mmembed.server.api.schemas import MAX_ITEMS, Content
from mmembed.server.errors import RequestError

__all__ = ["Fetch", "item_of", "items_of"]

Fetch: TypeAlias = Callable[[str], bytes]
"""What a URL holds; raises :class:`RequestError` where it must not be fetched."""


def items_of(request: Any, fetch: Fetch | None) -> tuple[list[Item], list[str]]:
    """The inputs of a request for embeddings, and their words, for counting.

    Raises:
        RequestError: it holds none, too many, or one that cannot be read.
    """
    if (request.input is None) == (request.messages is None):
        raise RequestError(HTTPStatus.BAD_REQUEST, "input", "input: give either input or messages")
    if request.messages is not None:
        parts: list[Any] = []
        for message in request.messages:
            parts += [message.content] if isinstance(message.content, str) else message.content
        given: list[Any] = [parts]
    elif isinstance(request.input, list):
        given = list(request.input)
    else:
        given = [request.input]
    if not 0 < len(given) <= MAX_ITEMS:
        reason = f"input: give 1 to {MAX_ITEMS} inputs, not {len(given)}"
        raise RequestError(HTTPStatus.BAD_REQUEST, "input", reason)
    if any(isinstance(one, int) or (isinstance(one, list) and _ids(one)) for one in given):
        reason = "input: token ids depend on a tokenizer that the server does not share: send text"
        raise RequestError(HTTPStatus.BAD_REQUEST, "input", reason)
    items = [item_of(one, fetch, f"input[{i}]") for i, one in enumerate(given)]
    # A tokenizer takes no lone surrogates, which JSON can hold.
    words = [
        valid_text("\n".join(p.text for p in item.parts if hasattr(p, "text"))) for item in items
    ]
    return items, words


def item_of(value: Any, fetch: Fetch | None, where: str) -> Item:
    """One input: a text, an object, or a list of typed parts.

    Raises:
        RequestError: it is empty or holds a medium that cannot be read.
    """
    if isinstance(value, str):
        return parse_item(value)
    try:
        record = _of_parts(value, fetch, where) if isinstance(value, list) else None
        if record is None:
            record = _of_content(value, fetch, where)
        return parse_item(record)
    except InputError as error:
        reason = f"{where}: {error.reason}" + (f" ({error.hint})" if error.hint else "")
        raise RequestError(HTTPStatus.BAD_REQUEST, where, reason) from None


def _of_content(value: Content, fetch: Fetch | None, where: str) -> dict[str, Any]:
    if value.content is not None:
        if any(getattr(value, key) is not None for key in ("text", "image", "video", "document")):
            reason = f"{where}: content stands in place of text, image, video and document"
            raise RequestError(HTTPStatus.BAD_REQUEST, where, reason)
        parts = [value.content] if isinstance(value.content, str) else value.content
        record = _of_parts(list(parts), fetch, where)
    else:
        record = {} if value.text is None else {"text": value.text}
        for key in ("image", "video", "document"):
            found = getattr(value, key)
            if found is not None:
                many = found if isinstance(found, list) else [found]
                record[key] = [_media(one, fetch, f"{where}.{key}") for one in many]
    if value.instruction is not None:
        record["instruction"] = value.instruction
    return record


def _of_parts(parts: list[Any], fetch: Fetch | None, where: str) -> dict[str, Any]:
    words: list[str] = []
    record: dict[str, Any] = {}
    for i, part in enumerate(parts):
        at = f"{where}.content[{i}]"
        if isinstance(part, str):
            words.append(part)
        elif part.type in ("text", "input_text"):
            words.append(part.text)
        else:
            key = "video" if part.type == "video_url" else "image"
            held = getattr(part, part.type)
            record.setdefault(key, []).append(_media(getattr(held, "url", held), fetch, at))
    return {**({"text": "\n".join(words)} if words else {}), **record}


def _media(source: str, fetch: Fetch | None, where: str) -> bytes:
    """The bytes of a medium: of base64, of a ``data:`` URI, or of a URL where those are fetched."""
    if source.startswith(("http://", "https://")):
        if fetch is None:
            reason = f"{where}: this server fetches no URLs: send the file as base64 or a data: URI"
            raise RequestError(HTTPStatus.BAD_REQUEST, where, reason)
        return fetch(source)
    if source.startswith("data:"):
        head, comma, source = source.partition(",")
        if not comma or not head.endswith(";base64"):
            reason = f"{where}: a data: URI must be base64: data:image/png;base64,..."
            raise RequestError(HTTPStatus.BAD_REQUEST, where, reason)
    try:
        found = base64.b64decode(source, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        reason = f"{where}: is no base64, data: URI or URL; paths are never opened"
        raise RequestError(HTTPStatus.BAD_REQUEST, where, reason)
    return found


def _ids(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(one, int) for one in value)
