"""Pairs of languages for mini's adapter, and what is held out of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mmembed import Embedder
from mmembed.evaluation.splits import held_out
from mmembed.multimodal.translations import emoji_pairs, sentence_pairs, write

TEXTS = Path(__file__).parents[2] / "data" / "text"


def test_sentences_are_of_known_scripts_and_splits() -> None:
    train, test = (list(sentence_pairs(TEXTS, split)) for split in ("train", "test"))
    assert {"deu", "fra", "tur"} <= {row["lang"] for row in train}
    assert not {"jpn", "ell", "rus", "ara"} & {row["lang"] for row in train}
    german = next(row for row in train if row["lang"] == "deu")
    assert german == {
        "query": "Where do you have to do that?",
        "positive": "Wo musst du das machen?",
        "lang": "deu",
    }
    assert not {row["query"] for row in train} & {row["query"] for row in test}


def test_names_of_held_out_emoji_are_not_trained_on(tmp_path: Path) -> None:
    rows = [
        {"image": f"images/{i}.webp", "kind": "base", "names": {"en": f"e{i}", "de": f"d{i}"}}
        for i in range(20)
    ]
    rows.append({"image": "images/x.webp", "kind": "skin:1F3FB", "names": {"en": "x", "de": "y"}})
    rows.append({"image": "images/s.webp", "kind": "base", "names": {"en": "same", "de": "same"}})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "emoji.jsonl").write_text(text, encoding="utf-8")
    base = [row for row in rows if row["kind"] == "base"]
    held = {row["names"]["en"] for row in held_out(base, lambda row: row["image"])}
    trained = {row["query"] for row in emoji_pairs(tmp_path, "train")}
    tested = {row["query"] for row in emoji_pairs(tmp_path, "test")}
    assert tested == held - {"same"}
    assert trained == {f"e{i}" for i in range(20)} - held
    write(TEXTS, tmp_path, tmp_path / "out" / "dev.jsonl", split="dev")
    written = (tmp_path / "out" / "dev.jsonl").read_text(encoding="utf-8")
    assert "d1" not in written
    assert written.count("\n") == len(list(sentence_pairs(TEXTS, "dev")))


def test_a_sample_is_always_the_same_one(tmp_path: Path) -> None:
    emoji = tmp_path / "emoji"
    emoji.mkdir()
    rows = [
        {"image": f"{i}.png", "kind": "base", "names": {"en": f"thing {i}", "de": f"Ding {i}"}}
        for i in range(30)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (emoji / "emoji.jsonl").write_text(text, encoding="utf-8")
    found = []
    for name in ("a", "b"):
        write(TEXTS, emoji, tmp_path / name, count=50)
        found.append((tmp_path / name).read_text(encoding="utf-8"))
    assert found[0] == found[1]
    assert len(found[0].splitlines()) == 50


def test_the_shipped_adapter_leads_other_languages_to_english() -> None:
    english = ["The weather is nice today.", "two dogs", "I would like to drink a coffee."]
    german = ["Das Wetter ist heute schön.", "zwei Hunde", "Ich möchte einen Kaffee trinken."]
    model = Embedder.from_pretrained("mini", device="cpu")
    there = model.encode(english)
    plain = model.encode(german)
    adapted = model.encode(german, task="text-matching")
    before, after = ((asked * there).sum(axis=1).mean() for asked in (plain, adapted))
    assert after > before + 0.1
    np.testing.assert_array_equal(model.encode(german), plain)
