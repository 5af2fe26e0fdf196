"""Rows of windows of images, in front of each the bin of a pyramid that they are strongest in."""

from typing import Any, NamedTuple

import numpy as np

from convnet import views
from convnet.geometry import Field
from convnet.show import style
from convnet.tiles import mosaic

SIDE = 66  # pixels of a window in the picture
LEFT = 130  # pixels in front of a row
OUTSIDE = 0.91  # grey of what a cell sees outside of the image: zeros
ICON = 42  # pixels of the bins in front of a row


class Row(NamedTuple):
    """One filter in one bin (convnet/show/bins.py), and what it answers most."""

    bin: Any
    filter: int
    values: np.ndarray  # (windows,)
    windows: list[np.ndarray]  # (side, side, 3), 0 to 1

    @property
    def strongest(self) -> str:
        """Its strongest answer; none if nothing is above 0, of a unit that never fires."""
        return f"max {self.values[0]:.3g}" if self.values[0] > 0 else "silent"


def cut(view: np.ndarray, of: Field, cell: tuple[int, int]) -> np.ndarray:
    """What a cell sees of a view uint8 (H, W, C), as SIDE x SIDE x 3; grey outside of it."""
    first = [round(of.centre + of.stride * at - (of.size - 1) / 2) for at in cell]
    # a pixel of the picture -> the pixel of the view under its centre
    steps = np.floor((np.arange(SIDE) + 0.5) * of.size / SIDE).astype(int)
    y, x = first[0] + steps, first[1] + steps
    H, W = view.shape[:2]
    got = view[y.clip(0, H - 1)][:, x.clip(0, W - 1)]
    if of.size > SIDE:  # smaller than it is: no pixel may be passed over
        whole = [slice(max(at, 0), min(at + of.size, n)) for at, n in zip(first, (H, W))]
        inside = [np.flatnonzero((at >= 0) & (at < n)) for at, n in ((y, H), (x, W))]
        small = views.resize(view[whole[0], whole[1]], len(inside[0]), len(inside[1]))
        got = np.zeros((SIDE, SIDE, view.shape[2]), np.uint8)
        got[np.ix_(*inside)] = small
    made = np.repeat(got, 3 // got.shape[2], axis=2).astype(np.float32) / 255
    made[(y < 0) | (y >= H)] = OUTSIDE
    made[:, (x < 0) | (x >= W)] = OUTSIDE
    return made


def picture(rows: list[Row], title: str):
    """(paint, size in inches)."""
    columns = max(1, *(len(row.windows) for row in rows))
    blank = np.full((SIDE, SIDE, 3), np.nan, np.float32)
    tiles = [(*row.windows, *[blank] * columns)[:columns] for row in rows]
    made = mosaic(np.concatenate(tiles), columns, 1, (8, 4))
    high, wide = made.shape[0] + 64, LEFT + max(made.shape[1], 480) + 16

    def paint(figure) -> None:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        pixels = np.concatenate([np.nan_to_num(made), np.isfinite(made[..., :1])], axis=2)
        left, top = LEFT, 48
        axes.imshow(pixels, extent=(left, left + made.shape[1], top + made.shape[0], top),
                    interpolation="nearest")  # fmt: skip
        axes.set(xlim=(0, wide), ylim=(high, 0), aspect="auto")
        axes.text(12, 16, title, fontsize=10, va="top")
        for i, row in enumerate(rows):
            y = top + i * (SIDE + 8) + SIDE / 2
            _icon(axes, row.bin, 12, y - ICON / 2)
            axes.text(12 + ICON + 8, y, f"filter {row.filter}\n{row.strongest}",
                      fontsize=7.5, va="center")  # fmt: skip

    return paint, (wide / style.DOTS * 1.25, high / style.DOTS * 1.25)


def _icon(axes, part, x: float, y: float) -> None:
    """The n x n bins of a level, one of them filled."""
    from matplotlib.patches import Rectangle

    side = ICON / part.level
    for i, j in np.ndindex(part.level, part.level):
        full = (i, j) == (part.row, part.column)
        colour = style.COLOURS[0] if full else "none"
        axes.add_patch(Rectangle((x + j * side, y + i * side), side, side, facecolor=colour,
                                 edgecolor=style.PALE, lw=0.6))  # fmt: skip
