"""A folder that sentence-transformers loads, with equal vectors."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmembed.errors import ConfigError
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.heads import Projection
from mmembed.gpte.lora import merged_state_dict
from mmembed.gpte.prompts import Prompt
from mmembed.gpte.st_format import ACTIVATIONS, POOLING_MODES
from mmembed.gpte.text_encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["export_sentence_transformers"]

_MODES = {ours: theirs for theirs, ours in POOLING_MODES.items()}
_CLASSES = {ours: theirs for theirs, ours in ACTIVATIONS.items()}


def export_sentence_transformers(encoder: TextEncoder, folder: str | Path) -> None:
    """Write the dense encoder as a sentence-transformers folder; adapters are merged in it.

    Args:
        encoder: an encoder whose settings have an equal there: dense vectors of one or more plain
            poolings, projections, and prompts that are prefixes. A prompt left out of pooling gives
            equal vectors if its tokens are the same with and without a text behind it; a trailing
            space under SentencePiece is not, and sentence-transformers then leaves one token of the
            text out as well.
        folder: appears only when it is complete.

    Raises:
        ConfigError: the encoder does something that sentence-transformers cannot; the message says
            what.
    """
    settings = encoder.settings
    _refuse(encoder)
    prompts = {name: _prefix(name, prompt) for name, prompt in settings.prompts.items()}
    if len({prompt.pooled for prompt in settings.prompts.values() if prompt.slots}) > 1:
        raise ConfigError("some prompts are pooled and some are not: there it is one setting")
    include_prompt = all(prompt.pooled == "all" for prompt in settings.prompts.values())
    with whole_folder(Path(folder)) as partial:
        encoder.full.save_pretrained(partial, state_dict=merged_state_dict(encoder.full))
        _with_end_token(encoder.tokenizer, encoder.tokenizing.end_id).save_pretrained(partial)
        modes = [_MODES[name] for name in settings.poolings]
        width = encoder.hidden_size
        pooling = {
            "embedding_dimension": width,
            "pooling_mode": modes[0] if len(modes) == 1 else modes,
            "include_prompt": include_prompt,
        }
        modules: list[tuple[str, str]] = [
            ("", "sentence_transformers.base.modules.transformer.Transformer"),
            ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
        ]
        _write(partial / "1_Pooling" / "config.json", pooling)
        for layer in encoder.projections:
            if not isinstance(layer, Projection):
                continue  # a layer for training only
            name = f"{len(modules)}_Dense"
            modules.append((name, "sentence_transformers.base.modules.dense.Dense"))
            _write_dense(partial / name, layer)
        if settings.normalize:
            name = f"{len(modules)}_Normalize"
            modules.append((name, "sentence_transformers.base.modules.normalize.Normalize"))
            _write(partial / name / "config.json", {})
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": kind}
            for i, (path, kind) in enumerate(modules)
        ]
        _write(partial / "modules.json", listed)
        limits = {"max_seq_length": encoder.max_tokens, "do_lower_case": False}
        _write(partial / "sentence_bert_config.json", limits)
        about: dict[str, Any] = {
            "model_type": "SentenceTransformer",
            "prompts": {
                "query": "",
                "document": "",
                **{name: prefix for name, prefix in prompts.items() if name != "default"},
            },
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        }
        if prompts.get("default"):
            about["prompts"]["default"] = prompts["default"]
            about["default_prompt_name"] = "default"
        _write(partial / "config_sentence_transformers.json", about)


def _refuse(encoder: TextEncoder) -> None:
    settings = encoder.settings
    unknown = [name for name in settings.poolings if name not in _MODES]
    reasons = {
        f"heads besides dense ({', '.join(settings.heads)})": settings.heads != ("dense",),
        f"pooling {', '.join(unknown)}": unknown,
        "a mixture of layers": settings.layers,
        "latent attention": settings.latents,
        "a decoder's first step": settings.decoder_first,
        "a soft prefix": settings.prefix_tokens,
        "symmetric ALiBi": settings.alibi,
        "a context": settings.context is not None,
        "experts": settings.experts,
        "a calibration": encoder.calibration is not None,
        "a language-model head": encoder.full is not encoder.base,
    }
    found = [reason for reason, applies in reasons.items() if applies]
    if found:
        raise ConfigError(f"sentence-transformers cannot hold {'; '.join(found)}")


def _prefix(name: str, prompt: Prompt) -> str:
    """The literal text that a prompt puts ahead."""
    hint = "only prefixes can be exported"
    if prompt.denoise:
        raise ConfigError(f"prompt {name!r} denoises: {hint}")
    if prompt.slots - {"text", "instruction"}:
        raise ConfigError(f"prompt {name!r} has learned or mask tokens: {hint}")
    if "instruction" in prompt.slots and not prompt.instruction:
        raise ConfigError(f"prompt {name!r} has no instruction of its own to write down")
    mark = "\0"
    rendered = prompt.render(mark)
    if not rendered.string.endswith(mark) or rendered.string.count(mark) != 1:
        raise ConfigError(f"prompt {name!r} does not end in its one text: {hint}")
    return rendered.string.removesuffix(mark)


def _with_end_token(
    tokenizer: PreTrainedTokenizerFast, end_id: int | None
) -> PreTrainedTokenizerFast:
    """A copy whose post-processor appends the end token, so that truncation leaves room for it."""
    from tokenizers import processors

    if end_id is None or tokenizer("")["input_ids"][-1:] == [end_id]:
        return tokenizer
    twin = copy.deepcopy(tokenizer)
    token = twin.convert_ids_to_tokens(end_id)
    steps = [] if (own := twin.backend_tokenizer.post_processor) is None else [own]
    append = processors.TemplateProcessing(
        single=f"$A:0 {token}:0",
        pair=f"$A:0 $B:1 {token}:1",
        special_tokens=[(token, end_id)],
    )
    twin.backend_tokenizer.post_processor = processors.Sequence([*steps, append])
    return twin


def _write_dense(folder: Path, layer: Projection) -> None:
    from safetensors.torch import save_file

    linear = layer.linear
    config = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": f"torch.nn.modules.activation.{_CLASSES[layer.activation]}",
    }
    if layer.activation == "identity":
        config["activation_function"] = "torch.nn.modules.linear.Identity"
    _write(folder / "config.json", config)
    tensors = {f"linear.{key}": value.contiguous() for key, value in linear.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
