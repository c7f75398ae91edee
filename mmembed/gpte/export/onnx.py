"""ONNX: a dense text encoder for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmembed.errors import ConfigError, MissingDependencyError
from mmembed.gpte.export.graph import (
    INPUTS,
    CompiledTextEncoder,
    DenseGraph,
    example_inputs,
    load_compiled,
    padded_inputs,
    write_compiled,
)
from mmembed.gpte.text_encoder import TextEncoder

__all__ = ["export_onnx", "load_onnx", "write_onnx"]

_GRAPH = "model.onnx"
_PROBES = ["one", "two words", "a longer text, of more tokens than the other two have"]


def export_onnx(encoder: TextEncoder, folder: str | Path, *, tolerance: float = 1e-4) -> None:
    """Write a folder that :func:`load_onnx` reads, checked against the encoder before it appears.

    Merge adapters first. Weights beyond 2 GB go to a file beside the graph.

    Args:
        encoder: a dense encoder in float32.
        folder: appears only when it is complete.
        tolerance: largest difference allowed between the two on a few texts.

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        ConfigError: the encoder has no such graph, or the graph gives other vectors.
    """

    def write(partial: Path) -> None:
        write_onnx(encoder, partial / _GRAPH)
        check_graph(encoder, _session(partial / _GRAPH), tolerance)

    write_compiled(encoder, Path(folder), write)


def load_onnx(folder: str | Path) -> CompiledTextEncoder:
    """The encoder in a folder of :func:`export_onnx`.

    Raises:
        ModelLoadError: a file is missing.
        MissingDependencyError: onnxruntime is not installed.
    """
    settings, tokenizing, graph = load_compiled(Path(folder), _GRAPH)
    return CompiledTextEncoder(settings, tokenizing, _session(graph))


def write_onnx(encoder: TextEncoder, file: Path) -> None:
    """Write the graph alone, with batch and length left open."""
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingDependencyError("ONNX export", "export") from None
    was_training = encoder.training
    graph = DenseGraph(encoder.eval()).eval()
    try:
        program = _program(graph, encoder.device)
    except torch.onnx.errors.OnnxExporterError:
        # T5 reshapes around the fused attention in a way the exporter cannot follow.
        with _plain_attention(encoder):
            program = _program(graph, encoder.device)
    finally:
        encoder.train(was_training)
    program.save(file)


def _program(graph: DenseGraph, device: torch.device) -> Any:
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with torch.no_grad():
        return torch.onnx.export(
            graph,
            example_inputs(device),
            dynamo=True,
            dynamic_shapes=(sizes, sizes, sizes),
            input_names=list(INPUTS),
            output_names=["dense"],
            verbose=False,
        )


@contextmanager
def _plain_attention(encoder: TextEncoder) -> Iterator[None]:
    """Attention written out in matrix products, for the time of the block."""
    configs = {id(m.config): m.config for m in encoder.base.modules() if hasattr(m, "config")}
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        for config, _ in before:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation


def check_graph(encoder: TextEncoder, run: Any, tolerance: float) -> None:
    """Compare a graph with the encoder on a few texts."""
    from mmembed.gpte.encoding import encode

    # Without a role no prompt is needed that a call would have to fill.
    prompt = encoder.settings.prompt("default") if "default" in encoder.settings.prompts else None
    needs = prompt is not None and "instruction" in prompt.slots and not prompt.instruction
    instruction = "find" if needs else None
    rows = encoder.tokenize(_PROBES, instruction=instruction)
    pad = encoder.tokenizer.pad_token_id or 0
    got = run(padded_inputs(rows, pad))
    expected = encode(encoder, _PROBES, instruction=instruction).numpy()
    worst = float(np.abs(got - expected).max())
    if not worst <= tolerance:
        raise ConfigError(f"the graph's vectors differ from the encoder's by {worst:.1e}")


def _session(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("ONNX Runtime", "export") from None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return session.run(None, {name: inputs[name] for name in names})[0]

    return run
