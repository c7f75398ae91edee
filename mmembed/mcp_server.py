"""Multimodal search for agents: an index behind the Model Context Protocol.

An agent sees names, texts and scores, and pictures of what it has found; it can name no path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from mmembed.errors import InputError, MissingDependencyError
from mmembed.inputs.items import ItemLike
from mmembed.server.library import Library
from mmembed.server.naming import name_of
from mmembed.server.thumbnails import Thumbnails

if TYPE_CHECKING:
    from pathlib import Path

    from mmembed.search.index import Index
    from mmembed.search.results import Hit

__all__ = ["SearchTools", "mcp_server", "serve_mcp"]

_MOST = 50
_TEXT = 1200
_SIDE = 800
_MAX_IMAGE = 20_000_000

Modality = Literal["all", "text", "image", "video", "document"]


class SearchTools:
    """What an agent can do with an index.

    Args:
        index: what is searched.
        roots: folders that pictures are given out from; by default a file's own.
    """

    def __init__(self, index: Index, roots: Sequence[Path] | None = None) -> None:
        self._index = index
        self._library = Library(roots)
        self._thumbnails = Thumbnails()

    def search(
        self,
        query: str = "",
        image_base64: str = "",
        modality: Modality = "all",
        filter: str = "",
        k: int = 10,
    ) -> list[dict[str, Any]]:
        """Find photos, document pages, clips and texts by words, by an image, or by both.

        Args:
            query: What to look for, in words.
            image_base64: An image to look for, as base64.
            modality: Only this kind.
            filter: Condition on fields, such as: path like "trip/*" and page <= 3
            k: How many hits, at most 50.
        """
        question = self._question(query, image_base64)
        where = " and ".join(
            part for part in (f"({filter})" if filter.strip() else "", _kind(modality)) if part
        )
        hits = self._index.search(question, _bounded(k), filter=where or None)
        return [self._told(hit) for hit in hits]

    def similar(self, id: str, k: int = 10) -> list[dict[str, Any]]:
        """Find what is most like an item found before.

        Args:
            id: The id of that item.
            k: How many hits, at most 50.
        """
        hits = self._index.similar(self._library.item_id(id), _bounded(k))
        return [self._told(hit) for hit in hits]

    def picture(self, id: str) -> bytes:
        """A WebP picture of an item found before: the photo, the page, or a frame of the clip.

        Raises:
            InputError: there is no such item, or it has no picture.
        """
        try:
            return self._thumbnails.get(self._library.file(id), _SIDE).data
        except OSError as error:
            raise InputError(id, "its file is gone") from error

    def status(self) -> dict[str, Any]:
        """What the index holds, and which model made it."""
        stats = self._index.stats()
        return {
            "items": stats.items,
            "modalities": dict(stats.modalities),
            "model": stats.model_name,
            "fields": {} if stats.store is None else dict(stats.store.fields),
        }

    def _question(self, words: str, image: str) -> ItemLike:
        import base64
        import binascii

        if not words.strip() and not image:
            raise InputError("query", "is empty", "give words, an image, or both")
        if not image:
            return words
        if len(image) > _MAX_IMAGE * 4 // 3:
            raise InputError("image_base64", f"is larger than {_MAX_IMAGE / 1e6:g} MB")
        try:
            data = base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            raise InputError("image_base64", "is no base64") from None
        return {"image": data, "text": words} if words.strip() else {"image": data}

    def _told(self, hit: Hit) -> dict[str, Any]:
        token, file = self._library.register(hit)
        name, folder = name_of(hit, file, self._library)
        return {
            "id": token,
            "kind": hit.modality,
            "name": name,
            "folder": folder,
            "scores": {step: round(score, 4) for step, score in hit.scores.items()},
            "text": hit.text[:_TEXT],
            "has_picture": file is not None,
            "metadata": dict(hit.metadata),
        }


def _kind(modality: Modality) -> str:
    return "" if modality == "all" else f'modality == "{modality}"'


def _bounded(k: int) -> int:
    return max(1, min(k, _MOST))


def mcp_server(tools: SearchTools) -> Any:
    """The server of some tools, not running.

    Raises:
        MissingDependencyError: the package mcp is missing.
    """
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver import Image
    except ImportError as error:
        raise MissingDependencyError("an MCP server", "mcp") from error

    def picture(id: str) -> Image:
        return Image(data=tools.picture(id), format="webp")

    # The names of this function are not those of the module, which annotations are looked up in.
    picture.__annotations__ = {"id": str, "return": Image}
    picture.__doc__ = "A picture of an item found before: the photo, the page, a frame of the clip."
    server = MCPServer("mmembed")
    for tool in (tools.search, tools.similar, tools.status, picture):
        server.tool()(tool)
    return server


def serve_mcp(index: Index, roots: Sequence[Path] | None = None) -> None:
    """Serve an index over standard input and output until they are closed."""
    mcp_server(SearchTools(index, roots)).run("stdio")
