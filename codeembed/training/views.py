"""Other forms of a piece of code, by name: what a column of a recipe may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from codeembed.pairs.clones import clone_of
from codeembed.transform.op import transform
from codeembed.transform.ops.layout import Compress
from codeembed.transform.ops.rename import Canonicalise
from codeembed.transform.regularise import (
    drop_lines,
    drop_signature_and_returns,
    mask_identifiers,
    replace_by_type,
    subtree_and_context,
)
from codeembed.transform.tree import Code
from codeembed.views.control import control_flow
from codeembed.views.dataflow import data_flow
from codeembed.views.flatten import flatten, linearise, source_tokens

__all__ = ["VIEWS", "View", "noisy_text"]

View = Callable[[Code, int], str | None]
"""Code and a seed to text; None where the view has nothing to show."""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _clone(code: Code, seed: int) -> str | None:
    found = clone_of(code, seed, deviants=0)
    return None if found is None else found.code


def _canonical(code: Code, seed: int) -> str | None:
    change = transform(code, Canonicalise(), seed)
    return None if change is None else _text(change.edit.apply(code.text))


def _compressed(code: Code, seed: int) -> str | None:
    change = transform(code, Compress(), seed)
    return None if change is None else _text(change.edit.apply(code.text))


def _subtree(code: Code, seed: int) -> str | None:
    found = subtree_and_context(code, seed)
    return None if found is None else _text(found.subtree)


def _context(code: Code, seed: int) -> str | None:
    found = subtree_and_context(code, seed)
    return None if found is None else _text(found.context)


def _flow(code: Code, seed: int) -> str | None:
    """Each variable with its kind of edge, in the order of the source."""
    return " ".join(f"{edge.name} {edge.kind}" for edge in data_flow(code)) or None


def noisy_text(text: str, seed: int) -> str:
    """A text with one word left out, two neighbours exchanged, or one word twice (ContraBERT)."""
    words = text.split()
    random = Random(f"{seed}/text")
    at = random.randrange(len(words)) if words else 0
    changed = [
        [*words[:at], *words[at + 1 :]],
        [*words[:at], *reversed(words[at : at + 2]), *words[at + 2 :]],
        [*words[: at + 1], *words[at:]],
    ]
    return " ".join(random.choice(changed) or words)


VIEWS: Mapping[str, View] = {
    "code": lambda code, _: _text(code.text),
    "flat": lambda code, _: " ".join(piece.text for piece in flatten(code)),
    "tokens": lambda code, _: " ".join(source_tokens(code)),
    "ast": lambda code, _: " ".join(linearise(code)),
    "dataflow": _flow,
    "cfg": lambda code, _: control_flow(code).linearised(code),
    "clone": _clone,
    "canonical": _canonical,
    "compressed": _compressed,
    "masked": lambda code, seed: _text(mask_identifiers(code, 0.15, seed).apply(code.text)),
    "typed": lambda code, seed: _text(replace_by_type(code, 0.15, seed).apply(code.text)),
    "lines": lambda code, seed: _text(drop_lines(code, 0.1, seed).apply(code.text)),
    "body": lambda code, _: _text(drop_signature_and_returns(code).apply(code.text)),
    "subtree": _subtree,
    "context": _context,
}
"""By name: the code itself; flattened with markers, or without (UniXcoder); depth-first
types and tokens (SynCoBERT); variables with their data-flow edges (GraphCodeBERT); statements with
what can follow them (Code-MVP); a transformed clone (CONCORD, TransformCode); canonical names;
compressed layout; some identifiers masked, or replaced by their types (CoCoSoDa); some lines
dropped (ContraCode); without signature and returns (CodeSage); a complete statement, and the rest
of its function (SCodeR)."""
