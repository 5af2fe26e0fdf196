"""A dense grid of boxes: what a sliding window sees, for machines without OpenCV."""

import math

import numpy as np

ASPECTS = (1.0, 0.5, 2.0)  # height by width
STEP = 1.5  # from one size to the next
LEAST = 20  # pixels of the shorter side


def grid(width: int, height: int, most: int = 2000) -> np.ndarray:
    """At most so many boxes (N, 4) over a photo, of many sizes and three shapes, the photo first.

    A box is as far from the next as keeps their number below `most`: about a quarter of its side
    for 2,000 of them on a photo of 500 x 375.
    """
    whole = np.array([[0, 0, width, height]], np.float32)
    low, high, pace = 0.05, 2.0, 2.0
    for _ in range(30):  # by halves to the smallest pace that is not too many
        pace = (low + high) / 2
        low, high = (low, pace) if len(_boxes(width, height, pace)) < most else (pace, high)
    found = _boxes(width, height, high)
    return np.concatenate([whole, found])[:most].astype(np.float32)


def _boxes(width: int, height: int, pace: float) -> np.ndarray:
    """Boxes that are `pace` of their sides apart, the largest first."""
    found, size = [], float(min(width, height))
    while size >= LEAST:
        for aspect in ASPECTS:
            w, h = size / math.sqrt(aspect), size * math.sqrt(aspect)
            if w > width or h > height or min(w, h) < LEAST:
                continue
            xs, ys = (np.linspace(0, side - n, 1 + math.ceil((side - n) / (n * pace)))
                      for side, n in ((width, w), (height, h)))  # fmt: skip
            x, y = (a.reshape(-1) for a in np.meshgrid(xs, ys))
            found.append(np.stack([x, y, x + w, y + h], 1))
        size /= STEP
    return np.round(np.concatenate(found)) if found else np.zeros((0, 4))
