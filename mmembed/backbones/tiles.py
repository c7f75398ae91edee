"""Cutting a page into tiles that a square vision tower sees at a readable size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["tile_grid", "tiles_of"]


def tile_grid(width: int, height: int, max_tiles: int) -> tuple[int, int]:
    """``(columns, rows)`` with at most ``max_tiles`` tiles that come closest to squares.

    Of equally square grids the finer one is taken. Without room for two tiles there are none.

    >>> tile_grid(827, 1169, 6)
    (2, 3)
    """
    best, best_cost = (0, 0), float("inf")
    for columns in range(1, max_tiles + 1):
        for rows in range(1, max_tiles // columns + 1):
            if columns * rows < 2:
                continue
            aspect = (width / columns) / (height / rows)
            cost = max(aspect, 1.0 / aspect)
            if cost < best_cost or (cost == best_cost and columns * rows > best[0] * best[1]):
                best, best_cost = (columns, rows), cost
    return best


def tiles_of(image: PILImage, max_tiles: int) -> list[PILImage]:
    """The tiles of an image, row by row."""
    columns, rows = tile_grid(image.width, image.height, max_tiles)
    xs = [round(image.width * i / columns) for i in range(columns + 1)] if columns else []
    ys = [round(image.height * i / rows) for i in range(rows + 1)] if rows else []
    return [
        image.crop((xs[c], ys[r], max(xs[c + 1], xs[c] + 1), max(ys[r + 1], ys[r] + 1)))
        for r in range(rows)
        for c in range(columns)
    ]
