"""Makers of real files: clips that count their frames in pixels, and PDFs written by hand."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BITS = 8


def numbered_frame(number: int, width: int, height: int) -> np.ndarray[Any, Any]:
    """A frame whose number can be read back: one black or white column a bit, dark at the top."""
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            frame[height // 4 :, bit * width // BITS : (bit + 1) * width // BITS] = 255
    return frame


def read_number(frame: np.ndarray[Any, Any]) -> int:
    height, width = frame.shape[:2]
    row = frame[height * 5 // 8]
    return sum(1 << bit for bit in range(BITS) if row[int((bit + 0.5) * width / BITS)].mean() > 128)


@pytest.fixture
def frame_numbers() -> Callable[[Iterable[np.ndarray[Any, Any]]], list[int]]:
    """``frame_numbers(pixels)``: the numbers coded in frames of ``make_clip``."""
    return lambda frames: [read_number(frame) for frame in frames]


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """``make_clip("a.mp4", frames=100, times_ms=None)``: one GOP of 250 with B-frames."""
    import av

    def make(
        name: str,
        *,
        frames: int = 100,
        codec: str = "libx264",
        size: tuple[int, int] = (160, 96),
        times_ms: list[int] | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.options = options or {"g": "250", "bf": "3", "sc_threshold": "0"}
            if times_ms:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(numbered_frame(number, *size), "rgb24")
                if times_ms:
                    frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def make_audio(tmp_path: Path) -> Callable[..., Path]:
    """``make_audio("a.mp4")``: a container that holds sound, and a cover picture if asked for."""
    import av

    def make(name: str, *, cover: bool = False) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            sound = container.add_stream("aac", rate=44100, layout="stereo")
            picture = container.add_stream("mjpeg", rate=1) if cover else None
            if picture is not None:
                picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
                picture.disposition = av.stream.Disposition.attached_pic
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), "s16", "stereo")
            frame.rate = 44100
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
            if picture is not None:
                image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
                container.mux(picture.encode(image))
                container.mux(picture.encode(None))
        return path

    return make


@pytest.fixture
def rotate_clip() -> Callable[[Path, int], None]:
    """``rotate_clip(path, 90)``: write a display matrix into an MP4, as phones do."""

    def rotate(path: Path, degrees: int) -> None:
        one = 1 << 16
        cos, sin = {0: (one, 0), 90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
        data = bytearray(path.read_bytes())
        matrix = data.index(b"tkhd") + 44
        data[matrix : matrix + 36] = struct.pack(">9i", cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30)
        path.write_bytes(data)

    return rotate


@pytest.fixture
def make_pdf(tmp_path: Path) -> Callable[..., Path]:
    """``make_pdf("a.pdf", ["text of page 1", ...], size=(300, 200), password=None)``."""

    def make(
        name: str,
        texts: Iterable[str] = ("Hello",),
        *,
        size: tuple[float, float] = (300, 200),
        password: str | None = None,
    ) -> Path:
        path = tmp_path / name
        path.write_bytes(pdf_bytes(list(texts), size, password))
        return path

    return make


def pdf_bytes(texts: list[str], size: tuple[float, float], password: str | None) -> bytes:
    """A PDF with one line of Helvetica a page, encrypted where a password is given."""
    objects: list[bytes] = []
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(texts)))
    objects.append(b"<< /Type /Catalog /Pages 2 0 R >>")
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(texts)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    handler = _Encryption(password) if password is not None else None
    for number, text in enumerate(texts):
        content = f"BT /F1 12 Tf 20 20 Td ({text}) Tj ET".encode()
        if handler is not None:
            content = handler.encrypt(content, 5 + 2 * number)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    trailer = b"/Root 1 0 R"
    if handler is not None:
        objects.append(handler.dictionary)
        trailer += b" /Encrypt %d 0 R /ID [<%s> <%s>]" % (
            len(objects),
            ID.hex().encode(),
            ID.hex().encode(),
        )
    data = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"trailer << /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        trailer,
        start,
    )
    return data


ID = bytes(range(16))
PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


class _Encryption:
    """The standard security handler, revision 2 (PDF 1.4 reference, section 3.5): RC4, 40 bits."""

    def __init__(self, password: str) -> None:
        user = (password.encode() + PADDING)[:32]
        owner = _rc4(hashlib.md5(user).digest()[:5], user)
        permissions = -4
        seed = user + owner + struct.pack("<i", permissions) + ID
        self._key = hashlib.md5(seed).digest()[:5]
        check = _rc4(self._key, PADDING)
        self.dictionary = b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P %d >>" % (
            owner.hex().encode(),
            check.hex().encode(),
            permissions,
        )

    def encrypt(self, data: bytes, number: int) -> bytes:
        salt = struct.pack("<I", number)[:3] + b"\0\0"
        return _rc4(hashlib.md5(self._key + salt).digest()[:10], data)


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    out = bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)
