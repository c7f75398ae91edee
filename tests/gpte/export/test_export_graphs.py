"""ONNX and OpenVINO exports against the encoder they were made of."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast as Fast

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import model_of

from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.encoding import encode
from mmembed.gpte.export.graph import DenseGraph, padded_inputs
from mmembed.gpte.export.onnx import export_onnx, load_onnx
from mmembed.gpte.export.openvino import export_openvino, load_openvino
from mmembed.gpte.prompts import PROMPTS, Prompt
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import ProjectionSettings, TextSettings

TEXTS = ["the quick brown fox", "no", "hello world " * 20, "fox"]


def encoder_of(family: str, tokenizer: Fast, **settings: Any) -> TextEncoder:
    kind = "AutoModelForTextEncoding" if family == "T5" else "AutoModel"
    return TextEncoder(model_of(family, kind), tokenizer, TextSettings(**settings)).eval()


@pytest.mark.parametrize(
    "settings",
    [{"pooling": name} for name in ("first", "last", "max", "mean", "mean_sqrt", "last_k")]
    + [
        {"pooling": "position_weighted"},
        {"pooling": ("first", "mean"), "projections": (ProjectionSettings(8, activation="tanh"),)},
        {"layers": (0, 2), "learned_layers": True, "latents": 4, "normalize": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["Bert", "MPNet"])
def test_padded_form_equals_the_packed_one(
    family: str, settings: dict[str, Any], wordpiece: Fast
) -> None:
    prompts = {"query": Prompt.prefix("query: ", pooled="text")}
    encoder = encoder_of(family, wordpiece, prompts=prompts, **settings)
    graph = DenseGraph(encoder).eval()
    for role in (None, "query"):
        inputs = padded_inputs(encoder.tokenize(TEXTS, role=role), 0)
        with torch.no_grad():
            got = graph(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        torch.testing.assert_close(got, encode(encoder, TEXTS, role=role), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["Bert", "Qwen3", "T5"])
def test_onnx(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    decoder = family == "Qwen3"
    tokenizer: Fast = request.getfixturevalue("bytes_bpe" if decoder else "wordpiece")
    prompt = Prompt(PROMPTS["instruct"].template, instruction="find", pooled="text")
    settings: dict[str, Any] = {"prompts": {"query": prompt}, "max_tokens": 40}
    if decoder:
        settings |= {"bidirectional": True, "end_token": "<|endoftext|>"}
    encoder = encoder_of(family, tokenizer, **settings)
    export_onnx(encoder, tmp_path / "onnx")
    graph = load_onnx(tmp_path / "onnx")
    for role in (None, "query"):
        ours = encode(encoder, TEXTS, role=role).numpy()
        np.testing.assert_allclose(graph.encode(TEXTS, role=role), ours, rtol=0, atol=1e-5)
        one = np.concatenate([graph.encode([text], role=role) for text in TEXTS])
        np.testing.assert_allclose(one, ours, rtol=0, atol=1e-5)
    # The encoder itself goes on as before.
    assert encoder.packing is not None or family == "T5"
    torch.testing.assert_close(encode(encoder, TEXTS, role="query").numpy(), ours)


def test_openvino(wordpiece: Fast, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    encoder = encoder_of("Bert", wordpiece)
    ours = encode(encoder, TEXTS).numpy()
    export_openvino(encoder, tmp_path / "float")
    float32 = load_openvino(tmp_path / "float").encode(TEXTS)
    np.testing.assert_allclose(float32, ours, rtol=0, atol=1e-4)
    export_openvino(encoder, tmp_path / "int8", calibration=TEXTS * 4)
    assert capsys.readouterr().out == ""
    int8 = load_openvino(tmp_path / "int8").encode(TEXTS)
    assert ((int8 * ours).sum(axis=1) > 0.98).all()
    assert np.abs(int8 - ours).max() > 1e-4  # int8 it is
    with pytest.raises(ConfigError, match="the list is empty"):
        export_openvino(encoder, tmp_path / "none", calibration=[])


@pytest.mark.parametrize("family", ["Bert", "XLMRoberta", "ModernBert", "Qwen3"])
def test_openvino_keeps_attention_whole(family: str, bytes_bpe: Fast, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    encoder = encoder_of(family, bytes_bpe)
    export_openvino(encoder, tmp_path / "float")
    graph = load_openvino(tmp_path / "float")
    one = np.concatenate([graph.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(one, encode(encoder, TEXTS).numpy(), rtol=0, atol=1e-4)
    assert "ScaledDotProductAttention" in (tmp_path / "float/openvino_model.xml").read_text()


def test_openvino_by_way_of_onnx(wordpiece: Fast, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    encoder = encoder_of("T5", wordpiece)
    export_openvino(encoder, tmp_path / "float")
    found = load_openvino(tmp_path / "float").encode(TEXTS)
    np.testing.assert_allclose(found, encode(encoder, TEXTS).numpy(), rtol=0, atol=1e-4)


def test_what_has_no_graph_is_refused(wordpiece: Fast, tmp_path: Path) -> None:
    for settings, words in (
        ({"heads": ("dense", "multi")}, "heads besides dense"),
        ({"prefix_tokens": 2}, "a soft prefix"),
        ({"alibi": True}, "symmetric ALiBi"),
        ({"summary_tokens": 2}, "summary tokens"),
        ({"prompts": {"query": PROMPTS["promptbert"]}}, "template denoising"),
    ):
        with pytest.raises(ConfigError, match=words):
            DenseGraph(encoder_of("Bert", wordpiece, **settings))
    with pytest.raises(ModelLoadError, match=r"text_encoder\.json is missing"):
        load_onnx(tmp_path)
