"""Finding presets, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mmembed import Embedder
from mmembed.backbones.towers.families import tower_families
from mmembed.backbones.vlm.families import families
from mmembed.errors import ConfigError, ModelLoadError
from mmembed.presets import find_preset, preset_names, read_preset

MINIMAL = """
sources: [https://example.org]
license: MIT
checkpoints: [someone/model-*]
model_types: [qwen2_vl]
"""


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_where_it_comes_from(name: str) -> None:
    preset = read_preset(name)
    assert all(source.startswith("https://") for source in preset.sources)
    assert preset.license
    assert all(pattern.count("/") == 1 for pattern in preset.checkpoints)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_for_a_family_that_is_there(name: str) -> None:
    preset = read_preset(name)
    kinds = families() if preset.towers is None else tower_families()
    known = {kind for family in kinds for kind in family.model_types}
    own = {preset.layout.model_type} - {""}
    assert own & known or set(preset.model_types) <= known


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "gme"),
        ("alibaba-nlp/GME-qwen2-vl-7b-instruct", "gme"),
        ("/models/gme-Qwen2-VL-7B-Instruct", None),  # no such folder: a name of some other owner
        ("VLM2Vec/VLM2Vec-V2.0", "vlm2vec_v2"),
        ("TIGER-Lab/VLM2Vec-Qwen2VL-7B", "vlm2vec"),
        ("Qwen/Qwen3-VL-Embedding-8B", "qwen3_vl_embedding"),
        ("Qwen/Qwen2-VL-2B-Instruct", None),
    ],
)
def test_checkpoints_are_known_by_their_names(checkpoint: str, name: str | None) -> None:
    found = find_preset(checkpoint)
    assert (found and found.name) == name


def test_folders_are_known_by_their_own_names_and_by_the_cache_s(tmp_path: Path) -> None:
    folder = tmp_path / "gme-Qwen2-VL-2B-Instruct"
    cached = tmp_path / "models--Alibaba-NLP--gme-Qwen2-VL-2B-Instruct" / "snapshots" / "abc"
    for one in (folder, cached):
        one.mkdir(parents=True)
        found = find_preset(one)
        assert found is not None
        assert found.name == "gme"


def test_no_two_presets_claim_a_checkpoint() -> None:
    for name in preset_names():
        for pattern in read_preset(name).checkpoints:
            example = pattern.replace("*", "2B")
            claims = [one for one in preset_names() if read_preset(one).covers(example)]
            assert claims == [name]


def test_an_unknown_preset_is_an_error_naming_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'gmee': did you mean 'gme'\?"):
        find_preset("anything", "gmee")


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("licence: MIT", r"unknown key 'licence': did you mean 'license'\?"),
        ("vlm: {max_token: 3}", r"unknown key 'vlm.max_token': did you mean 'max_tokens'\?"),
        ("vlm: {wording: {templats: {}}}", r"unknown key 'vlm.wording.templats': did you mean"),
        ("embedder: {poolin: last}", r"unknown key 'embedder.poolin': did you mean 'pooling'\?"),
        ("layout: {renam: {}}", r"unknown key 'layout.renam': did you mean 'rename'\?"),
        ("layout: {rename: {'(': x}}", r"no regular expression: '\('"),
        ("vlm: {wording: {templates: {default: '{x}'}}}", r"no field 'x'"),
        ("vlm: [1]", r"'vlm' holds no mapping"),
    ],
)
def test_a_wrong_file_is_an_error_naming_the_key(
    addition: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(MINIMAL + addition)
    with pytest.raises(ConfigError, match=message):
        read_preset("mine", tmp_path)


def test_what_every_preset_must_say(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINIMAL.replace("license: MIT", ""))
    with pytest.raises(ConfigError, match="'license' is missing"):
        read_preset("mine", tmp_path)


def test_a_checkpoint_of_another_kind_is_an_error_naming_both(tmp_path: Path) -> None:
    folder = tmp_path / "gme-Qwen2-VL-2B-Instruct"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelLoadError, match=r"'bert', and preset 'gme' is for qwen2_vl"):
        Embedder.from_pretrained(folder)


def test_a_preset_like_another_says_what_differs(tmp_path: Path) -> None:
    base = MINIMAL + "vlm:\n  max_tokens: 7\n  wording:\n    between: '-'\n"
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "one.yaml").write_text("like: base\nlicense: CC0\nvlm: {max_frames: 3}\n")
    one, theirs = read_preset("one", tmp_path), read_preset("base", tmp_path)
    assert (one.name, one.license, one.checkpoints) == ("one", "CC0", theirs.checkpoints)
    assert one.vlm == replace(theirs.vlm, max_frames=3)
    (tmp_path / "one.yaml").write_text("like: nobody\n")
    with pytest.raises(ConfigError, match="no preset 'nobody'"):
        read_preset("one", tmp_path)
