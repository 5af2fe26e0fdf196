"""convnet/providers: batches that repeat themselves, bad images by name, and files that attack."""

import io
import os
import pickle
import signal
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnet import providers, views
from convnet.cli import UsageError
from convnet.given import check_fraction
from convnet.loader import PATIENCE
from convnet.providers import DataError, DataOptions, Provider, provider_class, stratified
from convnet.unpickle import load

RNG = np.random.default_rng(0)


def open_(name, *args, **options):
    return provider_class(name)(*args, DataOptions(**options))


def pixels(h, w, c=3):
    return np.random.default_rng(h * w).integers(0, 256, (h, w, c), dtype=np.uint8)


def save(path, array, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path, **how)


def folder(root, n=6, size=(40, 50)):
    """n JPEGs for each of two classes; returns root."""
    for name in ("cat", "dog"):
        for i in range(n):
            save(root / name / f"{i}.jpg", pixels(size[0] + i, size[1]))
    return root


def same(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b) > 0
    for x, y in zip(a, b):
        assert np.array_equal(x.images, y.images) and np.array_equal(x.indices, y.indices)
        assert np.array_equal(x.labels, y.labels) and x.number == y.number


# Names and options


def test_names_are_files():
    assert providers.names() == ["cifar", "digits", "ilsvrc", "images", "packed", "tars"]
    with pytest.raises(DataError, match=r"no data provider 'digit'; did you mean 'digits'\?"):
        provider_class("digit")
    for name in providers.names():
        assert provider_class(name).__module__ == f"convnet.providers.{name}"


@pytest.mark.parametrize("wrong", [
    {"crop": "center"}, {"on_bad_image": "ignore"}, {"test_fraction": 1.0}, {"seed": -1},
    {"workers": -1}, {"color_noise": -0.1}, {"resize_to": 7},
])  # fmt: skip
def test_wrong_options(wrong):
    with pytest.raises(DataError, match=f"{next(iter(wrong))}="):
        open_("digits", None, 8, 1, **wrong)
    with pytest.raises(DataError, match="channels=2"):
        open_("digits", None, 8, 2)
    with pytest.raises(DataError, match="size=0"):
        open_("digits", None, 0, 1)


# Digits, and what all providers share


def test_digits_are_split_for_good():
    p = open_("digits", None, None, None)
    assert (p.size, p.channels, p.classes) == (8, 1, list("0123456789"))
    assert (p.train.size, p.test.size) == (1437, 360)
    assert np.abs(np.bincount(p.test.labels) - 36).max() <= 1
    assert not set(p.train.keys) & set(p.test.keys)
    again = open_("digits", None, 224, 3, seed=5)
    assert again.fingerprint == p.fingerprint
    assert open_("digits", None, 8, 1, split_seed=1).fingerprint != p.fingerprint


def test_digits_enlarged():
    p = open_("digits", None, 28, 3)
    b = next(p.batches("test", 5))
    assert b.images.shape == (5, 28, 28, 3) and b.images.dtype == np.float32
    assert b.labels.dtype == np.int32 and b.indices.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(b.labels, p.test.labels[:5])
    raw = p.images("test", range(5))
    for got, img in zip(b.images + p.mean, raw):
        assert np.abs(got - views.centre(views.fit(img, 32), 28)).max() <= 1.01
    assert raw[0].shape == (8, 8, 3) and raw[0].max() == 255


def test_digits_at_their_own_size_are_shifted_only_in_training():
    p = open_("digits", None, 8, 1, crop="random")
    tests = np.concatenate([b.images for b in p.batches("test", 100)]) + p.mean
    assert np.allclose(tests, np.stack(p.images("test", range(360))), atol=1e-4)
    b = next(p.batches("train", 200))
    raw = np.stack(p.images("train", b.indices)).astype(float)
    moved = np.abs(b.images + p.mean - raw).max(axis=(1, 2, 3)) > 1
    assert 0.7 < moved.mean() < 0.98


@pytest.mark.parametrize("args", [("digits", None, 12, 1), ("digits", None, 8, 3)])
def test_batches_repeat_and_can_be_taken_up(args):
    p, q = open_(*args, seed=3), open_(*args, seed=3)
    epoch = list(p.batches("train", 128, 2))
    assert len(epoch) == p.batch_count("train", 128) == 12 and len(epoch[-1].labels) == 29
    assert sorted(np.concatenate([b.indices for b in epoch])) == list(range(1437))
    same(epoch[7:], q.batches("train", 128, 2, start=7))
    other = next(p.batches("train", 128, 3))
    assert not np.array_equal(other.indices, epoch[0].indices)
    assert not np.array_equal(next(open_(*args).batches("train", 128, 2)).indices, other.indices)
    assert next(p.batches("train", 4, train=False)).indices.tolist() == [0, 1, 2, 3]


