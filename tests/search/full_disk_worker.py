"""Run by a test on a small disk of its own: ``full_disk_worker.py FOLDER``; prints what it saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hash_model import HashModel

from mmembed.errors import MmembedError
from mmembed.search.index import Index


def fill(file: Path, left: int) -> None:
    """Take all room but ``left`` bytes."""
    with file.open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(1 << 16)):
                pass
        except OSError:
            stream.truncate(stream.tell() - left)


def main(folder: Path) -> None:
    few = [f"text number {i} of many" for i in range(50)]
    many = [f"text number {i} of many" for i in range(3000)]
    with Index.open(folder / "index", HashModel()) as index:
        index.add(few)
    fill(folder / "filling", left=100_000)
    seen: dict[str, object] = {}
    with Index.open(folder / "index", HashModel()) as index:
        try:
            index.add(many)
        except MmembedError as error:
            seen["error"] = [type(error).__name__, str(error)]
    with Index.open(folder / "index", HashModel()) as index:
        seen["items"] = len(index)
        seen["found"] = [index.search(few[7], 1, mode=mode)[0].text for mode in ("dense", "text")]
        (folder / "filling").unlink()
        report = index.add(many)
        seen["after"] = [report.added, report.unchanged, len(index)]
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
