"""Images: every mode becomes upright RGB, and nothing large is decoded unasked."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from mmembed.errors import InputError
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.image import decode_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def _save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def _error(source: Any, budget: MediaBudget | None = None) -> str:
    with pytest.raises(InputError) as caught:
        decode_image(source, budget)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA", "PA"])
def test_modes_become_rgb(mode: str) -> None:
    image = decode_image(Image.new("RGB", (6, 4), RED).convert(mode))
    assert (image.mode, image.size) == ("RGB", (6, 4))
    if mode in ("RGB", "P", "CMYK", "YCbCr", "RGBA", "PA"):
        np.testing.assert_allclose(image.getpixel((0, 0)), RED, atol=2)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff", "ppm", "avif"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = _save(tmp_path / f"a.{suffix}", Image.new("RGB", (32, 16), RED))
    for source in (path, str(path), path.read_bytes()):
        image = decode_image(source)
        assert (image.mode, image.size) == ("RGB", (32, 16))
        np.testing.assert_allclose(image.getpixel((16, 8)), RED, atol=3)


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    half.putpixel((1, 0), (255, 0, 0, 128))
    image = decode_image(_save(tmp_path / "a.png", half))
    assert image.getpixel((0, 0)) == WHITE
    np.testing.assert_allclose(image.getpixel((1, 0)), (255, 127, 127), atol=1)
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 9, 9, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    image = decode_image(_save(tmp_path / "p.png", palette, transparency=0))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [WHITE, RED]
    keyed = _save(tmp_path / "k.png", Image.new("RGB", (2, 2), RED), transparency=RED)
    assert decode_image(keyed).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_is_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.array([[0, 257, 16384, 32768, 65535]], np.uint16)
    path = _save(tmp_path / f"a.{suffix}", Image.fromarray(levels))
    grey = np.asarray(decode_image(path))
    assert grey[0, :, 0].tolist() == [0, 1, 64, 128, 255]
    assert (grey[..., 0] == grey[..., 2]).all()


def test_32_bit_and_float_modes() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert np.asarray(decode_image(unit))[0, :, 0].tolist() == [0, 128, 255]
    metres = Image.fromarray(np.array([[-100.0, 0.0, 100.0]], np.float32))
    np.testing.assert_allclose(np.asarray(decode_image(metres))[0, :, 0], [0, 127, 255], atol=1)
    counts = Image.fromarray(np.array([[0, 65535]], np.int32))
    assert np.asarray(decode_image(counts))[0, :, 0].tolist() == [0, 255]
    assert "not finite" in _error(Image.fromarray(np.array([[np.nan, 1]], np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    """The stored pixels are turned so that the upright image has its red corner at top left."""
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste(RED, (0, 0, 10, 10))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = _save(tmp_path / "a.jpg", stored, exif=exif, quality=100, subsampling=0)
    for budget in (MediaBudget(), MediaBudget(max_pixels=200)):
        image = decode_image(path, budget)
        assert image.size == ((40, 20) if budget.max_pixels is None else (20, 10))
        np.testing.assert_allclose(image.getpixel((1, 1)), RED, atol=12)
        np.testing.assert_allclose(
            image.getpixel((image.width - 2, image.height - 2)), WHITE, atol=12
        )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_does_not_lose_the_image(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), RED)
    path = _save(tmp_path / "a.jpg", image, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 9)
    assert decode_image(path).size == (8, 8)


def test_animated_image_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), WHITE)
    path = _save(tmp_path / "a.gif", first, save_all=True, append_images=[second])
    assert decode_image(path).getpixel((0, 0)) == RED


def test_budget_shrinks_and_never_enlarges(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", Image.effect_noise((1600, 1200), 50))
    image = decode_image(path, MediaBudget(max_pixels=30_000))
    assert image.size == (200, 150)
    assert decode_image(path, MediaBudget(max_pixels=10**9)).size == (1600, 1200)


def test_jpeg_is_decoded_at_a_coarser_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path / "a.jpg", Image.new("RGB", (1600, 1200)))
    loaded: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load

    def spy(image: ImageFile.ImageFile) -> Any:
        result = load(image)
        loaded.append(image.size)
        return result

    monkeypatch.setattr(ImageFile.ImageFile, "load", spy)
    decode_image(path, MediaBudget(max_pixels=30_000))
    assert loaded[0] == (400, 300)


def test_smallest_image() -> None:
    assert decode_image(Image.new("RGB", (1, 1), RED)).getpixel((0, 0)) == RED
    assert decode_image(Image.new("RGB", (1, 1)), MediaBudget(max_pixels=1)).size == (1, 1)
    assert decode_image(np.zeros((1, 1, 3), np.uint8)).size == (1, 1)


def test_callers_image_is_left_alone(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", Image.new("L", (800, 400)))
    with Image.open(path) as mine:
        assert decode_image(mine, MediaBudget(max_pixels=50)).size == (10, 5)
        assert (mine.size, mine.mode) == ((800, 400), "L")


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        (np.full((3, 5), 7, np.uint8), (7, 7, 7)),
        (np.full((3, 5, 1), 7, np.uint8), (7, 7, 7)),
        (np.full((3, 5, 3), [1, 2, 3], np.uint8), (1, 2, 3)),
        (np.full((3, 5, 4), [255, 0, 0, 0], np.uint8), WHITE),
        (np.full((3, 5, 3), 0.5, np.float32), (128, 128, 128)),
        (np.full((3, 5, 3), 1.0, np.float16), WHITE),
        (np.full((3, 5), 32768, np.uint16), (128, 128, 128)),
        (np.ones((3, 5), bool), WHITE),
    ],
)
def test_arrays(array: np.ndarray[Any, Any], pixel: tuple[int, int, int]) -> None:
    image = decode_image(array)
    assert (image.mode, image.size) == ("RGB", (5, 3))
    assert image.getpixel((2, 1)) == pixel


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 640, 640), np.uint8), "moveaxis"),
        (np.zeros((640, 640, 7), np.uint8), "7 channels"),
        (np.zeros(8, np.uint8), "1 dimensions"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.full((4, 4, 3), 255.0), "divide by 255"),
        (np.full((4, 4, 3), np.nan), "within"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
    ],
)
def test_bad_arrays(array: np.ndarray[Any, Any], reason: str) -> None:
    message = _error(array)
    assert reason in message
    assert str(array.shape) in message


# Bad input: every error names the file and the reason.


@pytest.mark.parametrize("size", [(30000, 1), (1, 30000), (2010, 10)])
def test_extreme_aspect_ratio(tmp_path: Path, size: tuple[int, int]) -> None:
    path = _save(tmp_path / "strip.png", Image.new("RGB", size))
    for source in (path, Image.new("RGB", size), np.zeros((size[1], size[0], 3), np.uint8)):
        message = _error(source)
        assert f"{size[0]}x{size[1]}" in message
        assert "aspect ratio" in message
    assert str(path) in _error(path)
    assert decode_image(Image.new("RGB", (2000, 10))).size == (2000, 10)


def _bomb(width: int, height: int) -> bytes:
    """A PNG of kilobytes that holds ``width * height`` pixels of one bit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    squeezer = zlib.compressobj(9)
    row = b"\0" * (width // 8 + 1)
    data = b"".join(squeezer.compress(row) for _ in range(height)) + squeezer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_000, 10_000, 20_000])
