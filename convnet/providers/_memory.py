"""What providers share whose images are all of one size and few enough to keep in memory.

Views are cut, mirrored and enlarged many at a time, in NumPy, without worker processes. The frame
from which a view of side S is cut, given images of side h and S or less wanted of them:

    resize_to given   the image enlarged (or left) at this side
    S == h            the image itself with S // 8 mirrored pixels around; tests take it as it is
    S < h             the image itself
    S > h             the image enlarged to S * 256 / 224, as for photographs
"""

from collections.abc import Iterable, Iterator

import numpy as np

from convnet import views
from convnet.loader import Bad
from convnet.providers import Provider


class Frame:
    """How views of side S come out of images of side h: by matrix, or by cutting alone."""

    def __init__(self, h: int, S: int, resize_to: int | None, crop: str, mirror: bool):
        self.S, self.crop, self.mirror = S, crop, mirror
        self.side = resize_to or (h if h >= S else views.default_fit(S))
        self.border = S // 8 if h == S and not resize_to else 0
        self.matrix = None if self.side == h else views.interpolation(h, self.side)

    def cut(self, images: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Views of (n, h, h, C) uint8 images: (n, S, S, C), uint8 or, if enlarged, float32."""
        n, S = len(images), self.S
        border = self.border if draws is not None else 0
        side = self.side + 2 * border
        y, x = (np.broadcast_to(o, n) for o in views.offsets(self.crop, draws, side, side, S))
        rows, columns = (o[:, None] + np.arange(S) for o in (y, x))
        if self.mirror and draws is not None:
            flip = views.mirrored(draws)
            columns[flip] = columns[flip, ::-1]
        if self.matrix is None:
            at = views.reflect(self.side, border)
            return views.pick(images, at[rows], at[columns])
        planes = np.moveaxis(images, 3, 1).astype(np.float32)
        across = self.matrix[columns].swapaxes(1, 2)[:, None]
        return np.moveaxis(self.matrix[rows][:, None] @ planes @ across, 1, 3)


class Memory(Provider):
    """A provider whose `_open` puts (n, h, h, 1 or channels) uint8 arrays into `arrays`."""

    arrays: dict[str, np.ndarray]

    def _read(self, split: str, jobs: Iterable[tuple]) -> Iterator[tuple[np.ndarray, Bad]]:
        images, o = self.arrays[split], self.options
        frame = Frame(images.shape[1], self.size, o.resize_to, o.crop, self.mirrors)
        for indices, draws in jobs:
            yield frame.cut(images[indices], draws), {}

    @property
    def fit(self) -> int:
        """The side of the frame; without a border, which images of the net's own size have."""
        side = self.arrays["train"].shape[1]
        return side if side > self.size and not self.options.resize_to else super().fit

    def _image(self, split: str, index: int) -> np.ndarray:
        img = self.arrays[split][index]
        return np.repeat(img, self.channels // img.shape[2], axis=2)
