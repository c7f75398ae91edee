"""Malformed requests without end, and what an answer to one may be."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from typing import Any

from PIL import Image

PLACES = ("/tmp", "/home", "/root", "/work", "/usr", "site-packages", "Traceback", 'File "')
ROUTES = (
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/multi_embeddings"),
    ("POST", "/v1/rerank"),
    ("POST", "/v1/search"),
    ("POST", "/api/index"),
    ("GET", "/api/search"),
    ("POST", "/api/search"),
    ("GET", "/v1/search"),
    ("GET", "/api/map"),
    ("GET", "/api/media/{}"),
    ("GET", "/api/media/{}/thumb"),
    ("GET", "/api/media/{}/heat"),
    ("GET", "/api/media/{}/moments"),
    ("POST", "/api/media/{}/folder"),
)
NAMES = (
    "input", "model", "query", "documents", "image", "video", "document", "text", "content", "k",
    "filter", "mode", "min_score", "maxsim", "rerank", "root", "folder", "dimensions", "task",
    "encoding_format", "messages", "role", "top_n", "instruction", "q", "like", "modality", "type",
    "image_url", "url", "limit", "size", "input_type", "embedding_type",
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "\0", "\ud800", "../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "a" * 5000,
    "http://169.254.169.254/latest", "data:image/png;base64,AAAA", "data:,", "😀" * 50, "'; DROP",
    "' OR 1=1 --", "%00", "{{7*7}}", "<script>", "path like", "id == ", "((((", "page <= 1e999",
    "NaN", "-1", "1e400", "null", "hybrid", "dense", "all", "image",
)  # fmt: skip
ODD_NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 1e308, -0.0, 0.5, 10**30)


def png(side: int = 24) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (200, 20, 20)).save(out, "PNG")
    return out.getvalue()


def broken_media() -> dict[str, bytes]:
    """Files that lie, by what is wrong with them."""
    good = {"png": png()}
    for kind in ("JPEG", "WEBP", "GIF", "BMP", "TIFF", "PDF"):
        out = io.BytesIO()
        Image.new("RGB", (40, 30), (20, 200, 20)).save(out, kind)
        good[kind.lower()] = out.getvalue()
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    huge += struct.pack(">I", zlib.crc32(chunk))
    found = {
        "nothing": b"",
        "a null": b"\0",
        "noise": random.Random(0).randbytes(5000),
        "a bomb": huge,
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "zip": b"PK\x03\x04" + b"\0" * 60,
        "elf": b"\x7fELF" + b"\0" * 60,
        "html": b"<!doctype html><script>1</script>",
        "mp4 head": b"\0\0\0\x20ftypisom" + b"\0" * 40,
        "pdf head": b"%PDF-1.7\n%%EOF",
        "pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os",
    }
    for name, data in good.items():
        found[f"half a {name}"] = data[: len(data) // 2]
        found[f"{name} with noise"] = data[:60] + random.Random(1).randbytes(200) + data[260:]
        found[f"{name} under another head"] = b"\xff\xd8\xff\xe0" + data
    return found


class Requests:
    """Malformed requests from a seed: the same seed, the same requests."""

    def __init__(self, seed: int, tokens: list[str]) -> None:
        self._rng = random.Random(seed)
        self._tokens = [*tokens, "0" * 24, "..", "%2e%2e", "x" * 300, "🦊"]
        self._media = list(broken_media().values())

    def next(self) -> tuple[str, str, dict[str, Any]]:
        """Method, path and what else the client is to send."""
        rng = self._rng
        method, path = rng.choice(ROUTES)
        path = path.replace("{}", rng.choice(self._tokens))
        if method == "GET":
            names = rng.sample(NAMES, rng.randint(0, 4))
            return method, path, {"params": {name: self._text() for name in names}}
        if path == "/api/search":
            fields = {name: self._text() for name in rng.sample(NAMES, rng.randint(0, 3))}
            name = rng.choice(("x.png", "../../x.png", "", "ü.jpg", "a\nb"))
            return method, path, {"data": fields, "files": {"image": (name, self._bytes())}}
        if rng.random() < 0.15:
            raw = rng.choice((b"", b"{", b"[" * 3000, b"\xff\xfe", b'{"input": ', b"NaN", b"1e999"))
            return method, path, {"content": raw, "headers": {"content-type": "application/json"}}
        names = rng.sample(NAMES, rng.randint(0, 5))
        body = {name: self._value(3) for name in names}
        if rng.random() < 0.5:  # near to what is right
            body |= {"input": self._value(2), "query": self._value(2), "documents": self._value(2)}
            kept = {"/v1/rerank": ("query", "documents"), "/v1/search": ("query",)}
            wanted = kept.get(path, ("input",))
            body = {name: value for name, value in body.items() if name in wanted}
        content = json.dumps(body).encode()
        return method, path, {"content": content, "headers": {"content-type": "application/json"}}

    def _text(self) -> str:
        rng = self._rng
        if rng.random() < 0.3:
            return str(rng.choice(ODD_NUMBERS))
        return rng.choice([text for text in ODD_TEXTS if text != "\ud800"])

    def _bytes(self) -> bytes:
        return self._rng.choice(self._media)

    def _value(self, depth: int) -> Any:
        rng = self._rng
        kind = rng.randint(0, 7 if depth else 4)
        if kind == 0:
            return rng.choice(ODD_NUMBERS)
        if kind in (1, 2):
            return rng.choice(ODD_TEXTS)
        if kind == 3:
            return base64.b64encode(self._bytes()).decode()
        if kind == 4:
            return rng.choice((None, True, False))
        if kind == 5:
            return [self._value(depth - 1) for _ in range(rng.randint(0, 4))]
        return {rng.choice(NAMES): self._value(depth - 1) for _ in range(rng.randint(0, 4))}


def fault(status: int, text: str) -> str:
    """What is wrong with an answer; nothing if it is empty."""
    if status >= 500:
        return f"status {status}: {text[:300]}"
    if status >= 400:
        leaked = [place for place in PLACES if place in text]
        # What a client sends it may read again.
        leaked = [place for place in leaked if place not in ("/tmp",) or "pytest" in text]
        if "site-packages" in text or "Traceback" in text or 'File "' in text or leaked:
            return f"leaks {leaked}: {text[:300]}"
        try:
            if set(json.loads(text)["error"]) != {"message", "type", "param", "code"}:
                return f"odd error: {text[:300]}"
        except (ValueError, KeyError, TypeError):
            return f"no error body: {text[:300]}"
    return ""
