"""What every vision-language family must hold, on tiny random models of the real classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlm import ALONE, REFERENCE, WIDTH
from torch import Tensor, nn

from mmembed.backbones.vlm.families import families
from mmembed.backbones.vlm.loading import load_vision_language
from mmembed.backbones.vlm.model import VisionLanguage
from mmembed.errors import InputError, ModelLoadError
from mmembed.gpte.rows import Row
from mmembed.gpte.states import TokenStates
from mmembed.inputs.decoded import DecodedItem


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def readable(backbone: VisionLanguage, items: Sequence[DecodedItem]) -> list[DecodedItem]:
    """The items of modalities that the family reads."""
    if "video" in backbone.modalities:
        return list(items)
    return [item for item in items if not any(hasattr(part, "fps") for part in item.parts)]


@torch.inference_mode()
def states(backbone: VisionLanguage, rows: Sequence[Row]) -> TokenStates:
    return backbone(backbone.collate(rows))


def assert_close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> None:
    assert a.shape == b.shape
    assert (a.float() - b.float()).abs().max() <= tolerance * b.float().abs().max()


def test_states_do_not_depend_on_neighbours_or_order(
    backbone: VisionLanguage, items: list[DecodedItem]
) -> None:
    rows = backbone.prepare(readable(backbone, items))
    alone = [states(backbone, [row]).hidden for row in rows]
    for order in (range(len(rows)), reversed(range(len(rows))), [1, 0, 2], [2, 2, 1]):
        chosen = list(order)
        together = states(backbone, [rows[i] for i in chosen]).rows()
        for got, i in zip(together, chosen, strict=True):
            assert_close(got, alone[i])


def test_media_change_the_states_of_what_follows(backbone: VisionLanguage) -> None:
    rows = backbone.prepare([DecodedItem((picture(48, 48, seed), "x")) for seed in (1, 2)])
    a, b = states(backbone, rows).rows()
    assert (a[-1] - b[-1]).abs().max() > 1e-3


@pytest.mark.parity
@pytest.mark.parametrize("side", ["left", "right"])
def test_states_equal_the_models_own_padded_forward(
    family: str,
    backbone: VisionLanguage,
    checkpoints: dict[str, Path],
    items: list[DecodedItem],
    side: str,
) -> None:
    from transformers import AutoModel

    rows = backbone.prepare(readable(backbone, items))
    model = AutoModel.from_pretrained(checkpoints[family], dtype=torch.float32).eval()
    longest = max(row.tokens for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(0, row.tokens) if side == "right" else slice(longest - row.tokens, longest)
        ids[i, where] = torch.tensor(row.input_ids)
        mask[i, where] = 1
    got = states(backbone, rows).rows()
    groups = [[i] for i in range(len(rows))] if family in ALONE else [list(range(len(rows)))]
    for group in groups:
        some = [rows[i] for i in group]
        more = REFERENCE[family](backbone, ids[group], some) if family in REFERENCE else {}
        media = {**backbone.media_inputs(some), **more}
        given = {name: value for name, value in media.items() if value is not None}
        with torch.inference_mode():
            output = model(input_ids=ids[group], attention_mask=mask[group], **given)
        expected = output.last_hidden_state[mask[group].bool()]
        assert_close(torch.cat([got[i] for i in group]), expected, 5e-5)


def test_spans_name_media_and_instruction(
    backbone: VisionLanguage, items: list[DecodedItem]
) -> None:
    words, image, *_ = rows = backbone.prepare(readable(backbone, items))
    assert "visual" not in words.spans
    visual = image.spans["visual"]
    ids = {image.input_ids[i] for a, b in visual for i in range(a, b)}
    assert ids <= set(backbone.placeholders.values())
    for (first, stop), (a, b) in zip(visual[:1], image.spans["media"][:1], strict=True):
        assert a <= first < stop <= b
    visual_tokens = sum(b - a for row in rows for a, b in row.spans.get("visual", ()))
    assert states(backbone, rows).spans["visual"].sum() == visual_tokens


def test_cuts_words_and_never_media(backbone: VisionLanguage) -> None:
    item = DecodedItem((picture(60, 90, 1), "word " * 2000))
    whole = backbone.prepare([DecodedItem((picture(60, 90, 1), ""))])[0]
    short = type(backbone)(
        backbone.model,
        backbone.tokenizer,
        backbone.processor,
        replace(backbone.settings, max_tokens=whole.tokens + 7),
    )
    row = short.prepare([item])[0]
    assert row.tokens == whole.tokens + 7
    assert row.spans["visual"] == whole.spans["visual"]
    assert row.input_ids[-1] == whole.input_ids[-1]


def test_media_that_do_not_fit_are_an_error_with_numbers(backbone: VisionLanguage) -> None:
    tight = type(backbone)(
        backbone.model,
        backbone.tokenizer,
        backbone.processor,
        replace(backbone.settings, max_tokens=2),
    )
    good, bad = DecodedItem(("",)), DecodedItem((picture(60, 90),), label="a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg.* \d+ tokens .* 2 fit") as caught:
        tight.prepare([bad, good])
    assert caught.value.position == 0


def test_words_that_look_like_a_placeholder_stay_words(backbone: VisionLanguage) -> None:
    text = " and ".join(backbone.placeholders)
    row = backbone.prepare([DecodedItem((picture(40, 40), text), instruction=text)])[0]
    found = [i for i, token in enumerate(row.input_ids) if token in backbone.placeholders.values()]
    assert found == [i for a, b in row.spans["visual"] for i in range(a, b)]
    assert torch.isfinite(states(backbone, [row]).hidden).all()


def test_a_saved_folder_stands_alone(
    backbone: VisionLanguage, items: list[DecodedItem], tmp_path: Path
) -> None:
    backbone.save_pretrained(str(tmp_path))
    again = load_vision_language(tmp_path)
    assert again.settings == backbone.settings
    chosen = readable(backbone, items)
    a = states(backbone, backbone.prepare(chosen)).hidden
    assert_close(states(again, again.prepare(chosen)).hidden, a, 1e-6)


def test_lora_targets_are_the_language_model_s_linear_layers(backbone: VisionLanguage) -> None:
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    matched = {name for name in linear if re.fullmatch(backbone.lora_targets, name)}
    inside = {id(module) for module in backbone.language_model.modules()}
    assert matched
    assert all(id(backbone.get_submodule(name)) in inside for name in matched)
    layers = {
        name for name in linear if id(backbone.get_submodule(name)) in inside and ".layers." in name
    }
    # Phi's vision tower is a part of its language model.
    layers = {name for name in layers if "embed_tokens_extend" not in name}
    assert matched == layers


def test_gradients_reach_words_and_pixels(backbone: VisionLanguage) -> None:
    rows = backbone.prepare([DecodedItem((picture(40, 40), "red")), DecodedItem(("blue",))])
    hidden = backbone(backbone.collate(rows)).hidden
    hidden.pow(2).sum().backward()
    assert all(
        parameter.grad is not None and torch.isfinite(parameter.grad).all()
        for name, parameter in backbone.language_model.layers.named_parameters()
    )
    backbone.zero_grad()


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_a_damaged_checkpoint_is_an_error_naming_the_tensor(
    checkpoints: dict[str, Path], tmp_path: Path, change: str
) -> None:
    from shutil import copytree

    from safetensors.torch import load_file, save_file

    folder = Path(copytree(checkpoints["qwen2_vl"], tmp_path / "copy"))
    state = load_file(folder / "model.safetensors")
    name = next(key for key in state if key.endswith("layers.1.mlp.up_proj.weight"))
    if change == "missing":
        del state[name]
    else:
        state[name] = state[name][:5].contiguous()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        load_vision_language(folder)


def test_every_family_has_a_tiny_model_of_its_own() -> None:
    from tiny_vlm import TINY

    for one in families():
        # Folders of another format than transformers' are in tests/presets.
        assert set(one.model_types) & set(TINY) or one.layout.rename, one.__name__
    assert WIDTH == 32
