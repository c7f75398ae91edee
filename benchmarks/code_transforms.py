"""Every transformation over real functions of eleven languages: counts, checks and executions.

    python benchmarks/code_transforms.py [--limit 2000] [--folder NAME=FOLDER ...] [--only NAME ...]

Reads the measuring data beside the checkout, the Python standard library, and any folders of
sources given; their names, not their paths, are recorded. A function that does not parse before
any edit is counted apart. Writes benchmarks/results/code_transforms.json, where the languages that
are not measured anew stay as they are, each with its date. Executes Python and JavaScript; the
others are executed by `code_transforms_run.py`, whose counts stay.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import multiprocessing
import sysconfig
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from machine import RESULTS, facts, write_result

from codeembed.languages import LANGUAGES
from codeembed.parse import ParseTimeoutError
from codeembed.transform.scopes import outer_functions
from codeembed.transform.syntaxes import SYNTAXES
from codeembed.transform.tree import Code
from codeembed.transform.verify import Report, verify
from mmembed.errors import InputError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LONGEST = 4_000
EXECUTED = ("python", "javascript")
EXECUTION = ("executed", "inputs", "returned", "disagreements", "dropped")
# Data sets of functions that run alone; what others were cut out of is not there.
COMPLETE = (
    "mbxp_multilingual",
    "humaneval_multilingual",
    "transcoder_gfg",
    "csn_cloze_nl_code",
    "exercism_parallel",
)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, none if it is not here."""
    if path.is_file():
        opened = gzip.open if path.suffix == ".gz" else lzma.open
        with opened(path, "rt", encoding="utf-8") as file:
            yield from map(json.loads, file)


def parsed(value: Any) -> Any:
    """Some columns hold a mapping as its Python text."""
    import ast

    return ast.literal_eval(value) if isinstance(value, str) else value


