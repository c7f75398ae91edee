"""Every operation, in two lists: those that keep what code does, and those that break it.

The edits of :mod:`codeembed.transform.regularise` do neither and are in no list.
"""

from __future__ import annotations

from codeembed.transform.deviants import (
    ChangeBoundary,
    ChangeOperator,
    NegateCondition,
    OffByOne,
    SwapArguments,
    WrongVariable,
)
from codeembed.transform.op import Operation
from codeembed.transform.ops.branches import SwapBranches
from codeembed.transform.ops.comments import (
    InsertComment,
    InsertDocstring,
    RemoveComment,
    RemoveDocstring,
)
from codeembed.transform.ops.layout import BlankLine, Compress, Reindent, Respace
from codeembed.transform.ops.loops import ForToWhile, WhileToEndless, WhileToFor
from codeembed.transform.ops.operands import MirrorComparison, SwapOperands
from codeembed.transform.ops.rename import Canonicalise, RenameLocal, RenameParameter
from codeembed.transform.ops.statements import InsertDeadCode, PermuteStatements

__all__ = ["DEVIANTS", "PRESERVING"]

PRESERVING: tuple[Operation, ...] = (
    RenameLocal(),
    RenameParameter(),
    Canonicalise(),
    RemoveComment(),
    InsertComment(),
    RemoveDocstring(),
    InsertDocstring(),
    Respace(),
    BlankLine(),
    Reindent(),
    Compress(),
    ForToWhile(),
    WhileToFor(),
    WhileToEndless(),
    InsertDeadCode(),
    PermuteStatements(),
    MirrorComparison(),
    SwapOperands(),
    SwapBranches(),
)
"""Operations that keep what the code does, within what :mod:`docs/code-transforms.md` states."""

DEVIANTS: tuple[Operation, ...] = (
    ChangeOperator(),
    ChangeBoundary(),
    SwapArguments(),
    NegateCondition(),
    WrongVariable(),
    OffByOne(),
)
"""Operations that change what the code does, for hard negatives."""
