"""Operations: valid edits are made, invalid ones refused with a reason."""

from __future__ import annotations

import pytest
from transform_samples import SAMPLES

from codeembed.transform.edit import Edit, Replacement
from codeembed.transform.lexemes import same_tokens
from codeembed.transform.op import Operation, Tally, changes, transform
from codeembed.transform.ops.branches import SwapBranches
from codeembed.transform.ops.comments import InsertComment, RemoveComment, RemoveDocstring
from codeembed.transform.ops.layout import BlankLine, Compress, Reindent
from codeembed.transform.ops.loops import ForToWhile, WhileToEndless, WhileToFor
from codeembed.transform.ops.operands import MirrorComparison
from codeembed.transform.ops.rename import Canonicalise, RenameLocal, RenameParameter
from codeembed.transform.ops.statements import PermuteStatements
from codeembed.transform.registry import DEVIANTS, PRESERVING
from codeembed.transform.tree import Code
from codeembed.transform.verify import alpha_equivalent
from mmembed.errors import InputError

READ, MEMBER = "names-may-be-read-at-run-time", "member-of-the-same-name"
EVERY = [(name, each) for name in SAMPLES for each in (*PRESERVING, *DEVIANTS)]


def results(language: str, source: str, operation: Operation) -> list[str]:
    code = Code.read(source.encode(), language)
    return [c.edit.apply(code.text).decode() for c in changes(code, operation)]


def refusals(language: str, source: str, operation: Operation) -> set[str]:
    tally = Tally()
    changes(Code.read(source.encode(), language), operation, tally=tally)
    assert tally.sites == tally.edits + sum(tally.refusals.values())
    return set(tally.refusals)


@pytest.mark.parametrize(
    ("language", "operation"), EVERY, ids=lambda each: str(getattr(each, "name", each))
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_every_edit_parses_and_is_undone_exactly(
    language: str, operation: Operation, newline: str
) -> None:
    code = Code.read(SAMPLES[language].replace("\n", newline).encode(), language)
    for change in changes(code, operation, seed=3):
        after = change.edit.apply(code.text)
        assert after != code.text
        assert not code.again(after).has_error
        assert change.edit.invert().apply(after) == code.text
        assert change.edit.invert().invert() == change.edit


@pytest.mark.parametrize("language", SAMPLES)
def test_renaming_is_alpha_equivalent_and_renames_something(language: str) -> None:
    code = Code.read(SAMPLES[language].encode(), language)
    for operation in (RenameLocal(), RenameParameter(), Canonicalise()):
        found = changes(code, operation)
        assert found
        for change in found:
            assert alpha_equivalent(code, code.again(change.edit.apply(code.text)))


@pytest.mark.parametrize("language", SAMPLES)
def test_layout_keeps_every_token(language: str) -> None:
    code = Code.read(SAMPLES[language].encode(), language)
    for operation in (Compress(), Reindent(), RemoveComment()):
        for change in changes(code, operation):
            assert same_tokens(code, code.again(change.edit.apply(code.text)))
    assert len(results(language, SAMPLES[language], Compress())[0]) < len(SAMPLES[language])


def test_canonical_functions_that_differ_in_names_are_equal() -> None:
    one = results("python", "def f(a):\n    b = a\n    return b\n", Canonicalise())
    other = results("python", "def f(x):\n    y = x\n    return y\n", Canonicalise())
    assert one == other == ["def f(v0):\n    v1 = v0\n    return v1\n"]


@pytest.mark.parametrize(
    ("language", "source", "reason"),
    [
        ("python", "def f(a):\n    global b\n    b = a\n", "role-keeps-its-name"),
        ("python", "def f():\n    b = 1\n    return locals()\n", READ),
        ("python", "def f():\n    b = 1\n    return f'{b=}'\n", READ),
        ("python", "def f():\n    def g():\n        b = 1\n    return b\n", "also-a-free-name"),
        ("python", "def f():\n    class C:\n        b = 1\n    return C\n", MEMBER),
        ("javascript", "function f() { let b = 1; return eval('b'); }", READ),
        ("php", "function f() { $b = 1; return compact('b'); }", READ),
        ("rust", 'fn f() { let b = 1; println!("{b}"); }', "mentioned-in-string"),
        ("java", "class A { int b; int f() { b = 2; int b = 1; return b; } }", "also-a-free-name"),
        ("go", "func f() int { b := b + 1; return b }", "also-a-free-name"),
        ("c", "int f() {\n int b = 1;\n#define Q b\n return Q;\n}", READ),
    ],
)  # fmt: skip
def test_renaming_refuses_names_that_mean_more(language: str, source: str, reason: str) -> None:
    assert reason in refusals(language, source, RenameLocal())


def test_a_parameter_passed_by_name_is_kept() -> None:
    source = "def f(a):\n    return a\n\ndef g():\n    return f(a=1)\n"
    assert "passed-by-name" in refusals("python", source, RenameParameter())


def test_a_shorthand_keeps_the_name_of_its_field() -> None:
    (after,) = results("javascript", "function f() { let b = 1; return {b}; }", RenameLocal())
    assert "return {b: " in after


def test_a_for_loop_is_lowered() -> None:
    (after,) = results(
        "javascript", "function f(n) { for (let i = 0; i < n; i++) { g(i); } }", ForToWhile()
    )
    assert after == "function f(n) { { let i = 0; while (i < n) { g(i); i++; } } }"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("if (i) { continue; } g();", "continue-skips-the-step"),
        ("g(() => i);", "closure-in-the-body"),
        ("return i;", "end-may-not-be-reached"),
        ("let i = 2; g(i);", "step-shadowed-in-the-body"),
    ],
)
def test_a_for_loop_that_would_change_is_refused(body: str, reason: str) -> None:
    source = f"function f(n) {{ for (let i = 0; i < n; i++) {{ {body} }} }}"
    assert refusals("javascript", source, ForToWhile()) == {reason}


