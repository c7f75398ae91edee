"""``/api/media/{id}/folder``: a result's folder in the file manager of the server's own machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Header

from mmembed.server.errors import RequestError
from mmembed.server.library import Library

__all__ = ["ShowFolder", "file_manager", "folder_router"]

ShowFolder: TypeAlias = Callable[[Path], None]
"""Opens the folder of a file for the person at this machine."""


def file_manager() -> ShowFolder | None:
    """This machine's own; None where there is none, or no screen to see it on."""
    if sys.platform == "darwin":
        return lambda file: _start("open", "-R", str(file))
    if sys.platform == "win32":
        return lambda file: _start("explorer", f"/select,{file}")
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen and shutil.which("xdg-open"):
        return lambda file: _start("xdg-open", str(file.parent))
    return None


def _start(*command: str) -> None:
    subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it stays when the server goes
    )


def folder_router(library: Library, show: ShowFolder) -> APIRouter:
    """A route for a server that only its own machine reaches."""
    router = APIRouter(prefix="/api/media", tags=["media"])

    @router.post("/{token}/folder", status_code=HTTPStatus.NO_CONTENT)
    def open_folder(
        token: str, sec_fetch_site: Annotated[str, Header(max_length=40)] = "none"
    ) -> None:
        """Open the folder of a file that a search has found."""
        # Browsers say where a request comes from: another site's page must not open windows.
        if sec_fetch_site not in ("same-origin", "none"):
            reason = "Sec-Fetch-Site: this is for the server's own page"
            raise RequestError(HTTPStatus.FORBIDDEN, "Sec-Fetch-Site", reason)
        show(library.file(token).path.absolute())

    return router
