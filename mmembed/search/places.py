"""Where an index lives: a folder, or a collection on a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from mmembed.errors import ConfigError, MissingDependencyError
from mmembed.search.lance_store import LanceStore
from mmembed.search.layout import Location, locate
from mmembed.search.store import FieldType, VectorStore

__all__ = ["Place", "place_of"]


class Place(Protocol):
    """Makes and opens the store of one index."""

    @property
    def location(self) -> Location:
        """How paths become keys there."""
        ...

    def exists(self) -> bool:
        """Whether a store is there."""
        ...

    def open(self) -> VectorStore:
        """The store that is there."""
        ...

    def create(
        self,
        *,
        dim: int,
        fields: Mapping[str, FieldType],
        meta: Mapping[str, str],
        summary_dim: int,
    ) -> VectorStore:
        """Make an empty store.

        Raises:
            FileExistsError: there is one already.
        """
        ...


def place_of(path: str | Path) -> Place:
    """The place that a path or ``qdrant://HOST[:PORT]/COLLECTION`` names.

    A server that speaks TLS is ``qdrants://``; its key is read from ``QDRANT_API_KEY``.

    Raises:
        ConfigError: the URL has another scheme, or names no collection.
    """
    if isinstance(path, str) and "://" in path:
        return _Qdrant(path)
    folder = Path(path).expanduser()
    return _Folder(locate(folder, LanceStore.exists(folder)))


@dataclass(frozen=True, slots=True)
class _Folder:
    location: Location

    def exists(self) -> bool:
        return LanceStore.exists(self.location.folder)

    def open(self) -> VectorStore:
        return LanceStore.open(self.location.folder)

    def create(self, **about: Any) -> VectorStore:
        return LanceStore.create(self.location.folder, **about)


@dataclass
class _Qdrant:
    url: str
    _client: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        name = parts.path.strip("/")
        if parts.scheme not in ("qdrant", "qdrants"):
            raise ConfigError(f"{self.url}: a server is qdrant://HOST[:PORT]/COLLECTION")
        if not parts.hostname or not name or "/" in name or parse_qs(parts.query):
            raise ConfigError(f"{self.url}: names no collection: qdrant://HOST[:PORT]/COLLECTION")
        self._host, self._port, self._name = parts.hostname, parts.port or 6333, name
        self._tls = parts.scheme == "qdrants"

    @property
    def location(self) -> Location:
        return Location(Path(f"{self._host}-{self._port}-{self._name}"), None)

    def exists(self) -> bool:
        from mmembed.search.qdrant_store import QdrantStore

        return QdrantStore.exists(self._connected(), self._name)

    def open(self) -> VectorStore:
        from mmembed.search.qdrant_store import QdrantStore

        return QdrantStore(self._connected(), self._name)

    def create(self, **about: Any) -> VectorStore:
        from mmembed.search.qdrant_store import QdrantStore

        return QdrantStore.create(self._connected(), self._name, **about)

    def _connected(self) -> Any:
        if self._client is None:
            import os

            try:
                from qdrant_client import QdrantClient
            except ImportError as error:
                raise MissingDependencyError("an index on Qdrant", "qdrant") from error
            # ":memory:" is the client's own small engine, which tests use.
            if self._host == "memory":
                self._client = QdrantClient(":memory:")
            else:
                key = os.environ.get("QDRANT_API_KEY")
                self._client = QdrantClient(
                    host=self._host, port=self._port, https=self._tls, api_key=key
                )
        return self._client
