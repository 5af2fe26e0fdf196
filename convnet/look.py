"""What a net is shown of an image: a name on the command line -> views of the image, uint8."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convnet import views

NAMES = ("centre", "ten", "full", "warp", "asis")


@dataclass(frozen=True)
class Look:
    """look(image) -> the views of an image (H, W, C), of one size.

    centre  the size x size pixels in the middle of the fitted image; of an image that has this very
            size, and where no scale is given, the image itself
    ten     the centre, the corners and their mirror images, or without these if it may not mirror
    full    the whole fitted image; of an image that has this very size, and where no scale is
            given, the image with the border that its ten views are cut from
    warp    the whole image at size x size, or scale x scale, whatever its shape
    asis    the image

    Fitted: the shorter side at `scale` pixels, or at `usual` where none is given.
    """

    name: str
    size: int  # of the net's input
    usual: int
    scale: int | None = None
    mirror: bool = True

    def __call__(self, image: np.ndarray) -> Sequence[np.ndarray]:
        """The views. ValueError where there are none, as of a scale below the size."""
        size, side = self.size, self.scale or self.usual
        exact = not self.scale and image.shape[:2] == (size, size)
        if self.name == "asis" or (self.name == "centre" and exact):
            return [image]
        if self.name == "warp":
            warped = self.scale or size
            return [views.resize(image, warped, warped)]
        if self.name == "full":
            return [views.bordered(image, size // 8) if exact else views.fit(image, side)]
        if self.name == "centre":
            return [views.centre(views.fit(image, side), size)]
        if self.name == "ten":
            found = views.ten_views(views.fit(image, side) if self.scale else image, size, side)
            return found if self.mirror else found[:5]
        raise ValueError(f"view={self.name!r}: must be one of {', '.join(NAMES)}")
