"""A model for processes of their own: a vector by hash of the text, and slow if asked to be."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from mmembed.errors import InputError
from mmembed.inputs.items import ItemLike, TextPart, parse_item
from mmembed.search.model import Encoded, Role

DIM = 8


def vector_of(data: bytes) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


class BulkModel:
    name = "bulk"
    fingerprint = "bulk-v1"
    dim = DIM

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def encode_stream(self, items: Iterable[ItemLike], /, *, role: Role) -> Iterator[Encoded]:
        stream = enumerate(items)
        while window := list(islice(stream, 16)):
            time.sleep(self.pause)
            for position, value in window:
                part = parse_item(value).parts[0]
                if isinstance(part, TextPart):
                    data = part.text.encode()
                else:
                    source = part.source
                    data = source if isinstance(source, bytes) else open(str(source), "rb").read()  # noqa: PTH123, SIM115
                if b"BROKEN" in data:
                    yield Encoded(position, error=InputError(f"item {position}", "is broken"))
                else:
                    yield Encoded(position, vector_of(data))


def load() -> BulkModel:
    return BulkModel()


def load_slow() -> BulkModel:
    return BulkModel(pause=0.004)


def load_other() -> BulkModel:
    model = BulkModel()
    model.fingerprint = "bulk-v2"  # type: ignore[misc]
    return model


def die() -> BulkModel:
    os._exit(3)


class MortalModel(BulkModel):
    """Has its process killed in the middle of a shard, once: then the file ``killed`` is there."""

    def __init__(self, killed: Path) -> None:
        super().__init__()
        self.killed = killed

    def encode_stream(self, items: Iterable[ItemLike], /, *, role: Role) -> Iterator[Encoded]:
        for encoded in super().encode_stream(items, role=role):
            if encoded.position == 20 and not self.killed.exists():
                self.killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield encoded


def load_mortal(killed: Path) -> MortalModel:
    return MortalModel(killed)
