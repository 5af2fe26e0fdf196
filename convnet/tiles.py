"""Weights and maps as tiles of one picture; NumPy alone."""

import numpy as np


def first_layer(net) -> str | None:
    """The first layer with weights over the image; None where the net has none."""
    source = net.graph.feeds[0]
    sees = (l.name for l in net.layers if l.reads and l.reads[0] == source)
    return next((name for name in sees if "W0" in net.weights[name]), None)


def kernels(net, name: str, number: int = 0) -> np.ndarray:
    """The weights of a layer over an input as (filters, h, w, channels).

    Those of a fully connected layer have the size of the maps that it reads.
    """
    found = net.device.numpy(net.weights[name][f"W{number}"])
    shape = net.graph.shapes[net.by_name[name].reads[number]]
    return np.moveaxis(found.reshape(*shape, -1) if found.ndim == 2 else found, 3, 0)


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
