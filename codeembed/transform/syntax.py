"""What the operations must know of a language, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Syntax", "words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """Node types, roles and snippets of one language.

    A role is ``parent_type.field`` (``parent_type`` where the child has no field), optionally with
    the grandparent before it: ``grandparent>parent.field``.

    Attributes:
        wrappers: Texts around a fragment that does not parse alone.
        functions: Nodes that open a scope of parameters; lambdas too.
        classes: Nodes whose names are members, not variables.
        blocks: Nodes that open a scope of block-level bindings.
        variables: Leaf types that may be a variable.
        sigil: First character of every variable.
        binders: Roles that bind a variable in the nearest block or function.
        function_binders: Roles that bind a variable in the nearest function.
        parameters: Roles, among the binders, that bind a parameter.
        patterns: Roles looked through on the way from a name to its binder.
        others: Roles of names that are no variables: members, labels, argument names.
        refused: Roles that make a name one not to be renamed.
        prototypes: Declarations whose parameters are those of a function that is elsewhere.
        shorthands: Types or roles that stand for a field and a variable at once, ``{x}``.
        visible_after: Declarations whose names are visible only after them, or in their body.
        positional: A name is a local only after its binding; elsewhere it is another one's.
        poison: Named node types under which no local may be renamed.
        poison_names: Names whose mention means that locals may be read by name.
        strings_mention: Format strings name variables, so a name in a string is not renamed.
        capitals_are_constants: A name in a pattern that begins with a capital binds nothing.
        keywords: Names that a variable may not have, beyond the tokens of the source.
        comments: Comment node types.
        comment: Text of an inserted comment, with ``{}`` for the words.
        pragma: Beginnings of comments that mean something to a tool.
        bodies: Nodes whose children are statements.
        newline_ends: Line ends may end a statement.
        indented: Indentation is syntax.
        dead: Snippets without effect; ``{}`` is a fresh variable.
        exits: Statements after which nothing is reached.
        binary: Node types of operators with ``left`` and ``right`` operands.
        mirrors: Comparison operators with what they become when their sides change places.
        identities: Comparisons that call nothing, whatever the operands.
        numbers: Types of numeric literals.
        numeric_types: Written types whose values are numbers of the machine.
        literals: Literals that are constants.
        ifs: If statements and their branch fields.
        then: Field of the branch taken.
        negation: How to negate a condition, with ``{}``.
        while_types: While loops with fields ``condition`` and ``body``.
        for_types: Three-part for loops.
        calls: Call node types.
        arguments: Argument list types.
        returns: Return statement types.
        conditions: Node types whose ``condition`` may be negated by a deviant.
        while_head: Head of a loop with a condition ``{}``, to which a three-part loop is lowered.
        endless: Head of a loop without an end, or ``""`` where there is none.
        guard: Statement that leaves a loop unless ``{}``.
        loops: Every loop.
        declares_types: A declaration of a variable may call a constructor of its written type.
    """

    wrappers: tuple[tuple[bytes, bytes], ...] = ()
    functions: frozenset[str]
    classes: frozenset[str] = frozenset()
    blocks: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset({"identifier"})
    sigil: str = ""
    binders: frozenset[str] = frozenset()
    function_binders: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    prototypes: frozenset[str] = frozenset()
    shorthands: frozenset[str] = frozenset()
    visible_after: frozenset[str] = frozenset()
    positional: bool = False
    poison: frozenset[str] = frozenset()
    poison_names: frozenset[str] = frozenset()
    strings_mention: bool = False
    capitals_are_constants: bool = False
    keywords: frozenset[str] = frozenset()
    comments: frozenset[str] = frozenset({"comment"})
    comment: str = "// {}"
    pragma: tuple[bytes, ...] = ()
    bodies: frozenset[str] = frozenset()
    newline_ends: bool = False
    indented: bool = False
    dead: tuple[str, ...] = ()
    exits: frozenset[str] = frozenset()
    binary: frozenset[str] = frozenset({"binary_expression"})
    mirrors: dict[str, str] = field(
        default_factory=lambda: {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}
    )
    identities: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    numeric_types: frozenset[str] = frozenset()
    literals: frozenset[str] = frozenset()
    ifs: frozenset[str] = frozenset({"if_statement"})
    then: str = "consequence"
    negation: str = "!({})"
    while_types: frozenset[str] = frozenset({"while_statement"})
    for_types: frozenset[str] = frozenset({"for_statement"})
    calls: frozenset[str] = frozenset({"call_expression"})
    arguments: frozenset[str] = frozenset({"arguments", "argument_list"})
    returns: frozenset[str] = frozenset({"return_statement"})
    conditions: frozenset[str] = frozenset({"if_statement", "while_statement"})
    while_head: str = "while ({}) "
    endless: str = "while (true) "
    guard: str = "if (!({})) break;"
    loops: frozenset[str] = frozenset(
        {"while_statement", "for_statement", "do_statement", "for_in_statement"}
        | {"enhanced_for_statement", "foreach_statement", "for_range_loop", "for_expression"}
        | {"while_expression", "loop_expression", "while", "until", "for"}
    )
    declares_types: bool = False


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())
