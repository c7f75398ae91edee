from __future__ import annotations

import dataclasses

import pytest
import yaml

from mmembed.errors import ConfigError
from mmembed.gpte.objectives import (
    MASKS,
    OBJECTIVES,
    WEIGHTS,
    CoSENT,
    GuideMask,
    Hardness,
    InfoNCE,
    Joint,
    KLDistillation,
    Matryoshka,
    Part,
    ThresholdMask,
    build_objective,
)


def test_nested_configuration() -> None:
    config = yaml.safe_load("""
        name: joint
        parts:
          - weight: 0.2
            objective:
              name: matryoshka
              dims: [768, 64]
              objective:
                name: infonce
                temperature: 2e-2
                directions: [q2d, q2q]
                masks: [{name: threshold, margin: 0.1}, guide]
                weights: {name: hardness, strength: 9}
                hardest: null
          - objective: kl
            label: teacher
    """)
    inner = InfoNCE(
        temperature=0.02,
        directions=("q2d", "q2q"),
        masks=(ThresholdMask(0.1), GuideMask()),
        weights=Hardness(9.0),
    )
    expected = Joint(
        (Part(Matryoshka(inner, (768, 64)), 0.2), Part(KLDistillation(), label="teacher"))
    )
    assert build_objective(config) == expected
    assert build_objective("cosent") == CoSENT()


def test_every_registered_class_is_a_frozen_dataclass_with_a_name() -> None:
    for name, cls in {**OBJECTIVES, **MASKS, **WEIGHTS}.items():
        assert dataclasses.is_dataclass(cls)
        assert cls.__dataclass_params__.frozen, name
    assert all(cls.name == name for name, cls in OBJECTIVES.items())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("infonse", "did you mean 'infonce'"),
        ({"name": "infonce", "temprature": 0.1}, "did you mean 'temperature'"),
        ({"temperature": 0.1}, "give a name"),
        ({"name": "infonce", "temperature": "hot"}, "temperature: give a float"),
        ({"name": "infonce", "temperature": True}, "temperature: give a float"),
        ({"name": "infonce", "hardest": 1.5}, "hardest: give a int"),
        ({"name": "infonce", "temperature": -1}, "positive"),
        ({"name": "infonce", "partition": "jont"}, "did you mean 'joint'"),
        ({"name": "infonce", "directions": "q2d"}, "give a list"),
        ({"name": "infonce", "directions": ["q2q"]}, "q2d"),
        ({"name": "infonce", "masks": [{"name": "threshold", "margn": 1}]}, r"masks\[0\].*margin"),
        ({"name": "infonce", "masks": ["hardness"]}, "no Mask"),
        ({"name": "infonce", "weights": "guide"}, "no Weights"),
        ({"name": "matryoshka", "dims": [4]}, "objective"),
        ({"name": "matryoshka", "objective": "threshold", "dims": [4]}, "no Objective"),
        ({"name": "m3", "loss_weights": [1.0]}, "3 values"),
        ({"name": "joint", "parts": ["infonce"]}, "give a mapping"),
        ("threshold", "unknown name"),
        (7, "give a name"),
    ],
)
def test_mistakes_are_named(config: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_objective(config)
