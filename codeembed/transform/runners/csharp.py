"""C# by Mono: each version is a namespace, and its method is found by reflection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    natural,
    quoted,
    real,
    truth,
    word,
)
from codeembed.transform.tree import Code

__all__ = ["CSharp"]

_TYPES = Types(
    {
        "int": Scalar(integer),
        "Int32": Scalar(integer),
        "long": Scalar(integer, "{}L".format),
        "short": Scalar(integer, "(short){}".format),
        "byte": Scalar(natural, "(byte){}".format),
        "uint": Scalar(natural, "{}u".format),
        "ulong": Scalar(natural, "{}ul".format),
        "double": Scalar(real, "{}d".format),
        "float": Scalar(real, "{}f".format),
        "decimal": Scalar(real, "{}m".format),
        "bool": Scalar(truth, lambda value: str(value).lower()),
        "char": Scalar(letter, "'{}'".format),
        "string": Scalar(word, quoted),
        "String": Scalar(word, quoted),
        "object": Scalar(integer, "(object){}".format),
    },
    (
        Many(r"(.+)\[\]", "new {type}{{{items}}}"),
        Many(r"(?:I?List|IEnumerable|ICollection)<(.+)>", "new List<{item}>{{{items}}}"),
    ),
)
_NAMES = ("System", "System.Collections", "System.Collections.Generic", "System.Linq")
_USING = "".join(f"using {each}; " for each in (*_NAMES, "System.Text"))


class CSharp(Compiled):
    """Methods of C#."""

    programs: ClassVar[tuple[str, ...]] = ("mcs", "mono")
    driver: ClassVar[str] = "call.cs"
    types: ClassVar[Types] = _TYPES
    memory: ClassVar[int | None] = None
    environment: ClassVar[Mapping[str, str]] = {"MONO_GC_PARAMS": "max-heap-size=256m"}

    def target(self, code: Code) -> Target | None:
        """The last method whose arguments have known types."""
        return last_method(code, self.types)

    def compiler(self, paths: Sequence[str]) -> Sequence[str]:
        """All files at once."""
        libraries = ("-r:System.Core", "-r:System.Numerics", "-r:System")
        return ("mcs", "-nowarn:0-9999", "-warn:0", *libraries, "-out:program.exe", "call.cs",
                *paths)  # fmt: skip

    def program(self) -> Sequence[str]:
        """What was compiled, in Mono."""
        return ("mono", "program.exe")

    def files(self, job: Job, places: Sequence[int]) -> Iterable[tuple[str, str]]:
        """The versions, each in a namespace, and the inputs."""
        target = job.target
        for place in places:
            text = job.texts[place].removeprefix("\ufeff")
            text = text if target.owner else f"{_USING}class {WHOLE} {{\n{text}\n}}"
            yield f"{candidate(place)}.cs", f"namespace {candidate(place)} {{\n{text}\n}}\n"
        lines = [_USING, "static class Inputs_ {"]
        lines.append(f'  public const string Owner = "{target.owner or WHOLE}";')
        lines.append(f'  public const string Name = "{target.name}";')
        lines.append(f"  public const int Arity = {target.arity};")
        lines += ["  public static object[] At(int input) {", "    switch (input) {"]
        for at, values in enumerate(job.cases):
            lines.append(f"      case {at}: return new object[]{{{', '.join(values)}}};")
        lines += ["      default: throw new ArgumentException();", "    }", "  }", "}"]
        yield "Inputs.cs", "\n".join(lines) + "\n"
