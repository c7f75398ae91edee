"""Hybrid search: filters first, definitions before uses, every mode for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from word_model import WordModel

from codeembed import CodeIndex
from codeembed.ranking import named_symbols
from mmembed.errors import ConfigError

Tree = Callable[[Mapping[str, "str | bytes"]], Path]


@pytest.fixture
def index(tree: Tree, model: WordModel) -> CodeIndex:
    noise = {
        f"noise/n{n}.py": f"def caller_{n}():\n    load_config(load_config(load_config({n})))\n"
        for n in range(60)
    }
    root = tree(
        {
            **noise,
            "core/config.py": "def load_config(path):\n    return parse(read(path))\n",
            "core/config.go": "package core\n\nfunc loadConfig() {\n\tread()\n}\n",
            "core/store.py": "class ConfigStore:\n    def save(self):\n        write(self)\n",
            "docs/config.md": "# Config\n\nHow to load a config.\n",
        }
    )
    index = CodeIndex.open(root, model)
    index.update()
    return index


def paths(index: CodeIndex, query: str, k: int = 5, **options: object) -> list[str]:
    return [hit.path for hit in index.search(query, k, **options)]  # type: ignore[arg-type]


def test_a_definition_comes_before_its_uses(index: CodeIndex) -> None:
    assert paths(index, "load_config", 1) == ["core/config.py"]
    assert paths(index, "how does load_config work", 1) == ["core/config.py"]


def test_spellings_of_an_identifier_meet(index: CodeIndex) -> None:
    # camelCase and snake_case share their parts.
    assert "core/config.go" in paths(index, "load config read", 3, mode="lexical")


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"glob": ["core/**"]}, {"core/config.py", "core/config.go", "core/store.py"}),
        ({"glob": ["*.go"]}, {"core/config.go"}),
        ({"glob": ["core/", "!*.go"], "language": ["py"]}, {"core/config.py", "core/store.py"}),
        ({"glob": ["!noise/"]}, None),
        ({"language": ["golang"]}, {"core/config.go"}),
        ({"language": ["markdown"]}, {"docs/config.md"}),
        ({"kind": ["class"]}, {"core/store.py"}),
        ({"kind": ["method"]}, {"core/store.py"}),
        ({"kind": ["section"], "language": ["py"]}, set()),
        ({"glob": ["nowhere/**"]}, set()),
    ],
)
def test_filters_take_effect_before_the_best_are_chosen(
    index: CodeIndex, mode: str, options: dict[str, list[str]], expected: set[str] | None
) -> None:
    # Sixty files match better than any of these: filtering late would leave nothing (ck#111).
    query = "load_config caller config save"
    found = set(paths(index, query, 4, mode=mode, **options))
    if expected is None:
        expected = {"core/config.py", "core/config.go", "core/store.py", "docs/config.md"}
    assert found <= expected
    # Lexical search finds only what shares a word with the query, which all of these do.
    assert found == expected


def test_hits_say_where_and_why(index: CodeIndex) -> None:
    hit = index.search("save", 1, kind=["method"])[0]
    assert (hit.path, hit.start_line, hit.end_line) == ("core/store.py", 1, 3)
    assert (hit.symbol, hit.kind, hit.language) == ("ConfigStore", "class", "python")
    assert hit.breadcrumb == "core/store.py > class ConfigStore"
    assert hit.text.startswith("class ConfigStore:")
    assert hit.scores.keys() == {"dense", "lexical"}


def test_modes_stand_for_themselves(index: CodeIndex) -> None:
    dense = index.search("load a config", 5, mode="dense")
    assert [hit.score for hit in dense] == sorted(hit.scores["dense"] for hit in dense)[::-1]
    assert all(hit.scores.keys() == {"lexical"} for hit in index.search("load", mode="lexical"))
    assert index.search("zzzz", mode="lexical") == []
    assert len(index.search("zzzz", 3, mode="hybrid")) == 3


def test_lexical_search_needs_no_model(index: CodeIndex) -> None:
    without = CodeIndex.open(index.root)
    assert paths(without, "ConfigStore", 1, mode="lexical") == ["core/store.py"]
    assert without._model is None


def test_the_number_of_hits(index: CodeIndex) -> None:
    assert len(index.search("load_config", 7)) == 7
    assert index.search("load_config", 0) == []
    assert len(index.search("load_config", 1000, mode="dense")) > 60


def test_an_unknown_language_is_an_error(index: CodeIndex) -> None:
    with pytest.raises(ConfigError, match="unknown language"):
        index.search("x", language=["pyton"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("search", {"search"}),
        ("search the index", set()),
        ("how is parse_args called", {"parse_args"}),
        ("HttpClient retry", {"httpclient"}),
        ("Foo.bar()", {"foo", "bar"}),
        ("what does utf8 mean", {"utf8"}),
        ("", set()),
    ],
)
def test_symbols_that_a_query_spells_out(query: str, expected: set[str]) -> None:
    assert named_symbols(query) == expected
