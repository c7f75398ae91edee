"""Rust: each version is a module, which calls its function itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

from codeembed.transform.runners.compiled import Compiled, Job, candidate
from codeembed.transform.runners.runner import Target
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
    truth,
    word,
)
from codeembed.transform.tree import Code

__all__ = ["Rust"]

_SIGNED = ("i8", "i16", "i32", "i64", "i128", "isize")
_UNSIGNED = ("u8", "u16", "u32", "u64", "u128", "usize")
_TEXT = Scalar(word, lambda value: f"String::from({quoted(value)})")
_TYPES = Types(
    {
        **{each: Scalar(integer, ("{}" + each).format) for each in _SIGNED},
        **{each: Scalar(natural, ("{}" + each).format) for each in _UNSIGNED},
        **{each: Scalar(real, ("{}" + each).format) for each in ("f32", "f64")},
        "bool": Scalar(truth, lambda value: str(value).lower()),
        "char": Scalar(letter, "'{}'".format),
        "String": _TEXT,
        "str": _TEXT,
    },
    (Many(r"Vec<(.+)>", "vec![{items}]"), Many(r"\[([^;]+)\]", "vec![{items}]")),
)
_REFERENCE = re.compile(r"^&\s*(?:'\w+\s+)?(mut\s+)?")


class Rust(Compiled):
    """Functions of Rust."""

    programs: ClassVar[tuple[str, ...]] = ("rustc",)
    driver: ClassVar[str] = "call.rs"
    types: ClassVar[Types] = _TYPES

    def shapes(self, types: Sequence[str]) -> list[Shape] | None:
        """A reference is given a variable of what it refers to."""
        return super().shapes([_REFERENCE.sub("", each) for each in types])

    def target(self, code: Code) -> Target | None:
        """The last function whose arguments have known types."""
        found = None
        for node in code.root.named_children:
            name, parameters = node.child("name"), node.child("parameters")
            if node.type != "function_item" or name is None or parameters is None:
                continue
            inner = [n for n in parameters.named_children if n.type not in code.syntax.comments]
            written = [each.child("type") for each in inner]
            types = tuple(code.of(each) if each else "..." for each in written)
            if code.of(name) != "main" and self.shapes(types) is not None:
                found = Target(code.of(name), len(types), types)
        return found

    def compiler(self, paths: Sequence[str]) -> Sequence[str]:
        """One crate, whose root names the modules."""
        quick = ("-C", "debuginfo=0", "-C", "opt-level=0", "-C", "overflow-checks=on")
        quiet = ("--edition", "2021", "--cap-lints", "allow", "--error-format=short")
        return ("rustc", *quiet, *quick, "-o", "program", "calls.rs")

    def program(self) -> Sequence[str]:
        """The program, as it was linked."""
        return ("./program",)

    def files(self, job: Job, places: Sequence[int]) -> Iterable[tuple[str, str]]:
        """The versions, each in a module, and what calls them."""
        names = [f"a{at}" for at in range(len(job.shapes))]
        taken = "".join(f"mut {name}, " for name in names)
        given = ", ".join(map(_passed, job.target.types, names))
        shown = ", ".join(f"&{name}" for name in names)
        wrapper = f"""
pub fn call_(input: usize) -> String {{
    let ({taken}) = crate::input_(input);
    let value = format!("{{:?}}", {job.target.name}({given}));
    format!("{{}} | {{:?}}", value, ({shown}{"," if len(names) == 1 else ""}))
}}
"""
        for place in places:
            yield f"{candidate(place)}.rs", job.texts[place] + wrapper
        lines = ["mod call;", *(f"mod {candidate(place)};" for place in places)]
        owned = "".join(f"{_owned(each)}, " for each in job.target.types)
        lines += [f"pub fn input_(input: usize) -> ({owned}) {{", "    match input {"]
        for at, values in enumerate(job.cases):
            lines.append(f"        {at} => ({''.join(f'{each}, ' for each in values)}),")
        lines += ["        _ => unreachable!(),", "    }", "}"]
        lines += ["fn call_(place: usize, input: usize) -> String {", "    match place {"]
        lines += [f"        {place} => {candidate(place)}::call_(input)," for place in places]
        lines += ["        _ => unreachable!(),", "    }", "}", "fn main() { call::run(call_) }"]
        yield "calls.rs", "\n".join(lines) + "\n"


def _passed(written: str, name: str) -> str:
    reference = _REFERENCE.match(written)
    if reference is None:
        return f"{name}.clone()"
    return f"&mut {name}" if reference.group(1) else f"&{name}"


def _owned(written: str) -> str:
    inner = _REFERENCE.sub("", written)
    inner = re.sub(r"^\[(.+)\]$", r"Vec<\1>", inner)
    return "String" if inner == "str" else inner
