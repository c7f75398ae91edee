"""Text that every tokenizer and every file format accepts."""

from __future__ import annotations

__all__ = ["valid_text"]


def valid_text(text: str) -> str:
    """``text`` with lone surrogates replaced by U+FFFD, and paired ones joined.

    A ``str`` may hold halves of a surrogate pair, from JSON such as ``"\\\\ud83d"`` or from file
    names; they cannot be encoded as UTF-8, and tokenizers crash on them.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
