"""C by gcc: the versions are one translation unit, each with a prefix to its top-level names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from codeembed.transform.runners.cfamily import CFamily, cases, table
from codeembed.transform.runners.compiled import Job, candidate
from codeembed.transform.runners.values import (
    Many,
    Scalar,
    Shape,
    Types,
    integer,
    letter,
    natural,
    quoted,
    real,
    standard_input,
    truth,
    word,
)
from codeembed.transform.tree import Code, Node

__all__ = ["C"]

_SIGNED = ("int", "long", "long long", "long int", "long long int", "short", "signed", "int64_t")
_UNSIGNED = ("unsigned", "unsigned int", "unsigned long", "size_t", "uint32_t", "uint64_t")
_STRING = Scalar(word, lambda value: f"copied_({quoted(value)}, {len(value) + 1})")
_TYPES = Types(
    {
        **{each: Scalar(integer) for each in (*_SIGNED, "int32_t")},
        **{each: Scalar(natural) for each in (*_UNSIGNED, "unsigned char", "uint8_t")},
        **{each: Scalar(real) for each in ("double", "float")},
        **{each: Scalar(truth, lambda value: str(int(value))) for each in ("bool", "_Bool")},
        "char": Scalar(letter, lambda value: f"'{value}'"),
        "char*": _STRING,
        "char[]": _STRING,
        "stdin": Scalar(standard_input, quoted),
    },
    (Many(r"([^*\[]+)(?:\*|\[\])", "copied_(({item}[]){{{items}}}, {count} * sizeof({item}))"),),
)
# How a value is shown; a pointer to others has no length and no lasting address.
_SHOW = r"""
#define SHOW_(x) say_(_Generic((x), char: "%d", signed char: "%d", unsigned char: "%u", \
  _Bool: "%d", short: "%d", unsigned short: "%u", int: "%d", unsigned: "%u", long: "%ld", \
  unsigned long: "%lu", long long: "%lld", unsigned long long: "%llu", float: "%.9g", \
  double: "%.17g", char *: "%s", const char *: "%s", default: "pointer"), x)
#define ITEMS_(x, count) for (size_t at_ = 0; at_ < count; at_++) { SHOW_((x)[at_]); say_(", "); }
static void flush_(void) { fflush(stdout); }
"""
_HEADERS = (
    *("ctype", "errno", "float", "limits", "math", "stdbool", "stddef", "stdint", "stdio"),
    *("stdlib", "string", "time"),
)


class C(CFamily):
    """Functions of C."""

    programs: ClassVar[tuple[str, ...]] = ("gcc",)
    types: ClassVar[Types] = _TYPES

    def returns(self, result: str) -> bool:
        """Scalars, nothing, or a pointer, of which only text is shown."""
        return result == "void" or self.types.shape(result) is not None

    def compiler(self, paths: Sequence[str]) -> Sequence[str]:
        """One unit, since each includes the versions."""
        quiet = ("-std=gnu11", "-w", "-fno-diagnostics-show-caret", "-fmax-errors=0")
        return ("gcc", *quiet, *self.options, "calls.c", "-o", "program", "-lm")

    def files(self, job: Job, places: Sequence[int]) -> Iterable[tuple[str, str]]:
        """The versions, and the unit that includes them."""
        names, macros = _top_level(Code.read(job.texts[0].encode(), "c"))
        yield from ((f"{candidate(place)}.inc", job.texts[place]) for place in places)
        lines = [*(f"#include <{each}.h>" for each in _HEADERS), '#include "call.h"', _SHOW]
        for place in places:
            lines += [f"#define {name} {candidate(place)}_{name}" for name in names]
            lines.append(f'#include "{candidate(place)}.inc"')
            lines += [f"#undef {name}" for name in (*names, *macros)]
        yield "calls.c", "\n".join([*lines, *_calls(job, places)]) + "\n"


def _calls(job: Job, places: Sequence[int]) -> Iterable[str]:
    target = job.target
    is_main = target.result == "main"
    result = "int" if is_main else target.result
    shapes = [] if is_main else job.shapes
    names = [f"a{at}" for at in range(len(shapes))]
    arguments = ", ".join(_declared(each) for each in shapes) or "void"
    yield f"typedef {_pointer(result)} (*function_)({arguments});"
    yield "static void *functions_[] = {"
    yield from (f"  (void *){each}," for each in table(places, f"_{target.name}"))
    yield "};"
    yield "static void call_(int place_, int input_) {"
    for shape, name in zip(shapes, names, strict=True):
        yield f"  {_declared(shape)} {name}; size_t {name}_count = 0;"
    yield "  switch (input_) {"
    yield from cases(
        (f"feed_({each[0]});",)
        if is_main
        else tuple(
            f"{name} = {value}; {name}_count = {len(given) if shape.item else 0};"
            for shape, name, value, given in zip(shapes, names, each, row, strict=True)
        )
        for each, row in zip(job.cases, job.rows, strict=True)
    )
    yield "  }"
    call = f"((function_)functions_[place_])({', '.join(names)})"
    # What a main returns without saying so is open.
    shown = "void" if result == "void" or is_main else "SHOW_(result_)"
    yield f"  {call};" if shown == "void" else f"  {_pointer(result)} result_ = {call};"
    yield '  say_("void");' if shown == "void" else f"  {shown};"
    yield '  say_(" | ");'
    for shape, name in zip(shapes, names, strict=True):
        yield f"  ITEMS_({name}, {name}_count);" if shape.item else f"  SHOW_({name});"
        yield '  say_("; ");'
    yield "}"


def _declared(shape: Shape) -> str:
    return f"{shape.item.written} *" if shape.item else _pointer(shape.written)


def _pointer(written: str) -> str:
    return written.replace("[]", "*")


def _top_level(code: Code) -> tuple[list[str], list[str]]:
    """Names that a source defines outside its functions, and its macros."""
    names: dict[str, None] = {}
    macros: dict[str, None] = {}
    node: Node | None = code.root
    index = 0
    while index < len(code.nodes):
        node = code.nodes[index]
        index = node.last if node.type in ("compound_statement", "parameter_list") else index + 1
        if node.type in ("preproc_def", "preproc_function_def"):
            name = node.child("name")
            macros |= {code.of(name): None} if name else {}
        elif node.type in ("identifier", "type_identifier") and _defines(node):
            names[code.of(node)] = None
    return list(names), list(macros)


def _defines(node: Node) -> bool:
    above = node.parent
    tag = above is not None and (above.type == "enumerator" or above.child("body") is not None)
    return node.field == "declarator" or (node.field == "name" and tag)
