"""The settings of a folder: ``.codeembed.toml`` at its root. What a command names goes before."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from codeembed.walk import DEFAULT_MAX_BYTES
from mmembed.errors import ConfigError

__all__ = ["SETTINGS_NAME", "Settings", "read_settings"]

SETTINGS_NAME = ".codeembed.toml"
_MODES = ("hybrid", "dense", "static", "lexical")


@dataclass(frozen=True)
class Settings:
    """How a folder is indexed and searched.

    Attributes:
        model: ``"mini"``, a folder or a Hugging Face id; empty for the index's own.
        store: Folder of the index, relative to the root; empty for ``.codeembed``.
        repositories: Other folders, relative to the root, that are searched along with it.
        ignore: Patterns as in ``.gitignore`` that count after those of the root.
        max_bytes: Larger files are skipped.
        workers: Processes that cut files; 0 for as many as help.
        k: How many hits.
        mode: Which searches take part.
        lines: Lines shown of a hit; 0 for none, -1 for all.
        background: Whether a search starts a process that gives vectors to what has none.
    """

    model: str = ""
    store: str = ""
    repositories: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    max_bytes: int = DEFAULT_MAX_BYTES
    workers: int = 0
    k: int = 10
    mode: str = "hybrid"
    lines: int = 5
    background: bool = True

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ConfigError(f"mode {self.mode!r}: choose one of {', '.join(_MODES)}")
        if self.max_bytes < 1 or self.k < 1 or self.workers < 0:
            raise ConfigError("max_bytes and k are 1 or more, workers 0 or more")


def read_settings(root: Path) -> Settings:
    """The settings of a folder; the defaults where it has none.

    Raises:
        ConfigError: the file is broken, or says what is not known.
    """
    file = root / SETTINGS_NAME
    try:
        with file.open("rb") as stream:
            values = tomllib.load(stream)
    except (FileNotFoundError, NotADirectoryError):
        return Settings()
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    try:
        return Settings(**{name: _checked(file, name, each) for name, each in values.items()})
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if str(file) in message else f"{file}: {message}") from error


def _checked(file: Path, name: str, value: Any) -> Any:
    defaults = {field.name: field.default for field in fields(Settings)}
    if name not in defaults:
        raise ConfigError(f"{file}: unknown {name!r}; known are {', '.join(defaults)}")
    default = defaults[name]
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ConfigError(f"{file}: {name} is a list of texts, not {value!r}")
        return tuple(value)
    if type(value) is not type(default):
        raise ConfigError(f"{file}: {name} is of type {type(default).__name__}, not {value!r}")
    return value
