"""Parts of an image that a net looks at: random crops to train on, fixed views to test with.

Images are uint8 (H, W, C), 0 to 255, C = 1 or 3; all offsets are (y, x) of the top left corner, in
pixels. An image is first fitted: its shorter side resized to `resize_to` (256 for a view of 224),
and corners are the corners of this whole image, not of its central square (SPP-net, section 3.1).
A centre is at floor((H - S) / 2). Bilinear means Pillow's: half-pixel centres, antialiased where
it shrinks, rounded to uint8.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

DRAWS = 8  # uniform numbers that one use of an image takes: y, x, mirror, spare, 4 for noise
CROPS = ("random", "corners", "centre")


def default_fit(S: int) -> int:
    """The shorter side that an image is fitted to for views of S x S: 256 for 224."""
    return round(S * 256 / 224)


def fitted(h: int, w: int, side: int) -> tuple[int, int]:
    """(h, w) scaled such that the shorter is `side`, the other rounded."""
    short = min(h, w)
    return max(side, round(h * side / short)), max(side, round(w * side / short))


def resize(img: np.ndarray, h: int, w: int) -> np.ndarray:
    """The image at another size, bilinear; (H, W, C) or (H, W) uint8 -> (h, w, C) uint8."""
    img = img if img.ndim == 3 else img[..., None]
    if img.shape[:2] == (h, w):
        return img
    picture = Image.fromarray(img[..., 0] if img.shape[2] == 1 else img)
    small = np.asarray(picture.resize((w, h), Image.Resampling.BILINEAR))
    return small.reshape(h, w, img.shape[2])


def fit(img: np.ndarray, side: int) -> np.ndarray:
    """The whole image with its shorter side at `side` pixels, its shape kept."""
    return resize(img, *fitted(*img.shape[:2], side))


def centre(img: np.ndarray, S: int) -> np.ndarray:
    """The S x S pixels in the middle. ValueError where the image is smaller."""
    return _at(img, S, *five(*img.shape[:2], S)[0])


def corners(img: np.ndarray, S: int) -> list[np.ndarray]:
    """The S x S pixels at the four corners: top left, top right, bottom left, bottom right."""
    return [_at(img, S, y, x) for y, x in five(*img.shape[:2], S)[1:]]


def ten_views(img: np.ndarray, S: int, resize_to: int | None = None) -> np.ndarray:
    """Centre and four corners of the whole fitted image, then the same mirrored: (10, S, S, C).

    An image of S x S is not resized but gets S // 8 mirrored pixels on each side, as in training.
    """
    if img.shape[:2] == (S, S):
        img = bordered(img, S // 8)
    else:
        img = fit(img, resize_to or default_fit(S))
    five = np.stack([centre(img, S), *corners(img, S)])
    return np.concatenate([five, five[:, :, ::-1]])


def positions(h: int, w: int, S: int) -> list[tuple[int, int]]:
    """Distinct offsets of the 3 x 3 views {top, middle, bottom} x {left, centre, right}.

    With both mirrors and the six scales 224 256 300 360 448 560 these are the paper's 96 views.
    """
    ys, xs = ([0, (n - S) // 2, n - S] for n in (h, w))
    return list(dict.fromkeys((y, x) for y in ys for x in xs))


def five(h: int, w: int, S: int) -> list[tuple[int, int]]:
    """Offsets of centre and corners, in the order of `ten_views`."""
    y, x = h - S, w - S
    return [(y // 2, x // 2), (0, 0), (0, x), (y, 0), (y, x)]


def _at(img: np.ndarray, S: int, y: int, x: int) -> np.ndarray:
    if min(img.shape[:2]) < S:
        raise ValueError(f"a view of {S}x{S} does not fit into {img.shape[1]}x{img.shape[0]}")
    return img[y : y + S, x : x + S]


def draws(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) for one use of each image, (n, DRAWS) float64.

    They depend on seed, epoch and the image's index and on nothing else: not on the batch, nor on
    who reads the image. SplitMix64 (Steele, Lea, Flood 2014) as a counter-based generator.
    """
    u64 = np.uint64
    key = np.random.SeedSequence([seed, epoch]).generate_state(1, u64)[0]
    first = np.asarray(indices).astype(u64)[:, None] * u64(DRAWS)
    x = key + (first + np.arange(1, DRAWS + 1).astype(u64)) * u64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> u64(30))) * u64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> u64(27))) * u64(0x94D049BB133111EB)
    return ((x ^ (x >> u64(31))) >> u64(11)) * 2.0**-53


def offsets(crop: str, draw: np.ndarray | None, h, w, S: int) -> tuple:
    """(y, x) of the S x S crop of an h x w image, in whole pixels.

    draw: the image's row of `draws`, or (..., DRAWS) for many images; None: the centre. "random"
    is any place in the image, "corners" one of centre and four corners.
    """
    if draw is None or crop == "centre":
        return (h - S) // 2, (w - S) // 2
    if crop == "random":
        y, x = draw[..., 0] * (h - S + 1), draw[..., 1] * (w - S + 1)
        return y.astype(np.int64), x.astype(np.int64)
    which = (draw[..., 0] * 5).astype(np.int64)
    table = np.array(five(h, w, S))[which]
    return table[..., 0], table[..., 1]


