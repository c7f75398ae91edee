"""Tiny random models of real architectures, and recipes cut down to them, to run in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from mmembed.errors import ConfigError
from mmembed.gpte.config import (
    DataConfig,
    EncoderConfig,
    EvaluationConfig,
    SourceConfig,
)
from mmembed.gpte.recipe import CalibrateStage, MergeStage, MineStage, Recipe, Stage, TrainStage
from mmembed.gpte.task_config import TokenTaskConfig
from mmembed.gpte.text_loading import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

__all__ = ["WIDTH", "Shape", "narrow", "tiny_model", "tiny_recipe"]

WIDTH = 32
_POSITIONS = 256
_TOKENS = 192  # bytes: instructions of usual length leave room for some text
_SPECIALS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<|im_end|>",
    "<eos>",
)
_IDS = {
    "pad_token_id": "[PAD]",
    "bos_token_id": "<s>",
    "eos_token_id": "<|endoftext|>",
    "cls_token_id": "[CLS]",
    "sep_token_id": "[SEP]",
    "mask_token_id": "[MASK]",
}
_ROWS = 24
_STEPS = 3
# RoBERTa counts positions from the padding id on.
_PLACES = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 1}
_ENCODERS = ("[CLS] $A [SEP]", ("[CLS]", "[SEP]"))
_T5 = ("$A </s>", ("</s>",))


@dataclass(frozen=True)
class Shape:
    """How large a random model is; four heads, and MLPs twice as wide."""

    width: int = WIDTH
    layers: int = 2

    def options(self, family: str) -> dict[str, Any]:
        """Values of a transformers config by their usual names, and by the family's own."""
        width, layers = self.width, self.layers
        t5 = {
            "d_model": width,
            "d_kv": width // 4,
            "d_ff": 2 * width,
            "num_layers": layers,
            "num_heads": 4,
        }
        m2m = {"d_model": width}
        for side in ("encoder", "decoder"):
            m2m |= {f"{side}_layers": layers, f"{side}_attention_heads": 4}
            m2m[f"{side}_ffn_dim"] = 2 * width
        own: Mapping[str, dict[str, Any]] = {
            "bloom": {"n_layer": layers, "n_head": 4},
            "distilbert": {"dim": width, "n_layers": layers, "n_heads": 4, "hidden_dim": 2 * width},
            "electra": {"embedding_size": width},
            "gpt_neo": {
                "num_layers": layers,
                "attention_types": [[["global", "local"], layers // 2]],
            },
            "m2m_100": m2m,
            "mt5": t5,
            "opt": {"ffn_dim": 2 * width, "word_embed_proj_dim": width},
            "t5": t5,
        }
        usual = {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": width // 4,
            "intermediate_size": 2 * width,
            "max_position_embeddings": _POSITIONS,
        }
        return usual | own.get(family, {})


def tiny_model(
    family: str,
    folder: Path,
    *,
    reranker: bool = False,
    seed: int = 0,
    shape: Shape | None = None,
    words: Tokenizer | None = None,
) -> Path:
    """Write a tiny random model of an architecture, with a byte-level tokenizer.

    Args:
        family: its ``model_type`` in transformers, such as ``qwen3``.
        folder: made if it is not there; used as it is otherwise.
        reranker: a sequence classifier of one output in place of a language model.
        shape: another size.
        words: a tokenizer in the place of bytes; what the architecture puts around texts is added.

    Raises:
        ConfigError: transformers has no such architecture.
    """
    import transformers as hf

    if (folder / "config.json").exists():
        return folder
    try:
        known = hf.AutoConfig.for_model(family)
    except ValueError:
        raise ConfigError(f"transformers has no model_type {family!r}") from None
    tokenizer = _tokenizer(known, words or _byte_tokenizer())
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _IDS.items()}
    options = (shape or Shape()).options(family) | ids
    options |= {"pad_token_id": _PLACES.get(family, 0), "vocab_size": len(tokenizer)}
    if family in _PLACES:
        options["max_position_embeddings"] = _POSITIONS + _PLACES[family] + 1
    options = {key: value for key, value in options.items() if hasattr(known, key)}
    config = hf.AutoConfig.for_model(family, **options)
    if config.is_encoder_decoder:
        config.decoder_start_token_id = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if reranker:
            config.num_labels = 1
            model = hf.AutoModelForSequenceClassification.from_config(config)
        elif type(config) in hf.MODEL_FOR_MASKED_LM_MAPPING and not config.is_encoder_decoder:
            model = hf.AutoModelForMaskedLM.from_config(config)
        elif type(config) in hf.MODEL_FOR_CAUSAL_LM_MAPPING:
            model = hf.AutoModelForCausalLM.from_config(config)
        else:
            model = hf.AutoModel.from_config(config)
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with tiny models, a few rows and a few steps; everything else as it is.

    Args:
        folder: where the models are written.
    """
    return replace(recipe, stages=tuple(_stage(stage, folder) for stage in recipe.stages))


@runtime_checkable
class Shrinks(Protocol):
    """A kind of stage that knows its own tiny form."""

    def tiny(self, folder: Path) -> Stage: ...


def _stage(stage: Stage, folder: Path) -> Stage:
    if isinstance(stage, Shrinks):
        return stage.tiny(folder)
    if isinstance(stage, MergeStage):
        return replace(stage, models=tuple(_named(name, "bert", folder) for name in stage.models))
    data = _data(stage.data, folder)
    if isinstance(stage, CalibrateStage):
        dim = None if stage.dim is None else min(stage.dim, WIDTH // 2)
        evaluation = _evaluation(stage.evaluation)
        model = _named(stage.model, "bert", folder)
        return replace(stage, data=data, dim=dim, model=model, evaluation=evaluation, shrinkage=0.5)
    if isinstance(stage, MineStage):
        reranker = stage.reranker
        if reranker is not None:
            reranker = str(tiny_model("bert", folder / "reranker", reranker=True))
        # Random models know no margin.
        return replace(
            stage,
            data=data,
            negatives=min(stage.negatives, 2),
            model=_named(stage.model, "bert", folder),
            reranker=reranker,
            reranker_share=2.0,
            margin=None,
            relative=None,
            ranks=(0, 100),
        )
    return _train_stage(stage, data, folder)


def _train_stage(stage: TrainStage, data: DataConfig, folder: Path) -> TrainStage:
    batch = stage.batch
    batch = replace(
        batch,
        size=min(batch.size, 6),
        tokens=None if batch.tokens is None else 512,
        cluster_rows=None if batch.cluster_rows is None else 4,
        chunk_rows=None if batch.chunk_rows is None else 4,
        chunk_tokens=None if batch.chunk_tokens is None else 256,
        accumulate=min(batch.accumulate, 2),
    )
    momentum = stage.momentum
    if momentum is not None:
        momentum = replace(momentum, queue=min(momentum.queue, 16))
    return replace(
        stage,
        data=data,
        encoder=_encoder(stage.encoder, folder),
        objective=narrow(stage.objective),
        tasks=tuple(_task(task, folder) for task in stage.tasks),
        batch=batch,
        schedule=replace(stage.schedule, steps=_STEPS),
        momentum=momentum,
        evaluation=_evaluation(stage.evaluation),
        checkpoint=replace(stage.checkpoint, every=min(stage.checkpoint.every, _STEPS - 1)),
        start=_named(stage.start, stage.encoder.family, folder),
        precision="no",
        trackers=(),
    )


def _encoder(config: EncoderConfig, folder: Path) -> EncoderConfig:
    settings = dict(config.settings)
    if settings:
        settings["max_tokens"] = _TOKENS
    if "projections" in settings:
        settings["projections"] = [
            {**one, "out": WIDTH if one.get("train_only") else min(one["out"], WIDTH)}
            for one in settings["projections"]
        ]
    if settings.get("context"):
        settings["context"] = {**settings["context"], "documents": 4, "width": WIDTH}
    for name in ("latents", "latent_head_dim", "multi_dim"):
        if settings.get(name):
            settings[name] = min(settings[name], 16)
    lengthen = config.lengthen
    if lengthen is not None:
        lengthen = replace(lengthen, tokens=2 * _POSITIONS)
    lora = config.lora
    if lora is not None:
        lora = replace(lora, rank=4)
    backbone = str(tiny_model(config.family, folder / config.family))
    return replace(config, backbone=backbone, settings=settings, lengthen=lengthen, lora=lora)


def _data(data: DataConfig, folder: Path) -> DataConfig:
    guide = data.guide
    if guide is not None:
        guide = replace(guide, model=_named(guide.model, guide.family, folder))
    sources = tuple(_few(source) for source in data.sources)
    negatives = min(data.negatives, 2)
    return replace(data, sources=sources, negatives=negatives, guide=guide, workers=0)


def _few(source: SourceConfig) -> SourceConfig:
    limit = min(source.limit or _ROWS, _ROWS)
    return replace(source, limit=limit, objective=narrow(source.objective))


def _evaluation(config: EvaluationConfig | None) -> EvaluationConfig | None:
    if config is None:
        return None
    return replace(config, sets=tuple(replace(s, source=_few(s.source)) for s in config.sets))


def _task(task: TokenTaskConfig, folder: Path) -> TokenTaskConfig:
    if task.task != "rtd":
        return task
    generator = tiny_model(task.generator_family, folder / f"{task.generator_family}-generator")
    judge = tiny_model(task.discriminator_family, folder / f"{task.discriminator_family}-judge")
    return replace(task, generator=str(generator), discriminator=str(judge))


def _named(reference: str, family: str, folder: Path) -> str:
    """A tiny model in the place of a folder or a hub name; stages keep their names."""
    if reference in ("base", "previous"):
        return reference
    if reference.startswith("stage://"):
        name, at, step = reference.partition("@")
        return f"{name}@{_STEPS - 1}" if at and step.isdecimal() else reference
    return str(tiny_model(family, folder / family))


def narrow(config: Any, width: int = WIDTH) -> Any:
    """An objective's plain values, for a model of ``width`` and teachers as wide."""
    if isinstance(config, Mapping):
        found = {key: narrow(value, width) for key, value in config.items()}
        if found.get("teacher_width"):
            found["teacher_width"] = width
        if found.get("name") == "scd":
            found["projector"] = min(found.get("projector", 2 * width), 2 * width)
        if "dims" in found:
            widest = max(found["dims"])
            narrower = (max(1, d * width // widest) for d in found["dims"])
            found["dims"] = list(dict.fromkeys(narrower))
            if "weights" in found:
                found["weights"] = found["weights"][: len(found["dims"])]
        return found
    if isinstance(config, (list, tuple)):
        return [narrow(value, width) for value in config]
    return config


def _byte_tokenizer() -> Tokenizer:
    """Bytes as tokens: it reads any text, and no file is needed."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*_SPECIALS, *bytes_])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _tokenizer(config: PreTrainedConfig, words: Tokenizer) -> PreTrainedTokenizerFast:
    """The vocabulary with what the architecture puts around its texts."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(words.to_str())
    tokenizer.add_special_tokens(list(_SPECIALS))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    single: str
    pairs: tuple[str, ...]
    if config.is_encoder_decoder:
        single, pairs = _T5
        special |= {"eos_token": "</s>"}
    elif _reads_both_ways(config):
        single, pairs = _ENCODERS
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    else:
        single, pairs = "$A", ()
        special |= {"eos_token": "<|endoftext|>"}
    pair = f"{single} $B:1 {single.rpartition('$A')[2].strip()}:1".replace(" :1", "")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in pairs],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=_POSITIONS, **special
    )


def _reads_both_ways(config: PreTrainedConfig) -> bool:
    import transformers as hf

    return type(config) in hf.MODEL_FOR_MASKED_LM_MAPPING or type(config) not in (
        hf.MODEL_FOR_CAUSAL_LM_MAPPING
    )
