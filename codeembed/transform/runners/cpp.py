"""C++ by g++: the versions are one translation unit, each in a namespace."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import ClassVar

from codeembed.transform.runners.c import C
from codeembed.transform.runners.cfamily import CFamily, cases, table
from codeembed.transform.runners.compiled import Job, candidate
from codeembed.transform.runners.values import (
    Many,
    Scalar,
    Shape,
    Types,
    letter,
    quoted,
    real,
    truth,
    word,
)
from codeembed.transform.sandbox import compiles

__all__ = ["Cpp"]

_TEXT = Scalar(word, lambda value: f"std::string({quoted(value)})")
_BUFFER = Scalar(word, lambda value: f"buffer_({quoted(value)})")
_TYPES = Types(
    {
        **{name: each for name, each in C.types.scalars.items() if "char" not in name},
        "long double": Scalar(real),
        "bool": Scalar(truth, lambda value: str(value).lower()),
        "char": Scalar(letter, lambda value: f"'{value}'"),
        "string": _TEXT,
        "char*": _BUFFER,
        "char[]": _BUFFER,
    },
    (
        Many(r"vector<(.+)>", "std::vector<{item}>{{{items}}}"),
        Many(r"([^*\[]+)(?:\*|\[\])", "std::vector<{item}>{{{items}}}"),
    ),
)
_HEADER = "show.hpp"


class Cpp(CFamily):
    """Functions of C++."""

    programs: ClassVar[tuple[str, ...]] = ("g++",)
    types: ClassVar[Types] = _TYPES

    def normal(self, written: str) -> str:
        """References are given variables."""
        return super().normal(written.replace("std::", "").replace("&", " "))

    def returns(self, result: str) -> bool:
        """What cannot be shown does not compile."""
        return True

    def compiler(self, paths: Sequence[str]) -> Sequence[str]:
        """One unit, since it includes the versions."""
        folder = str(_header(self.options))
        quiet = (*_quiet(self.options), "-fno-diagnostics-show-caret", "-fmax-errors=0")
        return ("g++", *quiet, "-I", folder, "calls.cpp", "-o", "program")

    def files(self, job: Job, places: Sequence[int]) -> Iterable[tuple[str, str]]:
        """The versions, and the unit that includes them."""
        yield from ((f"{candidate(place)}.inc", job.texts[place]) for place in places)
        lines = [f'#include "{_HEADER}"']
        for place in places:
            name = candidate(place)
            lines += [f"namespace {name} {{", f'#include "{name}.inc"', "}"]
        yield "calls.cpp", "\n".join([*lines, *_calls(job, places)]) + "\n"


def _calls(job: Job, places: Sequence[int]) -> Iterable[str]:
    target = job.target
    is_main = target.result == "main"
    shapes = [] if is_main else job.shapes
    names = [f"a{at}" for at in range(len(shapes))]
    function = f"&{candidate(0)}::{target.name}"
    yield "static std::vector<char> buffer_(const char *text) {"
    yield "  return std::vector<char>(text, text + strlen(text) + 1);"
    yield "}"
    yield f"typedef decltype({function}) function_;"
    yield "static const function_ functions_[] = {"
    yield from (f"  {each}," for each in table(places, f"::{target.name}"))
    yield "};"
    yield "static void call_(int place_, int input_) {"
    yield from (f"  {_holder(s)} {n};" for s, n in zip(shapes, names, strict=True))
    yield "  switch (input_) {"
    yield from cases(
        (f"feed_({each[0]});",)
        if is_main
        else tuple(f"{name} = {value};" for name, value in zip(names, each, strict=True))
        for each in job.cases
    )
    yield "  }"
    given = [f"{n}.data()" if _is_pointer(s) else n for s, n in zip(shapes, names, strict=True)]
    passed = ", ".join(["functions_[place_]", *given])
    yield "  try {"
    # What a main returns without saying so is open.
    yield '    functions_[place_](); say_("void");' if is_main else f"    report_({passed});"
    yield '    say_(" | ");'
    yield from (f'    show_({name}); say_("; ");' for name in names)
    yield "  } catch (std::exception &error) {"
    yield '    said_length_ = 0; say_("%s", typeid(error).name());'
    yield '  } catch (...) { said_length_ = 0; say_("thrown"); }'
    yield "}"


def _is_pointer(shape: Shape) -> bool:
    return re.search(r"(\*|\[\])$", shape.written) is not None


def _holder(shape: Shape) -> str:
    inner = re.sub(r"(\*|\[\])$", "", shape.written)
    return f"std::vector<{inner}>" if _is_pointer(shape) else shape.written


def _quiet(options: Sequence[str]) -> tuple[str, ...]:
    return ("-std=gnu++17", "-w", *options)


@cache
def _header(options: tuple[str, ...]) -> Path:
    """A folder with the header compiled once: reading the standard library takes a second."""
    folder = Path(_kept().name) / str(abs(hash(options)))
    folder.mkdir()
    drivers = resources.files("codeembed.transform") / "drivers"
    for name in (_HEADER, "call.h"):
        (folder / name).write_bytes((drivers / name).read_bytes())
    compiles(("g++", *_quiet(options), "-x", "c++-header", _HEADER), folder)
    return folder


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()
