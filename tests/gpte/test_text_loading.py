"""Saving, loading, adapters, and published sentence-transformers models."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
from transformers import PreTrainedTokenizerFast as Fast

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import model_of

from mmembed.errors import ConfigError, ModelLoadError
from mmembed.gpte.lora import add_lora, merge_lora, merged_state_dict
from mmembed.gpte.prompts import PROMPTS, Prompt
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import ProjectionSettings, TextSettings
from mmembed.gpte.tiny import tiny_model

TEXTS = ["the quick brown fox", "no more, no less", "hello world"]


@torch.no_grad()
def outputs(encoder: TextEncoder, texts: list[str] = TEXTS, **options: Any) -> Any:
    return encoder(encoder.collate(encoder.tokenize(texts, **options)))


SETTINGS = TextSettings(
    pooling="last",
    heads=("dense", "multi", "lexical"),
    multi_dim=8,
    prompts={"query": PROMPTS["instruct"], "default": Prompt.prefix("query: ", pooled="text")},
    end_token="<|endoftext|>",
    layers=(1, 2),
    learned_layers=True,
    latents=4,
    projections=(ProjectionSettings(16, activation="tanh"),),
    bidirectional=True,
    summary_tokens=2,
    max_tokens=40,
)


def test_saved_encoder_comes_back_the_same(bytes_bpe: Fast, tmp_path: Path) -> None:
    encoder = TextEncoder(model_of("Qwen3"), bytes_bpe, SETTINGS).eval()
    encoder.save_pretrained(tmp_path / "model")
    again = TextEncoder.from_pretrained(tmp_path / "model")
    assert again.settings == encoder.settings
    for options in ({}, {"role": "query", "instruction": "find"}):
        ours, theirs = (outputs(one, **options) for one in (encoder, again))
        for name in ("dense", "multi", "sparse"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert not list(tmp_path.glob(".*"))


def test_splade_keeps_its_head(wordpiece: Fast, tmp_path: Path) -> None:
    model = model_of("Bert", "AutoModelForMaskedLM")
    torch.nn.init.normal_(model.cls.predictions.bias)
    encoder = TextEncoder(model, wordpiece, TextSettings(heads=("splade",))).eval()
    encoder.save_pretrained(tmp_path / "model")
    again = TextEncoder.from_pretrained(tmp_path / "model")
    assert torch.equal(outputs(again).sparse, outputs(encoder).sparse)


@pytest.mark.parametrize(
    ("family", "kind", "settings"),
    [
        ("T5", "AutoModelForTextEncoding", {}),
        ("T5", "AutoModel", {"pooling": "first", "decoder_first": True}),
        ("Roberta", "AutoModel", {}),
    ],
)
def test_other_kinds_come_back(
    family: str, kind: str, settings: dict[str, Any], wordpiece: Fast, tmp_path: Path
) -> None:
    options = {"d_kv": 8, "d_model": 32, "d_ff": 64, "decoder_start_token_id": 0}
    model = model_of(family, kind, **(options if family == "T5" else {}))
    encoder = TextEncoder(model, wordpiece, TextSettings(**settings)).eval()
    encoder.save_pretrained(tmp_path / "model")
    again = TextEncoder.from_pretrained(tmp_path / "model")
    assert torch.equal(outputs(again).dense, outputs(encoder).dense)


def test_plain_folders_get_the_pooling_of_their_kind(
    wordpiece: Fast, bytes_bpe: Fast, tmp_path: Path
) -> None:
    for family, tokenizer, pooling in (("Bert", wordpiece, "mean"), ("Llama", bytes_bpe, "last")):
        folder = tmp_path / family
        model_of(family).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        assert TextEncoder.from_pretrained(folder).settings.pooling == pooling
    # Another task's head in the file is not needed, and no error.
    model_of("Bert", "AutoModelForMaskedLM").save_pretrained(tmp_path / "Bert")
    assert TextEncoder.from_pretrained(tmp_path / "Bert").dim == 32
    assert TextEncoder.from_pretrained(tmp_path / "Bert", lm_head=True).lm_head is not None
    with pytest.raises(ConfigError, match="no language-model head"):
        _ = TextEncoder.from_pretrained(tmp_path / "Bert").lm_head


def test_saving_over_an_earlier_model_is_all_or_nothing(
    wordpiece: Fast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder(model_of("Bert"), wordpiece).eval()
    encoder.save_pretrained(tmp_path / "model")
    before = outputs(encoder).dense
    with torch.no_grad():
        encoder.base.embeddings.word_embeddings.weight.add_(1.0)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(wordpiece), "save_pretrained", full)
        with pytest.raises(OSError, match="No space left"):
            encoder.save_pretrained(tmp_path / "model")
    assert torch.equal(outputs(TextEncoder.from_pretrained(tmp_path / "model")).dense, before)
    assert not list(tmp_path.glob(".*"))
    encoder.save_pretrained(tmp_path / "model")
    after = outputs(TextEncoder.from_pretrained(tmp_path / "model")).dense
    assert torch.equal(after, outputs(encoder).dense)


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder)
    change(tensors)
    save_file(tensors, folder, {"format": "pt"})


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (
            "model.safetensors",
            lambda t: t.pop("encoder.layer.1.output.dense.bias"),
            r"1 tensors missing: encoder\.layer\.1\.output\.dense\.bias",
        ),
        (
            "model.safetensors",
            lambda t: t.update({"encoder.layer.7.output.dense.bias": torch.ones(32)}),
            r"without a place: encoder\.layer\.7",
        ),
        (
            "model.safetensors",
            lambda t: t.update({"encoder.layer.1.output.dense.bias": torch.ones(31)}),
            r"of another shape: encoder\.layer\.1\.output\.dense\.bias",
        ),
        ("heads.safetensors", lambda t: t.pop("multi.linear.weight"), "missing: multi.linear"),
        (
            "heads.safetensors",
            lambda t: t.update({"projections.0.linear.weight": torch.ones(2)}),
            "without a place: projections",
        ),
        (
            "heads.safetensors",
            lambda t: t.update({"multi.linear.weight": torch.ones(8, 31)}),
            "of another shape: multi.linear.weight",
        ),
    ],
)
def test_every_tensor_finds_its_place_or_is_named(
    file: str,
    change: Callable[[dict[str, torch.Tensor]], None],
    words: str,
    wordpiece: Fast,
    tmp_path: Path,
) -> None:
    settings = TextSettings(heads=("dense", "multi"), multi_dim=8)
    TextEncoder(model_of("Bert"), wordpiece, settings).save_pretrained(tmp_path / "model")
    edit(tmp_path / "model" / file, change)
    with pytest.raises(ModelLoadError, match=words):
        TextEncoder.from_pretrained(tmp_path / "model")


def test_absent_and_broken_folders_are_errors(wordpiece: Fast, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="is no folder, and no hub model"):
        TextEncoder.from_pretrained(tmp_path / "nothing")
    settings = TextSettings(heads=("dense", "multi"))
    TextEncoder(model_of("Bert"), wordpiece, settings).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "heads.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelLoadError, match=r"heads\.safetensors"):
        TextEncoder.from_pretrained(tmp_path / "model")
    (tmp_path / "model" / "heads.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"heads\.safetensors"):
        TextEncoder.from_pretrained(tmp_path / "model")
    (tmp_path / "model" / "text_encoder.json").write_text('{"poling": "mean"}')
    with pytest.raises(ConfigError, match="did you mean 'pooling'"):
        TextEncoder.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("dora", [False, True])
def test_lora_trains_saves_merged_and_merges(dora: bool, bytes_bpe: Fast, tmp_path: Path) -> None:
    encoder = TextEncoder(model_of("Qwen3"), bytes_bpe).eval()
    plain = outputs(encoder).dense
    names = set(encoder.full.state_dict())
    add_lora(encoder.full, rank=4, dora=dora)
    torch.testing.assert_close(outputs(encoder).dense, plain)
    trained = [name for name, p in encoder.full.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in encoder.full.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.05 if "lora_" in name else 0))
    tuned = outputs(encoder).dense
    assert not torch.allclose(tuned, plain, atol=1e-3)
    assert set(merged_state_dict(encoder.full)) == names
    encoder.save_pretrained(tmp_path / "model")
    torch.testing.assert_close(outputs(encoder).dense, tuned)  # saving changed nothing
    saved = TextEncoder.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(outputs(saved).dense, tuned, rtol=0, atol=1e-5)
    merge_lora(encoder.full)
    assert set(encoder.full.state_dict()) == names
    torch.testing.assert_close(outputs(encoder).dense, tuned, rtol=0, atol=1e-5)


def test_lora_over_bfloat16_is_float32_and_merged_in_float32(bytes_bpe: Fast) -> None:
    model = model_of("Qwen3").bfloat16()
    weight = model.layers[0].self_attn.q_proj.weight.clone()
    add_lora(model, rank=4, targets=["q_proj"])
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    layer = model.layers[0].self_attn.q_proj
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_(std=0.1)
    delta = (
        layer.lora_B["default"].weight @ layer.lora_A["default"].weight * layer.scaling["default"]
    )
    merge_lora(model)
    expected = (weight.float() + delta).bfloat16()
    assert torch.equal(model.layers[0].self_attn.q_proj.weight, expected)


def test_lora_mistakes_are_errors() -> None:
    model = model_of("Bert")
    with pytest.raises(ConfigError, match="no_such"):
        add_lora(model, targets=["no_such"])
    add_lora(model)
    with pytest.raises(ConfigError, match="adapters already"):
        add_lora(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.append({"idx": 2, "name": "2", "path": "2_LSTM", "type": "a.LSTM"}), "LSTM"),
        (lambda m: m.pop(1), "do not start with Transformer, Pooling"),
    ],
)
def test_unknown_modules_are_errors(
    change: Callable[[list[dict[str, Any]]], Any], words: str, wordpiece: Fast, tmp_path: Path
) -> None:
    st = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    folder = _st_folder(st, modules, wordpiece, tmp_path)
    listed = json.loads((folder / "modules.json").read_text())
    change(listed)
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ModelLoadError, match=words):
        TextEncoder.from_pretrained(folder)


def _st_folder(st: Any, modules: Any, tokenizer: Fast, tmp_path: Path, **pooling: Any) -> Path:
    plain, folder = tmp_path / "plain", tmp_path / "st"
    model_of("Bert").save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    transformer = modules.Transformer(str(plain))
    modes = pooling.get("pooling_mode", ("mean",))
    modes = (modes,) if isinstance(modes, str) else modes
    model = st.SentenceTransformer(
        modules=[
            transformer,
            modules.Pooling(32, **(pooling or {"pooling_mode": "mean"})),
            modules.Dense(32 * len(modes), 16),
            modules.Normalize(),
        ],
        prompts={"query": "query: ", "document": "passage: "},
        device="cpu",
    )
    model.save(str(folder))
    return folder


@pytest.mark.parity
@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode": "mean"},
        {"pooling_mode": ("cls", "max")},
        {"pooling_mode": "weightedmean", "include_prompt": False},
        {"pooling_mode": "lasttoken"},
    ],
    ids=str,
)
def test_sentence_transformers_folder(
    pooling: dict[str, Any], wordpiece: Fast, tmp_path: Path
) -> None:
    st = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    folder = _st_folder(st, modules, wordpiece, tmp_path, **pooling)
    theirs = st.SentenceTransformer(str(folder), device="cpu")
    ours = TextEncoder.from_pretrained(folder)
    assert ours.settings.normalize
    for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        vectors = torch.nn.functional.normalize(outputs(ours, role=role).dense, dim=1)
        expected = torch.from_numpy(encode(TEXTS))
        torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-6)


def test_documents_fall_back_on_the_passage_prompt_unless_theirs_is_empty(
    wordpiece: Fast, tmp_path: Path
) -> None:
    st = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    folder = _st_folder(st, modules, wordpiece, tmp_path)
    for prompts, template in (
        ({"passage": "p: "}, "p: {text}"),
        ({"passage": "p: ", "document": ""}, "{text}"),
    ):
        config = {"prompts": prompts}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
        assert TextEncoder.from_pretrained(folder).settings.prompt("document").template == template
    config = {"prompts": {"sts": "sts: "}, "default_prompt_name": "sts"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    assert TextEncoder.from_pretrained(folder).settings.prompt(None).template == "sts: {text}"


@pytest.mark.parity
def test_lower_casing_of_sentence_transformers_folders(wordpiece: Fast, tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    folder = _st_folder(st, modules, wordpiece, tmp_path)
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 7, "do_lower_case": True})
    )
    encoder = TextEncoder.from_pretrained(folder)
    assert encoder.max_tokens == 7
    theirs = st.SentenceTransformer(str(folder), device="cpu")
    texts = ["The QUICK Brown", "Fox " * 20]
    vectors = torch.nn.functional.normalize(outputs(encoder, texts).dense, dim=1)
    torch.testing.assert_close(vectors, torch.from_numpy(theirs.encode(texts)), rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_encoder_of_a_translation_model_stands_alone(tmp_path: Path) -> None:
    """M2M100 and NLLB: read from the whole model's folder, equal to it, and saved without it."""
    folder = tiny_model("m2m_100", tmp_path / "whole")
    encoder = TextEncoder.from_pretrained(folder).eval()
    rows = encoder.tokenize(["a river and its ships", "b"])
    vectors = encoder(encoder.collate(rows)).dense
    whole = AutoModel.from_pretrained(folder).eval()
    own = whole.get_encoder()(input_ids=torch.tensor([rows[0].input_ids])).last_hidden_state
    torch.testing.assert_close(vectors[:1], own.mean(dim=1), rtol=0, atol=1e-6)
    encoder.save_pretrained(tmp_path / "alone")
    again = TextEncoder.from_pretrained(tmp_path / "alone").eval()
    assert torch.equal(again(again.collate(rows)).dense, vectors)
    counts = [sum(p.numel() for p in m.parameters()) for m in (again.full, whole)]
    assert counts[0] < 0.7 * counts[1]
    both = TextSettings(pooling="first", decoder_first=True)
    assert hasattr(TextEncoder.from_pretrained(folder, both).full, "decoder")
