"""What code search finds: how it is counted, and the table that the documentation shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import code_sets_table
from code_gains import first_of_classes
from code_quality import FIRST, OURS, gains_of, summary, without_docstrings
from code_quality_table import PAGE, table, written

from codeembed.evaluation.sets import RetrievalSet

SOURCE = '''def load(path):
    """Read the settings of a project from a file."""
    with open(path) as stream:
        text = stream.read()
    return parse(text)


class Store:
    """Keeps things."""

    def save(self, name):
        """Write everything that is new to the folder of the store."""
        for each in self.new:
            each.write(self.folder / name)
        self.new.clear()
'''


def test_docstrings_are_taken_out_and_lines_still_point_at_their_functions(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.py").write_text(SOURCE)
    queries, answers = without_docstrings(tmp_path / "in", tmp_path / "out", 10)
    lines = (tmp_path / "out" / "a.py").read_text().splitlines()
    assert not any('"""' in line for line in lines)
    assert len(queries) == 2
    for query, (path, first, last) in zip(queries, answers, strict=True):
        assert path == "a.py"
        head = "def load" if "settings" in query else "    def save"
        assert lines[first - 1].startswith(head)
        assert lines[last - 1].strip() in ("return parse(text)", "self.new.clear()")


def test_the_first_hit_that_overlaps_counts_by_its_rank() -> None:
    answer = ("a.py", 5, 9)
    found = [[("b.py", 5, 9), ("a.py", 1, 4), ("a.py", 9, 20)], [("a.py", 5, 5)], [("a.py", 0, 0)]]
    assert gains_of(found, [answer] * 3) == [0.5, 1.0, 0.0]


def test_differences_are_paired_and_have_intervals() -> None:
    ours, other = [1.0, 0.5, 0.0, 1.0], [0.5, 0.0, 0.0, 0.5]
    values = {"BM25 alone": other, FIRST: other, OURS: ours}
    found = summary({"x": {"queries": 4, "chunks": 9, "values": values}})
    above = found["above"][OURS]["BM25 alone"]
    assert above["mean"] == pytest.approx(0.375)
    assert 0.0 < above["interval"][0] <= 0.375 <= above["interval"][1] <= 0.5
    assert found["above"][FIRST]["BM25 alone"]["interval"] == [0.0, 0.0]
    assert "+0.375" in table(found)


def test_the_documentation_shows_the_result() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page
    assert code_sets_table.written(page) == page


def test_so_many_programs_of_each_class_are_kept() -> None:
    groups = [{0, 2, 4}, {1, 3, 5}] * 3
    relevant = tuple(frozenset(group - {number}) for number, group in enumerate(groups))
    data = RetrievalSet("x", tuple("abcdef"), tuple("abcdef"), relevant, own=True)
    kept = first_of_classes(data, 2)
    assert kept.documents == kept.queries == tuple("abcd")
    assert kept.relevant == tuple(frozenset({other}) for other in (2, 3, 0, 1))
    other = RetrievalSet("y", ("a",), ("b",), (frozenset({0}),))
    assert first_of_classes(other, 0) is other
