"""Where a file may be cut, and the best way to cut it.

Split: whatever is too big is opened, from the root down, into the parts that begin on rows of their
own. Merge: neighbouring parts are packed into few chunks that fit, so that cuts fall at shallow
places and none leaves a scrap. (cAST, Zhang et al. 2025, merges greedily.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from codeembed.outline import Outline
from codeembed.source import Source

if TYPE_CHECKING:
    import tree_sitter

__all__ = ["Sizes", "Unit", "heading_units", "pack", "row_units", "segments", "tree_units"]

# A piece of a segment smaller than this share of the limit joins its neighbour.
_SMALL = 0.15
# What a cut costs beside the chunk it makes (1.0): deep cuts lose against shallow ones, but ten
# levels of depth never cost as much as one more chunk.
_DEPTH_COST = 0.09
_MAX_DEPTH_COST = 0.9
# Times the square of a chunk's empty share: two halves are better than a scrap and a full chunk.
_SCRAP_COST = 0.5
_TAB = 4


class Unit(NamedTuple):
    """Rows that stay together.

    Attributes:
        first: First row.
        end: Row after the last.
        depth: How deep in the file's structure the cut before ``first`` lies; 0 is the top.
    """

    first: int
    end: int
    depth: int


class Sizes:
    """Tokens of runs of rows, taken as the sum of their rows' tokens.

    Attributes:
        before: Tokens of all rows before each row, and of all rows.
        limit: Of a chunk.
    """

    def __init__(self, tokens: Sequence[int], limit: int) -> None:
        self.limit = limit
        self.before = list(accumulate(tokens, initial=0))

    def of(self, first: int, end: int) -> int:
        """Tokens of rows ``first`` to ``end`` (exclusive)."""
        return self.before[end] - self.before[first]

    def fits(self, first: int, end: int) -> bool:
        """Whether these rows make one chunk."""
        return self.before[end] - self.before[first] <= self.limit


def tree_units(
    root: tree_sitter.Node, source: Source, outline: Outline, sizes: Sizes
) -> list[Unit]:
    """The parts of a syntax tree that fit, found by opening every part that does not.

    A node keeps the children that it was asked for: give the same root as to what found the
    outline.
    """
    units: list[Unit] = []
    stack = [(0, source.row_count, 0, [root])]
    while stack:
        first, end, depth, nodes = stack.pop()
        if sizes.fits(first, end):
            units.append(Unit(first, end, depth))
            continue
        groups = _open(nodes, first, end, outline.attached)
        if len(groups) == 1:
            units.extend(row_units(source, first, end, depth))
            continue
        for (start, members), (stop, _) in pairwise([*groups, (end, [])]):
            below = depth if start == first else depth + 1
            if sizes.fits(start, stop):
                units.append(Unit(start, stop, below))
            else:
                stack.append((start, stop, below, members))
    units.sort()
    return units


def _open(
    nodes: list[tree_sitter.Node], first: int, end: int, attached: frozenset[int]
) -> list[tuple[int, list[tree_sitter.Node]]]:
    """The nodes, or what is inside them, in groups that share no row: ``(first row, nodes)``.

    One group only means that there is nothing to open.
    """
    while True:
        groups: list[tuple[int, list[tree_sitter.Node]]] = [(first, [])]
        tall: list[tree_sitter.Node] = []
        covered = first
        for node in nodes:
            row = node.start_point[0]
            last, column = node.end_point
            # As in end_row, which would take as long as all the rest.
            if column or last == row:
                last += 1
            if covered <= row < end and row > first and row - 1 not in attached:
                groups.append((row, []))
            groups[-1][1].append(node)
            if last > covered:
                covered = last
            if last - row > 1:
                tall.append(node)
        if len(groups) > 1 or not any(node.child_count for node in tall):
            return groups
        # In a single group the nodes of one row share it with the tall ones, so that they begin no
        # row: they can be left behind, which keeps deep chains linear.
        nodes = [child for node in tall for child in node.children]


def row_units(source: Source, first: int, end: int, depth: int) -> list[Unit]:
    """One unit a row; a cut is best after a blank row and where the indentation is least."""
    units = []
    after_blank = True
    for row in range(first, end):
        if source.is_blank[row] and row > first:
            after_blank = True
            continue
        below = depth + 1 + _indent(source.rows[row]) + (0 if after_blank else 1)
        units.append(Unit(row, row + 1, depth if row == first else below))
        after_blank = False
    # Blank rows belong to the unit above them, so that units are without gaps.
    ends = [unit.first for unit in units[1:]] + [end] * bool(units)
    return [Unit(unit.first, stop, unit.depth) for unit, stop in zip(units, ends, strict=True)]


def _indent(row: bytes) -> int:
    head = row[: len(row) - len(row.lstrip(b" \t"))].expandtabs(_TAB)
    return len(head) // _TAB


def heading_units(source: Source, outline: Outline) -> list[Unit]:
    """One unit a row, where the cut before a heading is as deep as its level."""
    levels = {section.first: len(section.word) for section in outline.definitions}
    return [
        Unit(unit.first, unit.end, levels.get(unit.first, unit.depth + 7))
        for unit in row_units(source, 0, source.row_count, 0)
    ]


def segments(units: list[Unit], outline: Outline, sizes: Sizes) -> Iterator[list[Unit]]:
    """Runs of units that no chunk may cross: each side of every definition too big for one chunk.

    A run too small for a chunk of its own joins a neighbour inside the same definition.
    """
    rows = [unit.first for unit in units]
    edges: set[int] = set()
    for definition in outline.definitions:
        if not sizes.fits(definition.first, definition.end):
            # The header of a namespace goes with whatever is beside it.
            starts = () if definition.kind == "module" else (definition.first,)
            edges.update(bisect_left(rows, row) for row in (*starts, definition.end))
    kept = [0]
    for edge in [*sorted(edges - {0, len(units)}), len(units)]:
        depth = units[edge].depth if edge < len(units) else -1
        while kept[-1] != edge:
            last = kept[-1]
            size = sizes.of(units[last].first, units[edge - 1].end)
            if size >= _SMALL * sizes.limit or (last == 0 and edge == len(units)):
                kept.append(edge)
            elif last and depth < units[last].depth:
                kept.pop()
            else:
                break
    if kept[-1] != len(units):
        kept.append(len(units))
    for start, stop in pairwise(kept):
        yield units[start:stop]


def pack(units: list[Unit], sizes: Sizes) -> list[tuple[int, int]]:
    """Row ranges ``(first, end)`` of the chunks; one that does not fit is a single unit.

    Dynamic programming over cuts: few chunks, cut at shallow places, none of them a scrap.
    """
    if units and sizes.fits(units[0].first, units[-1].end):
        return [(units[0].first, units[-1].end)]
    limit = sizes.limit
    top = min((unit.depth for unit in units), default=0)
    begins = [sizes.before[unit.first] for unit in units]
    best = [0.0]
    came_from = [0]
    # What a chunk that begins with a unit costs at least, with all that comes before it.
    costs: list[float] = []
    lowest = 0
    for stop, unit in enumerate(units, start=1):
        depth = unit.depth - top if stop > 1 else 0
        costs.append(best[-1] + 1.0 + min(_MAX_DEPTH_COST, _DEPTH_COST * depth))
        end = sizes.before[unit.end]
        while lowest < stop - 1 and end - begins[lowest] > limit:
            lowest += 1
        cost, choice = float("inf"), stop - 1
        for start, candidate in enumerate(costs[lowest:], lowest):
            if candidate > cost:
                continue
            empty = 1.0 - (end - begins[start]) / limit
            if empty > 0.0:
                candidate += _SCRAP_COST * empty * empty
            if candidate <= cost:
                cost, choice = candidate, start
        best.append(cost)
        came_from.append(choice)
    chunks = []
    stop = len(units)
    while stop:
        start = came_from[stop]
        chunks.append((units[start].first, units[stop - 1].end))
        stop = start
    return chunks[::-1]
