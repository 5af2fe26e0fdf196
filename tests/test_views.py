"""convnet/views.py: what is cut out of images, and the random numbers that decide where."""

import numpy as np
import pytest
from PIL import Image

from convnet import views


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)


def test_fit_keeps_the_shape(photo):
    assert views.fit(photo, 60).shape == (60, 80, 3)
    assert views.fit(photo.swapaxes(0, 1), 60).shape == (80, 60, 3)
    assert views.fit(photo[:, :, 0], 75).shape == (75, 100, 1)
    assert views.fit(photo[:1, :30], 5).shape == (5, 150, 3)


def test_resize_is_pillows(photo):
    expected = Image.fromarray(photo).resize((31, 17), Image.Resampling.BILINEAR)
    assert np.array_equal(views.resize(photo, 17, 31), np.asarray(expected))
    assert views.resize(photo, 75, 100) is photo


def test_centre_and_corners_are_of_the_whole_image(photo):
    assert np.array_equal(views.centre(photo, 32), photo[21:53, 34:66])
    places = [(0, 0), (0, 68), (43, 0), (43, 68)]
    for view, (y, x) in zip(views.corners(photo, 32), places):
        assert np.array_equal(view, photo[y : y + 32, x : x + 32])
    with pytest.raises(ValueError, match="a view of 80x80 does not fit into 100x75"):
        views.centre(photo, 80)


def test_ten_views(photo):
    ten = views.ten_views(photo, 56, 64)
    whole = views.fit(photo, 64)
    assert ten.shape == (10, 56, 56, 3) and ten.dtype == np.uint8
    assert np.array_equal(ten[0], views.centre(whole, 56))
    assert np.array_equal(ten[4], whole[-56:, -56:])
    assert np.array_equal(ten[5:], ten[:5, :, ::-1])
    assert views.default_fit(224) == 256


def test_96_views():
    scales = (224, 256, 300, 360, 448, 560)
    assert sum(2 * len(views.positions(s, s * 4 // 3, 224)) for s in scales) == 96
    assert views.positions(256, 341, 224)[4] == (16, 58)


def test_warped_mean_and_to_net():
    mean = np.random.default_rng(1).random((8, 8, 3), np.float32) * 255
    warped = views.warp_mean(mean, 12, 16)
    assert warped.shape == (12, 16, 3) and warped.dtype == np.float32
    assert abs(warped.mean() - mean.mean()) < 3
    assert np.allclose(views.warp_mean(np.full((8, 8, 3), 7, np.float32), 5, 9), 7)
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    out = views.to_net([grey, np.repeat(grey[..., None], 3, axis=2)], mean)
    assert out.shape == (2, 8, 8, 3) and out.dtype == np.float32
    assert np.allclose(out[0], grey[..., None] - mean) and np.array_equal(out[0], out[1])
    assert np.array_equal(views.to_net([grey], 128)[0, ..., 0], grey - np.float32(128))
    big = np.zeros((1, 12, 16, 3), np.uint8)
    assert np.allclose(views.to_net(big, mean)[0], -warped)


def test_draws_depend_on_seed_epoch_and_index_only():
    d = views.draws(3, 5, np.arange(1000))
    assert d.shape == (1000, views.DRAWS) and d.min() >= 0 and d.max() < 1
    assert np.array_equal(d[[7, 3]], views.draws(3, 5, np.array([7, 3])))
    assert not np.any(d == views.draws(3, 6, np.arange(1000)))
    assert not np.any(d == views.draws(4, 5, np.arange(1000)))
    assert np.all(np.abs(d.mean(axis=0) - 0.5) < 0.04)
    assert np.all(np.abs(np.corrcoef(d.T) - np.eye(views.DRAWS)) < 0.12)


def test_offsets_reach_every_place_and_no_other():
    d = views.draws(0, 0, np.arange(4000))
    y, x = views.offsets("random", d, 20, 30, 16)
    assert set(y) == set(range(5)) and set(x) == set(range(15))
    assert views.offsets("random", d[0], 20, 30, 16) == (y[0], x[0])
    pairs = set(zip(*(o.tolist() for o in views.offsets("corners", d, 20, 30, 16))))
    assert pairs == {(2, 7), (0, 0), (0, 14), (4, 0), (4, 14)}
    assert views.offsets("centre", d, 20, 30, 16) == (2, 7)
    assert views.offsets("random", None, 21, 30, 16) == (2, 7)
    assert 1850 < views.mirrored(d).sum() < 2150


def test_cut_equals_slices():
    images = np.random.default_rng(2).integers(0, 256, (3, 9, 11, 2), dtype=np.uint8)
    y, x = (np.array(o)[:, None] + np.arange(5) for o in ([0, 4, 2], [6, 0, 1]))
    got = views.pick(images, y, x)
    for out, img, y, x in zip(got, images, (0, 4, 2), (6, 0, 1)):
        assert np.array_equal(out, img[y : y + 5, x : x + 5])


def test_colour_noise_follows_the_principal_components():
    rng = np.random.default_rng(3)
    covariance = np.cov(rng.normal(size=(3, 500)) * [[30], [20], [10]])
    l, p = views.principal(covariance)
    assert np.allclose(p @ np.diag(l**2) @ p.T, covariance)
    noise = views.colour_noise(views.draws(0, 0, np.arange(20000)), (l, p), 0.1)
    assert noise.shape == (20000, 3) and noise.dtype == np.float32
    assert np.allclose(np.cov(noise.T), covariance / 100, atol=0.25)
    assert np.abs(noise.mean(axis=0)).max() < 0.1


def test_interpolation_is_pillows():
    column = np.random.default_rng(4).integers(0, 256, (8, 1), dtype=np.uint8)
    for to in (8, 9, 32, 256):
        got = views.interpolation(8, to) @ column.astype(np.float32)
        picture = Image.fromarray(column).resize((1, to), Image.Resampling.BILINEAR)
        assert np.abs(got - np.asarray(picture)).max() < 1
    assert np.array_equal(views.interpolation(1, 3), np.ones((3, 1)))


def test_reflect_luma_spread():
    assert views.reflect(4, 2).tolist() == [2, 1, 0, 1, 2, 3, 2, 1]
    assert views.reflect(1, 2).tolist() == [0] * 5
    assert views.reflect(2, 3).tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    rgb = np.random.default_rng(5).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    assert np.array_equal(views.luma(rgb)[..., 0], np.asarray(Image.fromarray(rgb).convert("L")))
    assert views.spread(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert views.spread(10, 4).tolist() == [0, 2, 5, 7]
