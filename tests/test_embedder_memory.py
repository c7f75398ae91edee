"""Memory stays bounded however many images come, large ones or ones that become many tiles."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mmembed.encoding import encode_stream
from mmembed.gpte.protocols import Outputs
from mmembed.gpte.rows import Row
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decoded import DecodedItem

SCRIPT = """
import io, sys, tempfile
from pathlib import Path
import numpy as np
from PIL import Image
from mmembed import Embedder
from mmembed.backbones.towers.tiny import TINY_TOWERS, tiny_towers
from mmembed.backbones.vlm.tiny import TINY, tiny_vlm

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

name, count = sys.argv[1], int(sys.argv[2])
makers = {**dict.fromkeys(TINY, tiny_vlm), **dict.fromkeys(TINY_TOWERS, tiny_towers)}
folder = makers[name](name, Path(tempfile.mkdtemp())) if name in makers else name
model = Embedder.from_pretrained(folder)
pixels = np.random.default_rng(0).integers(0, 255, (188, 250, 3), dtype=np.uint8)
stream = io.BytesIO()
Image.fromarray(pixels).resize((4000, 3008)).save(stream, "JPEG")
photo = stream.getvalue()
del stream, pixels
model.encode([photo])
before = peak()
stream = model.encode_stream(photo for _ in range(count))
done = sum(encoded.error is None for encoded in stream)
assert done == count
print(peak() - before)
"""

# docs/vlm.md says what it is made of; benchmarks/encode_memory.py holds a thousand photos to it.
BOUND_MB = 800.0


@pytest.mark.slow
@pytest.mark.timeout(1500)  # minutes of decoding on a loaded machine; the memory is what is tested
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("model", "photos"), [("mini", 48), ("qwen2_vl", 48), ("llava_next", 16), ("clip", 16)]
)
def test_a_stream_of_photos_of_twelve_megapixels_is_held_in_part(model: str, photos: int) -> None:
    command = [sys.executable, "-c", SCRIPT, model, str(photos)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    # Saving the tiny model imports DeepSpeed where it is installed, which says so on stdout.
    assert float(result.stdout.split()[-1]) < BOUND_MB


class Tiled:
    """A backbone whose small pictures become many megabytes, as those in many tiles do."""

    media_budget = MediaBudget()
    held = 0
    most = 0

    def prepare(self, items: Sequence[DecodedItem]) -> list[Row]:
        rows = []
        for _ in items:
            tiles = torch.zeros(8 * 2**20, dtype=torch.uint8)
            self.held += tiles.nbytes
            self.most = max(self.most, self.held)
            weakref.finalize(tiles, self.dropped, tiles.nbytes)
            rows.append(Row([1], 1, {"tiles": tiles}))
            del tiles
        return rows

    def dropped(self, size: int) -> None:
        self.held -= size

    def collate(self, rows: Sequence[Row]) -> int:
        return len(rows)


def test_pictures_that_become_many_tiles_are_held_by_their_bytes() -> None:
    backbone: Any = Tiled()

    def pictures() -> Iterator[Any]:
        for _ in range(100):
            yield np.zeros((8, 8, 3), dtype=np.uint8)

    found = encode_stream(pictures(), backbone, lambda rows: Outputs(dense=torch.ones(rows, 2)))
    assert sum(encoded.error is None for encoded in found) == 100
    # Two windows of 64 MiB, each over by one picture, and groups of eight in preparation.
    assert 64 * 2**20 <= backbone.most < 480 * 2**20
