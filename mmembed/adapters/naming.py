"""Where the layers that an adapter file names are in a backbone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from torch import nn

from mmembed.adapters.layer import RoutedLinear
from mmembed.errors import ModelLoadError

__all__ = ["View", "common_root", "places_of", "plain_modules", "roots_of"]


@dataclass(frozen=True, slots=True)
class View:
    """How a file may name a backbone's modules.

    Attributes:
        root: the transformers model inside the backbone that names start from.
        prefix: what they have ahead of that, e.g. ``"model."`` where the adapter was trained on
            the same model with a head around it.
    """

    root: str
    prefix: str = ""

    def names(self, modules: Sequence[str] | Mapping[str, nn.Module]) -> dict[str, str]:
        """From the backbone's names, those below the root, to the file's."""
        start = f"{self.root}." if self.root else ""
        return {
            name: self.prefix + name.removeprefix(start)
            for name in modules
            if name and name.startswith(start)
        }

    def place(self, named: str) -> str | None:
        """From the file's name to the backbone's."""
        if not named.startswith(self.prefix):
            return None
        start = f"{self.root}." if self.root else ""
        return start + named.removeprefix(self.prefix)


def plain_modules(backbone: nn.Module) -> dict[str, nn.Module]:
    """Every module by name, as if the backbone had no adapters."""
    found: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, module in backbone.named_modules():
        if name.startswith(inside):
            continue
        if isinstance(module, RoutedLinear):
            inside = (*inside, f"{name}.")
            module = module.base_layer
        found[name] = module
    return found


def roots_of(backbone: nn.Module) -> dict[str, nn.Module]:
    """The transformers models in a backbone by name, those inside others after them."""
    from transformers import PreTrainedModel

    modules = plain_modules(backbone)
    return {name: module for name, module in modules.items() if isinstance(module, PreTrainedModel)}


def common_root(backbone: nn.Module, layers: Sequence[str]) -> str:
    """The outermost transformers model that has all these layers, or ``""`` for the backbone."""
    for root in roots_of(backbone):
        if all(name.startswith(f"{root}." if root else "") for name in layers):
            return root
    return ""


def places_of(backbone: nn.Module, named: Set[str], source: str) -> tuple[View, dict[str, str]]:
    """The view that places every module a file names, and where it places them.

    Names may start at any transformers model inside the backbone, may have the name of that model
    ahead as in the same model with a head, and may be older than the names that transformers uses
    now.

    Raises:
        ModelLoadError: no view has a place for all of them, or two have different ones.
    """
    modules = plain_modules(backbone)
    best: tuple[int, list[str]] = (-1, [])
    found: dict[frozenset[str], tuple[View, dict[str, str]]] = {}
    for view, rename in _views(backbone):
        places = {name: view.place(rename(name)) for name in named}
        misplaced = sorted(name for name, place in places.items() if place not in modules)
        if not misplaced:
            taken = {name: place for name, place in places.items() if place is not None}
            found.setdefault(frozenset(taken.values()), (view, taken))
        elif len(named) - len(misplaced) > best[0]:
            best = (len(named) - len(misplaced), misplaced)
    if len(found) > 1:
        several = " and ".join(repr(view.root) for view, _ in found.values())
        raise ModelLoadError(
            f"{source}: its layers fit into {several}: say which by key_mapping, for example "
            "{'^': 'name_of_the_part.'}"
        )
    if not found:
        raise ModelLoadError(
            f"{source}: tensor '{best[1][0]}.lora_A.weight' has no place in this model "
            f"({len(best[1])} of {len(named)} layers have none)"
        )
    return next(iter(found.values()))


def _views(backbone: nn.Module) -> Iterator[tuple[View, Callable[[str], str]]]:
    roots = roots_of(backbone)
    for root, model in roots.items():
        for rename in (str, _renaming(model)):
            yield View(root), rename
            if prefix := getattr(model, "base_model_prefix", ""):
                yield View(root, f"{prefix}."), rename
    if "" not in roots:
        yield View(""), str


def _renaming(model: nn.Module) -> Callable[[str], str]:
    """From module names of older checkpoints to today's, by transformers' own rules."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    rules = [
        rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)
    ]

    def rename(name: str) -> str:
        key = f"{name}.weight"
        for rule in rules:
            key, _ = rule.rename_source_key(key)
        # Rules may leave the escapes of a pattern in what they put in its place.
        return re.sub(r"\\(.)", r"\1", key).removesuffix(".weight")

    return rename