def mirrored(draw: np.ndarray) -> np.ndarray:
    """Whether the image is mirrored, left for right: half of all uses."""
    return draw[..., 2] < 0.5


def normals(draw: np.ndarray) -> np.ndarray:
    """Three numbers of the standard normal distribution for each image: (n, 3) float64."""
    radius = np.sqrt(-2 * np.log1p(-draw[:, 4:6]))
    angle = 2 * np.pi * draw[:, 6:8]
    return np.concatenate([radius * np.cos(angle), radius[:, :1] * np.sin(angle[:, :1])], axis=1)


def colour_noise(draw: np.ndarray, pca: tuple, std: float) -> np.ndarray:
    """What to add to red, green and blue of each image: (n, 3) float32 in grey levels.

    AlexNet's sum_k p_k a_k l_k with a_k ~ N(0, std), once for each use of an image; pca = (l, p)
    as of `principal`. l is the standard deviation along p, as in Krizhevsky's code (cuda-convnet2);
    his text says eigenvalue, which is no length.
    """
    l, p = pca
    return ((normals(draw) * std * l) @ np.asarray(p).T).astype(np.float32)


def principal(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(standard deviations (3,), their directions as columns (3, 3)) of a covariance of RGB."""
    values, vectors = np.linalg.eigh(covariance)
    vectors *= np.where(vectors.sum(axis=0) < 0, -1, 1)  # one of two signs, on every machine
    return np.sqrt(np.maximum(values, 0)), vectors


def pick(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Of each image its own rows and columns: (n, H, W, C), (n, S), (n, T) -> (n, S, T, C)."""
    n, H, W, C = images.shape
    at = (np.arange(n)[:, None] * H + rows)[:, :, None] * W + columns[:, None]
    return images.reshape(-1, C).take(at, axis=0)


def interpolation(size: int, to: int) -> np.ndarray:
    """The matrix (to, size) that enlarges a column of pixels, bilinear, edges repeated; float32."""
    at = np.clip((np.arange(to) + 0.5) * size / to - 0.5, 0, size - 1)
    low = np.minimum(at.astype(int), max(size - 2, 0))
    matrix = np.zeros((to, size), np.float32)
    matrix[np.arange(to), low] = 1 - (at - low)
    matrix[np.arange(to), np.minimum(low + 1, size - 1)] += at - low
    return matrix


def warp_mean(mean: np.ndarray, h: int, w: int) -> np.ndarray:
    """The mean image (H, W, C) float32 at another size, bilinear; the paper warps its 224 mean."""
    if mean.shape[:2] == (h, w):
        return mean
    planes = [Image.fromarray(np.ascontiguousarray(c)) for c in np.moveaxis(mean, 2, 0)]
    warped = [np.asarray(p.resize((w, h), Image.Resampling.BILINEAR)) for p in planes]
    return np.stack(warped, axis=2)


def to_net(images: Sequence[np.ndarray], mean: np.ndarray | float) -> np.ndarray:
    """Images of one size as the net wants them: (N, H, W, C) float32, minus the mean.

    mean: (H, W, C), warped to the images' size where it differs; (C,); or one number, such as the
    128 of detection. Grey images, (H, W) or (H, W, 1), are repeated to the channels of the mean.
    """
    arrays = [img if img.ndim == 3 else img[..., None] for img in images]
    h, w, c = arrays[0].shape
    mean = np.asarray(mean, np.float32)
    if mean.ndim == 3:
        mean = warp_mean(mean, h, w)
    out = np.empty((len(arrays), h, w, mean.shape[-1] if mean.ndim else c), np.float32)
    for row, img in zip(out, arrays):
        np.subtract(img, mean, out=row)
    return out


def luma(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 -> (..., 1) uint8: brightness as of ITU-R 601, rounded (Pillow's "L")."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    return ((rgb @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]


def reflect(n: int, border: int) -> np.ndarray:
    """Indices 0 .. n-1 with `border` more at each end, mirrored about the outermost pixels."""
    period = max(1, 2 * (n - 1))
    at = np.abs(np.arange(-border, n + border)) % period
    return np.minimum(at, period - at) if n > 1 else np.zeros_like(at)


def bordered(img: np.ndarray, border: int) -> np.ndarray:
    """The image (H, W, C) with so many mirrored pixels on every side."""
    rows, columns = (reflect(n, border) for n in img.shape[:2])
    return img[rows][:, columns]


def spread(n: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0 .. n-1, evenly spaced."""
    return np.arange(n) if n <= most else np.arange(most) * n // most
