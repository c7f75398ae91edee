"""Where a file may be cut, and the best way to cut it.

Split: whatever is too big is opened, from the root down, into the parts that begin on rows of their
own. Merge: neighbouring parts are packed into few chunks that fit, so that cuts fall at shallow
places and none leaves a scrap. (cAST, Zhang et al. 2025, merges greedily.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from codeembed.definitions import end_row
from codeembed.outline import Outline
from codeembed.source import Source

if TYPE_CHECKING:
    import tree_sitter

__all__ = ["Sizes", "Units", "heading_units", "pack", "row_units", "segments", "tree_units"]

# A piece of a segment smaller than this share of the limit joins its neighbour.
_SMALL = 0.15
# What a cut costs beside the chunk it makes (1.0): deep cuts lose against shallow ones, but ten
# levels of depth never cost as much as one more chunk.
_DEPTH_COST = 0.09
_MAX_DEPTH_COST = 0.9
# Times the square of a chunk's empty share: two halves are better than a scrap and a full chunk.
_SCRAP_COST = 0.5
_TAB = 4


class Units(NamedTuple):
    """Runs of rows that stay together, one after the other without gaps.

    Attributes:
        rows: The first row of each, and the row after the last.
        depths: How deep in the file's structure the cut before each lies; 0 is the top.
    """

    rows: list[int]
    depths: list[int]


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


def tree_units(root: tree_sitter.Node, source: Source, outline: Outline, sizes: Sizes) -> Units:
    """The parts of a syntax tree that fit, found by opening every part that does not."""
    cuts = {0: 0}
    end = source.row_count
    stack = [] if sizes.fits(0, end) else [(0, end, 0, [root])]
    while stack:
        first, end, depth, nodes = stack.pop()
        nodes, groups = _open(nodes, first, end, outline.attached)
        if len(groups) == 1:
            cuts.update(_row_cuts(source, first, end, depth))
            continue
        for (start, at), (stop, to) in pairwise([*groups, (end, len(nodes))]):
            below = depth if start == first else depth + 1
            cuts[start] = below
            if not sizes.fits(start, stop):
                stack.append((start, stop, below, nodes[at:to]))
    return _units(cuts, source)


def _units(cuts: Mapping[int, int], source: Source) -> Units:
    rows = sorted(cuts)
    return Units([*rows, source.row_count], [cuts[row] for row in rows])


def _open(
    nodes: list[tree_sitter.Node], first: int, end: int, attached: frozenset[int]
) -> tuple[list[tree_sitter.Node], list[tuple[int, int]]]:
    """The nodes, or what is inside them, and the groups of them that share no row.

    A group is its first row and the index of its first node. One group only means that there is
    nothing to open.
    """
    while True:
        groups = [(first, 0)]
        covered = first + 1
        for index, node in enumerate(nodes):
            row = node.start_point[0]
            if covered <= row < end and row - 1 not in attached:
                groups.append((row, index))
            last, column = node.end_point
            # As in end_row, which would take as long as all the rest.
            if column or last == row:
                last += 1
            if last > covered:
                covered = last
        if len(groups) > 1:
            return nodes, groups
        # In a single group the nodes of one row share it with the tall ones, so that they begin no
        # row: they can be left behind, which keeps deep chains linear.
        tall = [node for node in nodes if end_row(node) - node.start_point[0] > 1]
        nodes = [child for node in tall for child in node.children]
        if not nodes:
            return nodes, groups


def row_units(source: Source) -> Units:
    """One unit a row; a cut is best after a blank row and where the indentation is least."""
    return _units(dict(_row_cuts(source, 0, source.row_count, 0)), source)


def _row_cuts(source: Source, first: int, end: int, depth: int) -> Iterator[tuple[int, int]]:
    """Where these rows may be cut, and how deep; blank rows belong to what is above them."""
    yield first, depth
    after_blank = False
    for row in range(first + 1, end):
        is_blank = source.is_blank[row]
        if not is_blank:
            yield row, depth + 1 + _indent(source.rows[row]) + (not after_blank)
        after_blank = is_blank


def _indent(row: bytes) -> int:
    head = row[: len(row) - len(row.lstrip(b" \t"))].expandtabs(_TAB)
    return len(head) // _TAB


def heading_units(source: Source, outline: Outline) -> Units:
    """One unit a row, where the cut before a heading is as deep as its level."""
    levels = {section.first: len(section.word) for section in outline.definitions}
    rows, depths = row_units(source)
    deepened = zip(rows, depths, strict=False)
    return Units(rows, [levels.get(row, depth + 7) for row, depth in deepened])


def segments(units: Units, outline: Outline, sizes: Sizes) -> Iterator[tuple[int, int]]:
    """Runs of units that no chunk may cross: each side of every definition too big for one chunk.

    A run is given as the index of its first unit and that after its last. One too small for a
    chunk of its own joins a neighbour inside the same definition.
    """
    rows, depths = units
    count = len(depths)
    edges: set[int] = set()
    if not sizes.fits(0, rows[-1]):
        for definition in outline.definitions:
            if not sizes.fits(definition.first, definition.end):
                # The header of a namespace goes with whatever is beside it.
                starts = () if definition.kind == "module" else (definition.first,)
                edges.update(bisect_left(rows, row, 0, count) for row in (*starts, definition.end))
    kept = [0]
    for edge in [*sorted(edges - {0, count}), count]:
        depth = depths[edge] if edge < count else -1
        while kept[-1] != edge:
            last = kept[-1]
            size = sizes.of(rows[last], rows[edge])
            if size >= _SMALL * sizes.limit or (last == 0 and edge == count):
                kept.append(edge)
            elif last and depth < depths[last]:
                kept.pop()
            else:
                break
    if kept[-1] != count:
        kept.append(count)
    yield from pairwise(kept)


def pack(units: Units, begin: int, end: int, sizes: Sizes) -> list[tuple[int, int]]:
    """Row ranges ``(first, end)`` of the chunks of a run of units.

    Dynamic programming over cuts: few chunks, cut at shallow places, none of them a scrap. A chunk
    that does not fit is a single unit.
    """
    rows = units.rows[begin : end + 1]
    if sizes.fits(rows[0], rows[-1]):
        return [(rows[0], rows[-1])]
    limit = sizes.limit
    depths = units.depths[begin:end]
    top = min(depths)
    depths[0] = top
    before = [sizes.before[row] for row in rows]
    best = 0.0
    came_from = [0]
    # What a chunk that begins with a unit costs at least, with all that comes before it.
    costs: list[float] = []
    lowest = 0
    for last, depth in enumerate(depths):
        costs.append(best + 1.0 + min(_MAX_DEPTH_COST, _DEPTH_COST * (depth - top)))
        stop = before[last + 1]
        while lowest < last and stop - before[lowest] > limit:
            lowest += 1
        best = float("inf")
        for start, cost in enumerate(costs[lowest:], lowest):
            if cost <= best:
                empty = 1.0 - (stop - before[start]) / limit
                if empty > 0.0:
                    cost += _SCRAP_COST * empty * empty
                if cost <= best:
                    # With more rows to come the emptier of the two gains more: this one stays ahead
                    # of all starts before it.
                    best, lowest = cost, start
        came_from.append(lowest)
    chunks = []
    at = len(depths)
    while at:
        chunks.append((rows[came_from[at]], rows[at]))
        at = came_from[at]
    return chunks[::-1]
