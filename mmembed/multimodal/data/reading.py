"""Sources of multimodal training, checked: read whole beforehand, or streamed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial

from mmembed.errors import InputError
from mmembed.gpte.config import BatchConfig
from mmembed.gpte.data.batches import ExampleBatch
from mmembed.gpte.data.examples import Report
from mmembed.gpte.data.sources import WHOLE, Share
from mmembed.gpte.data.streams import Chosen, Stream, StreamedBatches
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decode import decode_stream
from mmembed.multimodal.config import MediaDataConfig, MediaSourceConfig
from mmembed.multimodal.data.batches import MediaExamples
from mmembed.multimodal.data.rows import MediaExample, item_hash, media_examples

__all__ = ["digests_of", "read_sources", "streamed_media"]


def digests_of(data: MediaDataConfig, sources: Sequence[Sequence[MediaExample]]) -> dict[str, str]:
    """What each source's rows hold, media by path or by content."""
    found = {}
    for source, examples in zip(data.sources, sources, strict=True):
        digest = hashlib.blake2b(digest_size=12)
        for one in examples:
            hashes = [item_hash(item) for item in one.items]
            digest.update(repr((hashes, one.label, one.teacher)).encode())
        found[source.path] = digest.hexdigest()
    return found


def read_sources(
    data: MediaDataConfig,
    resolve: Callable[[MediaSourceConfig], MediaSourceConfig] = lambda source: source,
) -> list[list[MediaExample]]:
    """The examples of every source, checked before anything is trained.

    A report of what is left out goes to the log: broken rows, empty sides, rows that are held out
    for testing, equal rows, and, where asked for, media that cannot be read.

    Raises:
        InputError: a bad row where such rows stop the run, or a source without a usable row.
    """
    held_out = _held_out(data, resolve)
    found = []
    for source in map(resolve, data.sources):
        report = Report(source.name or source.path)
        kept: list[MediaExample] = []
        seen: set[tuple[int, int]] = set()
        for example in _allowed(source, report, data, held_out):
            pair = _hashes(example)
            if pair in seen:
                report.add("twice", example.place, "twice")
                continue
            seen.add(pair)
            kept.append(example)
        if data.check_media:
            kept = _readable(kept, report, data.bad_rows)
        report.kept = len(kept)
        report.log()
        if not kept:
            told = f" ({'; '.join(report.first)})" if report.first else ""
            raise InputError(source.path, f"has no usable row{told}", "is it the right file?")
        found.append(kept)
    return found


def streamed_media(
    data: MediaDataConfig,
    batch: BatchConfig,
    examples: MediaExamples,
    resolve: Callable[[MediaSourceConfig], MediaSourceConfig] = lambda source: source,
    *,
    seed: int = 0,
    share: Share = WHOLE,
) -> StreamedBatches[MediaExample]:
    """Streams of rows with media: every process reads its own share of every source.

    All processes draw the same source for a homogeneous batch, each from its own rows.

    Args:
        examples: makes batches of rows, and holds none.
        share: this process and how many there are.

    Raises:
        ConfigError: as :class:`mmembed.gpte.data.streams.StreamedBatches`, or a source lacks a
            column.
    """
    held_out = _held_out(data, resolve)

    def stream(source: MediaSourceConfig) -> Stream[MediaExample]:
        read = partial(_allowed, source, data=data, held_out=held_out, share=share)
        return Stream(source.name or source.path, read, source.weight)

    def make(chosen: Chosen[MediaExample], step: int) -> ExampleBatch:
        draws = [(seed, 2, step, share.number, i) for i in range(len(chosen))]
        return examples.batch_of(chosen, draws)

    return StreamedBatches(
        [stream(resolve(source)) for source in data.sources],
        replace(batch, size=share.count(batch.size)),
        make,
        buffer=data.buffer,
        seed=seed,
    )


def _held_out(
    data: MediaDataConfig, resolve: Callable[[MediaSourceConfig], MediaSourceConfig]
) -> set[int]:
    """Hashes of the items that must not be trained on."""
    return {
        one
        for source in data.held_out
        for example in media_examples(resolve(source), Report(source.path), "skip")
        for one in _hashes(example)
    }


def _allowed(
    source: MediaSourceConfig,
    report: Report,
    data: MediaDataConfig,
    held_out: Collection[int],
    share: Share = WHOLE,
) -> Iterator[MediaExample]:
    """The examples of a source that are not held out for testing; the report counts those."""
    for example in media_examples(source, report, data.bad_rows, share):
        if not any(one in held_out for one in _hashes(example)):
            yield example
            continue
        problem = "held out for testing"
        if data.bad_rows == "raise":
            raise InputError(
                str(example.place), f"is {problem}", "take it out, or set data.bad_rows: skip"
            )
        report.kept -= 1
        report.add(problem, example.place, problem)


def _hashes(example: MediaExample) -> tuple[int, int]:
    return item_hash(example.query), item_hash(example.positive)


def _readable(examples: list[MediaExample], report: Report, bad_rows: str) -> list[MediaExample]:
    """The examples whose media can all be decoded."""
    flat = [(number, item) for number, one in enumerate(examples) for item in one.items]
    broken: dict[int, InputError] = {}
    budget = MediaBudget(max_frames=2)
    for position, decoded in decode_stream((item for _, item in flat), budget):
        if isinstance(decoded, InputError):
            broken.setdefault(flat[position][0], decoded)
    for number, error in broken.items():
        place = examples[number].place
        if bad_rows == "raise":
            hint = "mend the row, or set data.bad_rows: skip"
            raise InputError(str(place), str(error), hint)
        report.add("unreadable media", place, str(error))
    return [one for number, one in enumerate(examples) if number not in broken]
