"""Weights and maps as tiles of one picture; NumPy alone."""

import numpy as np


def first_filters(net) -> np.ndarray | None:
    """The filters that see the image, (n, h, w, 1 or 3), 0 to 1; None where the net has none."""
    source = net.graph.feeds[0]
    for l in net.layers:
        kernel = net.weights[l.name].get("W0")
        if l.reads and l.reads[0] == source and kernel is not None and kernel.ndim == 4:
            filters = np.moveaxis(net.device.numpy(kernel), 3, 0)
            return balanced(filters if filters.shape[3] in (1, 3) else filters[..., :1])
    return None


def balanced(filters: np.ndarray) -> np.ndarray:
    """Each filter (n, h, w, C) scaled on its own to 0..1; 0.5 stands for a weight of 0."""
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + filters / np.where(largest > 0, 2 * largest, 1)


def columns_for(count: int, shape: float = 1.6) -> int:
    """Tiles in a row, such that all of them together are about `shape` times as wide as high."""
    return max(1, min(count, round((count * shape) ** 0.5)))


def mosaic(
    tiles: np.ndarray, columns: int, zoom: int = 1, gap: tuple[int, int] = (1, 1)
) -> np.ndarray:
    """Tiles (n, h, w, C) in rows of `columns`: (H, W, C); NaN where there is no tile.

    zoom: each pixel becomes so many; gap: pixels below and beside each tile, not zoomed.
    """
    n, h, w, C = tiles.shape
    tiles = tiles.repeat(zoom, 1).repeat(zoom, 2)
    down, right, rows = h * zoom + gap[0], w * zoom + gap[1], -(-n // columns)
    made = np.full((rows * down - gap[0], columns * right - gap[1], C), np.nan, np.float32)
    for i, tile in enumerate(tiles):
        y, x = i // columns * down, i % columns * right
        made[y : y + h * zoom, x : x + w * zoom] = tile
    return made