def test_mean_is_settable():
    p = open_("digits", None, 8, 3)
    p.mean = 128
    assert p.mean.shape == (8, 8, 3) and p.mean.dtype == np.float32
    assert np.array_equal(next(p.batches("test", 1)).images[0] + 128, p.images("test", [0])[0])
    with pytest.raises(DataError, match=r"the mean image is \(9, 9, 3\), the input \(8, 8, 3\)"):
        p.mean = np.zeros((9, 9, 3))


def test_memory_of_batches_can_be_lent():
    store = np.empty(4 * 64, np.float32)
    p = open_("digits", None, 8, 1)
    b = next(p.batches("test", 4, empty=lambda shape, dtype: store.reshape(shape)))
    assert b.images.base is store or b.images.base.base is store


def test_views_at_another_size(tmp_path):
    p = open_("images", str(folder(tmp_path)), 32, 3, workers=0, color_noise=0)
    big, small = (next(p.batches("train", 8, 1, size=s)) for s in (None, lambda _: 24))
    assert small.images.shape == (8, 24, 24, 3)
    assert np.array_equal(big.indices, small.indices)
    whole = (big.images[0] + p.mean).round().astype(np.uint8)
    expected = views.to_net([views.resize(whole, 24, 24)], p.mean)[0]
    assert np.abs(expected - small.images[0]).max() < 0.01


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
def test_stratified(fraction):
    labels = RNG.integers(0, 7, 400)
    labels[:2] = 8
    train, test = stratified(labels, fraction, 0)
    assert sorted([*train, *test]) == list(range(400))
    for c in np.unique(labels):
        assert (labels[train] == c).any() and (labels[test] == c).any()
        assert abs((labels[test] == c).sum() - fraction * (labels == c).sum()) <= 1


# Folders of images


def test_a_folder_is_divided(tmp_path):
    p = open_("images", str(folder(tmp_path, n=10)), 32, None, workers=0)
    assert (p.train.size, p.test.size, p.classes) == (16, 4, ["cat", "dog"])
    assert p.test.labels.tolist() == [0, 0, 1, 1]
    assert all(key.startswith("cat" if l == 0 else "dog") for l, key in zip(*p.train))
    q = open_("images", str(tmp_path), 32, None, workers=0, split_seed=1)
    assert q.fingerprint != p.fingerprint
    (tmp_path / "cat" / "3.jpg").write_bytes(b"changed")
    assert open_("images", str(tmp_path), 32, None).fingerprint != p.fingerprint


def test_a_test_fraction_that_would_mean_nothing(tmp_path):
    """It is refused where the data is known to be divided; one's own provider may use it."""

    class Own(Provider):
        def _open(self, path, size, channels):
            self.size = size

    for p in (
        Own("own", 8, 3),
        open_("digits", None, None, None),
        open_("images", str(folder(tmp_path / "a")), 32, None),
    ):
        check_fraction(0.3, p)
    for split in "train", "test":
        folder(tmp_path / "b" / split)
    for p in (
        open_("images", str(tmp_path / "b"), 32, None),
        open_("cifar", cifar(tmp_path / "c", False), None, None),
    ):
        check_fraction(None, p)
        with pytest.raises(UsageError, match="has images to test with of its own"):
            check_fraction(0.3, p)


@pytest.mark.parametrize("other", ["test", "val"])
def test_train_and_test_folders(tmp_path, other):
    folder(tmp_path / "train")
    folder(tmp_path / other, n=2)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".hidden").mkdir()
    p = open_("images", str(tmp_path), 32, 3, workers=0)
    assert (p.train.size, p.test.size) == (12, 4)
    assert p.test.keys[0] == str(Path(other, "cat", "0.jpg"))
    folder(tmp_path / other / "..", n=1)
    (tmp_path / other / "cat").rename(tmp_path / other / "cta")
    with pytest.raises(DataError, match=r"cta: no such class in train; did you mean 'cat'\?"):
        open_("images", str(tmp_path), 32, 3)


