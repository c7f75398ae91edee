"""Running functions of every language: agreement, differences, limits, and what is not run."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from transform_samples import SAMPLES

from codeembed.transform.execute import Comparison, compare_edits
from codeembed.transform.op import changes
from codeembed.transform.registry import DEVIANTS, PRESERVING
from codeembed.transform.runners import RUNNERS
from codeembed.transform.runners.erase import without_types
from codeembed.transform.runners.runner import Target
from codeembed.transform.runners.values import typed_inputs
from codeembed.transform.tree import Code
from codeembed.transform.verify import Report, verify


@dataclass(frozen=True)
class Case:
    """A function of one language with versions of it.

    Attributes:
        source: With ``{}`` where a version adds a statement.
        prints: A statement that prints.
        endless: One that does not end.
        broken: One that does not compile or load.
        open: A parameter list with a type that is in no table, and the function's name and head
            before it; or ``""`` where no types are declared.
    """

    source: str
    prints: str
    endless: str
    broken: str
    open: str = ""


_C = "int f(int a, int b) {{ {} return a + b; }}\n"
CASES = {
    "typescript": Case(
        "const f = (a: number, b: number): number => {{ {} return a + b; }};\n",
        'console.log("x");', "while (true) {}", "let let = 1;",
    ),
    "php": Case(
        "<?php\nfunction f($a, $b) {{ {} return [$a, $b]; }}\n",
        'echo "x";', "while (true) {}", "return new class extends NoSuch {}; class f {} class f {}",
    ),
    "ruby": Case("def f(a, b)\n  {}\n  [a, b]\nend\n", 'puts "x"', "loop {}", "break"),
    "c": Case(
        _C, 'printf("x");', "for (;;);", "missing = 1;",
        "struct s {{ int x; }}; int f(struct s a) {{ {} return a.x; }}\n",
    ),
    "cpp": Case(
        _C, 'printf("x");', "for (;;);", "missing = 1;",
        "struct s {{ int x; }}; int f(s a) {{ {} return a.x; }}\n",
    ),
    "java": Case(
        _C, 'System.out.print("x");', "while (a == a) {}", "missing = 1;",
        "int f(Runnable a) {{ {} return 1; }}\n",
    ),
    "csharp": Case(
        _C, 'System.Console.Write("x");', "while (a == a) {}", "missing = 1;",
        "int f(System.Random a) {{ {} return 1; }}\n",
    ),
    "go": Case(
        "func f(a int, b int) int {{\n\t{}\n\treturn a + b\n}}\n",
        'os.Stdout.WriteString("x")', "_ = os.Stdout; for a == a {}", "missing = 1",
        "func f(a chan int) int {{\n\t{}\n\treturn 1\n}}\n",
    ),
    "rust": Case(
        "fn f(a: i32, b: i32) -> i32 {{ {} a + b }}\n",
        'print!("x");', "while a == a {}", "missing = 1;",
        "fn f(a: Box<i32>) -> i32 {{ {} *a }}\n",
    ),
}  # fmt: skip
# The import that a cut-out function needs is added for the names of the source.
_MENTIONS = {"go": "_ = os.Stdout"}


@pytest.fixture(params=CASES)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not RUNNERS[name].available:
        pytest.skip(f"no program for {name} is installed")
    return name


def compared(language: str, *versions: str, source: str | None = None) -> list[Comparison] | str:
    before = (
        CASES[language].source.format(_MENTIONS.get(language, "")) if source is None else source
    )
    code = Code.read(before.encode(), language)
    return compare_edits(code, [each.encode() for each in versions], count=3, seed=0)


def test_versions_agree_differ_print_and_do_not_compile(language: str) -> None:
    case = CASES[language]
    same = case.source.format(_MENTIONS.get(language, ""))
    names = (same.replace("b", "c"), same.replace("a + b", "a - b").replace("a, $b]", "a, $a]"))
    swapped = names[1].replace("[a, b]", "[b, a]")
    results = compared(
        language, same, swapped, case.source.format(case.prints), case.source.format(case.broken)
    )
    assert not isinstance(results, str), results
    agrees, differs, prints, broken = results
    assert agrees == Comparison(3, 0, 3, loaded=True)
    assert differs.differed > 0
    assert prints.differed == 3
    assert not broken.same


def test_an_endless_version_is_cut_off_and_differs(language: str) -> None:
    results = compared(language, CASES[language].source.format(CASES[language].endless))
    assert not isinstance(results, str), results
    assert results[0].loaded
    assert not results[0].same


def test_types_without_values_and_names_from_elsewhere_are_not_run(language: str) -> None:
    case = CASES[language]
    if case.open:
        source = case.open.format("")
        assert compared(language, source, source=source) == "unknown-arguments"
        alone = case.source.format(case.broken)
        assert compared(language, alone, source=alone) == "does-not-run"


@pytest.mark.parametrize("language", ["c", "rust", "typescript", "ruby"])
def test_preserving_edits_agree_and_deviants_differ(language: str) -> None:
    if not RUNNERS[language].available:
        pytest.skip(f"no program for {language} is installed")
    report = Report()
    verify(Code.read(SAMPLES[language].encode(), language), report, each=1)
    counts = report.languages[language]
    assert report.runs == {language: {"executed": 1}}
    assert counts["rename-local"].executed > 0
    assert all(counts[each.name].disagreements == 0 for each in PRESERVING)
    assert sum(counts[each.name].disagreements for each in DEVIANTS) > 0


def run(language: str, source: str, rows: list[str]) -> list[str] | None:
    runner = RUNNERS[language]
    if not runner.available:
        pytest.skip(f"no program for {language} is installed")
    target = runner.target(Code.read(source.encode(), language))
    assert target is not None
    return runner.run([source], target, rows)[0]


def test_arguments_of_c_are_shown_afterwards() -> None:
    source = "void f(int a[], int n, char *s) { a[n - 1] = 7; s[0] = 'z'; printf(\"p\"); }"
    assert run("c", source, ['[[1, 2], 2, "ab"]']) == ["void | 1, 7, ; 2; zb;  | p"]


@pytest.mark.parametrize(
    "body",
    [
        "int a[2]; return a[n];",
        "int *p = malloc(4); return p[n];",
        "int x; return x + n;",
        "int x = 2147483647; return x + n;",
        "int *p = 0; return *p;",
    ],
)
def test_what_c_leaves_open_is_not_compared(body: str) -> None:
    source = f"int f(int n) {{ if (n < 2) return 1; {body} }}"
    outcomes = run("c", source, ["[1]", "[2]"])
    assert outcomes == ["1 | 1;  | ", "undefined"]
    assert run("c", f"int f(int n) {{ {body} }}", ["[2]"]) is None


def test_a_program_of_c_reads_what_it_is_given_and_keeps_nothing() -> None:
    source = (
        'int total; int main() { int n; while (scanf("%d", &n) == 1) total += n; exit(total); }'
    )
    outcomes = run("c", source, ['["1 2 3"]', '["4"]'])
    assert outcomes == ["exit 6 | ", "exit 4 | "]


def test_exceptions_of_every_kind_have_their_name() -> None:
    source = "int f(int[] a, int n) { if (n == 0) throw new IllegalStateException(); return a[n]; }"
    outcomes = run("java", source, ["[[5], 0]", "[[5], 1]"])
    assert outcomes == ["IllegalStateException | ", "ArrayIndexOutOfBoundsException | "]


def test_a_process_that_ends_is_followed_by_another() -> None:
    source = "fn f(n: i32) -> i32 { if n == 1 { std::process::exit(4) } n }"
    outcomes = run("rust", source, ["[1]", "[2]"])
    assert outcomes == ["ended with 4 | ", "2 | (2,) | "]


def test_types_are_erased_where_they_stand() -> None:
    source = "function f<T>(this: T, a?: number, b: T[] = []): T { return (a as any)!; }\n"
    erased = without_types(source)
    assert erased is not None
    assert len(erased) == len(source)
    assert erased.split() == [
        "function",
        "f",
        "(",
        "a",
        ",",
        "b",
        "=",
        "[])",
        "{",
        "return",
        "(a",
        ")",
        ";",
        "}",
    ]
    assert without_types("enum E { A }") is None


def test_lists_of_one_input_have_one_length() -> None:
    java = RUNNERS["java"]
    target = Target("f", 3, ("int[]", "List<String>", "int"))
    assert java.inputs(target, 9, 1) == java.inputs(target, 9, 1)
    for row in java.inputs(target, 9, 1):
        numbers, names, _ = json.loads(row)
        assert len(numbers) == len(names)
    assert typed_inputs([], 2, 0) == ["[]", "[]"]


def test_a_chain_of_conditions_is_not_taken_for_two_branches() -> None:
    swap = next(each for each in PRESERVING if each.name == "swap-branches")
    for language in ("java", "csharp", "go", "c", "cpp", "javascript", "rust"):
        chain = "if (a > 1) { b(); } else if (a > 0) { c(); }"
        heads = {"go": "func f(a int)", "rust": "fn f(a: i32)", "javascript": "function f(a)"}
        code = Code.read(
            f"{heads.get(language, 'void f(int a)')} {{\n{chain}\n}}".encode(), language
        )
        assert changes(code, swap) == []


def test_a_variant_of_rust_in_a_pattern_is_no_variable() -> None:
    source = b"fn f(a: Option<i32>) -> i32 { match (a, 1) { (None, x) => x, (Some(y), _) => y } }"
    rename = next(each for each in PRESERVING if each.name == "rename-local")
    texts = [each.edit.apply(source) for each in changes(Code.read(source, "rust"), rename)]
    assert texts
    assert all(b"None" in each and b"Some(" in each for each in texts)


def test_names_in_a_prototype_are_nobodys() -> None:
    source = b"int a; int f(int b) { int g(int a, int c), c = 1; return a + b + c + g(1, 2); }"
    rename = [each for each in PRESERVING if each.name.startswith("rename")]
    code = Code.read(source, "c")
    texts = [edit.edit.apply(source) for each in rename for edit in changes(code, each)]
    assert len(texts) == 1
    assert b"int g(int a, int c), c = 1; return a + " in texts[0]


def test_what_may_be_an_argument_of_a_constructor_keeps_its_name() -> None:
    source = b"int f(int n, int m) { vector<int> v(n); return v[m] + n; }"
    rename = next(each for each in PRESERVING if each.name == "rename-parameter")
    texts = [each.edit.apply(source) for each in changes(Code.read(source, "cpp"), rename)]
    assert len(texts) == 1
    assert texts[0].count(b"n)") == 1
    assert texts[0].count(b" n") == 2


def test_every_language_of_the_samples_has_a_runner() -> None:
    assert set(RUNNERS) == set(SAMPLES)
    assert RUNNERS["python"].available
