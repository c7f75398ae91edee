"""The languages of the extra ``all-languages``, as data: what its grammars may be used for.

Only grammars named here are used: the pack's ``cobol`` never returns from some input, and formats
such as JSON are cut by lines on purpose. None is trusted either: they run in a process of their
own, see :mod:`codeembed.parse_worker`.
"""

from __future__ import annotations

import importlib.util
from functools import cache

__all__ = ["PACK_SUFFIXES", "has_pack", "module_of"]

_PACKAGE = "tree_sitter_language_pack"

PACK_SUFFIXES = {
    "actionscript": ".as",
    "ada": ".adb .ads",
    "apex": ".apex",
    "bicep": ".bicep",
    "cairo": ".cairo",
    "clojure": ".clj .cljs .cljc .edn",
    "commonlisp": ".lisp .lsp",
    "d": ".d",
    "dart": ".dart",
    "elisp": ".el",
    "elixir": ".ex .exs",
    "elm": ".elm",
    "erlang": ".erl .hrl",
    "fennel": ".fnl",
    "fish": ".fish",
    "fortran": ".f .f90 .f95 .f03 .f08 .for",
    "fsharp": ".fs .fsx",
    "gdscript": ".gd",
    "gleam": ".gleam",
    "glsl": ".glsl .vert .frag .geom .comp",
    "graphql": ".graphql .gql",
    "groovy": ".groovy .gradle",
    "hack": ".hack",
    "hare": ".ha",
    "haskell": ".hs",
    "haxe": ".hx",
    "hcl": ".hcl .tf",
    "hlsl": ".hlsl .fx",
    "janet": ".janet",
    "julia": ".jl",
    "luau": ".luau",
    "matlab": ".m",
    "nim": ".nim .nims",
    "nix": ".nix",
    "objc": ".mm",
    "ocaml": ".ml",
    "ocaml_interface": ".mli",
    "odin": ".odin",
    "pascal": ".pas .dpr",
    "perl": ".pl .pm",
    "pony": ".pony",
    "powershell": ".ps1 .psm1 .psd1",
    "prisma": ".prisma",
    "puppet": ".pp",
    "purescript": ".purs",
    "qmljs": ".qml",
    "r": ".r",
    "racket": ".rkt",
    "scheme": ".scm .ss",
    "solidity": ".sol",
    "squirrel": ".nut",
    "starlark": ".bzl .star",
    "svelte": ".svelte",
    "tcl": ".tcl",
    "thrift": ".thrift",
    "typst": ".typ",
    "v": ".v",
    "verilog": ".sv .svh .vh",
    "vhdl": ".vhd .vhdl",
    "vim": ".vim",
    "vue": ".vue",
    "wgsl": ".wgsl",
    "zig": ".zig",
}
"""Name in the pack to file suffixes; a language keeps its name where the pack is not installed."""


def module_of(name: str) -> str:
    """The module whose ``language`` is that grammar."""
    return f"{_PACKAGE}.bindings.{name}"


@cache
def has_pack() -> bool:
    """Whether ``pip install mmembed[all-languages]`` was run."""
    return importlib.util.find_spec(_PACKAGE) is not None
