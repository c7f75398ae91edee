"""Executing versions: preserving edits agree, deviants differ, limits hold."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transform_samples import SAMPLES

from codeembed.transform.execute import compare
from codeembed.transform.registry import DEVIANTS, PRESERVING
from codeembed.transform.regularise import (
    drop_lines,
    drop_signature_and_returns,
    mask_identifiers,
    replace_by_type,
    subtree_and_context,
)
from codeembed.transform.runners import RUNNERS
from codeembed.transform.runners.runner import Target
from codeembed.transform.runners.values import untyped_inputs
from codeembed.transform.tree import Code
from codeembed.transform.verify import Report, verify

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from code_transforms import EXECUTION, with_runs
from code_transforms_table import PAGE, languages_of, written


def needs(language: str) -> None:
    if not RUNNERS[language].available:
        pytest.skip(f"no program for {language} is installed")


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_preserving_edits_agree_and_kept_deviants_differ(language: str) -> None:
    needs(language)
    code = Code.read(SAMPLES[language].encode(), language)
    report = Report()
    kept = verify(code, report)
    counts = report.languages[language]
    assert counts["rename-local"].executed > 0
    assert counts["rename-local"].returned > 0
    assert all(counts[each.name].disagreements == 0 for each in PRESERVING)
    deviants = {each.name for each in DEVIANTS}
    found = [counts[name] for name in deviants]
    assert sum(each.executed - each.dropped for each in found) == sum(
        change.operation in deviants for change in kept
    )
    assert sum(each.disagreements for each in found) > 0
    json.dumps(report.as_json())


def test_a_wrong_version_is_caught() -> None:
    source, wrong = b"def f(a):\n    return a\n", b"def f(a):\n    return [a]\n"
    results = compare("python", source, [source, wrong], Target("f", 1), untyped_inputs(1, 5, 0))
    assert results is not None
    assert [each.differed for each in results] == [0, 5]


def test_changed_arguments_and_output_count() -> None:
    source = b"def f(a):\n    return 0\n"
    mutates = b"def f(a):\n    if isinstance(a, list): a.append(1)\n    return 0\n"
    prints = b"def f(a):\n    print(a)\n    return 0\n"
    inputs = ["[[1, 2]]"]
    results = compare("python", source, [mutates, prints], Target("f", 1), inputs)
    assert results is not None
    assert [each.differed for each in results] == [1, 1]


@pytest.mark.parametrize(
    ("language", "endless"),
    [
        ("python", "def f(a):\n    while True: pass\n"),
        ("python", "def f(a):\n    return [0] * (10 ** 11)\n"),
        ("python", "def f(a):\n    return f(a)\n"),
        ("javascript", "function f(a) { for (;;) {} }"),
    ],
)
def test_runaway_code_is_cut_off(language: str, endless: str) -> None:
    needs(language)
    results = compare(language, endless.encode(), [endless.encode()], Target("f", 1), ["[1]"])
    assert results is None or results[0].differed == 0


SLOW = {
    "python": "def f(a):\n    {}\n    return a\n",
    "javascript": "function f(a) {{\n  {}\n  return a;\n}}\n",
}
BODIES = [
    ("python", "while a == 1: pass", 1),
    ("python", "import time; end = time.process_time() + 0.2 * (a == 1)\n"
     "    while time.process_time() < end: pass", 0),
    ("python", "import time; time.sleep(0.4 * (a == 1))", 0),
    ("javascript", "while (a === 1);", 1),
    ("javascript", "if (a === 1) for (let i = 0; i < 1e8; i++);", 0),
]  # fmt: skip


@pytest.mark.parametrize(("language", "body", "differs"), BODIES)
def test_a_slow_version_agrees_and_an_endless_one_differs(
    language: str, body: str, differs: int
) -> None:
    needs(language)
    source, version = (SLOW[language].format(each).encode() for each in ("", body))
    results = compare(language, source, [version], Target("f", 1), ["[1]", "[2]"])
    assert results is not None
    assert (results[0].agreed, results[0].differed) == (2 - differs, differs)


def test_inputs_behind_two_slow_ones_are_not_counted() -> None:
    source = b"def f(a):\n    while a < 3: pass\n    return a\n"
    inputs = [f"[{number}]" for number in (3, 1, 2, 4)]
    results = compare("python", source, [source], Target("f", 1), inputs)
    assert results is not None
    assert (results[0].agreed, results[0].differed) == (1, 0)


def test_the_target_is_the_last_plain_function() -> None:
    code = Code.read(b"def g(*a):\n    pass\n\ndef f(a, b=1):\n    pass\n", "python")
    assert RUNNERS["python"].target(code) == Target("f", 2)
    assert untyped_inputs(2, 20, 1) == untyped_inputs(2, 20, 1)


def test_regularising_edits_lose_what_they_say() -> None:
    code = Code.read(SAMPLES["java"].encode(), "java")
    masked = mask_identifiers(code, 1.0, 0).apply(code.text)
    assert b"total" not in masked
    assert masked.count(b"<mask>") > 10
    assert b"identifier" in replace_by_type(code, 1.0, 0).apply(code.text)
    assert len(drop_lines(code, 0.5, 0).apply(code.text)) < len(code.text)
    assert drop_lines(code, 0.5, 7) == drop_lines(code, 0.5, 7)
    bare = drop_signature_and_returns(code).apply(code.text)
    assert b"return" not in bare
    assert b"int work" not in bare
    pair = subtree_and_context(code, 0)
    assert pair is not None
    assert len(pair.subtree) + len(pair.context) == len(code.text)


def test_real_functions_keep_parsing(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("transcoder_gfg") / "functions.jsonl.gz"
    report = Report()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for _, line in zip(range(12), file, strict=False)]
    for row in rows:
        for language in ("python", "java", "cpp"):
            if row.get(language):
                verify(Code.read(row[language].encode(), language), report, execute=False)
    for operations in report.languages.values():
        for counts in operations.values():
            assert counts.reparsed == counts.inverted == counts.edits
            assert counts.alpha_equal == counts.alpha_checked


def test_the_documentation_shows_the_counts_and_none_broke_a_promise() -> None:
    page = PAGE.read_text(encoding="utf-8")
    languages = languages_of()
    assert written(page, languages) == page
    assert {one["language"] for one in languages} == set(SAMPLES)
    for one in languages:
        for operation in PRESERVING:
            counts = one["operations"][operation.name]
            assert counts["edits"] == counts["reparsed"] == counts["inverted"]
            assert counts["sites"] == counts["edits"] + sum(counts["refusals"].values())
            assert counts["alpha_checked"] == counts["alpha_equal"]
            assert counts["disagreements"] == 0


def test_counts_of_execution_come_from_their_own_measurement() -> None:
    text = {"sites": 5, "edits": 4} | dict.fromkeys(EXECUTION, 0)
    run = {"sites": 1, "edits": 1} | dict.fromkeys(EXECUTION, 3)
    row = {"language": "c", "operations": {"respace": text, "reindent": text}}
    merged = with_runs(row, {"functions": {"executed": 2}}, {"respace": run})
    assert merged["run"] == {"functions": {"executed": 2}}
    assert merged["operations"]["respace"] == text | dict.fromkeys(EXECUTION, 3)
    assert merged["operations"]["reindent"] == text
