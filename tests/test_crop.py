"""convnet/providers/_crop.py: the pixels of Pillow's resize(box=), whichever way they are made."""

import gc

import numpy as np
import pytest
from PIL import Image

from convnet.providers import _crop
from convnet.providers._crop import ROWS, crop, memory
from convnet.providers._decode import Reader

RNG = np.random.default_rng(5)


def picture(h, w):
    return Image.fromarray(RNG.integers(0, 256, (h, w, 3), dtype=np.uint8))


def pillow(img, box, S, mirror=False):
    out = np.asarray(img.resize((S, S), Image.Resampling.BILINEAR, box=box)).reshape(S, S, -1)
    return out[:, ::-1] if mirror else out


def matrix(n, low, high, S):
    """Pillow's bilinear filter: (S, n), whole numbers that add up to about 2^22."""
    low, high = np.float32(low), np.float32(high)
    scale = float(high - low) / S
    reach = max(1.0, scale)
    at = float(low) + (np.arange(S) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs((np.arange(n) - at[:, None] + 0.5) * (1 / reach)))
    near = np.arange(n) >= np.trunc(at - reach + 0.5)[:, None]
    weights *= near & (np.arange(n) < np.trunc(at + reach + 0.5)[:, None])
    return np.int64(0.5 + weights / weights.sum(axis=1, keepdims=True) * 2**22)


def rows_first(img, box, S):
    """The same crop, written down plainly."""
    img = np.asarray(img).astype(np.int64)
    across = matrix(img.shape[1], box[0], box[2], S)
    down = matrix(img.shape[0], box[1], box[3], S)
    narrow = (np.einsum("sw,hwc->hsc", across, img) + 2**21) >> 22
    return (np.einsum("th,hsc->tsc", down, narrow) + 2**21) >> 22


def boxes(n):
    """n times (height, width, box, S), with edges, enlarging and halving among them."""
    for i in range(n):
        h, w, S = (int(RNG.integers(ROWS, 150)), int(RNG.integers(1, 150)),
                   int(RNG.integers(1, 90)))  # fmt: skip
        bh, bw = np.minimum([h, w], RNG.uniform(0.1, 2, 2) * S)
        y, x = [(h - bh, w - bw), (0, 0), RNG.uniform(0, [h - bh, w - bw])][i % 3]
        yield h, w, (x, y, min(w, x + bw), min(h, y + bh)), S
    yield 375, 500, (30.7, 20.3, 358.8, 348.4), 224  # the common case
    yield 100, 120, (0, 0, 80, 80), 40  # exactly a half
    yield 60, 70, (3, 4, 43, 44), 40  # as it is
    yield ROWS, 40, (0.2, 0.3, 15.1, 15.9), 8


def test_the_filter_written_down_plainly():
    for h, w, box, S in boxes(60):
        img = picture(h, w)
        expected = rows_first(img, box, S)
        assert np.array_equal(crop(img, box, S, False), expected), (h, w, box, S)
        assert np.array_equal(crop(img, box, S, True), expected[:, ::-1]), (h, w, box, S)


def test_pillow_makes_the_same():
    """Bit for bit unless the picture is upright: Pillow 13 may begin with the columns then."""
    for h, w, box, S in boxes(60):
        img = picture(h, w)
        difference = crop(img, box, S, False).astype(int) - pillow(img, box, S)
        assert np.abs(difference).max() <= (h > w), (h, w, box, S)


@pytest.mark.parametrize("mirror", [False, True])
def test_what_is_left_to_pillow(mirror, monkeypatch):
    cases = [
        (picture(60, 80).convert("L"), (1.5, 2, 51.5, 52), 40),  # grey
        (picture(300, 400), (1.5, 2, 251.5, 252), 40),  # to less than a half
        (picture(ROWS - 1, 40), (0.5, 1, 13, 14), 10),  # low
        (picture(2100, 2200), (0.5, 1, 61, 61.5), 40),  # more than 16 MB: not in one piece
    ]
    monkeypatch.setattr(_crop, "_crop", None)
    for img, box, S in cases:
        assert np.array_equal(crop(img, box, S, mirror), pillow(img, box, S, mirror))
    assert memory(cases[3][0]) is None
    monkeypatch.setattr(
        Image.Image, "__arrow_c_array__", property(), raising=False
    )  # an old Pillow
    img, box = picture(60, 80), (1.5, 2, 51.5, 52)
    assert np.array_equal(crop(img, box, 40, mirror), pillow(img, box, 40, mirror))


def test_the_memory_outlives_the_picture():
    img = picture(90, 110)
    expected, pixels = np.asarray(img).copy(), memory(img)
    if pixels is None:
        pytest.skip("Pillow is older than 11.2")
    del img
    gc.collect()
    others = [Image.new("RGB", (110, 90), "red") for _ in range(20)]
    assert np.array_equal(pixels.view(np.uint8).reshape(90, 110, 4)[..., :3], expected)
    assert len(others) == 20


@pytest.mark.parametrize("size", [(75, 100), (32, 32)])
def test_a_mirrored_view_is_the_view_mirrored(tmp_path, size):
    picture(*size).save(tmp_path / "a.png")
    plain, both = (Reader(32, 3, None, "random", mirror) for mirror in (False, True))
    left, right = np.full(8, 0.25), np.array([0.25, 0.25, 0.75, *[0.25] * 5])
    path = str(tmp_path / "a.png")
    assert np.array_equal(both(path, left), plain(path, left)[:, ::-1])
    assert np.array_equal(both(path, right), plain(path, right))
    assert not np.array_equal(both(path, left), both(path, right))
