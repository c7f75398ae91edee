"""OpenVINO: a dense text encoder for CPUs, in float32 or calibrated int8."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.errors import ConfigError, MissingDependencyError
from mmembed.gpte.export.graph import (
    CompiledTextEncoder,
    exported_program,
    load_compiled,
    padded_inputs,
    write_compiled,
)
from mmembed.gpte.export.onnx import check_graph, write_onnx
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["export_openvino", "load_openvino"]

_log = logging.getLogger(__name__)
_GRAPH = "openvino_model.xml"


def export_openvino(
    encoder: TextEncoder,
    folder: str | Path,
    *,
    calibration: Sequence[str] | None = None,
    role: str | None = None,
) -> None:
    """Write a folder that :func:`load_openvino` reads.

    Args:
        encoder: a dense encoder in float32; merge adapters first.
        folder: appears only when it is complete.
        calibration: texts like those to come, some hundreds; with them weights and activations
            become int8, with the ranges these texts show. Compare both exports on your own task.
        role: whose prompt the calibration texts get.

    Raises:
        MissingDependencyError: openvino, nncf or what ONNX export needs is not installed.
        ConfigError: the encoder has no such graph, or there are no calibration texts in the list.
    """
    try:
        import nncf
        import openvino
    except ImportError:
        raise MissingDependencyError("OpenVINO export", "export") from None
    if calibration is not None and not calibration:
        raise ConfigError("int8 needs texts to calibrate on, and the list is empty")

    def write(partial: Path) -> None:
        model = _converted(encoder)
        check_graph(encoder, _runner(_compiled(model)), 1e-4)
        if calibration is not None:
            rows = encoder.tokenize(calibration, role=role)
            pad = encoder.tokenizer.pad_token_id or 0
            batches = [padded_inputs([row], pad) for row in rows]
            names = {name for one in model.inputs for name in one.get_names()}
            batches = [{k: v for k, v in batch.items() if k in names} for batch in batches]
            with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars there
                model = nncf.quantize(
                    model,
                    nncf.Dataset(batches),
                    model_type=nncf.ModelType.TRANSFORMER,
                    subset_size=len(batches),
                )
        openvino.save_model(model, partial / _GRAPH, compress_to_fp16=False)

    write_compiled(encoder, Path(folder), write)


def load_openvino(folder: str | Path) -> CompiledTextEncoder:
    """The encoder in a folder of :func:`export_openvino`, compiled for this CPU.

    Raises:
        ModelLoadError: a file is missing.
        MissingDependencyError: openvino is not installed.
    """
    try:
        import openvino  # noqa: F401
    except ImportError:
        raise MissingDependencyError("OpenVINO", "export") from None
    settings, tokenizing, graph = load_compiled(Path(folder), _GRAPH)
    return CompiledTextEncoder(settings, tokenizing, _runner(_compiled(graph)))


def _converted(encoder: TextEncoder) -> Any:
    """The float32 graph, with attention as one operation where that can be had.

    By way of ONNX attention falls apart into products and a softmax, which int8 kernels then run
    one by one, a fifth slower in all.
    """
    import openvino

    try:
        return openvino.convert_model(exported_program(encoder))
    except Exception as error:  # torch and OpenVINO have a kind for every step of theirs
        _log.info("%s goes by way of ONNX: %s", type(encoder.base).__name__, error)
    with tempfile.TemporaryDirectory() as scratch:
        write_onnx(encoder, Path(scratch) / "model.onnx")
        return openvino.convert_model(Path(scratch) / "model.onnx")


def _compiled(model: Any) -> Any:
    import openvino

    # Recent CPUs would otherwise round float32 models to bfloat16 on the way.
    return openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _runner(compiled: Any) -> Any:
    names = {name for one in compiled.inputs for name in one.get_names()}

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        result = compiled({name: inputs[name] for name in inputs if name in names})
        return np.asarray(result[compiled.outputs[0]])

    return run
