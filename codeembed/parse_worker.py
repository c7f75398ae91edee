"""A process of its own for parsers that may hang or crash.

A grammar's scanner is C code that holds the interpreter's lock, so that nothing inside the process
can stop it once it loops. The worker is an interpreter started with pipes and not a
``multiprocessing`` process: it needs no ``__main__`` guard in the caller's script.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from functools import cache
from pathlib import Path
from typing import IO, Any

from codeembed.parse import ParseTimeoutError

__all__ = ["ParseWorker", "ParserFailedError", "shared_worker"]

_START_LIMIT = 120.0
# Beyond the parser's own limit, which most grammars heed and which leaves the worker alive.
_GRACE = 2.0
_STRIKES = 3
_MAIN = "import json,sys;sys.path[:]=json.loads(sys.argv[1]);import codeembed.parse_worker as w;"


class ParserFailedError(Exception):
    """The parser crashed, raised, or was given up."""


class ParseWorker:
    """Runs one function in another process, which is killed and replaced when it takes too long.

    A process is started with the first call, and ends with this one. Calls from several threads
    wait for each other. After three failures a language is given up, so that a folder of files that
    hang costs three time limits and not one for each file.

    Args:
        task: ``module:function``; the function takes the arguments of :meth:`run` and the time
            limit, its arguments and result are pickled.
    """

    def __init__(self, task: str = "codeembed.foreign:foreign_structure") -> None:
        self._task = task
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._failures: Counter[str] = Counter()

    def run(self, language: str, time_limit: float, *arguments: object) -> Any:
        """The function's result.

        Args:
            language: For which failures are counted.
            time_limit: Seconds; the last argument of the function.
            arguments: Its other arguments.

        Raises:
            ParseTimeoutError: it took too long, or raised this itself.
            ParserFailedError: it raised something else or its process died, or the language was
                given up before.
        """
        with self._lock:
            if self._failures[language] >= _STRIKES:
                raise ParserFailedError(f"the grammar {language} failed {_STRIKES} times")
            try:
                return self._run(time_limit, arguments)
            except (ParseTimeoutError, ParserFailedError):
                self._failures[language] += 1
                raise

    def close(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _run(self, time_limit: float, arguments: tuple[object, ...]) -> Any:
        request = pickle.dumps((time_limit, arguments))
        process = self._process or self._start()
        kind, value = self._answer(process, request, time_limit + _GRACE)
        if kind == "result":
            return value
        error = ParseTimeoutError if kind == "timeout" else ParserFailedError
        raise error(value)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _MAIN + f"w.serve({self._task!r})", json.dumps(sys.path)]
        # What a crashing grammar prints is no message for the user.
        self._process = process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self.close)
        # Imports are no part of the time limit.
        self._answer(process, b"", _START_LIMIT)
        return process

    def _answer(
        self, process: subprocess.Popen[bytes], request: bytes, seconds: float
    ) -> tuple[str, Any]:
        # Both are pipes.
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            if request:
                _write(process.stdin, request)
            answer: tuple[str, Any] = pickle.loads(_read(process.stdout))
        except (OSError, EOFError):
            self.close()
            if late.is_set():
                raise ParseTimeoutError(f"not parsed within {seconds:g} s") from None
            raise ParserFailedError(f"its process ended with {process.returncode}") from None
        except BaseException:
            self.close()  # the pipes hold half a message
            raise
        finally:
            timer.cancel()
        return answer


@cache
def shared_worker() -> ParseWorker:
    """The one worker of this process."""
    return ParseWorker()


def serve(task: str) -> None:
    """Answer requests from standard input until it ends; what runs in the worker."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    module, _, name = task.partition(":")
    function = getattr(importlib.import_module(module), name)
    _write(answers, pickle.dumps(("result", None)))
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        while True:
            try:
                time_limit, arguments = pickle.loads(_read(requests))
            except EOFError:
                return
            # Where the parent was killed nobody stops a loop but this, which needs no lock.
            faulthandler.dump_traceback_later(time_limit + 10 * _GRACE, exit=True, file=nowhere)
            try:
                answer = ("result", function(*arguments, time_limit))
            except ParseTimeoutError as error:
                answer = ("timeout", str(error))
            except Exception as error:
                answer = ("error", f"{type(error).__name__}: {error}")
            faulthandler.cancel_dump_traceback_later()
            _write(answers, pickle.dumps(answer))


def _write(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(8, "big") + message)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    return _exactly(stream, int.from_bytes(_exactly(stream, 8), "big"))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
