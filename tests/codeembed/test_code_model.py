"""mini reads code through the adapter that comes with it; everything else is as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codeembed.model import TaskModel, for_code, load_model
from mmembed.embedder import Embedder

FUNCTION = "def parse_args(argv):\n    return parser.parse_args(argv)\n"


@pytest.fixture(scope="module")
def mini() -> Embedder:
    return Embedder.from_pretrained("mini")


def test_the_adapter_waits_until_it_is_asked_for(mini: Embedder) -> None:
    fresh = Embedder.from_pretrained("mini")
    assert fresh.adapted
    assert fresh._adapters is None
    plain = fresh.encode_document([FUNCTION])
    assert fresh._adapters is None
    assert "code" in fresh.adapters.names
    np.testing.assert_allclose(fresh.encode_document([FUNCTION]), plain, atol=1e-6)
    adapted = fresh.encode_document([FUNCTION], task="code")
    assert not np.allclose(adapted, plain, atol=1e-3)


def test_codes_model_is_mini_with_its_adapter(mini: Embedder) -> None:
    model = for_code(mini)
    assert isinstance(model, TaskModel)
    assert model.fingerprint.startswith(mini.fingerprint)
    assert model.fingerprint != mini.fingerprint
    assert model.fingerprint == load_model("mini").fingerprint
    assert (model.dim, model.max_tokens, model.name) == (384, mini.max_tokens, "mini")
    assert model.count_tokens([FUNCTION]) == list(mini.count_tokens([FUNCTION]))
    encoded = next(iter(model.encode_stream([FUNCTION], role="document")))
    assert encoded.vector is not None
    expected = mini.encode_document([FUNCTION], task="code")[0]
    np.testing.assert_allclose(encoded.vector, expected, atol=1e-5)


def test_a_saved_copy_keeps_it(mini: Embedder, tmp_path: Path) -> None:
    fresh = Embedder.from_pretrained("mini")
    fresh.save_pretrained(tmp_path)
    again = Embedder.from_pretrained(tmp_path)
    assert again.adapters.names == mini.adapters.names
    np.testing.assert_allclose(
        again.encode_document([FUNCTION], task="code"),
        mini.encode_document([FUNCTION], task="code"),
        atol=1e-5,
    )
