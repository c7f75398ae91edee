"""What every two-tower family must hold, on tiny random models of the real classes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from mmembed import Embedder, Reranker
from mmembed.backbones.towers.families import tower_families
from mmembed.backbones.towers.loading import load_towers, tower_family_of
from mmembed.backbones.towers.model import TowerSettings
from mmembed.backbones.towers.tiny import TINY_TOWERS, tiny_towers
from mmembed.backbones.towers.transformers_towers import TransformersTowers
from mmembed.errors import ConfigError, InputError, ModelLoadError
from mmembed.gpte.trainer import goal_of
from mmembed.inputs.decoded import DecodedItem, Frames, Page
from mmembed.multimodal.config import MediaEncoderConfig
from mmembed.multimodal.encoder import start_media_encoder

SPOKEN = ["two dogs", "a red bicycle leans on a wall", "word " * 100]
TEXTS = [*SPOKEN, ""]
FAMILIES = sorted(set(TINY_TOWERS) - {"coca"})  # open_clip's: tests/full
MATCHING = ["blip", "blip2"]


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def clip_of(frames: int, seed: int = 0) -> Frames:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (frames, 40, 60, 3), dtype=np.uint8)
    indices = np.arange(frames)
    return Frames(pixels, indices, indices / 10.0, 10.0, frames)


PICTURES = [picture(60, 90, 1), picture(32, 32, 2), picture(90, 40, 3)]


@pytest.fixture(scope="session")
def tower_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            torch.manual_seed(0)
            made[name] = tiny_towers(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def folder(family: str, tower_folders: Callable[[str], Path]) -> Path:
    return tower_folders(family)


@pytest.fixture
def towers(folder: Path) -> TransformersTowers:
    return load_towers(folder)


def items() -> list[DecodedItem]:
    return [
        DecodedItem(("two dogs",), instruction="Find it:"),
        DecodedItem((PICTURES[0],)),
        DecodedItem((PICTURES[1], "a red bicycle")),
        DecodedItem(("before", PICTURES[2], "after", PICTURES[0])),
        DecodedItem((clip_of(3, 5),)),
        DecodedItem((clip_of(2, 6), "a dance")),
        DecodedItem((Page(PICTURES[1], "words of the page", 3),)),
        DecodedItem(("",)),
    ]


@torch.inference_mode()
def dense(towers: TransformersTowers, rows: Any) -> torch.Tensor:
    found = towers.embed(towers.collate(rows)).dense
    assert found is not None
    return F.normalize(found, dim=1)


def test_every_family_has_a_tiny_model() -> None:
    assert len(tower_families()) == len(FAMILIES)


def test_vectors_do_not_depend_on_neighbours_or_order(towers: TransformersTowers) -> None:
    rows = towers.prepare(items())
    alone = torch.cat([dense(towers, [row]) for row in rows])
    assert np.linalg.matrix_rank(alone.numpy(), tol=1e-3) >= 4
    for order in (range(len(rows)), reversed(range(len(rows))), [4, 0, 2], [2, 2, 1], [7, 0]):
        chosen = list(order)
        together = dense(towers, [rows[i] for i in chosen])
        torch.testing.assert_close(together, alone[chosen], rtol=0, atol=2e-6)


def _reference(folder: Path, family: str) -> tuple[Any, Any, Any]:
    import transformers

    kind = tower_family_of({"model_type": MODEL_TYPES[family]})
    assert kind is not None
    model = getattr(transformers, kind.architecture).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return model, tokenizer, transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")


MODEL_TYPES = {name: name for name in FAMILIES} | {"blip2": "blip-2"}


def _inputs(
    tokenizer: Any, processor: Any, family: str, texts: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    fixed = family.startswith("siglip")
    words = tokenizer(
        texts,
        padding="max_length" if fixed else True,
        truncation=True,
        max_length=LIMITS[family],
        return_tensors="pt",
    )
    kept = ("input_ids",) if fixed else ("input_ids", "attention_mask")
    return {name: words[name] for name in kept}, dict(processor(PICTURES, return_tensors="pt"))


LIMITS = dict.fromkeys(FAMILIES, 48) | {"blip": 35, "blip2": 32}


@pytest.mark.parity
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(MATCHING)))
def test_vectors_equal_the_models_own(family: str, folder: Path) -> None:
    model, tokenizer, processor = _reference(folder, family)
    words, seen = _inputs(tokenizer, processor, family, TEXTS)
    with torch.inference_mode():
        texts = F.normalize(model.get_text_features(**words).pooler_output, dim=1)
        images = F.normalize(model.get_image_features(**seen).pooler_output, dim=1)
    embedder = Embedder.from_pretrained(folder, device="cpu")
    np.testing.assert_allclose(embedder.encode(TEXTS), texts.numpy(), atol=1e-5)
    np.testing.assert_allclose(embedder.encode(PICTURES), images.numpy(), atol=1e-5)


@pytest.mark.parity
def test_blip_scores_equal_the_models_own(tower_folders: Callable[[str], Path]) -> None:
    folder = tower_folders("blip")
    model, tokenizer, processor = _reference(folder, "blip")
    words, seen = _inputs(tokenizer, processor, "blip", SPOKEN)
    with torch.inference_mode():
        expected = model(**words, **seen, use_itm_head=False).itm_score
        pairs = {name: value.repeat_interleave(len(SPOKEN), 0) for name, value in seen.items()}
        every = {name: value.repeat(len(PICTURES), 1) for name, value in words.items()}
        matches = model(**every, **pairs, use_itm_head=True).itm_score.softmax(1)[:, 1]
    embedder = Embedder.from_pretrained(folder, device="cpu")
    scores = embedder.similarity(embedder.encode(PICTURES), embedder.encode(SPOKEN))
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)
    reranker = Reranker.from_pretrained(folder, device="cpu")
    got = reranker.score_pairs((text, image) for image in PICTURES for text in SPOKEN)
    np.testing.assert_allclose(got, matches.numpy(), atol=1e-5)


@pytest.mark.parity
def test_blip2_scores_equal_the_models_own(tower_folders: Callable[[str], Path]) -> None:
    folder = tower_folders("blip2")
    model, tokenizer, processor = _reference(folder, "blip2")
    words, seen = _inputs(tokenizer, processor, "blip2", SPOKEN)
    with torch.inference_mode():
        expected = model(**words, **seen).logits_per_image
        pairs = {name: value.repeat_interleave(len(SPOKEN), 0) for name, value in seen.items()}
        every = {name: value.repeat(len(PICTURES), 1) for name, value in words.items()}
        given = {**every, **pairs, "use_image_text_matching_head": True}
        matches = model(**given).logits_per_image.softmax(1)[:, 1]
    embedder = Embedder.from_pretrained(folder, device="cpu")
    assert embedder.outputs == ("dense", "multi")
    texts, images = (embedder.encode(each, output="multi") for each in (SPOKEN, PICTURES))
    assert {len(text) for text in texts} == {1}
    assert {len(image) for image in images} == {4}
    scores = [[(image @ text[0]).max() for text in texts] for image in images]
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)
    reranker = Reranker.from_pretrained(folder, device="cpu")
    got = reranker.score_pairs((image, text) for image in PICTURES for text in SPOKEN)
    np.testing.assert_allclose(got, matches.numpy(), atol=1e-5)


def test_an_item_is_the_mean_of_its_parts(towers: TransformersTowers) -> None:
    words, image, clip = DecodedItem(("hello",)), DecodedItem((PICTURES[0],)), clip_of(3, 5)
    frames = [DecodedItem((Image.fromarray(frame),)) for frame in clip.pixels]
    parts = dense(towers, towers.prepare([words, image, DecodedItem((clip,)), *frames]))
    torch.testing.assert_close(parts[2], F.normalize(parts[3:].mean(0), dim=0), rtol=0, atol=1e-5)
    fused = dense(towers, towers.prepare([DecodedItem(("hello", PICTURES[0], clip))]))[0]
    expected = F.normalize(parts[:3].mean(0), dim=0)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-5)


def test_parts_as_they_are_for_score_fusion(tower_folders: Callable[[str], Path]) -> None:
    raw = load_towers(tower_folders("clip"), TowerSettings(unit_parts=False))
    batch = raw.collate(raw.prepare([DecodedItem(("hello", PICTURES[0]))]))
    with torch.inference_mode():
        both = raw.text_vectors(batch.ids, batch.mask) + raw.image_vectors(batch.media)[:, 0]
        found = raw.embed(batch).dense
    assert found is not None
    torch.testing.assert_close(found * 2, both)


def test_words_are_cut_at_the_end_and_counted_whole(towers: TransformersTowers) -> None:
    short, long = towers.prepare([DecodedItem(("word " * n,)) for n in (2, 100)])
    assert len(long.input_ids) == towers.max_tokens
    assert long.input_ids[-1] == short.input_ids[-1]
    whole = towers.tokenizer("word " * 100, truncation=False)["input_ids"]
    assert towers.count_tokens(["word " * 100]) == [len(whole)]
    assert len(whole) > 500


def test_page_text_is_read_where_asked(folder: Path) -> None:
    page = DecodedItem((Page(PICTURES[1], "words", 1),))
    spoken = DecodedItem((PICTURES[1], "words"))
    reading = load_towers(folder, TowerSettings(page_text=True))
    torch.testing.assert_close(
        dense(reading, reading.prepare([page])), dense(reading, reading.prepare([spoken]))
    )
    plain = load_towers(folder)
    assert not plain.prepare([page])[0].input_ids


def test_save_and_load_keep_vectors_and_every_tensor(folder: Path, tmp_path: Path) -> None:
    embedder = Embedder.from_pretrained(folder, device="cpu")
    embedder.save_pretrained(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved", device="cpu")
    inputs = [*TEXTS, *PICTURES]
    np.testing.assert_array_equal(embedder.encode(inputs), again.encode(inputs))
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "saved"))
    assert before.keys() == after.keys()  # the learned temperature and bias too


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_a_tensor_without_its_place_is_an_error(folder: Path, tmp_path: Path, change: str) -> None:
    load_towers(folder).save_pretrained(str(tmp_path))
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    if change == "unknown":
        tensors["vision_model.other.weight"] = torch.zeros(1)
        name = "vision_model.other.weight"
    elif change == "shape":
        tensors[name] = torch.zeros(*tensors[name].shape, 3)
    else:
        del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=re.escape(name)):
        load_towers(tmp_path)


def test_lora_targets_are_the_layers_of_the_towers(towers: TransformersTowers) -> None:
    linear = {
        name for name, module in towers.named_modules() if isinstance(module, torch.nn.Linear)
    }
    matched = {name for name in linear if re.fullmatch(towers.lora_targets, name)}
    left = {name for name in linear - matched if ".layers." in name or ".layer." in name}
    if type(towers).__name__ == "Blip2":
        left = {name for name in left if "vision_model" not in name}
    assert matched
    assert not left


def test_task_adapters_of_many_tasks_in_one_call(folder: Path) -> None:
    model = Embedder.from_pretrained(folder, device="cpu")
    torch.manual_seed(0)
    for name in ("one", "two"):
        model.adapters.add(name, rank=2, alpha=8.0)
        for parameter in model.adapters.parameters(name):
            with torch.no_grad():
                parameter.normal_(std=0.5)
    inputs = ["two dogs", PICTURES[0], "a cat", PICTURES[1], {"text": "x", "image": PICTURES[2]}]
    tasks = ["one", "two", "", "one", "two"]
    alone = [model.encode(x, task=task) for x, task in zip(inputs, tasks, strict=True)]
    mixed = model.encode(inputs, task=tasks)
    np.testing.assert_allclose(mixed, np.stack(alone), atol=2e-6)
    assert np.abs(mixed[0] - model.encode(inputs[0])).max() > 1e-3


def test_threads_give_the_serial_vectors(folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = Embedder.from_pretrained(folder, device="cpu")
    inputs = [*TEXTS, *PICTURES]
    expected = model.encode(inputs)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: model.encode(inputs), range(16)):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["align", "clip", "siglip", "siglip2"])
def test_a_learned_scale_starts_where_the_weights_left_it(
    name: str, tower_folders: Callable[[str], Path]
) -> None:
    encoder = start_media_encoder(
        MediaEncoderConfig(str(tower_folders(name)), family=name, train="all")
    )
    model: Any = encoder.full.model
    with torch.no_grad():
        if name == "align":
            model.temperature.fill_(0.05)
        else:
            model.logit_scale.fill_(math.log(20.0))
        if name.startswith("siglip"):
            model.logit_bias.fill_(-7.0)
    kind = "sigmoid" if name.startswith("siglip") else "infonce"
    config = {"name": kind, "learn_temperature": True, "own_scale": True}
    learned = {k: float(v.detach()) for k, v in goal_of(config, encoder).learned.items()}
    bias = {"bias": -7.0} if kind == "sigmoid" else {}
    assert learned == pytest.approx({"log_scale": math.log(20.0), **bias})


def test_weights_without_a_scale_cannot_give_one(tower_folders: Callable[[str], Path]) -> None:
    encoder = start_media_encoder(MediaEncoderConfig(str(tower_folders("clip")), train="all"))
    with pytest.raises(ConfigError, match="bring no bias"):
        goal_of({"name": "sigmoid", "own_scale": True}, encoder)
    with pytest.raises(ConfigError, match="learn_temperature"):
        goal_of({"name": "infonce", "own_scale": True}, encoder)


@pytest.mark.parametrize("name", MATCHING)
def test_a_matching_head_refuses_other_pairs(
    name: str, tower_folders: Callable[[str], Path]
) -> None:
    model = Reranker.from_pretrained(tower_folders(name), device="cpu")
    with pytest.raises(InputError, match="a text and 0 pictures") as caught:
        model.score("a dog", [PICTURES[0], "a cat"])
    assert caught.value.position == 1
    scores = model.score("a dog", [PICTURES[0], "a cat", PICTURES[1]], on_error="none")
    assert np.isnan(scores).tolist() == [False, True, False]


def test_towers_without_a_matching_head_are_no_reranker(
    tower_folders: Callable[[str], Path],
) -> None:
    with pytest.raises(ModelLoadError, match="no matching head"):
        Reranker.from_pretrained(tower_folders("clip"), device="cpu")


def test_no_tiny_towers_of_an_unknown_family(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'clap'"):
        tiny_towers("clap", tmp_path)
