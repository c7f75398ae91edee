"""The data flow of a code as a graph over the subwords that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeembed.transform.tree import Code
from codeembed.views.align import token_labels
from codeembed.views.dataflow import data_flow

__all__ = ["FlowGraph", "flow_graph"]


@dataclass(frozen=True, slots=True)
class FlowGraph:
    """Occurrences of variables, as nodes in the order of the source (GraphCodeBERT, Guo et al.,
    2021).

    Attributes:
        subwords: Of each node, the subwords of its name in the code; at least one.
        edges: Pairs of a node and one that its value comes from.
    """

    subwords: tuple[tuple[int, ...], ...] = ()
    edges: tuple[tuple[int, int], ...] = ()


def flow_graph(code: Code, spans: Sequence[tuple[int, int]], most: int = 64) -> FlowGraph:
    """The graph of every outermost function.

    Args:
        spans: Byte spans of the subwords in the code; empty ones are special tokens.
        most: Nodes that are kept, the first ones.
    """
    flow = data_flow(code)
    ends = {label.start: label.end for label in token_labels(code)}
    starts = {edge.start for edge in flow}.union(*(edge.sources for edge in flow))
    found = {
        start: tuple(
            place
            for place, (first, last) in enumerate(spans)
            if first < last and first < ends[start] and last > start
        )
        for start in sorted(starts)
        if start in ends
    }
    kept = [start for start, subwords in found.items() if subwords][:most]
    number = {start: node for node, start in enumerate(kept)}
    pairs = [(edge.start, source) for edge in flow for source in edge.sources]
    return FlowGraph(
        tuple(found[start] for start in kept),
        tuple((number[a], number[b]) for a, b in pairs if a in number and b in number),
    )
