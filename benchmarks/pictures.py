"""Made-up photos for benchmarks."""

import numpy as np
from PIL import Image, ImageDraw


def photo(rng: np.random.Generator, h: int = 375, w: int = 500) -> Image.Image:
    """What compresses like a photograph."""
    f = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)) + 1 / w
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(h, w))) / f**1.1, (h, w))
              for _ in range(4)]  # fmt: skip
    light, *colours = [p / p.std() for p in planes]
    shapes = Image.new("RGB", (w, h))
    draw = ImageDraw.Draw(shapes)
    for _ in range(6):
        corners = rng.integers(0, [w, h], (4, 2)).ravel().tolist()
        draw.polygon(corners, fill=tuple(rng.integers(0, 60, 3).tolist()))
    grain = rng.normal(0, 2, (h, w))
    rgb = [120 + 40 * light + 10 * c + grain for c in colours]
    return Image.fromarray(np.clip(np.stack(rgb, 2) + shapes, 0, 255).astype(np.uint8))
