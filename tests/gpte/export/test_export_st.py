"""Exported folders give sentence-transformers the same vectors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast as Fast

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import model_of

from mmembed.errors import ConfigError
from mmembed.gpte.encoding import encode
from mmembed.gpte.export.sentence_transformers import export_sentence_transformers
from mmembed.gpte.lora import add_lora
from mmembed.gpte.prompts import PROMPTS, Prompt
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import ProjectionSettings, TextSettings

TEXTS = ["the quick brown fox", "no", "hello world " * 40]
PREFIX = {"query": Prompt.prefix("query: "), "document": Prompt.prefix("passage: ")}


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("Bert", "wordpiece", {}),
    "prompts": ("Bert", "wordpiece", {"prompts": PREFIX, "max_tokens": 12}),
    "default prompt": ("Bert", "wordpiece", {"prompts": {"default": PREFIX["query"]}}),
    "prompt left out of pooling": (
        "Bert",
        "wordpiece",
        {"prompts": {"query": Prompt.prefix("query: ", pooled="text")}},
    ),
    "projections, two poolings, not normalised": (
        "Roberta",
        "wordpiece",
        {
            "pooling": ("first", "max"),
            "normalize": False,
            "projections": (
                ProjectionSettings(64, train_only=True),
                ProjectionSettings(16, activation="tanh"),
                ProjectionSettings(8, bias=False),
            ),
        },
    ),
    "decoder, last token, end token": (
        "Qwen3",
        "bytes_bpe",
        {
            "pooling": "last",
            "end_token": "<|endoftext|>",
            "max_tokens": 20,
            "prompts": {"query": Prompt(PROMPTS["instruct"].template, instruction="find")},
        },
    ),
    "bidirectional decoder": (
        "Qwen3",
        "bytes_bpe",
        {"bidirectional": True, "pooling": "mean", "max_tokens": 30},
    ),
    "position weights": ("GPTNeoX", "bytes_bpe", {"pooling": "position_weighted"}),
    "encoder of T5": ("T5", "wordpiece", {"max_tokens": 20}),
}


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
def test_equal_vectors(case: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    family, kind, settings = CASES[case]
    tokenizer: Fast = request.getfixturevalue(kind)
    model = model_of(family, "AutoModelForTextEncoding" if family == "T5" else "AutoModel")
    encoder = TextEncoder(model, tokenizer, TextSettings(**settings)).eval()
    export_sentence_transformers(encoder, tmp_path / "st")
    theirs = st.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    for role, their_encode in (
        (None, theirs.encode),
        ("query", theirs.encode_query),
        ("document", theirs.encode_document),
    ):
        ours = encode(encoder, TEXTS, role=role)
        expected = torch.from_numpy(their_encode(TEXTS))
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    # And the folder comes back to us the same.
    again = TextEncoder.from_pretrained(tmp_path / "st")
    if not settings.get("bidirectional"):
        assert again.max_tokens == encoder.max_tokens
    torch.testing.assert_close(encode(again, TEXTS), encode(encoder, TEXTS), rtol=0, atol=1e-6)


@pytest.mark.parity
def test_adapters_are_merged(bytes_bpe: Fast, tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    encoder = TextEncoder(model_of("Qwen3"), bytes_bpe, TextSettings(pooling="last")).eval()
    plain = encode(encoder, TEXTS)
    add_lora(encoder.full, rank=2)
    with torch.no_grad():
        for name, parameter in encoder.full.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    tuned = encode(encoder, TEXTS)
    assert not torch.allclose(tuned, plain, atol=1e-3)
    export_sentence_transformers(encoder, tmp_path / "st")
    theirs = st.SentenceTransformer(str(tmp_path / "st"), device="cpu").encode(TEXTS)
    torch.testing.assert_close(tuned, torch.from_numpy(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"heads": ("dense", "multi")}, "heads besides dense"),
        ({"pooling": "last_k"}, "pooling last_k"),
        ({"layers": (0, -1)}, "a mixture of layers"),
        ({"latents": 4}, "latent attention"),
        ({"prefix_tokens": 2}, "a soft prefix"),
        ({"alibi": True}, "symmetric ALiBi"),
        ({"prompts": {"query": PROMPTS["promptbert"]}}, "denoises"),
        ({"prompts": {"query": PROMPTS["prompteol"]}}, "does not end in its one text"),
        ({"prompts": {"query": PROMPTS["echo"]}}, "does not end in its one text"),
        ({"prompts": {"query": PROMPTS["instruct"]}}, "no instruction of its own"),
        (
            {"prompts": {"query": PREFIX["query"], "document": Prompt.prefix("d: ", "text")}},
            "some prompts are pooled",
        ),
    ],
)
def test_what_has_no_equal_is_refused(
    settings: dict[str, Any], words: str, wordpiece: Fast, tmp_path: Path
) -> None:
    encoder = TextEncoder(model_of("Bert"), wordpiece, TextSettings(**settings))
    with pytest.raises(ConfigError, match=words):
        export_sentence_transformers(encoder, tmp_path / "st")
    assert not list(tmp_path.iterdir())
