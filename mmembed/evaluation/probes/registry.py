"""Probes by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmembed.errors import ConfigError
from mmembed.evaluation.probes import (
    backdoor,
    bias,
    debias,
    instructions,
    inversion,
    modality,
    position,
    robustness,
    social,
)
from mmembed.evaluation.probes.finding import Finding, Instructable, Probe

__all__ = ["PROBES", "find_probe", "probe"]

PROBES: Mapping[str, Probe] = {
    one.name: one
    for module in (
        modality,
        bias,
        social,
        backdoor,
        inversion,
        robustness,
        position,
        instructions,
        debias,
    )
    for one in module.PROBES
}
FOLDERS = (Path("data"), Path("../shared/data"))


def find_probe(name: str) -> Probe:
    """A probe by its name.

    Raises:
        ConfigError: there is none; names those that there are.
    """
    if name not in PROBES:
        raise ConfigError(f"no probe {name!r} (known: {', '.join(PROBES)})")
    return PROBES[name]


def probe(name: str, model: Instructable, data: Path | None = None) -> Finding:
    """Run a probe on a model.

    Args:
        name: which; see :data:`PROBES`.
        model: what is probed.
        data: the project's ``data`` folder; by default where it usually lies.

    Raises:
        ConfigError: there is no such probe, its data are not there, or the model cannot read them.
    """
    found = find_probe(name)
    places = FOLDERS if data is None else (data,)
    for place in places:
        if all((place / need).exists() for need in found.needs):
            return found.run(model, place)
    looked = " or ".join(str(place / found.needs[0]) for place in places)
    raise ConfigError(f"no {looked} here: name the folder of data with --data")
