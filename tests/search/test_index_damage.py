"""Files of an index that are cut, overwritten or gone: an error that says so, and no other harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hash_model import HashModel

from mmembed.errors import InputError, MmembedError
from mmembed.search.index import Index

WAYS: dict[str, Callable[[Path], object]] = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "overwritten": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("where", ["data/*", "_versions/*.manifest", "_indices/*/*"])
def test_damage_is_named(tmp_path: Path, where: str, way: str) -> None:
    folder = tmp_path / "index"
    with Index.open(folder, HashModel()) as index:
        index.add([f"text {i}" for i in range(30)])
    files = list((folder / "items.lance").glob(where))
    assert files
    for file in files:
        WAYS[way](file)
    if (where, way) == ("_versions/*.manifest", "gone"):  # nothing says that there was an index
        with pytest.raises(InputError, match="holds no index"):
            Index.open(folder, HashModel(), create=False)
        return
    with pytest.raises(MmembedError, match=r"index: its files cannot be read.*index again"):
        Index.open(folder, HashModel(), create=False).search("text 3", 3)
