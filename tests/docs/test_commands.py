"""Commands and links of the documentation: no option is invented, no script or host unknown.

Blocks of sh and Python are run by ``test_examples.py``. Commands in other places (indented blocks,
and code in sentences), which often need a model, a hub or a cluster, are parsed by the real parser.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts.exceptions import CycloptsError, MissingArgumentError

from codeembed.cli import app as code_app
from mmembed.cli import app

APPS = {"mmembed": app, "codeembed": code_app}
PROGRAM = r"(?:\.venv/bin/)?((?:mmembed|codeembed) [^\n]+)"
LINE = re.compile(rf"^ *{PROGRAM}$", re.MULTILINE)
LAUNCHED = re.compile(r"-m (mmembed|codeembed)\.cli ([^\n]+)$", re.MULTILINE)
IN_WORDS = re.compile(r"`(?:\.venv/bin/)?((?:mmembed|codeembed) [^`]+)`")
SCRIPT = re.compile(r"python (benchmarks/\w+\.py)([^`\n]*)")
MODULE = re.compile(r"python -m ((?:mmembed|codeembed)[\w.]*)")
TARGET = re.compile(r"(?:^ {4}|`)make ([a-z-]+)", re.MULTILINE)
LINK = re.compile(r"(?<![\w/])([a-z]+)://([^\s/)`'\"*<>]+)([^\s)`'\"<>]*)")
HOSTS = {"arxiv.org": re.compile(r"/abs/\d{4}\.\d{5}")}
OWN = ("127.0.0.1", "localhost", "HOST", "bucket")
STORES = ("s3", "gs", "hdfs", "file", "qdrant", "qdrants")


def pages(root: Path) -> list[Path]:
    """Every Markdown file that people read."""
    return [*root.glob("*.md"), *(root / "docs").glob("*.md"), *(root / "mmembed").rglob("*.md")]


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """Commands of a page, and whether each has to be whole: a sentence may name a part of one."""
    joined = text.replace("\\\n", " ")
    for match in LINE.finditer(joined):
        yield match.group(1), True
    for match in LAUNCHED.finditer(joined):
        yield f"{match.group(1)} {match.group(2)}", True
    for match in IN_WORDS.finditer(joined.replace("\n", " ")):
        yield match.group(1), False


def complaint(command: str, whole: bool) -> str | None:
    """What the command's own parser says against it."""
    name, *arguments = shlex.split(command, comments=True)
    try:
        APPS[name].parse_args(arguments, print_error=False, exit_on_error=False)
    except MissingArgumentError as error:
        return str(error) if whole else None
    except CycloptsError as error:
        return str(error)
    return None


def test_every_command_of_the_documentation_parses(project_root: Path) -> None:
    found, wrong = 0, []
    for page in pages(project_root):
        for command, whole in commands(page.read_text(encoding="utf-8")):
            found += 1
            if (said := complaint(command, whole)) is not None:
                wrong.append(f"{page.relative_to(project_root)}: {command}: {said}")
    assert found > 90
    assert wrong == []


def test_scripts_modules_and_targets_exist_with_their_options(project_root: Path) -> None:
    makefile = (project_root / "Makefile").read_text(encoding="utf-8")
    wrong = []
    for page in pages(project_root):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for script, options in SCRIPT.findall(text):
            file = project_root / script
            code = file.read_text(encoding="utf-8") if file.exists() else ""
            wrong += [f"{page.name}: {script}"] if not code else []
            wrong += [
                f"{page.name}: {script} {option}"
                for option in re.findall(r"--[a-z-]+", options)
                if f'"{option}"' not in code
            ]
        for module in MODULE.findall(text):
            place = project_root / module.replace(".", "/")
            if not (place.with_suffix(".py").exists() or (place / "__main__.py").exists()):
                wrong.append(f"{page.name}: {module}")
        for target in TARGET.findall(text):
            if not re.search(rf"^{target}:", makefile, re.MULTILINE):
                wrong.append(f"{page.name}: make {target}")
    assert wrong == []


def test_links_lead_to_known_hosts_in_their_form(project_root: Path) -> None:
    """No network is asked: a host is listed here with the form that its addresses have."""
    wrong = []
    for page in pages(project_root):
        for scheme, host, path in LINK.findall(page.read_text(encoding="utf-8")):
            local = scheme in STORES or host.partition(":")[0] in OWN
            known = scheme == "https" and host in HOSTS and HOSTS[host].fullmatch(path)
            if not (local or known):
                wrong.append(f"{page.name}: {scheme}://{host}{path}")
    assert wrong == []


def test_what_is_invented_is_noticed() -> None:
    assert complaint("mmembed eval books --dim 128  # a comment", True) is None
    assert "--nope" in (complaint("mmembed eval books --nope", False) or "")
    assert "fly" in (complaint("mmembed fly", False) or "")
    assert complaint("mmembed bulk", False) is None
    assert complaint("mmembed bulk", True) is not None
    text = "    .venv/bin/mmembed a \\\n  b\n\nthe `mmembed c\nd`\nlaunch -m mmembed.cli train X\n"
    assert list(commands(text)) == [
        ("mmembed a    b", True),
        ("mmembed train X", True),
        ("mmembed c d", False),
    ]


@pytest.mark.parametrize("kind", ["text", "multimodal", "code"])
def test_every_recipe_is_listed_with_its_source(kind: str, project_root: Path) -> None:
    """The source stands in the first lines of a recipe, and the page repeats it."""
    page = (project_root / "docs" / "recipes.md").read_text(encoding="utf-8")
    place = re.escape(f"](../configs/recipes/{kind}/")
    rows = dict(re.findall(rf"^\|.*{place}([\w-]+)\.yaml\).*\| (.*) \|$", page, re.MULTILINE))
    files = list((project_root / "configs" / "recipes" / kind).glob("*.yaml"))
    assert sorted(rows) == sorted(file.stem for file in files)
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        head = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        ids = re.findall(r"arXiv:(\d{4}\.\d{5})", head)
        assert re.findall(r"/abs/(\d{4}\.\d{5})\)", rows[file.stem]) == ids, file.stem
        assert ids or rows[file.stem].split(",")[0].split()[0] in head, file.stem
