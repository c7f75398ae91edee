"""Where the value of each variable comes from.

Source: GraphCodeBERT (Guo et al., 2021): variables are nodes, and an edge says that the value of
one comes from, or is computed from, another. Ours reads scopes as the renaming does, so shadowed
names of one function share their edges; loops give a use the values of the end of their body.
"""

from __future__ import annotations

from dataclasses import dataclass

from codeembed.transform.scopes import outer_functions, variables
from codeembed.transform.tree import Code, Node

__all__ = ["COMES_FROM", "COMPUTED_FROM", "FlowEdge", "data_flow"]

COMES_FROM = "comesFrom"
"""The value is that of an earlier occurrence of the same variable."""

COMPUTED_FROM = "computedFrom"
"""The value is computed from other variables by an assignment."""

_TARGETS = ("left", "name", "declarator", "pattern")
_VALUES = ("right", "value")


@dataclass(frozen=True, slots=True)
class FlowEdge:
    """One occurrence of a variable and where its value is from.

    Attributes:
        name: The variable.
        start: First byte of the occurrence in the text.
        kind: :data:`COMES_FROM` or :data:`COMPUTED_FROM`.
        sources: First bytes of the occurrences that the value is from, in order.
    """

    name: str
    start: int
    kind: str
    sources: tuple[int, ...]


def data_flow(code: Code) -> list[FlowEdge]:
    """The edges of every outermost function, in the order of the source."""
    edges: list[FlowEdge] = []
    for function in outer_functions(code):
        edges.extend(_function_flow(code, function))
    return sorted(edges, key=lambda edge: (edge.start, edge.kind))


def _function_flow(code: Code, function: Node) -> list[FlowEdge]:
    occurrences = {n.index: v.name for v in variables(code, function) for n in v.occurrences}
    edges: list[FlowEdge] = []
    for variable in variables(code, function):
        writes = [n for n in variable.occurrences if _value_of(n) is not None]
        writes += [n for n in variable.bindings if n not in writes]
        for node in variable.occurrences:
            value = _value_of(node)
            if value is not None:
                sources = [n for n in code.below(value) if n.index in occurrences]
                if sources:
                    starts = tuple(n.start - code.offset for n in sources)
                    edges.append(
                        FlowEdge(variable.name, node.start - code.offset, COMPUTED_FROM, starts)
                    )
            elif node not in variable.bindings:
                reaching = _reaching(code, node, sorted(writes, key=lambda n: n.index))
                if reaching:
                    starts = tuple(n.start - code.offset for n in reaching)
                    edges.append(
                        FlowEdge(variable.name, node.start - code.offset, COMES_FROM, starts)
                    )
    return edges


def _value_of(node: Node) -> Node | None:
    """The expression assigned to a name, through the patterns and lists around it."""
    below = node
    for above in node.ancestors():
        if below.field in _TARGETS:
            tokens = {each.type for each in above.children if not each.named}
            if tokens & {"=", ":=", "in", "of", ":"} or any(t.endswith("=") for t in tokens):
                value = next((v for f in _VALUES if (v := above.child(f))), None)
                if value is not None and not tokens & {"==", "<=", ">=", "!=", "===", "!=="}:
                    return value
        if not ("pattern" in above.type or "list" in above.type or "declarator" in above.type):
            return None
        below = above
    return None


def _reaching(code: Code, use: Node, writes: list[Node]) -> list[Node]:
    """Writes that may reach a use: back to the last certain one, and round enclosing loops."""
    found: list[Node] = []
    for write in reversed([w for w in writes if w.index < use.index and not _own_value(w, use)]):
        found.append(write)
        if _dominates(code, write, use):
            break
    for loop in (a for a in use.ancestors() if a.type in code.syntax.loops):
        found += [w for w in writes if w.within(loop) and w.index > use.index and w not in found]
        found += [w for w in writes if w.within(loop) and _own_value(w, use) and w not in found]
    return sorted(found, key=lambda node: node.index)


def _own_value(write: Node, use: Node) -> bool:
    value = _value_of(write)
    return value is not None and use.within(value)


def _dominates(code: Code, write: Node, use: Node) -> bool:
    """Whether the write is on every path: nothing conditional holds it without the use."""
    around = {a.index for a in use.ancestors()}
    for above in write.ancestors():
        if above.index in around:
            return True
        conditional = above.type in code.syntax.bodies | code.syntax.loops | code.syntax.functions
        if conditional or "clause" in above.type or "case" in above.type:
            return False
    return True
