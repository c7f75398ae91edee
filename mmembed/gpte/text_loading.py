"""Loading and saving text encoders. Every tensor finds its place, or it is an error naming it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmembed.errors import ModelLoadError
from mmembed.gpte.calibration import load_calibration, save_calibration
from mmembed.gpte.experts import Experts, dense_state
from mmembed.gpte.folders import whole_folder
from mmembed.gpte.lora import merged_state_dict
from mmembed.gpte.seq2seq import writes
from mmembed.gpte.st_format import read_st_folder
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["hub_folder", "load_text_encoder", "quiet_transformers", "save_text_encoder"]

_log = logging.getLogger(__name__)
_SETTINGS = "text_encoder.json"
_HEADS = "heads.safetensors"
_CALIBRATION = "calibration.safetensors"


def load_text_encoder(
    name_or_path: str | Path,
    settings: TextSettings | None = None,
    *,
    lm_head: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    change: Callable[[PreTrainedModel], None] | None = None,
) -> TextEncoder:
    """A text encoder from a folder, or from the model hub where there is no such folder.

    Reads what :meth:`TextEncoder.save_pretrained` wrote, a sentence-transformers folder, or a plain
    transformers model.

    Args:
        name_or_path: the folder, or the model's name on the hub.
        settings: used in place of the folder's own. Where they describe other heads, all heads
            start untrained. Without any, a plain decoder is pooled at its last token and any other
            model by mean.
        lm_head: also load the language-model head, for MLM or NTP objectives; the splade head
            brings it by itself.
        dtype: type of the weights.
        change: called with the loaded model before the encoder is built around it, e.g. to
            give it more positions.

    Raises:
        ModelLoadError: a file or tensor is missing, or a tensor finds no place.
    """
    folder = hub_folder(name_or_path)
    own = folder / _SETTINGS
    if own.exists():
        saved = TextSettings.from_json(own.read_text(encoding="utf-8"))
        encoder = _load(folder, settings or saved, lm_head, dtype, device, change)
        if settings is None or settings.heads_key == saved.heads_key:
            _load_heads(encoder, folder / _HEADS)
            if (folder / _CALIBRATION).exists():
                encoder.calibrate(load_calibration(folder / _CALIBRATION))
        return encoder
    if (folder / "modules.json").exists():
        there = read_st_folder(folder)
        encoder = _load(there.model, settings or there.settings, lm_head, dtype, device, change)
        if there.lower_case:
            _lower_case(encoder.tokenizer)
        if settings is None:
            for i, file in enumerate(there.projections):
                tensors = {f"projections.{i}.{key}": value for key, value in _tensors(file).items()}
                _place(encoder, tensors, [f"projections.{i}."], file)
        return encoder
    return _load(folder, settings, lm_head, dtype, device, change)


def save_text_encoder(encoder: TextEncoder, folder: Path) -> None:
    """Write the whole encoder to a folder, which appears only when it is complete.

    Raises:
        OSError: the disk is full or not writable; an earlier folder of that name stays as it was.
    """
    from safetensors.torch import save_file

    with whole_folder(folder) as partial:
        with quiet_transformers():
            state = dense_state(encoder.full, merged_state_dict(encoder.full))
            encoder.full.save_pretrained(partial, state_dict=state)
        encoder.tokenizer.save_pretrained(partial)
        heads = _head_tensors(encoder)
        if heads:
            save_file({key: value.contiguous() for key, value in heads.items()}, partial / _HEADS)
        if encoder.calibration is not None:
            save_calibration(encoder.calibration, partial / _CALIBRATION)
        settings = replace(encoder.settings, max_tokens=encoder.max_tokens)
        (partial / _SETTINGS).write_text(settings.to_json(), encoding="utf-8")


def hub_folder(name_or_path: str | Path) -> Path:
    """The folder of this name, or of the hub's model of this name, fetched or from its cache.

    Raises:
        ModelLoadError: there is neither.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        # Weights come as safetensors only; the rest is what tokenizers and configs need.
        patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
        return Path(snapshot_download(str(name_or_path), allow_patterns=patterns))
    except Exception as error:  # the hub raises a family of its own, all meaning: not there
        raise ModelLoadError(f"{name_or_path!r} is no folder, and no hub model: {error}") from error


def _load(
    folder: Path,
    settings: TextSettings | None,
    lm_head: bool,
    dtype: torch.dtype,
    device: torch.device | str,
    change: Callable[[PreTrainedModel], None] | None,
) -> TextEncoder:
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{folder}: {error}") from error
    if settings is None:
        settings = TextSettings(pooling="last" if _is_decoder(config) else "mean")
    model_class = _class_for(config, settings, lm_head)
    model = _load_model(model_class, folder, dtype)
    if _reads_encoder(config, settings) and hasattr(model, "decoder") and not writes(model):
        model = model.get_encoder()
    if change is not None:
        change(model)
    return TextEncoder(model.to(device).eval(), tokenizer, settings).eval()


def _is_decoder(config: Any) -> bool:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    kind = type(config)
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING


