"""Make data/code: pairs of the Python standard library, a module being a repository.

python data/code/tools/pairs.py
"""

from __future__ import annotations

import gzip
import json
import sysconfig
import tempfile
from pathlib import Path

from codeembed.pairs.duplicates import unique
from codeembed.pairs.mining import mine_folder, package_of
from codeembed.pairs.pair import Pair

HERE = Path(__file__).resolve().parents[1]
MOST = {"train": 1200, "dev": 200, "test": 200}
LEFT_OUT = {
    "site-packages",
    "test",
    "idlelib",
    "lib2to3",
    "lib-dynload",
    "turtledemo",
    "__pycache__",
}


def main() -> None:
    """Write one file a kind of pair and split."""
    library = Path(sysconfig.get_path("stdlib"))
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted(library.rglob("*.py")):
            path = file.relative_to(library)
            if not LEFT_OUT & set(path.parts) and "tests" not in path.parts:
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / path).write_bytes(file.read_bytes())
        found: dict[tuple[str, str], list[Pair]] = {}
        for pair in unique(mine_folder(Path(folder), repository=package_of)):
            if len(pair.positive) <= 1500 and (pair.kind != "clone" or pair.negatives):
                found.setdefault((pair.kind, pair.as_row()["split"]), []).append(pair)
    for (kind, split), pairs in found.items():
        step = max(1, len(pairs) // MOST[split])
        rows = [pair.as_row() for pair in pairs[::step][: MOST[split]]]
        name = HERE / f"{kind}-{split}.jsonl.gz"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        name.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
