"""Notebooks are searched by their cells, not by the JSON and the pictures around them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from word_model import WordModel

from codeembed import CodeIndex
from codeembed.notebook import notebook_script

Tree = Callable[[Mapping[str, "str | bytes"]], Path]

CELLS = [
    {"cell_type": "markdown", "source": ["# Loading\n", "\n", "How data is loaded."]},
    {
        "cell_type": "code",
        "source": "%matplotlib inline\ndef load_table(path):\n    return read(path)\n",
        "outputs": [{"data": {"image/png": "iVBORw0KGgo" * 9000}}],
    },
    {"cell_type": "code", "source": []},
]


def test_cells_become_a_script() -> None:
    script = notebook_script(json.dumps({"cells": CELLS, "nbformat": 4}).encode())
    assert script is not None
    assert script.decode().splitlines() == [
        *("# %% [markdown]", "# # Loading", "#", "# How data is loaded.", ""),
        *("# %%", "# %matplotlib inline", "def load_table(path):", "    return read(path)", ""),
        "# %%",
    ]


def test_old_notebooks_keep_their_cells_elsewhere() -> None:
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1\n", "y = 2"]}]}]}
    assert notebook_script(json.dumps(old).encode()) == b"# %%\nx = 1\ny = 2\n"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"3", b'{"cells": 3}', b'{"cells": [3]}', b"\xff\xfe", b"{}"]
)
def test_what_is_no_notebook_is_none(data: bytes) -> None:
    assert notebook_script(data) is None


def test_a_notebook_is_found_by_what_it_defines(tree: Tree, model: WordModel) -> None:
    notebook = json.dumps({"cells": CELLS}, indent=1)
    index = CodeIndex.open(tree({"a.ipynb": notebook, "broken.ipynb": "{\n}\n"}), model)
    report = index.update()
    assert report.files == 2
    hit = index.search("load_table", 1)[0]
    assert (hit.path, hit.symbol, hit.kind) == ("a.ipynb", "load_table", "function")
    assert "iVBOR" not in "".join(hit.text for hit in index.search("iVBORw0KGgo png", 9))
    assert index.search("load_table", 1, language=["notebook"])
    (index.root / "a.ipynb").write_text(notebook.replace("load_table", "read_table"))
    assert index.update().changed == 1
    assert index.search("read_table", 1)[0].symbol == "read_table"
