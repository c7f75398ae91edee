"""Clips: the frames asked for, by either decoder, with their true times."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmembed.errors import InputError
from mmembed.inputs import video
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.clip_decord import DecordClip
from mmembed.inputs.clip_pyav import read_header
from mmembed.inputs.clips import UnreliableClipError
from mmembed.inputs.items import VideoPart
from mmembed.inputs.video import decode_video, sample_indices

BUDGET = MediaBudget()
MakeClip = Callable[..., Path]
Numbers = Callable[[Any], list[int]]

CONTAINERS = [
    ("a.mp4", "libx264", None),
    ("a.mov", "libx264", None),
    ("a.mkv", "libx264", None),
    ("a.webm", "libvpx-vp9", {"g": "250", "cpu-used": "8", "deadline": "realtime"}),
    ("a.avi", "mpeg4", {"g": "250", "bf": "2"}),
    ("a.ts", "libx264", None),
    ("a.mpg", "mpeg2video", {"g": "12", "bf": "2"}),
    ("short-gop.mp4", "libx264", {"g": "5", "bf": "3"}),
    ("short-gop.mkv", "libx264", {"g": "2", "bf": "1"}),
]


@pytest.fixture(params=["decord", "pyav"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with decord first, and with PyAV alone."""
    if request.param == "decord":
        pytest.importorskip("decord")
    else:

        def absent(source: object) -> None:
            raise ImportError("decord is not installed")

        monkeypatch.setattr(video, "DecordClip", absent)
    return str(request.param)


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS)
def test_frames_are_the_ones_asked_for(
    make_clip: MakeClip,
    frame_numbers: Numbers,
    decoder: str,
    name: str,
    codec: str,
    options: dict[str, str] | None,
) -> None:
    path = make_clip(name, codec=codec, options=options)
    frames = decode_video(VideoPart(path, max_frames=8), BUDGET)
    expected = [0, 14, 28, 42, 57, 71, 85, 99]
    assert frames.indices.tolist() == expected
    assert frame_numbers(frames.pixels) == expected
    np.testing.assert_allclose(frames.seconds, np.array(expected) / 25, atol=1e-3)
    assert frames.total == 100
    assert frames.fps == pytest.approx(25, rel=1e-3)
    assert frames.pixels.shape == (8, 96, 160, 3)
    assert frames.pixels.dtype == np.uint8


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_decord_itself_reads_indexed_containers(
    make_clip: MakeClip, frame_numbers: Numbers, name: str
) -> None:
    """The tests above would pass if decord always failed, as PyAV would answer."""
    pytest.importorskip("decord")
    clip = DecordClip(make_clip(name))
    assert len(clip.seconds) == 100
    assert frame_numbers(clip.frames([3, 57, 58, 99])) == [3, 57, 58, 99]
    clip.close()


