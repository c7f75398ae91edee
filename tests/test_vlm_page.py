"""The page on vision-language models names everything there is."""

from __future__ import annotations

import re
from pathlib import Path

from mmembed.backbones.towers.families import tower_families
from mmembed.backbones.vlm.families import families
from mmembed.backbones.vlm.settings import VlmSettings
from mmembed.presets import preset_names


def test_the_page_names_every_family_and_preset(project_root: Path) -> None:
    text = (project_root / "docs" / "vlm.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_-]+)`", text))
    assert set(preset_names()) <= named
    for family in families():
        assert set(family.model_types) & named, family.__name__
    for towers in tower_families():
        assert set(towers.model_types) & named, towers.__name__
    block = re.search(r"with_settings\((.*?)\)", text)
    assert block
    assert set(re.findall(r"(\w+)=", block[1])) <= set(VlmSettings.__dataclass_fields__)
