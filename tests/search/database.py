"""A PostgreSQL server with pgvector of a test's own, that it may kill and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg


class Database:
    """A server process over a fresh folder.

    Args:
        programs: the folder of ``initdb`` and ``postgres``.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not below the folder of the tests, which another user cannot enter: see _user.
        self._home = Path(tempfile.mkdtemp(prefix="mmembed-postgres-"))
        self._folder = self._home / "data"
        self._folder.mkdir()
        if _user():
            package = programs.parents[1]
            for each in (package, package.with_suffix(".libs")):
                shutil.copytree(each, self._home / each.name, symlinks=True)
            self._programs = self._home / programs.relative_to(package.parent)
            for folder in (self._home, self._folder):
                shutil.chown(folder, _user())
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.start()

    def url(self, index: str) -> str:
        """The address of an index in it."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres/{index}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = {"listen_addresses": "127.0.0.1", "port": self._port, "fsync": "off"}
        settings = [f"--{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._folder, "-k", self._folder, *settings],
            user=_user(),
            cwd="/",
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                psycopg.connect(self.url("x").rpartition("/")[0], connect_timeout=10).close()
                return
            except psycopg.OperationalError:
                assert self.process.poll() is None, "PostgreSQL did not start"
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def kill(self) -> None:
        """``kill -9``, of the server and of the processes that work for it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.process.kill()
        for child in map(int, children.split()):
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:  # it saw its parent die
                continue
        self.process.wait()
        (self._folder / "postmaster.pid").unlink()

    def stop(self) -> None:
        """End the server, and delete what it kept."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        shutil.rmtree(self._home)

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, "-D", self._folder, *arguments]
        subprocess.run(command, user=_user(), cwd="/", check=True, stdout=subprocess.DEVNULL)


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None