def samples(wanted: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """(language, source, data set) of the measuring data, for some languages at least."""
    for name in ("mbxp_multilingual/problems.jsonl.xz", "humaneval_multilingual/problems.jsonl.gz"):
        for row in rows(DATA / name):
            for language, one in parsed(row["langs"]).items():
                if language in SYNTAXES and one.get("solution"):
                    # The C# solutions leave their class and namespace open.
                    end = "\n}\n}" if language == "csharp" else ""
                    yield language, one["prompt"] + one["solution"] + end, name.partition("/")[0]
    for row in rows(DATA / "transcoder_gfg/functions.jsonl.gz"):
        for language in ("python", "java", "cpp"):
            if row.get(language):
                yield language, row[language], "transcoder_gfg"
    for row in rows(DATA / "codetrans_java_cs/train.jsonl.gz"):
        yield "java", row["java"], "codetrans_java_cs"
        yield "csharp", row["cs"], "codetrans_java_cs"
    for row in rows(DATA / "concode_java/pairs.jsonl.gz"):
        yield "java", row["code"], "concode_java"
    for row in rows(DATA / "poj104/programs.jsonl.xz") if {"c", "cpp"} & set(wanted) else ():
        is_cpp = any(word in row["code"] for word in ("cin", "cout", "std", "class", "new "))
        yield "cpp" if is_cpp else "c", row["code"], "poj104"
    for row in rows(DATA / "csn_cloze_nl_code/pairs.jsonl.gz"):
        if row["lang"] in SYNTAXES:
            yield row["lang"], row["code"].replace("<mask>", "masked"), "csn_cloze_nl_code"


def files(folder: Path, name: str, full: Callable[[str], bool]) -> Iterator[tuple[str, str, str]]:
    """(language, one outermost function, name) of the sources below a folder."""
    by_suffix = {s: lang.name for lang in LANGUAGES.values() for s in lang.suffixes}
    paths = sorted(p for p in folder.rglob("*") if p.suffix in by_suffix and p.is_file())
    Random(name).shuffle(paths)
    for path in paths:
        language = by_suffix[path.suffix]
        if language not in SYNTAXES or full(language) or path.stat().st_size > 200_000:
            continue
        data = path.read_bytes()
        try:
            code = Code.read(data, language)
        except (InputError, ParseTimeoutError):
            continue
        for function in outer_functions(code)[:20]:
            text = data[code.line_start(function.start) : function.end]
            if text.strip() and b"\n" in text and text.isascii() | (language != "c"):
                yield language, text.decode("utf-8", "replace"), name


def exercism() -> Iterator[tuple[str, str, str]]:
    """Whole solutions, which hold several functions each."""
    for row in rows(DATA / "exercism_parallel/problems.jsonl.gz"):
        for language, source in parsed(row["langs"]).items():
            if language in SYNTAXES:
                yield language, source, "exercism_parallel"


def gather(
    limit: int, folders: dict[str, Path], wanted: Collection[str]
) -> dict[str, list[tuple[str, str]]]:
    """Up to ``limit`` sources of each of the languages, in a fixed order."""
    found: dict[str, list[tuple[str, str]]] = {}
    seen: set[str] = set()

    def take(sources: Iterator[tuple[str, str, str]], most: int) -> None:
        for language, source, name in sources:
            chosen = found.setdefault(language, [])
            if len(chosen) < most and len(source) <= LONGEST and source not in seen:
                seen.add(source)
                chosen.append((source, name))

    take(samples(wanted), 6 * limit)
    take(exercism(), 6 * limit)
    for language, chosen in found.items():
        Random(language).shuffle(chosen)
    most = 2 * limit  # some do not parse

    def full(language: str) -> bool:
        return language not in wanted or len(found.get(language, ())) >= most

    for name, folder in folders.items():
        take(files(folder, name, full), most)
    return found


def readable(source: str, language: str, report: Report) -> Code | None:
    """The parsed source; None, and counted, where it has errors before any edit."""
    try:
        return Code.read(source.encode(), language)
    except (InputError, ParseTimeoutError):
        report.unreadable[language] = report.unreadable.get(language, 0) + 1
        return None


def work(task: tuple[str, list[tuple[str, str]], int, int]) -> dict[str, Any]:
    """Verify the sources of one language until ``limit`` could be read; run the first ``most``."""
    language, sources, limit, most = task
    report = Report()
    by_source: dict[str, int] = {}
    run = 0
    started = time.process_time()
    for seed, (source, name) in enumerate(sources):
        if report.functions.get(language, 0) >= limit:
            break
        code = readable(source, language, report)
        if code is None:
            continue
        execute = language in EXECUTED and name in COMPLETE and run < most
        run += execute
        verify(code, report, seed=seed, execute=execute)
        by_source[name] = by_source.get(name, 0) + 1
    return {
        "language": language,
        "date": datetime.now(UTC).date().isoformat(),
        "given_to_a_runner": run,
        "run": {"functions": report.runs.get(language, {})},
        "functions": report.functions.get(language, 0),
        "unreadable_before_any_edit": report.unreadable.get(language, 0),
        "sources": by_source,
        "cpu_seconds": round(time.process_time() - started, 1),
        "operations": report.as_json()["languages"].get(language, {}),
    }


def with_runs(
    one: dict[str, Any], run: dict[str, Any], operations: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """A language's row with counts of execution from another measurement."""
    counted = {
        name: counts | {key: operations.get(name, counts)[key] for key in EXECUTION}
        for name, counts in one["operations"].items()
    }
    return one | {"run": run, "operations": counted}


def totals(languages: list[dict[str, Any]]) -> dict[str, int]:
    """What must hold, over everything."""
    from codeembed.transform.registry import DEVIANTS

    deviants = {each.name for each in DEVIANTS}
    total: dict[str, int] = {}

    def add(name: str, number: int) -> None:
        total[name] = total.get(name, 0) + number

    for one in languages:
        add("functions", one["functions"])
        for name, counts in one["operations"].items():
            kind = "deviant" if name in deviants else "preserving"
            for key in ("sites", "edits", "reparsed", "inverted", "executed", "disagreements"):
                add(f"{kind}_{key}", counts[key])
            add(f"{kind}_inputs", counts["inputs"])
            add(f"{kind}_alpha_checked", counts["alpha_checked"])
            add(f"{kind}_alpha_equal", counts["alpha_equal"])
            add(f"{kind}_dropped", counts["dropped"])
    return total


def measured(file: Path) -> dict[str, dict[str, Any]]:
    """The rows that a file of results has, by language."""
    rows = json.loads(file.read_text(encoding="utf-8"))["languages"] if file.exists() else []
    return {one["language"]: one for one in rows}


def main() -> None:
    """Run and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--most-run", type=int, default=2000, help="functions run, a language")
    parser.add_argument("--folder", action="append", default=[])
    parser.add_argument("--only", nargs="*", default=list(SYNTAXES), choices=list(SYNTAXES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--name", default="code_transforms")
    arguments = parser.parse_args()
    folders = {"python standard library": Path(sysconfig.get_paths()["stdlib"])}
    for each in arguments.folder:
        name, _, folder = each.partition("=")
        folders[name] = Path(folder)
    found = gather(arguments.limit, folders, arguments.only)
    numbers = (arguments.limit, arguments.most_run)
    tasks = [(name, found[name], *numbers) for name in arguments.only if name in found]
    file = RESULTS / f"{arguments.name}.json"
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for one in pool.imap_unordered(work, tasks):
            # Read at the last moment: other languages may have been measured meanwhile.
            results = measured(file)
            earlier = results.get(one["language"], one)
            if one["language"] not in EXECUTED and "run" in earlier:
                one = with_runs(one, earlier["run"], earlier["operations"])
            results[one["language"]] = one
            print(one["language"], one["functions"], one["cpu_seconds"], flush=True)
            languages = [results[name] for name in sorted(results)]
            write_result(
                arguments.name,
                {
                    "machine": facts("tree-sitter"),
                    "limit": arguments.limit,
                    "totals": totals(languages),
                    "languages": languages,
                },
            )


if __name__ == "__main__":
    main()