def test_mean_is_that_of_the_centre_views(tmp_path):
    p = open_("images", str(folder(tmp_path)), 32, 3, workers=0)
    centres = [views.centre(views.fit(img, 37), 32) for img in p.images("train", range(9))]
    assert np.allclose(p.mean, np.mean(centres, axis=0), atol=1e-4)
    colours = np.concatenate([c.reshape(-1, 3) for c in centres])
    l, vectors = p.pca
    assert np.allclose((vectors * l**2) @ vectors.T, np.cov(colours.T, ddof=0), rtol=1e-3)
    grey = open_("images", str(tmp_path), 32, 1, workers=0)
    assert grey.mean.shape == (32, 32, 1)
    assert next(grey.batches("train", 4)).images.shape == (4, 32, 32, 1)


def test_workers_change_nothing(tmp_path):
    folder(tmp_path, n=25)
    (tmp_path / "dog" / "7.jpg").write_bytes((tmp_path / "dog" / "7.jpg").read_bytes()[:900])
    p = open_("images", str(tmp_path), 32, 3, workers=0)
    p.warn = lambda line: None
    expected = {s: list(p.batches(s, 18, 4)) for s in ("train", "test")}
    for n in (1, 2):
        with open_("images", str(tmp_path), 32, 3, workers=n) as q:
            q.warn = lambda line: None
            outer = q.batches("train", 18, 4)
            first = next(outer)
            same(expected["test"], q.batches("test", 18, 4))  # a test within an epoch
            same(expected["train"], [first, *outer])
            same(expected["train"][2:], q.batches("train", 18, 4, start=2))
    found = sum(len(b.labels) for s in expected.values() for b in s)
    assert found == 49 and list(p.bad) == [str(Path("dog", "7.jpg"))]