def test_while_loops_are_exchanged() -> None:
    source = "int f(int a) { while (a > 0) { a--; } return a; }"
    assert "for(;a > 0;)" in results("c", source, WhileToFor())[0].replace("for (", "for(")
    assert "while (1) { if (!(a > 0)) break;" in results("c", source, WhileToEndless())[0]


def test_operands_are_mirrored_only_when_they_are_numbers() -> None:
    proved = "int f(int a, int b) { return a < b; }"
    assert results("java", proved, MirrorComparison()) == ["int f(int a, int b) { return b > a; }"]
    assert refusals("python", "def f(a, b):\n    return a < b\n", MirrorComparison()) == {
        "operands-not-proved-numbers"
    }


def test_branches_that_bind_or_chain_are_refused() -> None:
    chain = "def f(a):\n    if a:\n        b()\n    elif c:\n        d()\n    else:\n        e()\n"
    assert refusals("python", chain, SwapBranches()) == {"else-if"}
    binding = "fn f(a: Option<i32>) { if let Some(b) = a { g(b) } else { h() } }"
    assert refusals("rust", binding, SwapBranches()) == {"condition-binds-names"}


def test_branches_of_different_indentation_are_exchanged_if_they_have_one_row_each() -> None:
    uneven = "def f(a):\n if a:\n  b()\n else:\n    {}\n"
    (after,) = results("python", uneven.format("c()"), SwapBranches())
    assert after == "def f(a):\n if not (a):\n  c()\n else:\n    b()\n"
    two_rows = uneven.format("c()\n    d()")
    assert refusals("python", two_rows, SwapBranches()) == {"branches-indented-differently"}


def test_dependent_statements_are_not_exchanged() -> None:
    source = "def f():\n    a = 1\n    b = a\n    c = 2\n    return b\n"
    (after,) = results("python", source, PermuteStatements())
    assert after == "def f():\n    a = 1\n    c = 2\n    b = a\n    return b\n"
    assert "depends-on-the-other" in refusals("python", source, PermuteStatements())


def test_a_docstring_alone_leaves_pass() -> None:
    assert results("python", 'def f():\n    """Doc."""\n', RemoveDocstring()) == [
        "def f():\n    pass\n"
    ]


def test_comments_for_tools_stay() -> None:
    source = "def f(a):\n    b = a  # type: int\n    return b\n"
    assert refusals("python", source, RemoveComment()) == {"read-by-a-tool"}


@pytest.mark.parametrize("operation", [RemoveComment(), InsertComment(), BlankLine()])
def test_lines_inside_a_string_stay(operation: Operation) -> None:
    source = 'def f(a)\n  "x #{a.map do |i|\n    # why\n    i\n  end.join}"\nend\n'
    assert "inside-a-string" in refusals("ruby", source, operation)
    assert all("# why\n    i" in each for each in results("ruby", source, operation))


def test_doc_comments_are_comments() -> None:
    source = "fn f() {\n    /// Doc\n    struct A {\n        b: bool,\n    }\n    g();\n}\n"
    (after,) = results("rust", source, RemoveComment())
    first, second = (Code.read(text.encode(), "rust") for text in (source, after))
    assert "Doc" not in after
    assert same_tokens(first, second)


def test_names_that_a_format_string_may_mean_are_not_taken() -> None:
    source = 'fn f(first: i32) {\n    println!("{v0}");\n    g(first);\n}\n'
    assert refusals("rust", source, Canonicalise()) == {"no-variable-may-be-renamed"}
    assert results("rust", source.replace("v0", "w0"), Canonicalise())


def test_the_same_seed_makes_the_same_edit() -> None:
    code = Code.read(SAMPLES["go"].encode(), "go")
    for operation in (*PRESERVING, *DEVIANTS):
        assert transform(code, operation, 5) == transform(code, operation, 5)
    names = {str(transform(code, RenameLocal(), seed)) for seed in range(9)}
    assert len(names) > 1


def test_methods_outside_their_class_keep_their_offsets() -> None:
    source = "foo(a) { let b = a; return b; }"
    (after,) = results("javascript", source, Canonicalise())
    assert after == "foo(v0) { let v1 = v0; return v1; }"


def test_deep_trees_do_not_recurse() -> None:
    source = "def f(a):\n    return " + "(" * 3000 + "a" + ")" * 3000 + "\n"
    (after,) = results("python", source, Canonicalise())
    assert after.count("v0") == 2


def test_bad_sources_and_edits_are_named() -> None:
    with pytest.raises(InputError, match="does not parse"):
        Code.read(b"def f(:", "python")
    with pytest.raises(InputError, match="no transformations"):
        Code.read(b"echo", "bash")
    with pytest.raises(InputError, match="overlap"):
        Edit.of([Replacement(0, b"ab", b"x"), Replacement(1, b"b", b"y")])
    with pytest.raises(InputError, match="does not hold"):
        Edit.of([Replacement(0, b"ab", b"x")]).apply(b"zz")