def _class_for(config: Any, settings: TextSettings, lm_head: bool) -> type[PreTrainedModel]:
    """The smallest class of this architecture that gives what the settings ask for."""
    import transformers as hf

    if (lm_head or settings.match_token) and _reads_encoder(config, settings):
        mapping = hf.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    elif lm_head or "splade" in settings.heads:
        decoder = _is_decoder(config)
        mapping = hf.MODEL_FOR_CAUSAL_LM_MAPPING if decoder else hf.MODEL_FOR_MASKED_LM_MAPPING
    elif not settings.decoder_first and type(config) in hf.MODEL_FOR_TEXT_ENCODING_MAPPING:
        mapping = hf.MODEL_FOR_TEXT_ENCODING_MAPPING  # T5 without its decoder
    elif _reads_encoder(config, settings) and _encoder_class(config).__name__ in (
        config.architectures or ()
    ):
        return _encoder_class(config)  # saved alone
    else:
        mapping = hf.MODEL_MAPPING
    try:
        found: type[PreTrainedModel] = mapping[type(config)]
    except KeyError:
        raise ModelLoadError(
            f"transformers has no suitable {config.model_type} model for these settings"
        ) from None
    return found


def _reads_encoder(config: Any, settings: TextSettings) -> bool:
    """Whether the encoder of an encoder-decoder is all that is read."""
    return bool(config.is_encoder_decoder) and not settings.decoder_first


def _encoder_class(config: Any) -> type[PreTrainedModel]:
    """The encoder of an encoder-decoder that has no class of its own for it (M2M100, NLLB)."""
    import transformers as hf

    with torch.device("meta"):
        whole: Any = hf.AutoModel.from_config(config)
    found: type[PreTrainedModel] = type(whole.get_encoder())
    return found


def _load_model(
    model_class: type[PreTrainedModel], folder: Path, dtype: torch.dtype
) -> PreTrainedModel:
    options: dict[str, Any] = {}
    if "add_pooling_layer" in inspect.signature(model_class.__init__).parameters:
        options["add_pooling_layer"] = False  # unused here, and unused parameters break DDP
    try:
        # Tensors of another shape are refused below, by name.
        options |= {"use_safetensors": True, "ignore_mismatched_sizes": True}
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, **options
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelLoadError(f"{folder}: {error}") from error
    # Another task's head or an unused decoder may be left over; a piece of a part we have may not.
    ours = {name for part in (model, model.base_model) for name, _ in part.named_children()}
    prefix = f"{model.base_model_prefix}."
    problems = {
        "missing": list(report["missing_keys"]),
        "without a place": [
            key
            for key in report["unexpected_keys"]
            if key.removeprefix(prefix).partition(".")[0] in ours
        ],
        "of another shape": [key for key, *_ in report["mismatched_keys"]],
    }
    if any(problems.values()):
        raise ModelLoadError(f"{folder}: {_listing(problems)}")
    if report["unexpected_keys"]:
        _log.info("%s: parts not used: %s", folder, sorted(report["unexpected_keys"]))
    return model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from printing progress and its own report of what is judged here."""
    from transformers.utils import logging as hf_logging

    level, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bar:
            hf_logging.enable_progress_bar()


def _head_tensors(encoder: TextEncoder) -> dict[str, Tensor]:
    """All that the model of transformers does not hold: heads, and experts inside it."""
    heads = {
        key: value
        for key, value in encoder.state_dict().items()
        if not key.startswith(("full.", "calibration."))
    }
    experts = tuple(
        f"{name}." for name, part in encoder.full.named_modules() if isinstance(part, Experts)
    )
    if experts:
        merged = merged_state_dict(encoder.full).items()
        heads |= {f"full.{key}": value for key, value in merged if key.startswith(experts)}
    return heads


def _load_heads(encoder: TextEncoder, file: Path) -> None:
    wanted = _head_tensors(encoder)
    if wanted or file.exists():
        _place(encoder, _tensors(file), list(wanted), file)


def _place(
    encoder: TextEncoder, tensors: Mapping[str, Tensor], prefixes: Iterable[str], file: Path
) -> None:
    """Copy tensors into the encoder's heads; those under the prefixes must all be there."""
    wanted = {
        key: value
        for key, value in _head_tensors(encoder).items()
        if any(key.startswith(prefix) for prefix in prefixes)
    }
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "without a place": sorted(tensors.keys() - wanted.keys()),
        "of another shape": sorted(
            key for key in wanted.keys() & tensors.keys() if wanted[key].shape != tensors[key].shape
        ),
    }
    if any(problems.values()):
        raise ModelLoadError(f"{file}: {_listing(problems)}")
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(tensors[key])


def _tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"{file}: {error}") from error


def _listing(problems: Mapping[str, list[str]]) -> str:
    return "; ".join(
        f"{len(keys)} tensors {what}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for what, keys in problems.items()
        if keys
    )


def _lower_case(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import normalizers

    backend: Any = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase()]
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    backend.normalizer = normalizers.Sequence(steps)
