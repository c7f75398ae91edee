"""What cutting a file costs beside the parse: shares of processor time, by stage.

    python benchmarks/chunk_stages.py [--every 8] [--rounds 5]

The process is interrupted after every millisecond of processor time, and the stage that it was in
is counted; a call that does not return to Python (the parse) is counted when it does. A round that
is not counted comes first, because words that the counter meets for the first time cost more.
"""

from __future__ import annotations

import argparse
import signal
import sysconfig
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from machine import facts, write_result

from codeembed.chunk import Chunker
from codeembed.reading import reading_of
from codeembed.walk import read_source, walk

_STEP_S = 0.001
_STAGES = {
    ("parse.py", "parse"): "parse",
    ("definitions.py", "definitions_in"): "find definitions in the tree",
    ("outline.py", "code_outline"): "order definitions",
    ("cut.py", "tree_units"): "open what does not fit",
    ("cut.py", "pack"): "pack parts into chunks",
    ("counting.py", "WordPieceCounter.of_rows"): "count tokens",
    ("chunk.py", "Chunker._skeletons"): "skeletons",
    ("chunk.py", "Chunker.chunk"): "rows, spans, names and the rest",
}


def stage_of(frame: FrameType | None) -> str:
    """The innermost stage that a frame is inside of."""
    while frame is not None:
        code = frame.f_code
        name = _STAGES.get((Path(code.co_filename).name, code.co_qualname))
        if name is not None:
            return name
        frame = frame.f_back
    return "outside"


def shares(files: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Share of each stage; they sum to one."""
    reading = reading_of("mini")
    assert reading is not None
    chunker = Chunker(reading.count_tokens, reading.max_tokens)
    for data in files:
        chunker.chunk(data, "a.py")
    counts: Counter[str] = Counter()
    signal.signal(signal.SIGPROF, lambda _, frame: counts.update([stage_of(frame)]))
    signal.setitimer(signal.ITIMER_PROF, _STEP_S, _STEP_S)
    for _ in range(rounds):
        for data in files:
            chunker.chunk(data, "a.py")
    signal.setitimer(signal.ITIMER_PROF, 0)
    return {name: round(count / counts.total(), 3) for name, count in counts.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=8, help="take every n-th file")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    root = Path(sysconfig.get_path("stdlib"))
    paths = [file.path for file in walk(root).files if file.path.endswith(".py")]
    own = [path for path in paths if not path.startswith("site-packages/")][:: options.every]
    files = [data for path in own if isinstance(data := read_source(root, path), bytes)]
    result = {
        "machine": facts("tree-sitter", "numpy"),
        "corpus": f"every {options.every}th .py file of the Python standard library",
        "megabytes": round(sum(map(len, files)) / 1e6, 2),
        "rounds": options.rounds,
        "shares": shares(files, options.rounds),
    }
    write_result("chunk_stages", result)
    print(result["shares"])


if __name__ == "__main__":
    main()
