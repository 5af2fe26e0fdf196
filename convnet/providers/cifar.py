"""CIFAR as batch files: the public ones, row-major, or cuda-convnet's, column-major.

    data_batch_1 .. data_batch_5, test_batch, batches.meta    cifar-10-batches-py: (10000, 3072)
    data_batch_1 .. data_batch_6, batches.meta                cuda-convnet: (3072, 10000); the
                                                              last batch is the test set
    train, test, meta                                         cifar-100-python, fine labels

An image is all its red pixels, row by row, then green, then blue. Other square sizes and grey
images of the same layouts are read too. Files are pickles; see convnet/unpickle.py.
"""

import math
import re
from pathlib import Path

import numpy as np

from convnet import views
from convnet.loader import DataError
from convnet.providers import Split, fingerprint
from convnet.providers._memory import Memory
from convnet.unpickle import load, text


class Cifar(Memory):
    noise = 0.0
    divided = False

    @classmethod
    def recognises(cls, path):
        """A folder of batches."""
        return bool(path) and any(Path(path).glob("data_batch_1*"))

    def _open(self, path, size, channels):
        root = Path(path or "")
        if not path or not root.is_dir():
            raise DataError(f"{path or 'cifar'}: no such folder of CIFAR batches")
        files = _files(root)
        meta = load(files["meta"])
        names = meta.get("label_names") or meta.get("fine_label_names")
        if not isinstance(names, list) or len(names) < 2:
            raise DataError(f"{files['meta']}: has no list label_names of two classes or more")
        self.classes = [text(name) for name in names]
        by_column = "data_mean" in meta
        self.arrays, self.splits = {}, {}
        for split in ("train", "test"):
            read = [_read(file, len(names), by_column) for file in files[split]]
            sides = {images.shape[1:] for images, _, _ in read}
            if len(sides) > 1:
                raise DataError(f"{root}: batches of {split} with images of different sizes")
            images = np.concatenate([images for images, _, _ in read])
            labels = np.concatenate([labels for _, labels, _ in read])
            self.arrays[split] = images
            self.splits[split] = Split(labels, [key for _, _, keys in read for key in keys])
        shapes = [a.shape[1:] for a in self.arrays.values()]
        if shapes[0] != shapes[1]:
            raise DataError(f"{root}: images are {shapes[0]} for training, {shapes[1]} for testing")
        side, _, own = shapes[0]
        self.size, self.channels = size or side, channels or own
        if self.channels < own:
            self.arrays = {split: views.luma(a) for split, a in self.arrays.items()}
        parts = [
            part for s in ("train", "test") for part in (self.arrays[s], self.splits[s].labels)
        ]
        self.fingerprint = fingerprint(self.classes, *parts)


def _files(root: Path) -> dict:
    """{"train": [files], "test": [files], "meta": file} of any of the three layouts."""
    if (root / "meta").is_file() and (root / "train").is_file():
        return {"train": [root / "train"], "test": [root / "test"], "meta": root / "meta"}
    numbered = {}
    for file in root.iterdir():
        if match := re.fullmatch(r"data_batch_(\d+)", file.name):
            numbered[int(match[1])] = file
    train = [numbered[n] for n in sorted(numbered)]
    test = [root / "test_batch"] if (root / "test_batch").is_file() else train[-1:]
    train = [file for file in train if file not in test]
    if not train:
        raise DataError(f"{root}: needs data_batch_1 and more, and test_batch or one batch more")
    return {"train": train, "test": test, "meta": root / "batches.meta"}


def _read(file: Path, classes: int, by_column: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(images uint8 (n, side, side, 1 or 3), labels int64 (n,), keys) of a batch file."""
    batch = load(file)
    data = batch.get("data")
    labels = batch.get("labels", batch.get("fine_labels"))
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.dtype != np.uint8:
        raise DataError(f"{file}: has no 'data' of two dimensions, of uint8")
    try:
        labels = np.array(labels, np.int64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{file}: 'labels' is no list of whole numbers") from None
    n = len(labels)
    if not n or n not in data.shape:
        raise DataError(f"{file}: {n} labels for 'data' of {data.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{file}: labels {labels.min()} to {labels.max()}, of {classes} classes")
    if data.shape[0] != n or (data.shape[1] == n and by_column):
        data = data.T  # one column for each image
    planes = 1 if math.isqrt(data.shape[1]) ** 2 == data.shape[1] else 3
    side = math.isqrt(data.shape[1] // planes)
    if planes * side * side != data.shape[1]:
        raise DataError(f"{file}: {data.shape[1]} numbers are no square image")
    images = data.reshape(n, planes, side, side).transpose(0, 2, 3, 1)
    names = batch.get("filenames")
    if not isinstance(names, list) or len(names) != n:
        names = [f"{file.name}[{i}]" for i in range(n)]
    return np.ascontiguousarray(images), labels, [text(name) for name in names]
