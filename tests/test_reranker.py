"""Rerankers over pairs of any modality, against the models' own forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmembed import Reranker
from mmembed.backbones.vlm.tiny import tiny_vlm
from mmembed.errors import InputError, ModelLoadError
from mmembed.gpte.tiny import tiny_model
from mmembed.rerankers.yes_no import YesNoReranker, YesNoSettings


def image(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# The tiny tokenizer knows bytes: an answer is one letter.
SETTINGS = YesNoSettings(yes="y", no="n")
DOCUMENTS = ["a text", image(1), {"text": "words", "image": image(2)}, "another, longer text"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny_vlm("qwen3_vl", tmp_path_factory.mktemp("qwen3_vl"))
    return folder


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Reranker:
    return Reranker(YesNoReranker.from_folder(checkpoint, SETTINGS))


@pytest.mark.parity
def test_scores_are_the_generative_model_s_log_odds(model: Reranker, checkpoint: Path) -> None:
    from transformers import AutoModelForImageTextToText

    whole = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    scorer = model.scorer
    assert isinstance(scorer, YesNoReranker)
    from mmembed.inputs.decode import decode_item

    query, *documents = [decode_item(item, scorer.media_budget) for item in ("a query", *DOCUMENTS)]
    expected = []
    for document in documents:
        row = scorer.prepare([(query, document)])[0]
        ids = torch.tensor([row.input_ids])
        kinds = (ids == whole.config.image_token_id).int()
        media = scorer.backbone.media_arguments(scorer.backbone.media_inputs([row]))
        with torch.inference_mode():
            logits = whole(input_ids=ids, mm_token_type_ids=kinds, **media).logits[0, -1]
        yes, no = (scorer.backbone.tokenizer.encode(word)[0] for word in ("y", "n"))
        expected.append(torch.sigmoid(logits[yes] - logits[no]).item())
    got = model.score("a query", DOCUMENTS)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_prompt_is_the_published_one(model: Reranker) -> None:
    from mmembed.inputs.decoded import DecodedItem

    row = model.scorer.prepare([(DecodedItem(("red bike",)), DecodedItem(("a page",)))])[0]
    text = model.scorer.backbone.tokenizer.decode(row.input_ids)  # type: ignore[attr-defined]
    assert text == (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: Given a search query, retrieve relevant candidates that "
        "answer the query.<Query>:red bike\n<Document>:a page<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_score_depends_on_its_own_pair_only(model: Reranker) -> None:
    together = model.score("a query", DOCUMENTS)
    alone = [model.score("a query", [document])[0] for document in DOCUMENTS]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    pairs = [(query, document) for query in ("a query", image(5)) for document in DOCUMENTS]
    mixed = model.score_pairs(pairs[::-1])[::-1]
    np.testing.assert_allclose(mixed[:4], together, atol=1e-6)


def test_an_instruction_is_read(model: Reranker) -> None:
    plain, told = (
        model.score("a query", DOCUMENTS, instruction=instruction)
        for instruction in (None, "Find its opposite")
    )
    assert np.abs(plain - told).max() > 1e-6
    own = model.score({"text": "a query", "instruction": "Find its opposite"}, DOCUMENTS)
    np.testing.assert_allclose(own, told, atol=1e-6)


def test_ranks_best_first(model: Reranker) -> None:
    scores = model.score("a query", DOCUMENTS)
    ranked = model.rank("a query", DOCUMENTS, 3)
    assert [hit.index for hit in ranked] == list(np.argsort(-scores)[:3])
    assert ranked[0].score == pytest.approx(scores.max())
    assert model.rank("a query", []) == []


def test_bad_documents_are_named_or_left_out(model: Reranker, tmp_path: Path) -> None:
    documents = ["a text", tmp_path / "missing.png", "b"]
    with pytest.raises(InputError, match=r"missing\.png") as caught:
        model.score("q", documents)
    assert caught.value.position == 1
    scores = model.score("q", documents, on_error="none")
    assert np.isnan(scores).tolist() == [False, True, False]
    assert [hit.index for hit in model.rank("q", documents, on_error="none")].count(1) == 0
    np.testing.assert_allclose(scores[[0, 2]], model.score("q", ["a text", "b"]), atol=1e-6)
    assert np.isnan(model.score("q", documents[1:2], on_error="none")).all()


def test_pairs_that_do_not_fit_are_named_or_left_out(checkpoint: Path) -> None:
    """Found while preparing, with their whole window at hand."""
    from mmembed.inputs.decoded import DecodedItem

    album = {"image": [image(seed) for seed in range(9)]}
    documents = ["a text", album, image(1), album]
    pairs = [("q", document) for document in documents]
    whole, tight = (YesNoReranker.from_folder(checkpoint, SETTINGS) for _ in range(2))
    one = (DecodedItem(("q",)), DecodedItem((documents[2],)))
    tight.backbone = tight.backbone.with_settings(max_tokens=whole.prepare([one])[0].tokens)
    model = Reranker(tight)
    with pytest.raises(InputError, match="tokens without its text") as caught:
        model.score_pairs(pairs)
    assert caught.value.position == 1
    scores = model.score_pairs(pairs, on_error="none")
    assert np.isnan(scores).tolist() == [False, True, False, True]
    expected = Reranker(whole).score("q", documents[::2])
    np.testing.assert_allclose(scores[[0, 2]], expected, atol=1e-6)


def test_long_documents_lose_their_end_and_never_the_question(model: Reranker) -> None:
    scorer = model.scorer
    assert isinstance(scorer, YesNoReranker)
    from mmembed.inputs.decoded import DecodedItem

    row = scorer.prepare([(DecodedItem(("question",)), DecodedItem(("word " * 3000,)))])[0]
    text = scorer.backbone.tokenizer.decode(row.input_ids)
    assert row.tokens == scorer.backbone.max_tokens
    assert "<Query>:question" in text
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_saved_reranker_scores_the_same(model: Reranker, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = Reranker.from_pretrained(tmp_path)
    np.testing.assert_allclose(again.score("q", DOCUMENTS), model.score("q", DOCUMENTS), atol=1e-6)


def test_an_answer_of_several_tokens_is_an_error(checkpoint: Path) -> None:
    with pytest.raises(ModelLoadError, match="'no' is 2 tokens"):
        Reranker.from_pretrained(checkpoint)


@pytest.mark.parity
def test_cross_encoders_score_as_in_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    folder = tiny_model("bert", tmp_path / "cross", reranker=True)
    texts = ["a text", "another text that is longer", "", "x"]
    peer = CrossEncoder(str(folder), max_length=128)
    expected = peer.predict([("a query", text) for text in texts])
    got = Reranker.from_pretrained(folder).score("a query", texts)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_cross_encoders_refuse_pictures_by_name(tmp_path: Path) -> None:
    folder = tiny_model("bert", tmp_path / "cross", reranker=True)
    model = Reranker.from_pretrained(folder)
    with pytest.raises(InputError, match="reads text only") as caught:
        model.score("a query", ["a text", image(1)])
    assert caught.value.position == 1
