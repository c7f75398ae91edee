"""Properties of edits and operations over generated sources."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from codeembed.transform.edit import Edit, Replacement
from codeembed.transform.lexemes import same_tokens
from codeembed.transform.op import changes
from codeembed.transform.registry import DEVIANTS, PRESERVING
from codeembed.transform.tree import Code
from codeembed.transform.verify import alpha_equivalent

NAMES = st.sampled_from(["a", "b", "n", "total", "été"])
EXPRESSIONS = st.recursive(
    st.one_of(NAMES, st.integers(0, 9).map(str), st.just("'é # no comment'")),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", " < ", " and ", "*"]), inner).map("".join),
        inner.map(lambda each: f"f({each}, 1)"),
        inner.map(lambda each: f"({each})"),
    ),
    max_leaves=5,
)


@st.composite
def blocks(draw: st.DrawFn, depth: int = 0) -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.integers(0, 6 if depth < 3 else 2))
        value = draw(EXPRESSIONS)
        if kind <= 1:
            lines.append(f"{draw(NAMES)} = {value}")
        elif kind == 2:
            lines.append(draw(st.sampled_from(["# note é", "pass", f"g({value})  # end"])))
            lines.append("pass")
        else:
            heads = {3: f"if {value}:", 4: f"while {value}:", 5: f"for {draw(NAMES)} in range(3):"}
            inner = ["    " + line for line in draw(blocks(depth + 1))]
            lines += [heads.get(kind, f"if {value}:"), *inner]
            if kind == 6:
                lines += ["else:", *("    " + line for line in draw(blocks(depth + 1)))]
    return lines


SOURCES = st.builds(
    lambda lines, end: end.join(["def f(n):", *("    " + x for x in lines), "    return n", ""]),
    blocks(),
    st.sampled_from(["\n", "\r\n"]),
)


@settings(max_examples=8, deadline=None)
@given(SOURCES, st.integers(0, 99))
def test_every_edit_parses_compiles_and_inverts(source: str, seed: int) -> None:
    code = Code.read(source.encode(), "python")
    for operation in (*PRESERVING, *DEVIANTS):
        for change in changes(code, operation, seed):
            after = change.edit.apply(code.text)
            assert change.edit.invert().apply(after) == code.text
            assert not code.again(after).has_error
            compile(after, "after", "exec", dont_inherit=True)
            ends = [0, *(each.end for each in change.edit.replacements)]
            starts = [each.start for each in change.edit.replacements]
            assert all(end <= start for end, start in zip(ends, starts, strict=False))
            if operation.name.startswith(("rename", "canonical")):
                assert alpha_equivalent(code, code.again(after))
            if operation.name in ("compress", "respace", "reindent", "blank-line"):
                assert same_tokens(code, code.again(after))


@settings(deadline=None)
@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=5))))
def test_apply_then_invert_is_identity(source: bytes, cuts: list[tuple[int, bytes]]) -> None:
    starts = sorted({min(start, len(source)) for start, _ in cuts})
    news = [new for _, new in cuts]
    replacements = [
        Replacement(start, source[start : min(start + 2, end)], new)
        for start, end, new in zip(starts, [*starts[1:], len(source)], news, strict=False)
    ]
    edit = Edit.of(replacements)
    assert edit.invert().apply(edit.apply(source)) == source
