"""Memory stays bounded however many large images come."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import io, sys
import numpy as np
from PIL import Image
from mmembed import Embedder

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

model = Embedder.from_pretrained("mini")
pixels = np.random.default_rng(0).integers(0, 255, (188, 250, 3), dtype=np.uint8)
stream = io.BytesIO()
Image.fromarray(pixels).resize((4000, 3008)).save(stream, "JPEG")
photo = stream.getvalue()
del stream, pixels
model.encode([photo])
before = peak()
count = int(sys.argv[1])
stream = model.encode_stream(photo for _ in range(count))
done = sum(encoded.error is None for encoded in stream)
assert done == count
print(peak() - before)
"""

# Decoded: 5 ahead, or one a worker, and two windows of 16 megapixels, 4 bytes a pixel.
# benchmarks/encode_memory.py holds a thousand photos to the same bound.
BOUND_MB = 800.0


@pytest.mark.slow
@pytest.mark.timeout(1500)  # minutes of decoding on a loaded machine; the memory is what is tested
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_stream_of_photos_of_twelve_megapixels_is_held_in_part() -> None:
    command = [sys.executable, "-c", SCRIPT, "60"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert float(result.stdout) < BOUND_MB
