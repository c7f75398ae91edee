"""What a matching head reranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from codeembed.training.matching import reranked
from mmembed.gpte.matching import match_logits
from mmembed.gpte.text_encoder import TextEncoder
from mmembed.gpte.text_settings import TextSettings
from mmembed.gpte.tiny import tiny_model


def test_the_best_are_reranked_by_cosine_and_match(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = TextSettings(tokens=("[Match]",), match_token="[Match]")
    encoder = TextEncoder.from_pretrained(tiny_model("t5", tmp_path / "t5"), settings)
    cosines = np.array([[0.9, 0.1, 0.8, 0.3], [0.0, 0.7, 0.6, -0.9]])
    queries, documents = ["adds", "reads"], ["a + b", "open(f)", "c", "d"]
    found = reranked(cosines, queries, documents, encoder, depth=2)
    assert found[0, 1] < found[0, 3] < min(found[0, 0], found[0, 2])
    assert found[1, 3] < found[1, 0] < min(found[1, 1], found[1, 2])
    for row, column in ((0, 0), (0, 2), (1, 1), (1, 2)):
        (match,) = match_logits(encoder, [(queries[row], documents[column])])
        assert found[row, column] == pytest.approx(cosines[row, column] + match, abs=1e-5)
