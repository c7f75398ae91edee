"""How commands speak: results to stdout, messages to stderr, a status to the shell."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cyclopts import App, CycloptsError

from mmembed.errors import InputError, MmembedError

__all__ = ["EXIT_ERROR", "EXIT_INTERRUPTED", "EXIT_NOTHING", "EXIT_OK", "Output", "run"]

EXIT_OK = 0
EXIT_NOTHING = 1
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

_SHOWN_ERRORS = 20


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command writes.

    Attributes:
        json: results as JSON lines instead of text for people.
        quiet: no messages and no progress on standard error.
    """

    json: bool = False
    quiet: bool = False

    def result(self, record: Mapping[str, Any], text: str) -> None:
        """One result: the record with --json, else the text."""
        line = json.dumps(record, ensure_ascii=False, default=str) if self.json else text
        sys.stdout.write(line + "\n")

    def say(self, text: str) -> None:
        """A message for people; never part of the results."""
        if not self.quiet:
            sys.stderr.write(text + "\n")

    def skipped(self, errors: Sequence[InputError]) -> None:
        """List what was skipped; long lists are cut, with their count kept."""
        if not errors:
            return
        self.say(f"skipped {len(errors)}:")
        for error in errors[:_SHOWN_ERRORS]:
            self.say(f"  {InputError(error.source, error.reason, error.hint)}")
        if len(errors) > _SHOWN_ERRORS:
            self.say(f"  ... and {len(errors) - _SHOWN_ERRORS} more")

    @property
    def show_progress(self) -> bool:
        """Whether a bar may be drawn: only for somebody who is looking."""
        return not self.quiet and sys.stderr.isatty()


def run(app: App, arguments: Iterable[str] | None = None) -> int:
    """Run a command line and return its exit status; known errors become one line, no traceback."""
    try:
        result = app(
            None if arguments is None else list(arguments),
            exit_on_error=False,
            print_error=True,
            result_action="return_value",
        )
        sys.stdout.flush()
    except CycloptsError:
        return EXIT_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`... | head`); keep Python from complaining once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except MmembedError as error:
        sys.stderr.write(f"{app.name[0]}: {error}\n")
        return EXIT_ERROR
    return result if isinstance(result, int) else EXIT_OK
