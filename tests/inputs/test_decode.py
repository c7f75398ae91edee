"""Decoding as a stream: lazy, ordered, bounded, and deaf to bad items."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmembed.errors import InputError
from mmembed.inputs import decode
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decode import decode_item, decode_stream
from mmembed.inputs.decoded import DecodedItem, Frames, Page

BUDGET = MediaBudget()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (4, 4)).save(path)
    return path


class FakeImages:
    """Stands in for the image decoder, and counts how much of its work is not yet taken."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.gate = threading.Event()
        self.lock = threading.Lock()

    def __call__(self, source: Any, budget: MediaBudget) -> Image.Image:
        with self.lock:
            self.started.append(source)
        assert self.gate.wait(30)
        return Image.new("RGB", (1, 1))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeImages:
    images = FakeImages()
    monkeypatch.setattr(decode, "decode_image", images)
    return images


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def _decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("mmembed-decode")]


def test_fused_item_keeps_its_parts_in_order(
    photo: Path, make_clip: Callable[..., Path], make_pdf: Callable[..., Path]
) -> None:
    item = decode_item(
        {
            "image": [photo, np.zeros((2, 3), np.uint8)],
            "text": "winter walk",
            "document": f"{make_pdf('a.pdf', ['one', 'two'])}#page=2",
            "video": make_clip("a.mp4"),
            "max_frames": 4,
            "instruction": "Represent it.",
        },
        BUDGET,
    )
    first, second, text, page, video = item.parts
    assert isinstance(first, Image.Image)
    assert isinstance(second, Image.Image)
    assert (first.size, second.size) == ((4, 4), (3, 2))
    assert text == "winter walk"
    assert isinstance(page, Page)
    assert (page.text, page.number) == ("two", 2)
    assert isinstance(video, Frames)
    assert video.indices.tolist() == [0, 33, 66, 99]
    assert item.instruction == "Represent it."
    assert str(photo) in item.label


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        ("plain", "plain"),
        ("grüße 🎿", "grüße 🎿"),
        ("lone \ud83d half", "lone \ufffd half"),
        ("pair \ud83c\udfbf", "pair 🎿"),
    ],
)
def test_text(given: str, kept: str) -> None:
    item = decode_item({"text": given, "instruction": given}, BUDGET)
    assert item.parts == (kept,)
    assert item.instruction == kept
    kept.encode()


def test_stream_gives_what_decode_item_gives(photo: Path) -> None:
    items = ["a", photo, {"text": "b", "image": photo}, "c", Image.new("L", (2, 2))]
    results = list(decode_stream(items, BUDGET, workers=2, window=2))
    assert [position for position, _ in results] == [0, 1, 2, 3, 4]
    for item, (_, decoded) in zip(items, results, strict=True):
        assert decoded == decode_item(item, BUDGET)
    assert list(decode_stream([], BUDGET)) == []


def test_order_is_kept_when_later_items_finish_first(monkeypatch: pytest.MonkeyPatch) -> None:
    finished: list[int] = []
    last_done = threading.Event()

    def reversed_pace(source: Any, budget: MediaBudget) -> Image.Image:
        number = int(Path(source).stem)
        if number == 0:
            assert last_done.wait(30)
        finished.append(number)
        if number == 3:
            last_done.set()
        return Image.new("RGB", (1, number + 1))

    monkeypatch.setattr(decode, "decode_image", reversed_pace)
    paths = [Path(f"{number}.png") for number in range(4)]
    results = list(decode_stream(paths, BUDGET, workers=4, window=4))
    assert finished[-1] == 0
    assert [decoded.parts[0].height for _, decoded in results] == [1, 2, 3, 4]  # type: ignore


