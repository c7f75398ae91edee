"""The text encoder over tiny random models of real architectures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerFast as Fast

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import TINY

from mmembed.errors import ConfigError, InputError, ModelLoadError
from mmembed.gpte.bidirectional import make_bidirectional, sees_ahead
from mmembed.gpte.prompts import PROMPTS, Prompt
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import ProjectionSettings, TextSettings

DECODER: dict[str, Any] = {**TINY, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
T5 = {
    "vocab_size": 400,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": {**TINY, "pad_token_id": 0},
    "Roberta": {**TINY, "pad_token_id": 0},
    "XLMRoberta": {**TINY, "pad_token_id": 0},
    "MPNet": {**TINY, "pad_token_id": 0},
    "ModernBert": {**TINY, "pad_token_id": 0, "local_attention": 4},
    "NomicBert": {**TINY, "pad_token_id": 0},
    "Gte": {**TINY, "pad_token_id": 0},
    "EuroBert": {**DECODER},
}
DECODERS: dict[str, dict[str, Any]] = {
    "Qwen2": DECODER,
    "Qwen3": DECODER,
    "Mistral": {**DECODER, "sliding_window": 3},
    "Llama": DECODER,
    "Gemma": DECODER,
    "Gemma2": {**DECODER, "sliding_window": 3},
    "Bloom": {"vocab_size": 400, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "GPTNeoX": TINY,
}
TEXTS = [
    "the quick brown fox",
    "no",
    "a sentence means what it says, no more, no less, and then it goes on for a while",
    "hello world",
    "hello world, hello fox",
]


def model_of(family: str, options: dict[str, Any], kind: str = "AutoModel") -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**options)
    return getattr(transformers, kind).from_config(config).eval()


def encoder_of(family: str, tokenizer: Fast, **settings: Any) -> TextEncoder:
    options = {**ENCODERS, **DECODERS}[family]
    return TextEncoder(model_of(family, options), tokenizer, TextSettings(**settings)).eval()


@torch.no_grad()
def dense(encoder: TextEncoder, texts: list[str], **options: Any) -> torch.Tensor:
    vectors = encoder(encoder.collate(encoder.tokenize(texts, **options))).dense
    assert vectors is not None
    return vectors


@torch.no_grad()
def assert_alone_equals_together(encoder: TextEncoder, **options: Any) -> torch.Tensor:
    together = dense(encoder, TEXTS, **options)
    alone = torch.cat([dense(encoder, [text], **options) for text in TEXTS])
    backwards = dense(encoder, TEXTS[::-1], **options).flip(0)
    for other in (together, backwards):
        torch.testing.assert_close(normalize(other), normalize(alone), rtol=0, atol=1e-6)
    return together


@pytest.mark.parametrize("family", ENCODERS)
def test_encoders(family: str, wordpiece: Fast) -> None:
    encoder = encoder_of(family, wordpiece)
    vectors = assert_alone_equals_together(encoder)
    # The plain forward of transformers on one row, pooled by hand.
    ids = torch.tensor([wordpiece(TEXTS[2])["input_ids"]])
    with torch.no_grad():
        own = model_of(family, ENCODERS[family])(input_ids=ids).last_hidden_state
    torch.testing.assert_close(vectors[2:3], own.mean(dim=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("family", DECODERS)
def test_decoders(family: str, bidirectional: bool, bytes_bpe: Fast) -> None:
    encoder = encoder_of(
        family,
        bytes_bpe,
        pooling="mean" if bidirectional else "last",
        bidirectional=bidirectional,
        end_token="<|endoftext|>",
    )
    vectors = assert_alone_equals_together(encoder)
    model = model_of(family, DECODERS[family])
    assert sees_ahead(model) is False
    if bidirectional:
        make_bidirectional(model)
    ids = torch.tensor([[*bytes_bpe(TEXTS[2])["input_ids"], bytes_bpe.eos_token_id]])
    with torch.no_grad():
        own = model(input_ids=ids).last_hidden_state
    expected = own.mean(dim=1) if bidirectional else own[:, -1]
    torch.testing.assert_close(vectors[2:3], expected, rtol=0, atol=1e-6)
    # The switch itself, through the encoder: does the first token see the last one?
    first, other = (encoder.tokenize([text])[0] for text in ("fox dog one", "fox dog two"))
    states = [encoder.read(encoder.collate([row])).hidden[0] for row in (first, other)]
    assert torch.allclose(states[0], states[1]) is not bidirectional


@pytest.mark.parametrize(
    ("family", "implementation"),
    [("Qwen3", "eager"), ("Qwen3", "sdpa"), ("Llama", "sdpa"), ("Gemma2", "eager")],
)
def test_bidirectional_under_every_attention(family: str, implementation: str) -> None:
    model = model_of(family, DECODERS[family])
    model.set_attn_implementation(implementation)
    make_bidirectional(model)
    assert sees_ahead(model)


def test_bidirectional_switch_that_does_nothing_is_an_error() -> None:
    model = model_of("GPT2", {"vocab_size": 99, "n_embd": 32, "n_layer": 1, "n_head": 2})
    forward = type(model).forward

    class Deaf(type(model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            self.config.is_causal = True
            return forward(self, *args, **kwargs)

    model.__class__ = Deaf
    with pytest.raises(ConfigError, match="Deaf stays causal"):
        make_bidirectional(model)


@pytest.mark.parametrize("family", ["T5", "MT5"])
def test_encoder_decoders_read_their_encoder(family: str, wordpiece: Fast) -> None:
    full = model_of(family, T5)
    encoder = TextEncoder(model_of(family, T5, "AutoModelForTextEncoding"), wordpiece).eval()
    encoder.full.load_state_dict(full.state_dict(), strict=False)
    vectors = assert_alone_equals_together(encoder)
    ids = torch.tensor([wordpiece(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        own = full.encoder(input_ids=ids).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(vectors[:1], own, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["T5", "MT5"])
def test_decoder_first(family: str, wordpiece: Fast) -> None:
    model = model_of(family, T5)
    settings = TextSettings(pooling="first", decoder_first=True)
    vectors = assert_alone_equals_together(TextEncoder(model, wordpiece, settings).eval())
    ids = torch.tensor([wordpiece(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        own = model(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).last_hidden_state[:, 0]
    # Not normalised, so rounding grows with the values; kernels round by where memory lies.
    torch.testing.assert_close(vectors[:1], own, rtol=2e-6, atol=2e-6)
    with pytest.raises(ConfigError, match="BertModel has no decoder"):
        encoder_of("Bert", wordpiece, decoder_first=True)


@pytest.mark.parametrize("family", ["Bert", "MPNet", "Qwen3", "Bloom"])
def test_layers_are_mixed(family: str, wordpiece: Fast) -> None:
    encoder = encoder_of(family, wordpiece, layers=(0, -1))
    vectors = assert_alone_equals_together(encoder)
    ids = torch.tensor([wordpiece(TEXTS[0])["input_ids"]])
    model = model_of(family, {**ENCODERS, **DECODERS}[family])
    with torch.no_grad():
        layers = model(input_ids=ids, output_hidden_states=True).hidden_states
    expected = ((layers[0] + layers[-1]) / 2).mean(dim=1)
    torch.testing.assert_close(vectors[:1], expected, rtol=0, atol=1e-6)


def test_all_heads_come_from_one_forward(wordpiece: Fast) -> None:
    encoder = encoder_of("Bert", wordpiece, heads=("dense", "multi", "lexical"), multi_dim=8)
    calls = []
    encoder.base.register_forward_hook(lambda *_: calls.append(1))
    batch = encoder.collate(encoder.tokenize(TEXTS))
    out = encoder(batch)
    assert len(calls) == 1
    assert out.dense.shape == (5, 32)
    assert out.multi.shape == (5, max(batch.lengths), 8)
    assert out.multi_mask.sum(1).tolist() == batch.lengths
    assert out.sparse.shape == (5, 400)
    assert not out.sparse[:, wordpiece.all_special_ids].any()
    assert len(out.states) == 5


@pytest.mark.parametrize(
    ("family", "options", "kind"),
    [
        ("Bert", {**TINY, "pad_token_id": 0}, "AutoModelForMaskedLM"),
        ("Roberta", {**TINY, "pad_token_id": 0}, "AutoModelForMaskedLM"),
        ("MPNet", {**TINY, "pad_token_id": 0}, "AutoModelForMaskedLM"),
        ("ModernBert", ENCODERS["ModernBert"], "AutoModelForMaskedLM"),
        ("EuroBert", ENCODERS["EuroBert"], "AutoModelForMaskedLM"),
        ("Qwen3", DECODER, "AutoModelForCausalLM"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_splade_reads_the_models_own_head(
    family: str, options: dict[str, Any], kind: str, wordpiece: Fast
) -> None:
    model = model_of(family, options, kind)
    ids = torch.tensor([wordpiece(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
    encoder = TextEncoder(model, wordpiece, TextSettings(heads=("splade",))).eval()
    out = encoder(encoder.collate(encoder.tokenize(TEXTS)))
    expected = torch.log1p(logits.relu()).amax(dim=0)
    torch.testing.assert_close(out.sparse[0], expected, rtol=1e-5, atol=1e-6)
    assert out.dense is None


def test_splade_needs_a_head(wordpiece: Fast) -> None:
    with pytest.raises(ConfigError, match="BertModel has no language-model head"):
        encoder_of("Bert", wordpiece, heads=("splade",))


def test_instruction_is_left_out_of_pooling(wordpiece: Fast) -> None:
    prompt = Prompt(PROMPTS["instruct"].template, pooled="text")
    heads = ("dense", "multi", "lexical")
    encoder = encoder_of("Bert", wordpiece, prompts={"query": prompt}, heads=heads)
    assert_alone_equals_together(encoder, role="query", instruction="find")
    batch = encoder.collate(encoder.tokenize(TEXTS[:1], role="query", instruction="find"))
    states = encoder.read(batch)
    inside = states.spans["instruction"]
    assert inside.any()
    expected = states.hidden[~inside].mean(dim=0, keepdim=True)
    out = encoder(batch)
    torch.testing.assert_close(out.dense, expected)
    assert out.multi_mask.sum() == (~inside).sum()
    assert states.token_ids is not None
    found = set(out.sparse[0].nonzero().squeeze(1).tolist())
    assert found <= set(states.token_ids[~inside].tolist())


def test_template_denoising_subtracts_the_bare_template(wordpiece: Fast) -> None:
    prompt = PROMPTS["promptbert"]
    encoder = encoder_of("Bert", wordpiece, prompts={"default": prompt})
    vectors = dense(encoder, TEXTS)
    # Not normalised: differences of two near vectors are small beside the vectors' own rounding.
    alone = torch.cat([dense(encoder, [text]) for text in TEXTS])
    torch.testing.assert_close(vectors, alone, rtol=0, atol=1e-6)
    (row,) = encoder.tokenize(TEXTS[:1])
    ((start, stop),) = row.spans["text"]
    ids = torch.tensor([row.input_ids])
    keep = torch.tensor([i for i in range(row.tokens) if not start <= i < stop])
    at = int((ids[0] == wordpiece.mask_token_id).nonzero())
    model = model_of("Bert", ENCODERS["Bert"])
    with torch.no_grad():
        whole = model(input_ids=ids).last_hidden_state[0, at]
        # PromptBERT's own form: the template alone, its tail at the positions it had.
        bare = model(input_ids=ids[:, keep], position_ids=keep[None]).last_hidden_state[0]
    expected = whole - bare[int((keep == at).nonzero())]
    torch.testing.assert_close(vectors[0], expected, rtol=0, atol=1e-6)


def test_bare_templates_of_equal_texts_are_read_once(wordpiece: Fast) -> None:
    encoder = encoder_of("Bert", wordpiece, prompts={"default": PROMPTS["promptbert"]})
    batch = encoder.collate(encoder.tokenize(["fox", "dog", "fox dog", "dog fox"]))
    assert batch.bare is not None
    assert len(batch.bare) < 4


def test_denoising_needs_positions(wordpiece: Fast) -> None:
    encoder = encoder_of("MPNet", wordpiece, prompts={"default": PROMPTS["promptbert"]})
    with pytest.raises(ConfigError, match="no template denoising"):
        dense(encoder, TEXTS)


def test_projections_and_concatenated_poolings(wordpiece: Fast) -> None:
    encoder = encoder_of(
        "Bert",
        wordpiece,
        pooling=("first", "mean"),
        projections=(ProjectionSettings(64, train_only=True), ProjectionSettings(16)),
    )
    assert assert_alone_equals_together(encoder).shape == (5, 16)
    assert encoder.dim == 16
    quiet = dense(encoder, TEXTS)
    encoder.projections.train()
    assert not torch.allclose(dense(encoder, TEXTS), quiet)
    with pytest.raises(ConfigError, match="must keep the width 32"):
        encoder_of("Bert", wordpiece, projections=(ProjectionSettings(16, train_only=True),))


def test_latent_attention(wordpiece: Fast) -> None:
    encoder = encoder_of("Qwen3", wordpiece, latents=8, latent_heads=2, bidirectional=True)
    assert_alone_equals_together(encoder)


def test_gradients_reach_the_model(wordpiece: Fast) -> None:
    encoder = encoder_of("Bert", wordpiece).train()
    out = encoder(encoder.collate(encoder.tokenize(TEXTS)))
    out.dense.square().sum().backward()
    without = [n for n, p in encoder.named_parameters() if p.grad is None]
    assert [name for name in without if "pooler" not in name] == []


@pytest.mark.parametrize("family", ["Bert", "Qwen3", "Bloom"])
def test_gradient_checkpointing_gives_the_same_gradients(family: str, wordpiece: Fast) -> None:
    grads = []
    for checkpointing in (False, True):
        encoder = encoder_of(family, wordpiece).train()
        if checkpointing:
            options = {"use_reentrant": False}
            encoder.full.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        torch.manual_seed(0)  # dropout is on
        out = encoder(encoder.collate(encoder.tokenize(TEXTS)))
        (out.dense * torch.linspace(-1, 1, 32)).sum().backward()
        grads.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-5, atol=1e-6)


def test_autocast(wordpiece: Fast) -> None:
    settings: dict[str, Any] = {"heads": ("dense", "multi", "lexical"), "latents": 4}
    encoder = encoder_of("Bert", wordpiece, pooling=("first", "mean"), **settings)
    batch = encoder.collate(encoder.tokenize(TEXTS))
    exact = encoder(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(batch)
    for name in ("dense", "multi", "sparse"):
        a, b = getattr(exact, name), getattr(rounded, name)
        torch.testing.assert_close(b.float(), a, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("family", ["Bert", "MPNet", "Qwen3"])
def test_bfloat16_models_give_float32_vectors(family: str, wordpiece: Fast) -> None:
    options = {**ENCODERS, **DECODERS}[family]
    model = model_of(family, options).bfloat16()
    settings = TextSettings(heads=("dense", "multi", "lexical"), latents=4, layers=(1, 2))
    encoder = TextEncoder(model, wordpiece, settings).eval()
    out = encoder(encoder.collate(encoder.tokenize(TEXTS)))
    assert out.dense.dtype == out.multi.dtype == out.sparse.dtype == torch.float32


def test_tokenizer_of_another_model_is_an_error(bytes_bpe: Fast) -> None:
    with pytest.raises(ModelLoadError, match=r"has \d+ tokens and the model embeds 50"):
        TextEncoder(model_of("Bert", {**TINY, "vocab_size": 50}), bytes_bpe)


def test_max_tokens(wordpiece: Fast, bytes_bpe: Fast) -> None:
    assert encoder_of("Roberta", wordpiece).max_tokens == 64  # 66 positions less two of padding
    assert encoder_of("Roberta", bytes_bpe).max_tokens == 65  # padding_idx 0 takes one
    with pytest.raises(ConfigError, match="max_tokens is 70, and the model has positions for 66"):
        encoder_of("Bert", wordpiece, max_tokens=70)


def test_roles(wordpiece: Fast) -> None:
    encoder = encoder_of("Bert", wordpiece, prompts={"query": Prompt.prefix("query: ")})
    plain = encoder.tokenize(["fox"])[0].tokens
    assert encoder.tokenize(["fox"], role="document")[0].tokens == plain
    assert encoder.tokenize(["fox"], role="query")[0].tokens > plain
    with pytest.raises(ConfigError, match="unknown role 'qeury'"):
        encoder.tokenize(["fox"], role="qeury")
    with pytest.raises(InputError, match="item 1"):
        encoder.tokenize(["fox", None])  # type: ignore[list-item]


def test_settings_round_trip() -> None:
    settings = TextSettings(
        pooling=("first", "last_k"),
        pooling_options={},
        prompts={"query": PROMPTS["instruct"], "default": PROMPTS["promptbert"]},
        projections=(ProjectionSettings(8, activation="tanh"),),
        layers=(0, -1),
        max_tokens=12,
    )
    assert TextSettings.from_json(settings.to_json()) == settings


def test_known_prompts_go_by_name() -> None:
    settings = TextSettings.from_dict({"prompts": {"default": "echo"}})
    assert settings.prompt(None) == PROMPTS["echo"]


def _with(**values: Any) -> Callable[[], TextSettings]:
    return lambda: TextSettings.from_dict(values)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_with(poling="mean"), "did you mean 'pooling'"),
        (_with(pooling="cls"), "unknown pooling 'cls'"),
        (_with(heads=[]), "choose from"),
        (_with(heads=["lexical", "splade"]), "pick one|sparse output"),
        (_with(prompts={"query": {"templat": "{text}"}}), "did you mean 'template'"),
        (_with(prompts={"query": "ecco"}), "unknown prompt 'ecco'"),
        (_with(projections=[{"out": 8, "activaton": "tanh"}]), "did you mean 'activation'"),
        (_with(max_tokens=0), "must be positive"),
        (_with(decoder_first=True, heads=["multi"]), "dense head"),
    ],
)
def test_wrong_settings_are_errors(make: Callable[[], TextSettings], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
