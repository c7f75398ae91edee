"""Any sequence of edits, deletes, renames and kills ends where a fresh index begins, offline."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from word_model import WordModel

from codeembed import CodeIndex
from codeembed.database import CodeStore

NAMES = st.sampled_from(["a.py", "b.py", "pkg/c.py", "pkg/d.go", "e.md", "odd.bin"])
BODIES = st.sampled_from(
    [
        "def listen(port):\n    return port\n",
        "def retry(n):\n    return backoff(n)\n",
        "class Thing:\n    def save(self):\n        write(self)\n",
        "# Title\n\nwords of a text\n",
        "package x\n\nfunc Dial() {}\n",
        "",
        "\0\0binary",
    ]
)
QUERIES = ("listen", "retry backoff", "thing save", "words")


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("the network was used")


class Changes(RuleBasedStateMachine):
    """A folder under change, its index, and kills in the middle of updates."""

    @initialize()
    def start(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.root = self.place / "root"
        self.root.mkdir()
        (self.root / "first.py").write_text("def first(): pass\n")
        self.blocked = patch.object(socket.socket, "connect", refuse)
        self.blocked.start()
        self.index = CodeIndex.open(self.root, WordModel())
        self.checks = 0

    @rule(name=NAMES, body=BODIES)
    def write(self, name: str, body: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(body)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    @rule(one=NAMES, other=NAMES)
    def rename(self, one: str, other: str) -> None:
        if one != other and (self.root / one).exists():
            (self.root / other).parent.mkdir(exist_ok=True)
            (self.root / one).rename(self.root / other)

    @rule(patterns=st.sampled_from(["", "pkg/\n", "*.md\n"]))
    def ignore(self, patterns: str) -> None:
        (self.root / ".gitignore").write_text(patterns)

    @rule()
    def update(self) -> None:
        self.index.update()

    @rule()
    def by_words_only(self) -> None:
        self.index.update(vectors=False)

    @rule()
    def search(self) -> None:
        if self.index.exists:
            self.index.search("listen retry")

    @rule(
        name=st.sampled_from(["replace", "remove", "add_vectors", "drop_unused_vectors"]),
        after=st.booleans(),
    )
    def be_killed(self, name: str, after: bool) -> None:
        real = getattr(CodeStore, name)

        def kill(store: CodeStore, *arguments: Any) -> None:
            if after:
                real(store, *arguments)
            raise Killed

        with patch.object(CodeStore, name, kill):
            try:
                self.index.update()
            except Killed:
                self.index.close()
                self.index = CodeIndex.open(self.root, WordModel())

    @invariant()
    def the_index_is_a_fresh_one_once_updated(self) -> None:
        if not hasattr(self, "index"):
            return
        self.checks += 1
        if self.checks % 4:
            return
        self.compare()

    def compare(self) -> None:
        self.index.update()
        with CodeIndex.open(self.root, WordModel(), self.place / f"fresh{self.checks}") as fresh:
            fresh.update()
            for query in QUERIES:
                for mode in ("hybrid", "dense", "lexical"):
                    found = self.index.search(query, 20, mode=mode)  # type: ignore[arg-type]
                    expected = fresh.search(query, 20, mode=mode)  # type: ignore[arg-type]
                    assert [(hit.path, hit.start_line, hit.text) for hit in found] == [
                        (hit.path, hit.start_line, hit.text) for hit in expected
                    ]
            assert self.index.waiting == 0

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.compare()
            self.blocked.stop()
            self.index.close()
            shutil.rmtree(self.place)


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    max_examples=12,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
