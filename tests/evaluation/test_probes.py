"""Probes on models that have, and that lack, what each looks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_model import CountingModel
from PIL import Image

from mmembed.cli import app
from mmembed.commands.output import run
from mmembed.errors import ConfigError, InputError
from mmembed.evaluation.benchmarks.tasks import Retrieval
from mmembed.evaluation.probes import PROBES, probe
from mmembed.evaluation.probes.bias import group_pull
from mmembed.evaluation.probes.debias import Changed, project_out, whiten
from mmembed.evaluation.probes.finding import unit
from mmembed.evaluation.probes.instructions import ranking_change
from mmembed.evaluation.probes.inversion import DEFENCES, Settings, attack, word_f1
from mmembed.evaluation.probes.modality import modality_gap, modality_of, obedience
from mmembed.evaluation.probes.position import placed
from mmembed.evaluation.probes.robustness import blurred, jpeg, misread, mistyped, small
from mmembed.evaluation.probes.social import weat

RNG = np.random.default_rng(0)


def vectors(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def test_every_probe_names_its_paper() -> None:
    assert len(PROBES) >= 11
    for one in PROBES.values():
        assert any(char.isdigit() for char in one.reference), one.name
        assert one.about
        assert one.reading


def test_a_gap_is_seen_and_none_is_not() -> None:
    texts = vectors(80, 16)
    near = texts + 0.1 * vectors(80, 16)
    without = modality_gap(texts, near)
    assert without["separable"] == pytest.approx(0.5, abs=0.1)
    assert without["matched"] > 0.9
    offset = np.zeros(16, dtype=np.float32)
    offset[0] = 20.0
    far = modality_gap(texts, near + offset)
    assert far["separable"] > 0.95
    assert far["gap"] > 5 * without["gap"]
    assert far["uniformity_image"] > without["uniformity_image"]


class Telling:
    """Puts texts and pictures on two axes, and goes where an instruction sends it."""

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        return np.array(
            [
                [1.0, 0.1 * i, 0] if isinstance(x, str) else [0, 0.1 * i, 1.0]
                for i, x in enumerate(inputs)
            ]
        )

    def encode_query(self, inputs: Any, instruction: str | None = None, **options: Any) -> Any:
        to_picture = "picture" in (instruction or "")
        return np.array([[0, 0, 1.0] if to_picture else [1.0, 0, 0]] * len(inputs))


def test_obedience_is_told_from_a_habit() -> None:
    documents = ["a", {"image": "x.jpg"}, "b", Path("y.jpg")]
    task = Retrieval(["q"], documents, [{1: 1.0}])
    row = obedience({"T-I": task}, Telling())["T-I"]
    assert row == {"chance": 0.5, "plain": 0.0, "told": 1.0, "right": 0.0, "right_told": 1.0}
    assert [modality_of(one) for one in documents] == ["text", "image", "text", "image"]


def test_pull_of_a_group() -> None:
    groups = ["a"] * 50 + ["b"] * 50
    axes = np.zeros((100, 8), dtype=np.float32)
    axes[:50, 0] = axes[50:, 1] = 3.0
    together = group_pull(axes + vectors(100, 8) * 0.1, axes, groups, groups)
    assert together == {"a": pytest.approx(0.5), "b": pytest.approx(0.5)}
    apart = group_pull(vectors(100, 8), vectors(100, 8), groups, groups)
    assert max(abs(value) for value in apart.values()) < 0.15


def test_weat_by_its_definition() -> None:
    a, b = np.eye(4, dtype=np.float32)[[0, 0]], np.eye(4, dtype=np.float32)[[1, 1]]
    x = np.array([[1, 0, 0.1, 0], [1, 0, 0, 0.1], [1, 0, 0.2, 0]], dtype=np.float32)
    y = x[:, [1, 0, 2, 3]]
    effect, chance = weat(x, y, a, b)
    assert effect == pytest.approx(-weat(y, x, a, b)[0])
    assert effect > 1.5
    assert chance == pytest.approx(1 / 20, abs=0.02)  # one split of six words in twenty
    assert abs(weat(x, x, a, b)[0]) < 1e-6


def test_projection_takes_a_group_away_and_leaves_the_rest() -> None:
    content = vectors(200, 12)
    groups = ["a", "b"] * 100
    shifted = content.copy()
    shifted[::2, 0] += 6.0
    change = project_out(shifted, groups, 1)
    assert group_pull(shifted, shifted, groups, groups)["a"] > 0.4
    # Its own row is among the ten that are found, which is no pull of the group.
    assert group_pull(change(shifted), change(shifted), groups, groups)["a"] < 0.15
    assert np.allclose(np.linalg.norm(change(shifted), axis=1), 1.0, atol=1e-5)
    kept = (change(shifted) * unit(content)).sum(axis=1).mean()
    assert kept > 0.85
    with pytest.raises(ConfigError, match="2 groups differ in 1 direction"):
        project_out(shifted, groups, 2)


def test_whitening_evens_directions_out() -> None:
    narrow = vectors(500, 6) * np.array([10, 5, 1, 1, 1, 0.5], dtype=np.float32)
    made = whiten(narrow)(narrow)
    assert np.linalg.cond(np.cov(made.T)) < 0.2 * np.linalg.cond(np.cov(unit(narrow).T))


def test_a_changed_model_reads_a_text_once() -> None:
    model = CountingModel()
    plain: Any = Changed(model, lambda v: v)  # type: ignore[arg-type]
    plain.encode_document(["a b", "c", "a b"])
    turned = plain.with_change(lambda v: -v)
    assert np.allclose(turned.encode_document(["c"]), -plain.encode_document(["c"]))
    assert model.asked == 2


def test_instructions_that_change_nothing_are_seen() -> None:
    queries, documents = vectors(5, 8), vectors(40, 8)
    same = ranking_change({"a": queries, "b": queries}, documents)
    assert same["overlap"] == 1.0
    assert same["correlation"] == pytest.approx(1.0)
    other = ranking_change({"a": queries, "b": vectors(5, 8)}, documents)
    assert other["overlap"] < 0.6


def test_places_in_a_document() -> None:
    assert placed("x", ["a", "b", "c", "d"], 0.0).split("\n") == list("xabcd")
    assert placed("x", ["a", "b", "c", "d"], 0.5).split("\n") == list("abxcd")
    assert placed("x", ["a", "b", "c", "d"], 1.0).split("\n") == list("abcdx")


def test_noise_on_texts_and_pictures() -> None:
    text = "several ordinary words standing together without trouble " * 4
    assert mistyped(text, 0.0) == text
    assert mistyped(text, 1.0) == mistyped(text, 1.0) != text
    wrong = [a != b for a, b in zip(text.split(), mistyped(text, 0.5).split(), strict=True)]
    assert 0.2 < np.mean(wrong) < 0.8
    assert misread("wool", 1.0) == "vv00" + "1"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    assert small(picture, 60).size == (60, 45)
    for changed in (jpeg(picture, 5), blurred(picture, 3)):
        assert changed.size == picture.size
        assert np.asarray(changed).std() < np.asarray(picture).std()


def test_a_decoder_reads_words_out_of_vectors_and_noise_stops_it() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(20)]
    texts = [" ".join(rng.choice(words, 4, replace=False)) for _ in range(500)]
    model = CountingModel(64)
    found = model.encode_document(texts)
    sizes = Settings(words=30, longest=4, width=64, epochs=25, lr=5e-3)
    open_book = attack(found[:400], texts[:400], found[400:], texts[400:], sizes)
    assert open_book.f1 > open_book.chance + 0.35
    noise = DEFENCES["noise 1"](found)
    closed = attack(noise[:400], texts[:400], noise[400:], texts[400:], sizes)
    assert closed.f1 < open_book.f1 - 0.1
    assert open_book.texts[0][0] == texts[400]
    assert word_f1("a b c", "c b x") == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="differ in number"):
        attack(found[:3], texts[:2], found, texts)


def test_probes_run_over_the_data_of_the_project(project_root: Path) -> None:
    model: Any = CountingModel()
    for name in ("language-bias", "task-bias", "position-bias", "instructions"):
        found = probe(name, model, project_root / "data").as_dict()
        assert found["figures"]
        assert all(np.isfinite(value) for value in found["figures"].values()), name
    heard = probe("language-bias", model, project_root / "data").figures
    assert heard["english_pull"] > 0.2  # words in common are nothing but language
    with pytest.raises(ConfigError, match=r"no probe 'x'.*social-bias"):
        probe("x", model)
    with pytest.raises(ConfigError, match="--data"):
        probe("language-bias", model, project_root / "docs")


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def call(*arguments: object) -> int:
        return run(app, [str(one) for one in arguments])

    assert call("probe", "--list", "--json") == 0
    listed = [json.loads(line)["probe"] for line in capsys.readouterr().out.splitlines()]
    assert set(listed) == set(PROBES)
    assert call("probe", "social-bias", "--save", tmp_path, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["tables"]["by test"]) == 5
    assert json.loads((tmp_path / "probe-social-bias--mini.json").read_text())["kind"] == "probe"
    assert call("probe", "nope") == 2
