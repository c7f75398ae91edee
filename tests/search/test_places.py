"""An index on a server behaves like one in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from token_model import TokenModel

from mmembed.errors import ConfigError, IndexMismatchError
from mmembed.search.index import Index, LateInteraction

TEXTS = ["a red bicycle in the snow", "two dogs play in the snow", "a green car"]


def test_an_index_on_qdrant_answers_like_one_in_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    model, late = TokenModel(), LateInteraction(codec="float16")
    there = Index.open("qdrant://memory/things", model, late=late)
    here = Index.open(tmp_path / "index", model, late=late)
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{i}.txt").write_text(text)
    for index in (there, here):
        assert index.search("dogs") == []
        assert index.add(TEXTS, metadata=[{"year": i} for i in range(3)]).added == 3
        assert index.add(TEXTS).unchanged == 3
        assert index.add(tmp_path / "texts").added == 3
        assert index.add(tmp_path / "texts").unchanged == 3
        assert index.update({"year": 9}, filter="year == 1") == 1
    for how in ({"mode": "dense"}, {"maxsim": 100}, {"maxsim": 2, "k": 2}, {"mode": "text"}):
        found = [
            [(hit.text, hit.metadata) for hit in index.search("red bicycle", **{"k": 3, **how})]
            for index in (there, here)
        ]
        assert [text for text, _ in found[0]] == [text for text, _ in found[1]], how
    assert there.search("dogs", 1, filter="year >= 9")[0].text == TEXTS[1]
    np.testing.assert_allclose(
        there.search("dogs", 1, maxsim=10)[0].score, here.search("dogs", 1, maxsim=10)[0].score,
        rtol=1e-3,
    )  # fmt: skip
    assert there.delete(filter="year == 9") == 1
    assert len(there) == 5
    assert there.stats().model_name == "hash"
    assert len(list(there.sample(10))) == 5
    place = there._place
    with pytest.raises(IndexMismatchError, match="v2"):
        Index(place, TokenModel(fingerprint="v2")).search("x")


@pytest.mark.parametrize(
    "url",
    ["milvus://h/x", "qdrant://host", "qdrant:///x", "qdrant://host/a/b", "qdrant://h/x?y=1"],
)
def test_odd_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="qdrant://HOST"):
        Index.open(url, TokenModel())
