"""Renaming of locals and parameters, and canonical names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

from codeembed.transform.edit import Replacement
from codeembed.transform.names import fresh_name
from codeembed.transform.op import RefusedError, Site, replaced
from codeembed.transform.scopes import Variable, check_free, outer_functions, variables
from codeembed.transform.tree import Code

__all__ = ["Canonicalise", "RenameLocal", "RenameParameter", "renaming"]


def renaming(code: Code, variable: Variable, name: str) -> Iterator[Replacement]:
    """The replacements that give a variable another name everywhere."""
    for node in variable.occurrences:
        # In `{x}` the name is a field and a variable at once: the field keeps its name.
        shorthand = node.type in code.syntax.shorthands
        new = f"{variable.name}: {name}" if shorthand else name
        yield replaced(code, node, new.encode())


def _locals(code: Code) -> Iterator[Variable]:
    for function in outer_functions(code):
        yield from variables(code, function)


def _variable(code: Code, site: Site) -> Variable:
    return next(each for each in variables(code, site.node) if each.name == site.name)


class RenameLocal:
    """Give one local variable of a function another name, in every nested scope."""

    name = "rename-local"

    def scout(self, code: Code) -> Iterable[Site]:
        """Every name that a function binds other than as a parameter."""
        return [Site(v.function, v.name) for v in _locals(code) if not v.is_parameter]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Rename, unless a use may mean something else or the name is read at run time."""
        variable = _variable(code, site)
        if variable.refusal:
            raise RefusedError(variable.refusal)
        return renaming(code, variable, fresh_name(code, random))


class RenameParameter:
    """Give one parameter another name.

    It is assumed that callers outside of the text pass it by position, as a fragment cannot show
    them; a call inside of the text that names it is a refusal.
    """

    name = "rename-parameter"

    def scout(self, code: Code) -> Iterable[Site]:
        """Every name that a function binds as a parameter."""
        return [Site(v.function, v.name) for v in _locals(code) if v.is_parameter]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Rename, unless a use may mean something else or a call passes it by name."""
        variable = _variable(code, site)
        if variable.refusal:
            raise RefusedError(variable.refusal)
        _refuse_named_argument(code, variable)
        return renaming(code, variable, fresh_name(code, random))


class Canonicalise:
    """Name every local and parameter of a function by its order: ``v0``, ``v1``, ...

    Two functions that differ in these names only become equal. Names that must stay, stay.
    """

    name = "canonicalise"

    def scout(self, code: Code) -> Iterable[Site]:
        """Outermost functions."""
        return [Site(function) for function in outer_functions(code)]

    def rewrite(self, code: Code, site: Site, random: Random) -> Iterable[Replacement]:
        """Rename all that may be renamed; refuse if nothing may."""
        found: list[Replacement] = []
        number = 0
        for variable in variables(code, site.node):
            if variable.refusal:
                continue
            try:
                if variable.is_parameter:
                    _refuse_named_argument(code, variable)
                name = f"{code.syntax.sigil}v{number}"
                check_free(code, name)
            except RefusedError:
                continue
            number += 1
            found.extend(renaming(code, variable, name))
        if not found:
            raise RefusedError("no-variable-may-be-renamed")
        return found


def _refuse_named_argument(code: Code, variable: Variable) -> None:
    bare = variable.name.removeprefix(code.syntax.sigil)
    for node in code.nodes:
        is_name = node.role in ("keyword_argument.name", "argument.name")
        if is_name and code.of(node) == bare:
            raise RefusedError("passed-by-name")
