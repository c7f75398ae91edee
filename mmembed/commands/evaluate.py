"""``mmembed eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mmembed.commands.output import EXIT_OK, Output
from mmembed.embedder import Embedder
from mmembed.errors import ConfigError
from mmembed.evaluation.figures import CUTOFFS, Direction, evaluate_figures

__all__ = ["run_benchmark"]

_FOLDERS = (Path("../shared/data"), Path("data"))


def run_benchmark(
    benchmark: Literal["figures"], model_name: str, data: Path | None, output: Output
) -> int:
    """Measure a model and print recall with the number of candidates."""
    report = evaluate_figures(Embedder.from_pretrained(model_name), data or _find_data())
    record = {"schema_version": 1, "benchmark": benchmark, "model": model_name, **report.as_dict()}
    lines = [
        f"{benchmark}, {report.split} split, {report.candidates} candidates, model {model_name}",
        _line("text to image", report.text_to_image),
        _line("image to text", report.image_to_text),
    ]
    output.result(record, "\n".join(lines))
    return EXIT_OK


def _find_data() -> Path:
    for folder in _FOLDERS:
        if (folder / "openstax_figures").is_dir():
            return folder
    looked = " or ".join(str(folder / "openstax_figures") for folder in _FOLDERS)
    raise ConfigError(f"no {looked} here: name the folder of measuring data with --data")


def _line(name: str, direction: Direction) -> str:
    parts = [
        f"R@{k} {direction.recall[k]:.3f} [{direction.interval[k][0]:.3f}, "
        f"{direction.interval[k][1]:.3f}]"
        for k in CUTOFFS
    ]
    return f"{name:14} {'  '.join(parts)}  MRR {direction.mrr:.3f}"
