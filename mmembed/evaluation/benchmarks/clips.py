"""Clips found by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmembed.evaluation.benchmarks.benchmark import Benchmark
from mmembed.evaluation.benchmarks.reading import rows_of
from mmembed.evaluation.benchmarks.tasks import Retrieval, Task
from mmembed.evaluation.splits import held_out

__all__ = ["BENCHMARKS"]


def _clips(folder: Path) -> dict[str, Task]:
    """Animations: a held-out tenth of the names as queries over all clips; exercises: all."""
    emoji = rows_of(folder / "emoji_animated/clips.jsonl")
    chosen = {row["clip"] for row in held_out(emoji, lambda row: row["clip"])}
    asked = [(row["clip"], row["names"]["en"]) for row in emoji if row["clip"] in chosen]
    exercises = rows_of(folder / "video_exercise_37/clips.jsonl")
    named = [(row["clip"], row["label"]) for row in exercises]
    return {
        "animations": _named(folder / "emoji_animated", [r["clip"] for r in emoji], asked),
        "exercises": _named(folder / "video_exercise_37", [r["clip"] for r in exercises], named),
    }


def _named(folder: Path, clips: list[str], asked: list[tuple[str, str]]) -> Retrieval:
    place = {clip: i for i, clip in enumerate(clips)}
    documents: list[Any] = [folder / clip for clip in clips]
    return Retrieval(
        [name for _, name in asked], documents, [{place[c]: 1.0} for c, _ in asked], "hit@1"
    )


BENCHMARKS = (
    Benchmark(
        "clips",
        "short animations and exercise clips by their names",
        "research only (animations: OFL/Apache art; exercises: unverified)",
        "animations: the tenth of names with the smallest hashes; exercises: all",
        "animated Noto emoji; https://github.com/mmuno/gymnai-exercise-images",
        ("emoji_animated", "video_exercise_37"),
        ("text", "video"),
        _clips,
    ),
)