def test_bad_items_are_reported_in_their_place(photo: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    items: list[Any] = ["good", missing, photo, 17, {"txt": "x"}, Path("a.xyz"), "end"]
    results = dict(decode_stream(items, BUDGET))
    assert list(results) == list(range(7))
    bad = {n: result for n, result in results.items() if isinstance(result, InputError)}
    assert list(bad) == [1, 3, 4, 5]
    assert all(error.position == position for position, error in bad.items())
    assert str(bad[1]) == f"item 1: {missing}: does not exist"
    assert "int" in str(bad[3])
    assert "'txt'" in str(bad[4])
    assert "a.xyz" in str(bad[5])


def test_pure_text_starts_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pool(*args: Any) -> None:
        raise AssertionError("a thread pool was started for text")

    monkeypatch.setattr(decode, "ThreadPoolExecutor", no_pool)
    count = sum(1 for _ in decode_stream((f"text {n}" for n in range(100_000)), BUDGET))
    assert count == 100_000


def test_look_ahead_is_bounded(fake: FakeImages) -> None:
    """An endless iterator is read no further than the window, however slow the consumer is."""
    read = 0
    waiting = 0
    most = 0

    def endless() -> Iterator[Path]:
        nonlocal read, waiting, most
        while True:
            read += 1
            waiting += 1
            most = max(most, waiting)
            yield Path(f"{read}.png")

    fake.gate.set()
    stream = decode_stream(endless(), BUDGET, workers=2, window=6)
    for taken in range(1, 200):
        next(stream)
        waiting -= 1
        assert read <= taken + 6
        assert len(fake.started) <= taken + 6
    assert most <= 6 + 1
    stream.close()


def test_large_pictures_are_decoded_less_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [*[200] * 12, *[10] * 40, *[200] * 12]
    made: list[int] = []

    def decoded(source: Any, budget: MediaBudget) -> Image.Image:
        number = int(Path(source).stem)
        made.append(number)
        return Image.new("RGB", (sides[number], sides[number]))

    monkeypatch.setattr(decode, "decode_image", decoded)
    paths = (Path(f"{number}.png") for number in range(len(sides)))
    stream = decode_stream(paths, BUDGET, workers=2, window=8, pixels=4 * 200 * 200)
    read_ahead = []
    for taken, _ in stream:
        read_ahead.append(max(made) - taken)
    # At first no size is known; then four large ones wait, or eight small ones, and large ones that
    # come after small ones are known for what they are one by one.
    assert max(read_ahead[:10]) <= 4
    assert max(read_ahead[20:]) <= 8
    assert max(read_ahead[-8:]) <= 4


def test_text_behind_media_counts_against_the_window(fake: FakeImages) -> None:
    read = 0

    def items() -> Iterator[Any]:
        nonlocal read
        yield Path("slow.png")
        for _ in range(1_000_000):
            read += 1
            yield "text"

    stream = decode_stream(items(), BUDGET, workers=1, window=8)
    threading.Timer(0.05, fake.gate.set).start()
    position, first = next(stream)
    assert position == 0
    assert isinstance(first, DecodedItem)
    assert read <= 8
    stream.close()


def test_decoding_goes_on_while_the_consumer_works(fake: FakeImages) -> None:
    paths = [Path(f"{number}.png") for number in range(20)]
    stream = decode_stream(paths, BUDGET, workers=2, window=5)
    fake.gate.set()
    next(stream)
    # The consumer is busy here and asks for nothing.
    assert _eventually(lambda: len(fake.started) == 5)
    stream.close()


def test_decoding_uses_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3)

    def meet(source: Any, budget: MediaBudget) -> Image.Image:
        together.wait(30)  # Fails unless three decode at once.
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(decode, "decode_image", meet)
    paths = [Path(f"{number}.png") for number in range(3)]
    assert len(list(decode_stream(paths, BUDGET, workers=3))) == 3


def test_closing_stops_the_threads(fake: FakeImages) -> None:
    paths = (Path(f"{number}.png") for number in range(1000))
    stream = decode_stream(paths, BUDGET, workers=2, window=50)
    threading.Timer(0.05, fake.gate.set).start()
    next(stream)
    fake.gate.clear()
    stream.close()
    started = len(fake.started)
    fake.gate.set()
    assert _eventually(lambda: not _decoding_threads())
    # At most the items that were in the middle of decoding when the stream was closed.
    assert len(fake.started) <= started + 2


def test_a_consumer_that_fails_stops_the_threads(fake: FakeImages) -> None:
    fake.gate.set()

    def consume() -> None:
        for _ in decode_stream((Path(f"{n}.png") for n in range(1000)), BUDGET, workers=2):
            raise KeyError("the consumer's own error")

    with pytest.raises(KeyError):
        consume()
    assert _eventually(lambda: not _decoding_threads())
    assert len(fake.started) < 20


def test_an_iterator_that_fails_is_not_hidden(fake: FakeImages) -> None:
    fake.gate.set()

    def items() -> Iterator[Path]:
        yield Path("a.png")
        raise RuntimeError("the caller's own error")

    with pytest.raises(RuntimeError, match="own error"):
        list(decode_stream(items(), BUDGET))
    assert _eventually(lambda: not _decoding_threads())
