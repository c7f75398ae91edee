"""Changing white space between tokens, never within them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random

from codeembed.transform.edit import Replacement
from codeembed.transform.lexemes import Lexeme, lexemes, same_tokens
from codeembed.transform.op import RefusedError, Site
from codeembed.transform.ops.comments import own_line, statements
from codeembed.transform.tree import Code

__all__ = ["BlankLine", "Compress", "Reindent", "Respace"]

_UNSAFE = frozenset({"heredoc_body", "text", "uninterpreted", "php_end_tag", "jsx_text", "?>"})


class Respace:
    """Let one space stand for every run of blanks between two tokens of a line."""

    name = "respace"

    def scout(self, code: Code) -> Iterable[Site]:
        """The whole text."""
        return [Site(code.root)]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Runs become one space; none is taken out or put in where there was none."""
        found = [
            Replacement(start, gap, b" ")
            for start, gap, _, _ in _gaps(code)
            if len(gap) > 1 and not gap.strip(b" \t")
        ]
        return _checked(code, found)


class BlankLine:
    """Put an empty line before a statement."""

    name = "blank-line"

    def scout(self, code: Code) -> Iterable[Site]:
        """Statements of functions."""
        return [Site(node) for node in statements(code)]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Valid wherever a statement begins a line that does not continue another."""
        yield Replacement(own_line(code, site.node), b"", code.newline)


class Reindent:
    """Double the indentation of every line, but for lines inside strings and comments."""

    name = "reindent"

    def scout(self, code: Code) -> Iterable[Site]:
        """The whole text."""
        return [Site(code.root)]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Equal indentations stay equal and deeper ones deeper, so blocks stay what they are."""
        found = []
        for start, gap, _, _ in _gaps(code):
            last = gap.rfind(b"\n") + 1
            indent = gap[last:]
            if last and indent and not indent.strip(b" \t"):
                found.append(Replacement(start + last, indent, indent + indent))
        return _checked(code, found)


class Compress:
    """Drop the comments and the white space that the language does not need."""

    name = "compress"

    def scout(self, code: Code) -> Iterable[Site]:
        """The whole text."""
        return [Site(code.root)]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Keep line ends where they may end a statement, and a space where tokens would merge."""
        if any(n.type in _UNSAFE for n in code.nodes):
            raise RefusedError("white-space-is-text")
        for node in code.find(code.syntax.comments):
            if code.bytes_of(node).startswith(code.syntax.pragma):
                raise RefusedError("comment-read-by-a-tool")
        keep_lines = code.syntax.newline_ends or any("preproc" in n.type for n in code.nodes)
        found = []
        for start, gap, left, right in _gaps(code, comments=False):
            if b"\n" in gap and keep_lines:
                last = gap[gap.rfind(b"\n") + 1 :]
                blank = not last.strip(b" \t")
                new = code.newline + (last if code.syntax.indented and blank else b"")
            else:
                new = b"" if _may_touch(code, left, right) else b" "
            found.append(Replacement(start, gap, new))
        return _checked(code, found)


def _gaps(code: Code, *, comments: bool = True) -> Iterator[tuple[int, bytes, Lexeme, Lexeme]]:
    """What lies between neighbouring tokens, where it is layout alone."""
    tokens = lexemes(code, comments=comments)
    for left, right in pairwise(tokens):
        gap = code.source[left.end : right.start]
        has_comment = not comments and gap.strip()
        if gap and (has_comment or not gap.strip(b" \t\r\n\f")):
            yield left.end, gap, left, right


def _may_touch(code: Code, left: Lexeme, right: Lexeme) -> bool:
    a, b = code.source[left.end - 1 : left.end], code.source[right.start : right.start + 1]
    word_a, word_b = _is_word(a), _is_word(b)
    if word_a == word_b:
        return (
            not word_a
            and (a in b"()[]{},;" or b in b"()[]{},;")
            and a + b not in (b"()", b"[[", b"]]")
        )
    # `1 .x`, `L "x"`, `a ?.5:b` and Ruby's `f [1]` would become other tokens.
    return (word_a and b in b")]},;=<>" and not code.syntax.newline_ends) or (
        word_b and a in b"([{,;=" and not code.syntax.newline_ends
    )


def _is_word(character: bytes) -> bool:
    return character.isalnum() or character in b"_$@#'\"`\\" or character >= b"\x80"


def _checked(code: Code, replacements: list[Replacement]) -> list[Replacement]:
    from codeembed.transform.edit import Edit

    edit = Edit.of(replacements).shifted(-code.offset)
    if not edit:
        raise RefusedError("nothing-to-change")
    after = code.again(edit.apply(code.text))
    if after.has_error or not same_tokens(code, after):
        raise RefusedError("tokens-would-change")
    return replacements
