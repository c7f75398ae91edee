"""``mmembed probe``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mmembed.commands.output import EXIT_OK, Output

if TYPE_CHECKING:
    from mmembed.evaluation.probes import Finding, Probe

__all__ = ["probe"]


def probe(
    name: str | None = None,
    /,
    *,
    model: Annotated[str, Parameter(help="'mini', a folder, or a Hugging Face id.")] = "mini",
    data: Path | None = None,
    save: Path | None = None,
    show: Annotated[bool, Parameter(name="--list", negative="")] = False,
    json: Annotated[
        bool, Parameter(name="--json", negative="", help="JSON lines on standard output.")
    ] = False,
) -> int:
    """Probe a model: gaps between modalities, biases, backdoors, leaks, robustness.

    For example:

        mmembed probe --list

        mmembed probe modality-gap

        mmembed probe social-bias --model sentence-transformers/all-MiniLM-L6-v2 --save runs

    Args:
        name: A probe's name.
        data: The project's data folder; "data" by default.
        save: A folder that keeps what was found, for "mmembed report".
        show: List the probes, with the papers that they follow.
    """
    output = Output(json=json)
    if show or name is None:
        return _list(output)
    from mmembed.embedder import Embedder
    from mmembed.evaluation.probes import find_probe
    from mmembed.evaluation.probes import probe as run_probe
    from mmembed.evaluation.runs import save_record

    about = find_probe(name)  # before a model is loaded
    loaded = Embedder.from_pretrained(model)
    found = run_probe(name, loaded, data)
    record = {"probe": name, "reference": about.reference, "model": model, **found.as_dict()}
    if save is not None:
        whole = {"schema_version": 1, "kind": "probe", **record}
        output.say(f"saved {save_record(whole, save, f'probe-{name}', model)}")
    output.result({"schema_version": 1, **record}, _text(about, model, found))
    return EXIT_OK


def _list(output: Output) -> int:
    from mmembed.evaluation.probes import PROBES

    for one in PROBES.values():
        record = {"probe": one.name, "about": one.about, "reference": one.reference}
        output.result(record, f"{one.name:16} {one.about}\n{'':16} {one.reference}")
    return EXIT_OK


def _text(about: Probe, model: str, found: Finding) -> str:
    lines = [f"{about.name}: {about.about}; model {model}", about.reference, about.reading]
    lines += [f"  {key:36} {value:.4f}" for key, value in found.figures.items()]
    for name, table in found.tables.items():
        lines.append(name)
        lines += [f"  {row:36} {_cells(cells)}" for row, cells in table.items()]
    return "\n".join([*lines, *found.notes])


def _cells(cells: Mapping[str, Any]) -> str:
    return "  ".join(f"{key} {value:.3f}" for key, value in cells.items())
