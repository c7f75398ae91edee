"""Java by javac: each version is a package, and its method is found by reflection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

from codeembed.transform.runners.compiled import Compiled, Job, candidate
from codeembed.transform.runners.methods import WHOLE, last_method
from codeembed.transform.runners.runner import Target
from codeembed.transform.runners.values import (
    Many,
    Scalar,
    Types,
    integer,
    letter,
    quoted,
    real,
    truth,
    word,
)
from codeembed.transform.tree import Code

__all__ = ["Java"]

_INTEGER = Scalar(integer, "(int) {}".format)
_LONG = Scalar(integer, "{}L".format)
_REAL = Scalar(real)
_FLOAT = Scalar(real, "{}f".format)
_TRUTH = Scalar(truth, lambda value: str(value).lower())
_LETTER = Scalar(letter, "'{}'".format)
_TEXT = Scalar(word, quoted)
_TYPES = Types(
    {
        "int": _INTEGER,
        "Integer": _INTEGER,
        "long": _LONG,
        "Long": _LONG,
        "short": Scalar(integer, "(short) {}".format),
        "byte": Scalar(integer, "(byte) {}".format),
        "double": _REAL,
        "Double": _REAL,
        "float": _FLOAT,
        "Float": _FLOAT,
        "boolean": _TRUTH,
        "Boolean": _TRUTH,
        "char": _LETTER,
        "Character": _LETTER,
        "String": _TEXT,
        "CharSequence": _TEXT,
        "Object": _INTEGER,
    },
    (
        Many(r"(.+)\[\]", "new {type}{{{items}}}"),
        Many(
            r"(?:List|ArrayList|Collection|Iterable)<(.+)>",
            "new java.util.ArrayList<>(java.util.Arrays.<{item}>asList({items}))",
        ),
    ),
)
_IMPORTS = "".join(
    f"import {each}.*; "
    for each in ("java.util", "java.util.function", "java.util.stream", "java.io", "java.math")
)


class Java(Compiled):
    """Methods of Java."""

    programs: ClassVar[tuple[str, ...]] = ("javac", "java")
    driver: ClassVar[str] = "Call.java"
    types: ClassVar[Types] = _TYPES

    def target(self, code: Code) -> Target | None:
        """The last method whose arguments have known types."""
        return last_method(code, self.types)

    def compiler(self, paths: Sequence[str]) -> Sequence[str]:
        """All files at once."""
        quick = ("-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC", "-J-Xmx512m")
        quiet = ("-nowarn", "-proc:none", "-Xmaxerrs", "10000", "-d", ".", "-encoding", "utf-8")
        return ("javac", *quick, *quiet, self.driver, *paths)

    def program(self) -> Sequence[str]:
        """The driver, with a small heap."""
        quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
        return ("java", *quick, "-Xmx256m", "-cp", ".", "Call")

    def files(self, job: Job, places: Sequence[int]) -> Iterable[tuple[str, str]]:
        """The versions, each in a package, and the inputs."""
        target = job.target
        owner = target.owner or WHOLE
        for place in places:
            text = job.texts[place]
            text = text if target.owner else f"class {WHOLE} {{\n{text}\n}}"
            text = re.sub(r"(?m)^\s*package\s+[\w.]+\s*;", "", text, count=1)
            name = candidate(place)
            yield f"{name}/{owner}.java", f"package {name}; {_IMPORTS}\n{text}\n"
        lines = ["final class Inputs {", f'  static final String OWNER = "{owner}";']
        lines.append(f'  static final String NAME = "{target.name}";')
        lines.append(f"  static final int ARITY = {target.arity};")
        lines += ["  static Object[] at(int input) {", "    switch (input) {"]
        for at, values in enumerate(job.cases):
            lines.append(f"      case {at}: return new Object[]{{{', '.join(values)}}};")
        lines += ["      default: throw new IllegalArgumentException();", "    }", "  }", "}"]
        yield "Inputs.java", "\n".join(lines) + "\n"
