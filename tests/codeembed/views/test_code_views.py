"""Views: flattening is bijective, flows are what they say, labels follow any subwords."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeembed.transform.tree import Code
from codeembed.views.align import IGNORED, align, byte_spans, token_labels
from codeembed.views.control import control_flow
from codeembed.views.dataflow import COMES_FROM, COMPUTED_FROM, data_flow
from codeembed.views.flatten import flatten, linearise, linearised_parents, source_tokens, unflatten
from mmembed.errors import InputError

PYTHON = """def f(a, n):
    s = 0  # é
    while a < n:
        if a > 3:
            break
        elif a:
            s = s + a
        a += 1
    return s
"""
SOURCES = {
    "python": PYTHON,
    "javascript": "function f(a) { let s = 'é'; for (const x of a) { s = s + x; } return s; }",
    "typescript": "function f(a: number[]): number { let s = 0; s = s + a[0]; return s; }",
    "java": "int f(int a) { int s = 0; if (a > 1) { s = a; } return s; }",
    "go": "func f(a int) int { s := 0; if a > 1 { s = a }; return s }",
    "c": "int f(int a) { int s = 0; while (a) { s = s + a; a--; } return s; }",
    "cpp": "int f(int a) { int s = 0; for (auto x : v) { s = s + x; } return s; }",
    "php": "function f($a) { $s = 0; foreach ($a as $x) { $s = $s + $x; } return $s; }",
    "ruby": "def f(a)\n  s = 0\n  while a < 3\n    s = s + a\n  end\n  s\nend\n",
    "csharp": "int F(int a) { int s = 0; if (a > 1) { s = a; } return s; }",
    "rust": "fn f(a: i32) -> i32 { let mut s = 0; while s < a { s = s + a; } s }",
}


@pytest.mark.parametrize("language", SOURCES)
def test_flattening_gives_the_tokens_back(language: str) -> None:
    code = Code.read(SOURCES[language].encode(), language)
    pieces = flatten(code)
    assert unflatten(pieces) == source_tokens(code)
    joined = "".join("".join(source_tokens(code)).split())
    assert joined == "".join(SOURCES[language].split())
    for piece in pieces:
        if not piece.side:
            assert code.text[piece.start : piece.end].strip() == piece.text.encode()
    assert [p.text for p in flatten(code, nonterminals=False)] == source_tokens(code)


def test_a_broken_flattening_is_an_error() -> None:
    pieces = flatten(Code.read(PYTHON.encode(), "python"))
    with pytest.raises(InputError, match="never closed"):
        unflatten(pieces[:-1])
    with pytest.raises(InputError, match="closes no open node"):
        unflatten(pieces[1:])


def test_linearised_tree() -> None:
    code = Code.read(b"a + 1\nb\n", "python")
    assert linearise(code) == [
        "module", "expression_statement", "binary_operator", "a", "+", "1",
        "expression_statement", "b",
    ]  # fmt: skip
    assert linearised_parents(code) == [-1, 0, 1, 2, 2, 2, 0, 6]


def test_control_flow_of_loops_and_branches() -> None:
    code = Code.read(PYTHON.encode(), "python")
    flow = control_flow(code)
    heads = [code.text[a:b].decode() for a, b in flow.statements]
    assert heads[1:4] == ["while a < n:", "if a > 3:", "break"]
    assert flow.edges == [
        (0, 1), (1, 2), (1, 6), (2, 3), (2, 4), (2, 5), (3, 6), (4, 5), (5, 1), (6, 7),
    ]  # fmt: skip
    assert flow.linearised(code).splitlines()[-1] == "6: return s -> exit"


def test_data_flow_goes_round_loops_and_stops_at_certain_writes() -> None:
    code = Code.read(PYTHON.encode(), "python")
    edges = {(e.start, e.kind): e.sources for e in data_flow(code)}
    last_use = PYTHON.encode().rindex(b"return s") + 7
    first_write, loop_write = PYTHON.encode().index(b"s = 0"), PYTHON.encode().index(b"s = s")
    assert edges[last_use, COMES_FROM] == (first_write, loop_write)
    assert edges[loop_write, COMPUTED_FROM] == (loop_write + 4, loop_write + 8)
    certain = Code.read(b"def f(a):\n    a = 1\n    a = 2\n    return a\n", "python")
    (edge,) = [e for e in data_flow(certain) if e.kind == COMES_FROM]
    assert edge.sources == (24,)


@pytest.mark.parametrize("language", SOURCES)
def test_every_language_has_flows(language: str) -> None:
    code = Code.read(SOURCES[language].encode(), language)
    assert {e.kind for e in data_flow(code)} == {COMES_FROM, COMPUTED_FROM}
    flow = control_flow(code)
    assert len(flow.statements) >= 3
    assert all(target <= len(flow.statements) for _, target in flow.edges)
    assert any(each.is_variable and each.is_identifier for each in token_labels(code))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=60))
def test_subwords_get_the_token_they_lie_in(lengths: list[int]) -> None:
    code = Code.read(PYTHON.encode(), "python")
    labels = token_labels(code)
    offsets, start = [(0, 0)], 0
    for length in lengths:
        offsets.append((start, min(start + length, len(PYTHON))))
        start = offsets[-1][1]
    spans = byte_spans(PYTHON, offsets)
    found = align(labels, spans)
    assert found[0] == IGNORED
    for (begin, end), place in zip(spans, found, strict=True):
        if place == IGNORED:
            assert not code.text[begin:end].strip()
        else:
            assert labels[place].start < end
            assert labels[place].end > begin
