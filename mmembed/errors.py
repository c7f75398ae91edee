"""Errors that name the input, say what is wrong, and say what to do about it."""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "IndexMismatchError",
    "InputError",
    "MissingDependencyError",
    "MmembedError",
    "ModelLoadError",
    "TrainingError",
]


class MmembedError(Exception):
    """Base class of every error this package raises on purpose."""


class InputError(MmembedError, ValueError):
    """One input cannot be read or encoded.

    Attributes:
        source: What the user would recognise: a path, ``file.pdf#page=3``, ``<bytes>``, ``item 7``.
        reason: What is wrong, in one sentence.
        hint: What to do about it; may be empty.
        position: Index of the item in the call that failed, or None when not part of a batch.
    """

    def __init__(
        self, source: str, reason: str, hint: str = "", position: int | None = None
    ) -> None:
        self.source = source
        self.reason = reason
        self.hint = hint
        self.position = position
        super().__init__(source, reason, hint, position)

    def at(self, position: int) -> InputError:
        """The same error, with the item's position in the call recorded."""
        return type(self)(self.source, self.reason, self.hint, position)

    def __str__(self) -> str:
        where = f"item {self.position}: " if self.position is not None else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.source}: {self.reason}{hint}"


class MissingDependencyError(MmembedError, ImportError):
    """An optional dependency is absent; the message holds the exact install command."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'mmembed[{extra}]'")


class ConfigError(MmembedError, ValueError):
    """A configuration file or flag holds an unknown key or an impossible value."""


class ModelLoadError(MmembedError, ValueError):
    """A model folder is incomplete, or a tensor found no place; the message names the key."""


class IndexMismatchError(MmembedError, ValueError):
    """An index was built by another model, or by another version of the store's layout."""


class TrainingError(MmembedError, RuntimeError):
    """A run cannot go on; the message names the step and what was read there."""
