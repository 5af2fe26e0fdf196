"""Photos at another size: by the formula of bilinear interpolation; PyTorch's case; CUDA."""

import shutil

import numpy as np
import pytest

from convnet.detect._resample import resampled
from convnet.device import device
from convnet.kernel import Kernel
from tests import cuda

CPU = device("cpu")
MEAN = np.array([10, 20.5, 30], np.float32)


def photo(h=13, w=9, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)


def naive(img, h, w):
    """Bilinear with half-pixel centres, edges repeated, in float64, before it is rounded."""
    made = np.empty((h, w, 3))
    for y in range(h):
        for x in range(w):
            u = min(max((y + 0.5) * img.shape[0] / h - 0.5, 0), img.shape[0] - 1)
            v = min(max((x + 0.5) * img.shape[1] / w - 0.5, 0), img.shape[1] - 1)
            i, j = int(u), int(v)
            k, m = min(i + 1, img.shape[0] - 1), min(j + 1, img.shape[1] - 1)
            a, b, c, d = (img[r, s].astype(float) for r, s in ((i, j), (i, m), (k, j), (k, m)))
            made[y, x] = (1 - u + i) * ((1 - v + j) * a + (v - j) * b)
            made[y, x] += (u - i) * ((1 - v + j) * c + (v - j) * d)
    return made


def whole(img, h, w):
    return np.array([[0, 0, *img.shape[:2], 0, 0, h, w]])


@pytest.mark.parametrize("h,w", [(31, 22), (5, 4), (13, 9), (1, 1), (13, 40)])
def test_the_formula(h, w):
    img = photo()
    got = resampled(CPU, img, whole(img, h, w), (h, w), MEAN)[0]
    grey = got + MEAN
    np.testing.assert_array_equal(grey, np.round(grey), "rounded to whole grey levels, then - mean")
    assert abs(grey - naive(img, h, w)).max() <= 0.5 + 1e-4  # float32 against float64
    mirrored = resampled(CPU, img, whole(img, h, w), (h, w), MEAN, mirror=True)[0]
    np.testing.assert_array_equal(mirrored[:, ::-1], got)


def test_a_known_answer():
    """0 and 100 at four times the width: PyTorch's interpolate(align_corners=False) gives these."""
    img = np.array([[[0], [100]]], np.uint8)
    got = resampled(CPU, img, whole(img, 1, 8), (1, 8), np.zeros(1))[0, 0, :, 0]
    np.testing.assert_array_equal(got, [0, 0, 13, 38, 63, 88, 100, 100])  # 12.5 is rounded up


def test_parts_of_it():
    """A strip of the resized photo is that strip; what is outside of a rectangle is the mean."""
    img = photo()
    all_of_it = resampled(CPU, img, whole(img, 40, 30), (40, 30), MEAN)[0]
    strip = resampled(CPU, img, [[0, 0, 13, 9, -11, 0, 40, 30]], (7, 30), MEAN)[0]
    np.testing.assert_array_equal(strip, all_of_it[11:18])
    cut = resampled(CPU, img, [[2, 3, 5, 4, 3, 2, 10, 8]], (16, 12), MEAN)[0]
    inside = img[2:7, 3:7]
    wanted = np.zeros((16, 12, 3), np.float32)
    wanted[3:13, 2:10] = resampled(CPU, inside.copy(), whole(inside, 10, 8), (10, 8), MEAN)[0]
    np.testing.assert_array_equal(cut, wanted)


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++ on this machine")
def test_cuda_equals_numba(tmp_path, monkeypatch):
    """The same grey levels but where rounding is a tie to the last bit."""
    img = photo(37, 53)
    rects = np.array([[0, 0, 37, 53, 0, 0, 40, 30], [3, 5, 20, 9, 2, -4, 30, 40]])
    numba = [resampled(CPU, img, rects, (40, 30), MEAN, mirror) for mirror in (False, True)]
    shim = cuda.Shim(cuda.build(tmp_path), blocks=3, threads=2)
    monkeypatch.setattr(Kernel, "launch", lambda *a: shim.launch(*a))
    for mirror, wanted in enumerate(numba):
        got = resampled(CPU, img, rects, (40, 30), MEAN, bool(mirror))
        assert abs(got - wanted).max() <= 1
        assert (got != wanted).mean() < 1e-3
