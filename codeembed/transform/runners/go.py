"""Go: each version is a package, and its function is called by reflection."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import ClassVar

from codeembed.transform.runners.compiled import Compiled, Job, candidate
from codeembed.transform.runners.runner import Target
from codeembed.transform.runners.values import (
    Many,
    Scalar,
    Types,
    integer,
    letter,
    natural,
    quoted,
    real,
    truth,
    word,
)
from codeembed.transform.tree import Code

__all__ = ["Go"]


def _converted(name: str) -> Scalar:
    make = natural if name.startswith(("uint", "byte")) else integer
    return Scalar(make, (name + "({})").format)


_NUMBERS = ("int", "int8", "int16", "int32", "int64", "uint", "uint8", "uint16", "uint32", "uint64")
_TYPES = Types(
    {
        **{each: _converted(each) for each in (*_NUMBERS, "byte")},
        "float64": Scalar(real, "float64({})".format),
        "float32": Scalar(real, "float32({})".format),
        "bool": Scalar(truth, lambda value: str(value).lower()),
        "string": Scalar(word, quoted),
        "rune": Scalar(letter, "'{}'".format),
    },
    (Many(r"\[\](.+)", "{type}{{{items}}}"),),
)
# Packages of the standard library by the name that a source uses.
_PACKAGES = {
    **{each: each for each in (
        "bufio", "bytes", "errors", "fmt", "math", "os", "regexp", "sort", "strconv", "strings",
        "sync", "time", "unicode",
    )},
    "big": "math/big", "bits": "math/bits", "filepath": "path/filepath", "rand": "math/rand",
    "hex": "encoding/hex", "binary": "encoding/binary", "utf8": "unicode/utf8", "path": "path",
    "json": "encoding/json", "base64": "encoding/base64", "url": "net/url", "io": "io",
}  # fmt: skip
_CLAUSE = re.compile(r"(?m)^\s*package\s+\w+")


class Go(Compiled):
    """Functions of Go."""

    programs: ClassVar[tuple[str, ...]] = ("go",)
    driver: ClassVar[str] = "call.go"
    types: ClassVar[Types] = _TYPES
    memory: ClassVar[int | None] = 4 << 30
    environment: ClassVar[Mapping[str, str]] = {"GOMEMLIMIT": "256MiB", "GOMAXPROCS": "1"}

    def target(self, code: Code) -> Target | None:
        """The last function whose arguments have known types."""
        found = None
        for node in code.root.named_children:
            name, parameters = node.child("name"), node.child("parameters")
            if node.type != "function_declaration" or name is None or parameters is None:
                continue
            if node.child("type_parameters") or code.of(name) in ("main", "init"):
                continue
            types: list[str] = []
            for each in parameters.named_children:
                written = each.child("type")
                known = written and each.type == "parameter_declaration"
                text = code.of(written) if known and written else "..."
                types += [text] * max(1, len(each.all("name")))
            if self.types.shapes(types) is not None:
                found = Target(code.of(name), len(types), tuple(types))
        return found

    def compiler(self, paths: Sequence[str]) -> Sequence[str]:
        """The module, whose packages name each other; what was compiled before is kept."""
        kept = ("GOFLAGS=-mod=mod", "GOPROXY=off", f"GOCACHE={_cache().name}", "CGO_ENABLED=0")
        return ("env", *kept, "go", "build", "-gcflags=-e -N -l", "-o", "program", ".")

    def program(self) -> Sequence[str]:
        """The program, as it was linked."""
        return ("./program",)

    def files(self, job: Job, places: Sequence[int]) -> Iterable[tuple[str, str]]:
        """The versions, each in a package, and what calls them."""
        yield "go.mod", "module calls\n\ngo 1.18\n"
        imports = _imports(job.texts[0])
        for place in places:
            name = candidate(place)
            rest = _CLAUSE.sub("", job.texts[place], count=1)
            text = f"package {name}{imports}; {rest.lstrip()}"
            yield (
                f"{name}/{name}.go",
                f"{text}\n\nfunc Target_() any {{ return {job.target.name} }}\n",
            )
        lines = ["package main", "import ("]
        lines += [f'\t"calls/{candidate(place)}"' for place in places]
        lines += [")", "var functions_ = map[int]any{"]
        lines += [f"\t{place}: {candidate(place)}.Target_()," for place in places]
        lines += ["}", "func input_(input int) []any {", "\tswitch input {"]
        for at, values in enumerate(job.cases):
            lines.append(f"\tcase {at}:\n\t\treturn []any{{{', '.join(values)}}}")
        yield "inputs.go", "\n".join([*lines, "\t}", "\treturn nil", "}"]) + "\n"


def _imports(text: str) -> str:
    """Imports that a function cut out of its file needs; none where the source has its own."""
    if re.search(r"(?m)^\s*import\b", text):
        return ""
    used = [path for name, path in _PACKAGES.items() if re.search(rf"\b{name}\.[A-Z]", text)]
    return "".join(f'; import "{path}"' for path in used)


@cache
def _cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()