def test_decord_is_kept_from_headers_that_end_the_process(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It allocates for every frame declared, and terminates the process where it cannot."""

    path = make_clip("a.mp4", frames=10)
    data = bytearray(path.read_bytes())
    run_lengths = data.index(b"stts") + 8
    data[run_lengths : run_lengths + 8] = struct.pack(">II", 1, 0x7FFFFFFF)
    path.write_bytes(data)
    assert read_header(path, "a.mp4").frames > 10**9
    given: list[object] = []
    monkeypatch.setattr(video, "DecordClip", given.append)
    assert decode_video(VideoPart(path), BUDGET).total == 10
    assert given == []


def test_every_frame_of_a_clip(make_clip: MakeClip, frame_numbers: Numbers, decoder: str) -> None:
    path = make_clip("a.mp4", frames=60, options={"g": "7", "bf": "2"})
    frames = decode_video(VideoPart(path, max_frames=1000), BUDGET)
    assert frame_numbers(frames.pixels) == list(range(60))


def test_odd_counts_repeat_the_last_frame(
    make_clip: MakeClip, frame_numbers: Numbers, decoder: str
) -> None:
    frames = decode_video(VideoPart(make_clip("a.mp4"), max_frames=3), BUDGET)
    assert frames.indices.tolist() == [0, 50, 99, 99]
    assert frame_numbers(frames.pixels) == [0, 50, 99, 99]
    assert frames.seconds[-1] == frames.seconds[-2]


def test_one_frame_clip(make_clip: MakeClip, frame_numbers: Numbers, decoder: str) -> None:
    frames = decode_video(VideoPart(make_clip("a.mp4", frames=1)), BUDGET)
    assert frames.indices.tolist() == [0, 0]
    assert (frames.total, frames.fps) == (1, 25.0)


def test_variable_frame_rate_gives_true_times(
    make_clip: MakeClip, frame_numbers: Numbers, decoder: str
) -> None:
    times = [500 + 40 * number + number * number % 37 for number in range(60)]
    path = make_clip("a.mkv", frames=60, times_ms=times)
    frames = decode_video(VideoPart(path, max_frames=6), BUDGET)
    assert frame_numbers(frames.pixels) == frames.indices.tolist()
    expected = [(times[index] - times[0]) / 1000 for index in frames.indices]
    np.testing.assert_allclose(frames.seconds, expected, atol=2e-3)


def test_trimmed_clip_counts_only_what_is_shown(
    make_clip: MakeClip, frame_numbers: Numbers, tmp_path: Path
) -> None:
    """Phones trim with an edit list; decord returns other frames then, without an error."""
    trimmed = tmp_path / "trimmed.mp4"
    _trim(make_clip("a.mp4"), trimmed, frames=20)
    frames = decode_video(VideoPart(trimmed, max_frames=4), BUDGET)
    assert frames.total == 80
    assert frames.indices.tolist() == [0, 26, 53, 79]
    assert frame_numbers(frames.pixels) == [20, 46, 73, 99]
    pytest.importorskip("decord")
    with pytest.raises(UnreliableClipError):
        DecordClip(trimmed)


def _trim(source: Path, target: Path, frames: int) -> None:
    import av

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is None:
                continue
            ticks = round(frames / 25 / packet.time_base)
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
            packet.stream = stream
            new.mux(packet)


@pytest.mark.parametrize(
    ("degrees", "shape"), [(90, (160, 96)), (180, (96, 160)), (270, (160, 96))]
)
def test_rotated_clip_is_upright(
    make_clip: MakeClip,
    rotate_clip: Callable[[Path, int], None],
    decoder: str,
    degrees: int,
    shape: tuple[int, int],
) -> None:
    path = make_clip("a.mp4", frames=40)
    plain = decode_video(VideoPart(path, max_frames=2), BUDGET).pixels
    rotate_clip(path, degrees)
    turned = decode_video(VideoPart(path, max_frames=2), BUDGET).pixels
    assert turned.shape[1:3] == shape
    expected = np.rot90(plain, -degrees // 90, axes=(1, 2)).astype(int)
    assert np.abs(turned.astype(int) - expected).mean() < 4


def test_sampling_rate_and_limit(make_clip: MakeClip, decoder: str) -> None:
    path = make_clip("a.mp4")  # 4 seconds.
    two_a_second = decode_video(VideoPart(path, fps=2, max_frames=100), BUDGET)
    assert two_a_second.indices.tolist() == [0, 14, 28, 42, 57, 71, 85, 99]
    capped = decode_video(VideoPart(path, fps=10, max_frames=6), BUDGET)
    assert capped.indices.tolist() == [0, 20, 40, 59, 79, 99]
    sparse = decode_video(VideoPart(path, fps=0.01), BUDGET)
    assert sparse.indices.tolist() == [0, 0]
    budgeted = decode_video(VideoPart(path), MediaBudget(fps=1.0, max_frames=64))
    assert budgeted.indices.tolist() == [0, 33, 66, 99]


@pytest.mark.parametrize("total", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("wanted", [1, 2, 5, 99, 1000])
def test_sample_indices(total: int, wanted: int) -> None:
    indices = sample_indices(np.arange(total) / 10, 10.0, None, wanted)
    assert len(indices) == min(total, wanted)
    assert (np.diff(indices) > 0).all()
    assert indices[0] == 0
    if wanted > 1:
        assert indices[-1] == total - 1


def test_frames_are_resized_at_decode(
    make_clip: MakeClip, frame_numbers: Numbers, decoder: str
) -> None:
    frames = decode_video(VideoPart(make_clip("a.mp4")), MediaBudget(max_pixels=4000))
    _, height, width, _ = frames.pixels.shape
    assert height * width <= 4000
    assert width / height == pytest.approx(160 / 96, rel=0.05)
    assert frame_numbers(frames.pixels) == frames.indices.tolist()


def test_bytes(make_clip: MakeClip, frame_numbers: Numbers, decoder: str) -> None:
    frames = decode_video(VideoPart(make_clip("a.mp4").read_bytes(), max_frames=4), BUDGET)
    assert frame_numbers(frames.pixels) == [0, 33, 66, 99]


def test_clips_in_parallel(make_clip: MakeClip, frame_numbers: Numbers, decoder: str) -> None:
    paths = [make_clip(f"{number}.mp4", frames=40 + number) for number in range(4)] * 4
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda path: decode_video(VideoPart(path), BUDGET), paths))
    for path, frames in zip(paths, results, strict=True):
        assert frames.total == 40 + int(path.stem)
        assert frame_numbers(frames.pixels) == frames.indices.tolist()


def test_array(frame_numbers: Numbers) -> None:
    clip = np.arange(10, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 4, 4, 3), np.uint8)
    frames = decode_video(VideoPart(clip, max_frames=3), BUDGET)
    assert frames.pixels[:, 0, 0, 0].tolist() == [0, 4, 9, 9]
    assert frames.seconds.tolist() == [0, 4, 9, 9]
    assert decode_video(VideoPart(clip, fps=2.0), BUDGET).seconds[-1] == 4.5
    floats = decode_video(VideoPart(np.ones((2, 4, 4, 3), np.float32)), BUDGET)
    assert (floats.pixels == 255).all()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 3, 32, 32), np.uint8), "moveaxis"),
        (np.zeros((4, 32, 32), np.uint8), "3 dimensions"),
        (np.zeros((0, 32, 32, 3), np.uint8), "no frames"),
        (np.full((2, 8, 8, 3), 7.0), "within"),
    ],
)
def test_bad_arrays(array: np.ndarray[Any, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        decode_video(VideoPart(array), BUDGET)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_animated_images_are_clips(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    levels = [0, 60, 120, 180, 240]
    images = [Image.new("RGB", (16, 12), (level, level, level)) for level in levels]
    durations = [100, 200, 300, 400, 500]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations)
    frames = decode_video(VideoPart(path), BUDGET)
    assert frames.indices.tolist() == [0, 1, 2, 3, 4, 4]
    np.testing.assert_allclose(frames.seconds, [0, 0.1, 0.3, 0.6, 1.0, 1.0])
    np.testing.assert_allclose(frames.pixels[:5, 6, 8, 0], levels, atol=4)
    assert decode_video(VideoPart(path.read_bytes()), BUDGET).total == 5


def test_transparent_animation_is_laid_over_white(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    clear, red = Image.new("RGBA", (8, 8)), Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    clear.save(path, save_all=True, append_images=[red], duration=50, lossless=True)
    frames = decode_video(VideoPart(path), BUDGET)
    assert frames.pixels[:, 0, 0].tolist() == [[255, 255, 255], [255, 0, 0]]


def test_decord_failing_on_a_file_leaves_it_to_pyav(
    make_clip: MakeClip, frame_numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    class BrokenMidway(DecordClip):
        def frames(self, indices: Any) -> Any:
            opened.append(self)
            raise RuntimeError("decoder lost")

    pytest.importorskip("decord")
    monkeypatch.setattr(video, "DecordClip", BrokenMidway)
    frames = decode_video(VideoPart(make_clip("a.mp4"), max_frames=4), BUDGET)
    assert opened
    assert frame_numbers(frames.pixels) == [0, 33, 66, 99]


# Bad input: every error names the file and the reason.


def _error(part: VideoPart, budget: MediaBudget = BUDGET) -> str:
    with pytest.raises(InputError) as caught:
        decode_video(part, budget)
    assert caught.value.source == part.label
    return str(caught.value)


def test_no_video_stream(make_audio: Callable[..., Path]) -> None:
    assert "holds no video stream, only audio" in _error(VideoPart(make_audio("sound.mp4")))


def test_cover_picture_is_no_video(make_audio: Callable[..., Path]) -> None:
    assert "holds no video stream" in _error(VideoPart(make_audio("song.mp4", cover=True)))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_truncated(make_clip: MakeClip, decoder: str, name: str) -> None:
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = make_clip(name, codec=codec, options={"bf": "2"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in _error(VideoPart(path))


def test_truncated_after_its_index(make_clip: MakeClip, decoder: str, tmp_path: Path) -> None:
    import av

    path = tmp_path / "faststart.mp4"
    with (
        av.open(str(make_clip("a.mp4"))) as old,
        av.open(str(path), "w", options={"movflags": "faststart"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "truncated or damaged" in _error(VideoPart(path))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_damage_anywhere_is_an_input_error(make_clip: MakeClip, decoder: str, name: str) -> None:
    random = np.random.default_rng(0)
    good = np.frombuffer(make_clip(name, frames=20).read_bytes(), np.uint8)
    for _ in range(40):
        bad = good.copy()
        bad[random.integers(0, min(len(bad), 1500), 6)] = random.integers(0, 256, 6)
        try:
            assert decode_video(VideoPart(bad.tobytes()), BUDGET).pixels.ndim == 4
        except InputError:
            continue


def test_missing_empty_folder(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "is empty" in _error(VideoPart(empty))
    assert "does not exist" in _error(VideoPart(tmp_path / "none.mp4"))
    assert "is a folder" in _error(VideoPart(tmp_path))
    assert "is empty" in _error(VideoPart(b""))


def test_wrong_extension(tmp_path: Path, make_pdf: Callable[..., Path]) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("these are only words\n" * 50)
    assert "is not a clip that can be read" in _error(VideoPart(text))
    photo = tmp_path / "photo.mp4"
    Image.new("RGB", (8, 8)).save(photo, "JPEG")
    assert "still image" in _error(VideoPart(photo))
    assert "is not a clip, it is a PDF" in _error(VideoPart(make_pdf("paper.mp4")))
    assert "still image" in _error(VideoPart(Image.new("RGB", (8, 8))))


def test_extension_does_not_matter_when_the_content_does(
    make_clip: MakeClip, frame_numbers: Numbers, decoder: str
) -> None:
    path = make_clip("a.mkv").rename(make_clip("b.mkv").with_suffix(".mp4"))
    assert frame_numbers(decode_video(VideoPart(path, max_frames=2), BUDGET).pixels) == [0, 99]


def test_frames_over_the_pixel_limit(make_clip: MakeClip) -> None:
    message = _error(VideoPart(make_clip("a.mp4")), MediaBudget(max_input_pixels=10_000))
    assert "160x96" in message


def test_damaged_animation(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    images = [Image.effect_noise((64, 64), 100).convert("RGB") for _ in range(5)]
    images[0].save(path, save_all=True, append_images=images[1:])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in _error(VideoPart(path)) or "damaged" in _error(VideoPart(path))
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF")
    assert "still image" in _error(VideoPart(buffer.getvalue()))


@pytest.mark.parametrize(
    ("fps", "max_frames", "reason"),
    [(0, 4, "fps"), (-1.0, 4, "fps"), ("2", 4, "fps"), (None, 0, "max_frames"), (2, 1.5, "max_f")],
)
def test_impossible_sampling(make_clip: MakeClip, fps: Any, max_frames: Any, reason: str) -> None:
    assert reason in _error(VideoPart(make_clip("a.mp4", frames=4), fps, max_frames))