def test_decompression_bomb_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_bomb(side, side))
    assert path.stat().st_size < 100_000

    def load(image: ImageFile.ImageFile) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    message = _error(path)
    assert str(path) in message
    assert "pixels" in message


def test_pixel_limit_is_configurable(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", Image.new("RGB", (100, 100)))
    strict = MediaBudget(max_input_pixels=9_999)
    for source in (path, Image.new("RGB", (100, 100)), np.zeros((100, 100, 3), np.uint8)):
        assert "100x100" in _error(source, strict)
    bomb = tmp_path / "b.png"
    bomb.write_bytes(_bomb(7_000, 7_000))
    assert "49.0 million" in _error(bomb)
    budget = MediaBudget(max_pixels=100, max_input_pixels=50_000_000)
    assert decode_image(bomb, budget).size == (10, 10)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff", "bmp"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    noise = Image.effect_noise((128, 128), 100).convert("RGB")
    path = _save(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = _error(path)
    assert str(path) in message
    assert "truncated" in message or "damaged" in message


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damage_anywhere_is_an_input_error(tmp_path: Path) -> None:
    """Pillow raises many types on damaged files; none but InputError may come through."""
    random = np.random.default_rng(0)
    noise = Image.effect_noise((32, 32), 100).convert("RGB")
    for suffix in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF"):
        buffer = io.BytesIO()
        noise.save(buffer, suffix)
        good = np.frombuffer(buffer.getvalue(), np.uint8)
        for _ in range(60):
            bad = good.copy()
            bad[random.integers(0, min(len(bad), 300), 4)] = random.integers(0, 256, 4)
            try:
                assert decode_image(bad.tobytes()).mode == "RGB"
            except InputError:
                continue


def test_missing_empty_folder(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    assert f"{empty}: is empty" in _error(empty)
    missing = tmp_path / "none.png"
    assert f"{missing}: does not exist" in _error(missing)
    assert "is a folder" in _error(tmp_path)
    assert "is empty" in _error(b"")
    assert "cannot be read" in _error("a\0b.png")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    import os

    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert "not a regular file" in _error(pipe)


def test_wrong_extension(
    tmp_path: Path, make_pdf: Callable[..., Path], make_clip: Callable[..., Path]
) -> None:
    text = tmp_path / "text.png"
    text.write_text("only words")
    assert "is not an image that can be read" in _error(text)
    assert "it is a PDF" in _error(make_pdf("a.png"))
    clip = make_clip("a.mp4", frames=2)
    assert "it is a video" in _error(clip.rename(clip.with_suffix(".jpg")))
    png = _save(tmp_path / "really.jpg", Image.new("RGB", (4, 4), RED), format="PNG")
    assert decode_image(png).getpixel((0, 0)) == RED


def test_formats_off_the_list_are_refused(tmp_path: Path) -> None:
    icon = _save(tmp_path / "a.ico", Image.new("RGB", (16, 16)))
    assert "the formats are JPEG" in _error(icon)
    script = tmp_path / "a.png"
    script.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "is not an image" in _error(script)


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA"]
)
def test_urls_are_not_fetched(url: str) -> None:
    message = _error(url)
    assert "URL" in message
    assert "download it" in message
