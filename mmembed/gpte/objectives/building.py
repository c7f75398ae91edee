"""From plain configuration values to objectives, with errors that name the key."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmembed.errors import ConfigError

__all__ = ["build", "construct"]

Registry = Mapping[str, type]


def build(config: object, registry: Registry, where: str) -> Any:
    """Make the registered dataclass that ``config["name"]`` names, from its other keys.

    Args:
        config: a mapping with ``name``, or a bare name.
        registry: what may be named here.
        where: the key path, for messages.

    Raises:
        ConfigError: an unknown name or key (with the nearest known one), or an impossible value.
    """
    if isinstance(config, str):
        config = {"name": config}
    if not isinstance(config, Mapping) or "name" not in config:
        raise ConfigError(f"{where}: give a name and its options, as {{name: infonce}}")
    name = config["name"]
    if name not in registry:
        raise ConfigError(f"{where}: unknown name {name!r}{_nearest(str(name), registry)}")
    rest = {key: value for key, value in config.items() if key != "name"}
    return construct(registry[name], rest, registry, f"{where} {name!r}")


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f" (known: {', '.join(sorted(known))})"


def construct(cls: type, config: Mapping[Any, Any], registry: Registry, where: str) -> Any:
    """Make a dataclass from plain values, by the types of its fields.

    Args:
        registry: what a field whose type is a protocol may name.

    Raises:
        ConfigError: as :func:`build`.
    """
    hints = get_type_hints(cls)
    known = {f.name: hints[f.name] for f in fields(cls) if f.init}
    values = {}
    for key, value in config.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{_nearest(str(key), known)}")
        values[key] = _convert(value, known[key], registry, f"{where}: {key}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _convert(value: Any, wanted: Any, registry: Registry, where: str) -> Any:
    if is_dataclass(value):  # made already, perhaps of a kind that only another package knows
        return value
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        *others, last = (a for a in arguments if a is not type(None))
        for choice in others:
            try:
                return _convert(value, choice, registry, where)
            except ConfigError:
                continue
        return _convert(value, last, registry, where)
    if wanted is Any:
        return value
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: give a mapping, not {value!r}")
        return {
            str(key): _convert(item, arguments[1], registry, f"{where}.{key}")
            for key, item in value.items()
        }
    if origin is Literal:
        if value not in arguments:
            known = {str(a): a for a in arguments}
            raise ConfigError(f"{where}: unknown value {value!r}{_nearest(str(value), known)}")
        return value
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"{where}: give a list, not {value!r}")
        repeated = len(arguments) == 2 and arguments[1] is Ellipsis
        if not repeated and len(value) != len(arguments):
            raise ConfigError(f"{where}: give {len(arguments)} values, not {len(value)}")
        kinds = [arguments[0]] * len(value) if repeated else arguments
        return tuple(
            _convert(item, kind, registry, f"{where}[{i}]")
            for i, (item, kind) in enumerate(zip(value, kinds, strict=True))
        )
    if wanted in (bool, int, float, str):
        return _scalar(value, wanted, where)
    if is_dataclass(wanted) and isinstance(wanted, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: give a mapping, not {value!r}")
        return construct(wanted, value, registry, where)
    made = build(value, registry, where)
    if getattr(wanted, "_is_protocol", False) and not _provides(made, wanted):
        raise ConfigError(f"{where}: {value!r} is no {wanted.__name__}")
    return made


def _provides(made: object, protocol: type) -> bool:
    """Whether ``made`` has the protocol's methods."""
    methods = [name for name, value in vars(protocol).items() if callable(value)]
    wanted = [m for m in methods if not m.startswith("_") or m == "__call__"]
    return all(callable(getattr(made, name, None)) for name in wanted)


def _scalar(value: Any, wanted: type, where: str) -> Any:
    if wanted is float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
            try:
                return float(value)
            except ValueError:
                pass
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: give a {wanted.__name__}, not {value!r}")
