"""Make the sample clips: shots of an open film, animated emoji, and exercises in two photos.

    python data/samples/tools/clips.py TRAILER.mp4 EMOJI_FOLDER ../shared/data

``TRAILER.mp4`` is ``trailer_bbb.mp4`` of the moviepy 2.2.1 source archive on PyPI;
``EMOJI_FOLDER`` holds the WebP files of ``@lobehub/fluent-emoji-anim-1`` 1.0.0 from npm.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from photos import SAMPLES, digest
from PIL import Image, ImageSequence

Frame = np.ndarray[Any, np.dtype[np.uint8]]

# start and end in seconds of one shot each, between the trailer's cuts and titles
SHOTS = [
    (1.2, 3.6, "clouds over a green meadow with trees"),
    (11.0, 13.2, "a purple bird sings on a branch"),
    (21.6, 24.6, "a big rabbit wakes up in a dark burrow"),
    (24.9, 31.6, "a fat rabbit stretches in front of its burrow"),
    (32.7, 35.8, "three rodents look and grin beside a tree trunk"),
    (36.1, 38.2, "a rabbit walks across a meadow in the distance"),
    (38.3, 41.0, "a rabbit leans against a big tree"),
    (41.3, 43.6, "three small animals under a big tree in the grass"),
    (43.8, 46.4, "a rabbit looks surprised under a tree"),
]
EMOJI = {
    "1f308": "rainbow",
    "1f382": "birthday cake with candles",
    "1f407": "rabbit",
    "1f408": "cat",
    "1f40c": "snail",
    "1f40e": "horse",
    "1f415": "dog",
    "1f418": "elephant",
    "1f420": "tropical fish",
    "1f422": "turtle",
    "1f427": "penguin",
    "1f433": "whale",
}
EXERCISES = 6


def encode(path: Path, frames: Iterable[Frame], fps: int, crf: int = 24) -> None:
    """Write ``(h, w, 3)`` uint8 frames as H.264; the size must be even."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())


def shot(
    trailer: Path, start: float, end: float, width: int = 1280, height: int = 720
) -> Iterator[Frame]:
    with av.open(str(trailer)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and start <= frame.time < end:
                yield frame.reformat(width=width, height=height, format="rgb24").to_ndarray()


def emoji(path: Path) -> Iterator[Frame]:
    with Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            canvas = Image.new("RGB", frame.size, "white")
            rgba = frame.convert("RGBA")
            canvas.paste(rgba, mask=rgba)
            yield np.asarray(canvas)


def two_photos(first: Path, second: Path, fps: int = 12) -> Iterator[Frame]:
    """From the start photo to the end photo and back, twice, with short cross-fades."""
    with Image.open(first) as a, Image.open(second) as b:
        size = (a.width // 2 * 2, a.height // 2 * 2)
        start, stop = (np.asarray(x.convert("RGB").resize(size), dtype=np.float32) for x in (a, b))
    fade = np.linspace(0, 1, fps // 3)
    cycle = np.concatenate([np.zeros(fps // 2), fade, np.ones(fps // 2), fade[::-1]])
    for t in np.tile(cycle, 2):
        yield np.rint(start * (1 - t) + stop * t).astype(np.uint8)


def held_out_exercises(data: Path) -> Iterator[tuple[Path, Path, str]]:
    folder = data / "free_exercise_db"
    rows = [json.loads(line) for line in (folder / "exercises.jsonl").open(encoding="utf-8")]
    rows = [row for row in rows if len(row["images"]) == 2]
    rows.sort(key=lambda row: digest(Path(row["images"][0]).name))
    for row in rows[:EXERCISES]:
        yield folder / row["images"][0], folder / row["images"][1], row["name"]


def main() -> None:
    trailer, emoji_folder, data = (Path(argument) for argument in sys.argv[1:4])
    labels: dict[str, list[dict[str, Any]]] = {"film": [], "emoji": [], "exercises": []}
    for name in labels:
        (SAMPLES / "clips" / name).mkdir(parents=True, exist_ok=True)
    for number, (start, end, label) in enumerate(SHOTS, 1):
        name = f"shot{number:02}.mp4"
        encode(SAMPLES / "clips/film" / name, shot(trailer, start, end), 24)
        labels["film"].append({"file": name, "label": label, "start": start, "end": end})
    for code, label in EMOJI.items():
        encode(SAMPLES / "clips/emoji" / f"{code}.mp4", emoji(emoji_folder / f"{code}.webp"), 24)
        labels["emoji"].append({"file": f"{code}.mp4", "label": label})
    for first, second, label in held_out_exercises(data):
        name = digest(first.name)[:12] + ".mp4"
        encode(SAMPLES / "clips/exercises" / name, two_photos(first, second), 12)
        labels["exercises"].append(
            {"file": name, "label": label, "original": [first.name, second.name]}
        )
    for name, rows in labels.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (SAMPLES / "clips" / name / "labels.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
