"""LLaVA-OneVision as LLaVA's own code saves it, which transformers does not read (Li et al. 2024).

What such a folder lacks follows from its ``config.json`` and tensors: the shape of SigLIP, the
image processor, and tokens that stand for media. What is saved here afterwards is a folder of
transformers' LLaVA-OneVision.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mmembed.backbones.vlm.checkpoint import CheckpointLayout, tensor_shapes
from mmembed.backbones.vlm.llava_onevision import IMAGE, VIDEO, LlavaOneVision
from mmembed.backbones.weights import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["LlavaQwen"]

_TOWER = "model.vision_tower.vision_tower.vision_model."
_READ = {"mm_projector_type": "mlp2x_gelu", "mm_patch_merge_type": "spatial_unpad"}


class LlavaQwen(LlavaOneVision):
    """LLaVA-OneVision from a folder of ``LlavaQwenForCausalLM``, e.g. LLaVE's."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_qwen", "llava")
    layout: ClassVar = CheckpointLayout(
        rename={
            "^" + _TOWER.replace(".", r"\."): "vision_tower.",
            r"^model\.mm_projector\.0\.": "multi_modal_projector.linear_1.",
            r"^model\.mm_projector\.2\.": "multi_modal_projector.linear_2.",
            r"^model\.image_newline$": "image_newline",
            r"^model\.": "language_model.",
        },
        left_out=("lm_head.", f"{_TOWER}head."),
    )

    @classmethod
    def load_tokenizer(cls, folder: Path) -> PreTrainedTokenizerFast:
        """With tokens for media: LLaVA's code puts its states between words instead."""
        tokenizer = super().load_tokenizer(folder)
        tokenizer.add_tokens([IMAGE, VIDEO], special_tokens=True)
        return tokenizer

    @classmethod
    def load_processor(cls, folder: Path) -> Any:
        """SigLIP's scale, and the tiles of the model's configuration."""
        from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
            LlavaOnevisionImageProcessorPil,
        )

        side = _vision(folder)["image_size"]
        return LlavaOnevisionImageProcessorPil(
            image_grid_pinpoints=read_json(folder / "config.json")["image_grid_pinpoints"],
            size={"height": side, "width": side},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )

    @classmethod
    def described(
        cls, config: dict[str, Any], folder: Path, tokenizer: PreTrainedTokenizerFast
    ) -> dict[str, Any]:
        """The configuration of transformers' LLaVA-OneVision.

        Raises:
            ValueError: a part of the model is of a kind that LLaVA-OneVision has not, or the
                vocabulary has no room for the tokens of media.
        """
        from transformers import Qwen2Config

        for key, known in _READ.items():
            if config.get(key) != known:
                raise ValueError(
                    f"config.json: {key} is {config.get(key)!r}, and {known!r} is read"
                )
        aspect = str(config.get("image_aspect_ratio"))
        if not aspect.startswith("anyres_max_") or "siglip" not in config["mm_vision_tower"]:
            raise ValueError("config.json: only tiles of anyres_max_* before SigLIP are read")
        image, video = tokenizer.convert_tokens_to_ids([IMAGE, VIDEO])
        if max(image, video) >= config["vocab_size"]:
            raise ValueError(f"the vocabulary of {config['vocab_size']} has no room for {VIDEO}")
        known_of_text = {*Qwen2Config().to_dict(), "rope_theta", "rope_scaling"} - {"model_type"}
        text = {key: value for key, value in config.items() if key in known_of_text}
        return {
            "model_type": "llava_onevision",
            "text_config": {"model_type": "qwen2", **text},
            "vision_config": {"model_type": "siglip_vision_model", **_vision(folder)},
            "image_token_index": image,
            "video_token_index": video,
            "image_grid_pinpoints": config["image_grid_pinpoints"],
            "vision_aspect_ratio": aspect,
        }


def _vision(folder: Path) -> dict[str, Any]:
    """SigLIP's shape, which its tensors tell; its heads are 64 wide, those of so400m 72."""
    shapes = {
        key.removeprefix(_TOWER): shape
        for key, shape in tensor_shapes(folder).items()
        if key.startswith(_TOWER)
    }
    try:
        width, _, patch, _ = shapes["embeddings.patch_embedding.weight"]
        places, _ = shapes["embeddings.position_embedding.weight"]
        inner, _ = shapes["encoder.layers.0.mlp.fc1.weight"]
    except KeyError as error:
        raise ValueError(f"tensor {_TOWER}{error.args[0]} is missing") from None
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": sum(key.endswith("mlp.fc1.weight") for key in shapes),
        "num_attention_heads": max(1, width // (72 if width == 1152 else 64)),
        "patch_size": patch,
        "image_size": round(places**0.5) * patch,
        "vision_use_head": False,
    }