def test_a_killed_worker_is_a_data_error(tmp_path):
    with open_("images", str(folder(tmp_path, n=60)), 32, 3, workers=1) as p:
        p.mean, p.pca = 0, (np.ones(3), np.eye(3))
        batches = p.batches("train", 4)
        next(batches)
        os.kill(p._loader.processes[0].pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(DataError, match=r"a loader process .* died: signal 9"):
            list(batches)
        assert time.monotonic() - started < PATIENCE / 2


def test_training_crops_come_out_of_the_image(tmp_path):
    """Where nothing is resized the crops are pixels of the file."""
    for name in ("cat", "dog"):
        for i in range(2):
            save(tmp_path / name / f"{i}.png", pixels(20, 30) + np.uint8(i))
    for crop, places in [("random", 100), ("corners", 5), ("centre", 1)]:
        p = open_("images", str(tmp_path), 16, 3, crop=crop, workers=0, resize_to=20,
                  color_noise=0, mirror=False)  # fmt: skip
        p.mean = 0
        img, seen = p.images("train", [0])[0], set()
        windows = np.lib.stride_tricks.sliding_window_view(img, (16, 16, 3))[:, :, 0]
        for epoch in range(40):
            for b in p.batches("train", 2, epoch):
                for view, i in zip(b.images, b.indices):
                    if i == 0:
                        hit = np.argwhere((windows == view).all(axis=(2, 3, 4)))
                        assert len(hit) == 1
                        seen.add(tuple(hit[0]))
        assert min(20, places) <= len(seen) <= places


def test_images_of_exactly_the_input_are_padded_and_stay_in_memory(tmp_path):
    for name in ("cat", "dog"):
        for i in range(5):
            save(tmp_path / name / f"{i}.png", pixels(32, 32) + np.uint8(i))
    (tmp_path / "cat" / "3.png").write_bytes(b"")
    p = open_("images", str(tmp_path), None, 3, workers=0, color_noise=0)
    p.warn = lambda line: None
    assert p.size == 32
    p.mean = 0
    first = list(p.batches("train", 3, 1))
    tests = next(p.batches("test", 9))
    assert np.array_equal(tests.images, np.stack(p.images("test", tests.indices)))
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    same(first, p.batches("train", 3, 1))
    assert sum(len(b.labels) for b in first) + len(tests.labels) == 9
    assert p._loader is None


def test_memory_and_files_give_the_same_views(tmp_path):
    for name in ("cat", "dog"):
        for i in range(5):
            save(tmp_path / name / f"{i}.png", pixels(32, 32) + np.uint8(i))
    for o in ({}, {"resize_to": 32}, {"crop": "corners"}):
        for size in (32, 24):
            a = open_("images", str(tmp_path), size, 3, workers=0, **o)
            b = open_("images", str(tmp_path), size, 3, workers=0, **o)
            b._side = None  # as if sizes differed
            b.mean, b.pca = a.mean, a.pca
            same(a.batches("train", 4, 1), b.batches("train", 4, 1))
    save(tmp_path / "cat" / "4.png", pixels(33, 32))
    c = open_("images", str(tmp_path), 32, 3, workers=0)
    assert sum(len(b.labels) for s in ("train", "test") for b in c.batches(s, 4)) == 10


# Kinds of files


def png_header(width, height):
    """A PNG that claims a size and has no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = zlib.crc32(b"IHDR" + head)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head
    return start + struct.pack(">II", crc, 4096) + b"IDAT"


def jpeg(array, **how):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", **how)
    return file.getvalue()


@pytest.fixture
def zoo(tmp_path):
    """Two classes of sound images; returns the folder."""
    return folder(tmp_path / "zoo", n=3)


def read_one(zoo, name, channels=3):
    """The image, and the training view, of one file in the folder."""
    p = open_("images", str(zoo), 32, channels, workers=0, color_noise=0)
    p.mean = 0
    split = "train" if name in p.train.keys else "test"
    index = p.splits[split].keys.index(name)
    view = [b.images[b.indices == index] for b in p.batches(split, 99, train=True)]
    assert np.concatenate(view).shape == (1, 32, 32, channels)
    return p.images(split, [index])[0]


def test_modes(zoo):
    rgb = pixels(45, 60)
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    at = zoo / "cat" / "x.png"
    key = str(Path("cat", "x.png"))
    Image.fromarray(rgb).save(at)
    assert np.array_equal(read_one(zoo, key), rgb)
    assert np.array_equal(read_one(zoo, key, 1)[..., 0], grey)
    Image.fromarray(grey).save(at)
    assert np.array_equal(read_one(zoo, key), np.repeat(grey[..., None], 3, axis=2))
    Image.fromarray(grey.astype(np.uint16) * 257).save(at)
    assert np.array_equal(read_one(zoo, key)[..., 0], grey)
    palette = Image.fromarray(rgb).quantize(200)
    palette.save(at)
    assert np.array_equal(read_one(zoo, key), np.asarray(palette.convert("RGB")))
    alpha = np.dstack([rgb, np.where(np.arange(60) < 30, 0, 255) + np.zeros((45, 1))])
    Image.fromarray(alpha.astype(np.uint8)).save(at)
    got = read_one(zoo, key)
    assert (got[:, :30] == 255).all() and np.array_equal(got[:, 30:], rgb[:, 30:])
    Image.fromarray(grey > 99).save(at)
    assert set(read_one(zoo, key).flat) == {0, 255}


@pytest.mark.parametrize("kind", ["bmp", "webp", "gif", "tiff", "ppm"])
def test_formats(zoo, kind):
    how = {"lossless": True} if kind == "webp" else {}
    rgb = np.repeat(pixels(45, 60, 1) // 2 * 2, 3, axis=2)
    Image.fromarray(rgb).save(zoo / "cat" / f"x.{kind}", **how)
    assert np.array_equal(read_one(zoo, str(Path("cat", f"x.{kind}"))), rgb)


def test_cmyk_and_a_png_named_jpg(zoo):
    flat = np.full((45, 60, 3), (200, 100, 50), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(zoo / "cat" / "c.jpg", quality=100)
    got = read_one(zoo, str(Path("cat", "c.jpg"))).astype(int)
    assert np.abs(got - flat).max() <= 3
    Image.fromarray(flat).save(zoo / "cat" / "p.jpg", "PNG")
    assert np.array_equal(read_one(zoo, str(Path("cat", "p.jpg"))), flat)


@pytest.mark.parametrize("kind", ["jpg", "png", "tiff"])
def test_exif_orientation(zoo, kind):
    upright = np.zeros((160, 240, 3), np.uint8)
    upright[:80, :120] = 255  # bright in the upper left
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90,
            8: Image.Transpose.ROTATE_270, 5: Image.Transpose.TRANSPOSE}  # fmt: skip
    for code, turn in back.items():
        exif = Image.Exif()
        exif[0x0112] = code
        stored = Image.fromarray(upright).transpose(turn)
        stored.save(zoo / "cat" / f"e.{kind}", exif=exif)
        got = read_one(zoo, str(Path("cat", f"e.{kind}")))
        assert got.shape == upright.shape and np.abs(got.astype(int) - upright).mean() < 2


def test_odd_sizes_and_names(zoo):
    names = ["with space.jpg", "ünïcödé ✓.jpg", "new\nline.jpg", "$(x);y'\".jpg", "UPPER.JPG"]
    for name in names:
        save(zoo / "cat" / name, pixels(33, 41), format="JPEG")
    save(zoo / "dog" / "deep" / "er" / "one.png", pixels(1, 1))
    os.rename(zoo / "cat" / "UPPER.JPG", os.fsencode(zoo / "cat") + b"/\xff\xfe.jpg")  # noqa: PTH104
    p = open_("images", str(zoo), 32, 3, workers=0)
    kept = sum(len(b.labels) for s in ("train", "test") for b in p.batches(s, 5))
    assert kept == 6 + 5 + 1 and not p.bad


BAD = {
    "truncated.jpg": (lambda: jpeg(pixels(200, 300))[:5000], "truncated"),
    "zero.jpg": (lambda: b"", "the file is empty"),
    "text.jpg": (lambda: b"this is no image", "no image of a known format"),
    "html.png": (lambda: b"<html>404</html>", "no image of a known format"),
    "header.png": (lambda: png_header(50, 60), ""),
    "bomb.png": (lambda: png_header(20_000, 20_000), "bomb"),
    "large.png": (lambda: png_header(10_000, 10_000), "bomb"),
    "thin.png": (lambda: png_header(1, 30_000), "1x30000 pixels: too thin"),
    "script.jpg": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_named_once_and_left_out(zoo, name, capsys):
    make, why = BAD[name]
    folder(zoo.parent / "set" / "test", n=1)
    zoo.rename(zoo.parent / "set" / "train")
    list(open_("images", str(zoo.parent / "set"), 32, 3, workers=0).batches("train", 3))  # compiles
    bad = zoo.parent / "set" / "train" / "dog" / name
    bad.write_bytes(make())
    started = time.thread_time()  # nobody else's work counts
    p = open_("images", str(zoo.parent / "set"), 32, 3, workers=0)
    for epoch in range(2):
        batches = list(p.batches("train", 3, epoch))
        assert sum(len(b.labels) for b in batches) == 6
    assert time.thread_time() - started < 3
    ((key, reason),) = p.bad.items()
    assert key == str(Path("train", "dog", name)) and why in reason and "\n" not in reason
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("bad image left out: ") and name in err
    assert p.images("train", [p.train.keys.index(key)]) == [None]
    q = open_("images", str(zoo.parent / "set"), 32, 3, workers=0, on_bad_image="stop")
    with pytest.raises(DataError, match=name):
        list(q.batches("train", 3))


def test_200_truncations_and_damages(zoo):
    good = jpeg(pixels(60, 80))
    for i in range(200):
        (zoo / "cat" / f"t{i}.jpg").write_bytes(good[: 20 + i * (len(good) - 40) // 200])
        broken = bytearray(good)
        broken[(i * 7919) % len(good)] ^= 0xFF
        (zoo / "dog" / f"d{i}.jpg").write_bytes(broken)
    p = open_("images", str(zoo), 32, 3, workers=0)
    lines = []
    p.warn = lines.append
    p.mean = 0
    kept = sum(len(b.labels) for s in ("train", "test") for b in p.batches(s, 50, train=False))
    assert kept == 406 - len(p.bad) and len(lines) <= len(p.bad)
    assert sum(Path(key).name.startswith("t") for key in p.bad) == 200
    assert set(p.bad) >= {str(Path("cat", f"t{i}.jpg")) for i in range(200)}


def test_folders_that_are_none(tmp_path):
    def error(path, **options):
        with pytest.raises(DataError) as e:
            p = open_("images", path, 32, 3, workers=0, **options)
            p.warn = lambda line: None
            list(p.batches("train", 2))
        assert "\n" not in str(e.value)
        return str(e.value)

    assert error(None) == "images: needs the folder that holds them"
    assert error(str(tmp_path / "none")) == f"{tmp_path}/none: no such folder"
    assert error(str(tmp_path)) == f"{tmp_path}: no folder of images in it"
    save(tmp_path / "a.png", pixels(9, 9))
    assert error(str(tmp_path)).endswith("images must be in one folder for each class")
    assert error(str(tmp_path / "a.png")).endswith("a.png: a file, not a folder")
    for name in "x.tar.gz", "x.ZIP":
        (tmp_path / name).touch()
        assert error(str(tmp_path / name)).endswith(
            f"{name}: a file, not a folder; unpack it into one (a .tar that is not compressed is "
            "read as it is)"
        )
    (tmp_path / "cat").mkdir()
    assert "cat: no image in it (.jpg" in error(str(tmp_path))
    save(tmp_path / "cat" / "a.png", pixels(9, 9))
    assert "only one class, cat" in error(str(tmp_path))
    save(tmp_path / "dog" / "a.png", pixels(9, 9))
    assert "class cat has one image" in error(str(tmp_path))
    save(tmp_path / "cat" / "b.png", pixels(9, 9))
    (tmp_path / "dog" / "a.png").write_bytes(b"")
    (tmp_path / "dog" / "b.png").write_bytes(b"")
    assert error(str(tmp_path)).endswith("no image of class dog can be read")
    save(tmp_path / "dog" / "a.png", pixels(8, 9))
    save(tmp_path / "dog" / "b.png", pixels(8, 9))
    with pytest.raises(DataError, match="the images have no common size; set imgSize="):
        open_("images", str(tmp_path), None, 3)
    p = open_("images", str(tmp_path), 32, 3, workers=0)
    p.mean, p.pca, p.warn = 0, (np.ones(3), np.eye(3)), lambda line: None
    for file in tmp_path.rglob("?.png"):
        file.write_bytes(b"gone")
    with pytest.raises(DataError, match="no image of train can be read"):
        list(p.batches("train", 2))


# CIFAR


def cifar(root, by_column, protocol=2, encode=lambda text: text):
    """Two batches and a test batch of 20 images 6x6 in either layout."""
    rng = np.random.default_rng(1)
    root.mkdir()
    for i, name in enumerate(["data_batch_1", "data_batch_2", "test"]):
        data = rng.integers(0, 256, (20, 3 * 36), dtype=np.uint8)
        labels = [int(x) for x in rng.integers(0, 3, 20)]
        name = name if i < 2 else "data_batch_3" if by_column else "test_batch"
        batch = {"data": np.ascontiguousarray(data.T) if by_column else data, "labels": labels}
        batch = {encode(k): v for k, v in batch.items()}
        (root / name).write_bytes(pickle.dumps(batch, protocol))
    meta = {"label_names": ["a", "b", "c"], "num_vis": 108}
    if by_column:
        meta["data_mean"] = np.zeros((108, 1), np.float32)
    (root / "batches.meta").write_bytes(pickle.dumps(meta, protocol))
    return str(root)


def test_column_major_equals_row_major(tmp_path):
    rows = open_("cifar", cifar(tmp_path / "rows", False), None, None)
    cols = open_("cifar", cifar(tmp_path / "cols", True, 4, str.encode), None, None)
    assert (rows.size, rows.channels, rows.classes) == (6, 3, ["a", "b", "c"])
    assert (rows.train.size, rows.test.size) == (40, 20)
    assert rows.fingerprint == cols.fingerprint
    same(rows.batches("train", 7), cols.batches("train", 7))
    first = np.random.default_rng(1).integers(0, 256, (20, 108), dtype=np.uint8)[0]
    img = rows.images("train", [0])[0]
    assert img.shape == (6, 6, 3) and img[1, 2, 1] == first[36 + 6 + 2]
    assert rows.train.keys[3] == "data_batch_1[3]"
    grey = open_("cifar", cifar(tmp_path / "grey", True, 0), 4, 1)
    assert next(grey.batches("train", 7)).images.shape == (7, 4, 4, 1)


PYTHON2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
    b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
    b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x01\x02\x03\x04"
    b"\xfe\xfftbU\x06labelsq\x08]q\x09(K\x01K\x02eu."
)


def test_a_pickle_of_python_2(tmp_path):
    (tmp_path / "p").write_bytes(PYTHON2)
    found = load(tmp_path / "p")
    assert found["data"].tolist() == [[1, 2, 3], [4, 254, 255]] and found["data"].dtype == np.uint8
    assert found["labels"] == [1, 2]


def gadget(module, name, *args):
    """A protocol 2 pickle that calls module.name(*args) when it is loaded plainly."""
    body = b"".join(b"X" + struct.pack("<I", len(a)) + a.encode() for a in args)
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + body + b"tR."


GADGETS = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"),
    ("subprocess", "check_output"), ("builtins", "eval"), ("builtins", "exec"),
    ("__builtin__", "eval"), ("builtins", "open"), ("builtins", "getattr"),
    ("builtins", "__import__"), ("importlib", "import_module"), ("runpy", "run_path"),
    ("pty", "spawn"), ("shutil", "rmtree"), ("socket", "create_connection"),
    ("pickle", "loads"), ("numpy", "load"), ("numpy.testing._private.utils", "runstring"),
    ("numpy.f2py.crackfortran", "param_eval"), ("operator", "attrgetter"),
    ("copyreg", "_reconstructor"),
    ("ctypes", "CDLL"), ("webbrowser", "open"), ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "fromfile"), ("collections", "OrderedDict"),
]  # fmt: skip


@pytest.mark.parametrize("where", GADGETS, ids=".".join)
def test_no_gadget_is_called(tmp_path, where):
    mark = tmp_path / "ran"
    (tmp_path / "p").write_bytes(gadget(*where, f"touch {mark}"))
    with pytest.raises(DataError, match=f"{tmp_path}/p: .*asks for {where[0]}.{where[1]}, which"):
        load(tmp_path / "p")
    assert not mark.exists()


class Persistent(pickle.Pickler):
    def persistent_id(self, obj):
        return "outside" if obj == "x" else None


def test_other_pickles_are_refused(tmp_path):
    def error(raw):
        (tmp_path / "p").write_bytes(raw)
        with pytest.raises(DataError) as e:
            load(tmp_path / "p")
        assert "\n" not in str(e.value)
        return str(e.value)

    assert "not of plain numbers" in error(pickle.dumps({"data": np.array([{}, []], object)}, 2))
    assert "not of plain numbers" in error(pickle.dumps({"d": np.zeros(2, "i4,f4")}, 2))
    assert "not of plain numbers" in error(PYTHON2.replace(b"U\x02u1", b"U\x02O8"))
    sides = b"J\xfe\xff\xff\xffJ\xfd\xff\xff\xff\x86"
    assert "an array of -2x-3 cannot be" in error(PYTHON2.replace(b"K\x02K\x03\x86", sides))
    assert "an array of 2x3 holds 5 numbers" in error(PYTHON2.replace(b"U\x06\x01", b"U\x05"))
    assert "a class of its own" in error(PYTHON2.replace(b"numpy\nndarray", b"numpy\ndtype"))
    assert "holds a list" in error(pickle.dumps([1], 2))
    assert "not a pickle" in error(b"hello") and "not a pickle" in error(b"")
    file = io.BytesIO()
    Persistent(file, 2).dump({"x": 1})
    assert "outside of the file" in error(file.getvalue())
    for i in range(0, len(PYTHON2), 3):  # damaged anywhere: an error or a dict, nothing else
        error(PYTHON2[:i])
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "none")


def test_cifar_folders_that_are_none(tmp_path):
    def error(name="batches.meta", content=None):
        (tmp_path / "c" / name).write_bytes(pickle.dumps(content))
        with pytest.raises(DataError) as e:
            open_("cifar", str(tmp_path / "c"), None, None)
        return str(e.value)

    with pytest.raises(DataError, match="no such folder of CIFAR batches"):
        open_("cifar", str(tmp_path / "c"), None, None)
    (tmp_path / "c").mkdir()
    assert "needs data_batch_1 and more" in error("x", 1)
    cifar(tmp_path / "d", False)
    (tmp_path / "c").rename(tmp_path / "old")
    (tmp_path / "d").rename(tmp_path / "c")
    data = np.zeros((20, 108), np.uint8)
    assert "has no 'data'" in error("data_batch_1", {"labels": [0]})
    assert "19 labels for" in error("data_batch_1", {"labels": [0] * 19, "data": data})
    assert "labels 0 to 3" in error("data_batch_1", {"labels": [0, 3] * 10, "data": data})
    assert "no list of whole numbers" in error("data_batch_1", {"labels": ["a"], "data": data})
    assert "different sizes" in error("data_batch_1", {"labels": [0] * 20, "data": data[:, :75]})
    assert "no square image" in error("data_batch_1", {"labels": [0] * 20, "data": data[:, :77]})
    assert "label_names of two" in error("batches.meta", {"label_names": ["a"]})
