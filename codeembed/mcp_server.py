"""What agents may do with code indexes, and the MCP server that lets them.

An agent may name paths, so every one is followed to where it leads before it is compared with the
folders that the server was started for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeembed.index import CodeIndex
from codeembed.search import Mode
from codeembed.settings import read_settings
from mmembed.errors import ConfigError, InputError

if TYPE_CHECKING:
    from codeembed.results import CodeHit
    from codeembed.tokens import CodeModel

__all__ = ["CodeTools", "serve"]

_MOST = 100


class CodeTools:
    """Search, related code, status and updates of the folders below some roots.

    Args:
        roots: What may be reached; the first is meant where no root is named.
        model: Of new indexes; by default as their settings say.

    Raises:
        InputError: a root is no folder.
    """

    def __init__(self, roots: Sequence[str | Path], model: CodeModel | None = None) -> None:
        if not roots:
            raise ConfigError("name at least one folder that may be searched")
        self._roots = [_folder(root) for root in roots]
        self._model = model
        self._indexes: dict[Path, CodeIndex] = {}
        self._lock = threading.RLock()

    def search(
        self,
        query: str,
        root: str = "",
        k: int = 10,
        mode: Mode = "hybrid",
        glob: Sequence[str] = (),
        language: Sequence[str] = (),
        kind: Sequence[str] = (),
        offset: int = 0,
    ) -> dict[str, Any]:
        """Find code by words, symbols or a description of what it does.

        Args:
            query: What to look for.
            root: Folder to search; the first allowed one by default.
            k: How many hits, at most 100.
            mode: hybrid, dense, static or lexical.
            glob: Only these paths, as in .gitignore; "!" takes out.
            language: Only these languages.
            kind: Only chunks that define a function, method, class, section, skeleton, ...
            offset: Leave out so many of the best hits, to page on.
        """
        with self._lock:
            index = self._ready(root)
            wanted = _bounded(k) + max(0, offset)
            hits = index.search(query, wanted, mode=mode, glob=glob, language=language, kind=kind)
        return _told(hits[max(0, offset) :], index)

    def related(self, path: str, line: int, root: str = "", k: int = 10) -> dict[str, Any]:
        """Find code that is like the code at a line of a file.

        Args:
            path: Of the file, as hits name it.
            line: From 1.
            root: Folder of the index; the first allowed one by default.
            k: How many hits, at most 100.
        """
        with self._lock:
            index = self._ready(root)
            return _told(index.related(path, line, _bounded(k)), index)

    def status(self, root: str = "") -> dict[str, Any]:
        """What an index holds and whether it is complete.

        Args:
            root: Folder of the index; the first allowed one by default.
        """
        with self._lock:
            index = self._open(root)
            if not index.exists:
                return {"root": str(index.root), "exists": False}
            state = index.status()
        report = state.pop("last_update")
        skipped = report["skipped_by_reason"] if isinstance(report, dict) else {}
        return {"exists": True, **state, "skipped_by_reason": skipped}

    def reindex(self, root: str = "") -> dict[str, Any]:
        """Bring an index in line with its folder, as `codeembed index` does.

        Args:
            root: Folder of the index; the first allowed one by default.
        """
        with self._lock:
            report = self._update(self._open(root), vectors=True).as_dict()
        return {name: each for name, each in report.items() if name != "skipped"}

    def _ready(self, root: str) -> CodeIndex:
        """An index that holds at least the words of what is there now."""
        index = self._open(root)
        self._update(index, vectors=False)
        return index

    def _update(self, index: CodeIndex, *, vectors: bool) -> Any:
        settings = read_settings(index.root)
        return index.update(
            vectors=vectors,
            max_bytes=settings.max_bytes,
            ignore=settings.ignore,
            workers=settings.workers or None,
        )

    def _open(self, root: str) -> CodeIndex:
        folder = self._allowed(root)
        if folder not in self._indexes:
            self._indexes[folder] = CodeIndex.open(folder, self._model)
        return self._indexes[folder]

    def _allowed(self, root: str) -> Path:
        """A folder that may be reached.

        Raises:
            InputError: it leads out of the roots, or is no folder.
        """
        folder = _folder(self._roots[0] / root) if root else self._roots[0]
        if not any(folder.is_relative_to(each) for each in self._roots):
            names = ", ".join(str(each) for each in self._roots)
            raise InputError(root, "is outside of what may be searched", f"stay within {names}")
        return folder


def serve(roots: Sequence[str | Path]) -> None:
    """Serve :class:`CodeTools` over standard input and output until they are closed.

    Raises:
        ConfigError: the package mcp is missing.
    """
    try:
        from mcp.server import MCPServer
    except ImportError as error:
        raise ConfigError("an MCP server needs: pip install 'mmembed[mcp]'") from error
    tools = CodeTools(roots)
    server = MCPServer("codeembed")
    for tool in (tools.search, tools.related, tools.status, tools.reindex):
        server.tool()(tool)
    server.run("stdio")


def _folder(path: str | Path) -> Path:
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise InputError(str(path), "is not a folder", "name a folder of source code")
    return folder


def _bounded(k: int) -> int:
    return max(1, min(k, _MOST))


def _told(hits: Sequence[CodeHit], index: CodeIndex) -> dict[str, Any]:
    waiting = index.waiting
    note = f"{waiting} chunks are found by words alone so far" if waiting else ""
    return {"hits": [asdict(hit) for hit in hits], "note": note}
