"""Where an index lives: a folder, or a schema of a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from mmembed.errors import ConfigError, MissingDependencyError
from mmembed.search.lance_store import LanceStore
from mmembed.search.layout import Location, locate
from mmembed.search.store import FieldType, VectorStore

if TYPE_CHECKING:
    from mmembed.search.postgres_store import PostgresStore

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
    """The place that a path or ``postgresql://[USER@]HOST[:PORT]/DATABASE/INDEX`` names.

    What follows a ``?``, and what is missing, is read as libpq does it: ``sslmode=require``, the
    variable ``PGPASSWORD``, a file of passwords.

    Raises:
        ConfigError: the URL has another scheme, or names no index.
    """
    if isinstance(path, str) and "://" in path:
        return _Postgres(path)
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


class _Postgres:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        database, _, self._name = parts.path.strip("/").rpartition("/")
        # Without user and password, which an error must not tell.
        place = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
        if parts.scheme != "postgresql" or not database or "/" in database or not self._name:
            raise ConfigError(
                f"{parts.scheme}://{place}: a server is postgresql://HOST[:PORT]/DATABASE/INDEX"
            )
        if len(self._name.encode()) > 63 or self._name.startswith("pg_"):
            raise ConfigError(f"{place}: an index has a name of at most 63 bytes, not pg_...")
        self._url = urlunsplit(parts._replace(path=f"/{database}"))
        self.location = Location(Path(place), None)

    def exists(self) -> bool:
        return self._store().exists(self._url, self._name)

    def open(self) -> VectorStore:
        return self._store()(self._url, self._name)

    def create(self, **about: Any) -> VectorStore:
        return self._store().create(self._url, self._name, **about)

    def _store(self) -> type[PostgresStore]:
        try:
            from mmembed.search.postgres_store import PostgresStore
        except ImportError as error:
            raise MissingDependencyError("an index in PostgreSQL", "postgres") from error
        return PostgresStore
