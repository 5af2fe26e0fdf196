"""Boxes from files of others: selective search of R-CNN, SPP-net and Fast R-CNN, JSON, text.

.mat      `images` and `boxes`, a cell for each photo; MAT 5 or 7.3. R-CNN and SPP-net write
          y1 x1 y2 x2 counted from 1, the demos of Fast R-CNN x1 y1 x2 y2 counted from 0; which one
          it is follows from the sizes of the photos, and is said
.json     {"<photo>": [[left, top, right, bottom], ...]}, as everywhere in here
.txt      lines `<photo> left top right bottom`, likewise
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from convnet.detect.sets import DetectionSet, Photo
from convnet.loader import DataError
from convnet.providers import printable

ORDERS = {"y1 x1 y2 x2": [1, 0, 3, 2], "x1 y1 x2 y2": [0, 1, 2, 3]}


def read(
    path: Path, photos: DetectionSet, todo: list[Photo], every: list[Photo] | None = None
) -> Iterator[tuple[Photo, np.ndarray]]:
    """(photo, its boxes (N, 4)) for each in `todo`. DataError where the file is of other photos.

    every: photos whose sizes tell how a .mat counts, as far as it has them; None: those of the set.
    """
    readers = {".mat": _mat, ".json": _json, ".txt": _text}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: must be {', '.join(readers)} to be read as proposals")
    try:
        found = readers[path.suffix.lower()](path)
    except DataError:
        raise
    except Exception as e:  # readers of damaged files raise about anything
        why = " ".join(str(e).split())[:120]
        raise DataError(f"{path}: cannot be read as proposals ({why})") from None
    missing = [p for p in photos.photos if p.name not in found]
    if missing:
        raise DataError(
            f"{path}: proposals of other photos: {len(missing)} of {len(photos.photos)} are "
            f"missing, first {printable(missing[0].name)}"
        )
    if path.suffix.lower() == ".mat":
        known = [p for p in every or photos.photos if p.name in found]
        order, first = convention(path, known, found)
        found = {k: v[:, ORDERS[order]] - [first, first, first - 1, first - 1]
                 for k, v in found.items()}  # fmt: skip
    for photo in todo:
        yield photo, _checked(path, photo, found[photo.name])


def convention(path: Path, photos: list[Photo], found: dict[str, np.ndarray]) -> tuple[str, int]:
    """(order of the numbers, number of the first pixel) that fits the sizes of all photos."""
    outside, lowest = dict.fromkeys(ORDERS, 0), np.inf
    total = 0
    for photo in photos:
        raw = found[photo.name]
        total += len(raw)
        lowest = min(lowest, raw.min(initial=np.inf))
        for name, columns in ORDERS.items():
            x, y = raw[:, columns][:, 2:].T
            outside[name] += int(((x > photo.width) | (y > photo.height)).sum())
    order = min(outside, key=outside.get)
    other = next(name for name in ORDERS if name != order)
    first = 0 if lowest < 1 else 1
    if outside[order]:
        raise DataError(
            f"{path}: {outside[order]} of {total} boxes are outside of their photos in either "
            "order; these are proposals of other photos"
        )
    why = f"in the other order {outside[other]} of {total} would be outside of their photos"
    if not outside[other]:
        why = "both orders fit; this is that of R-CNN and SPP-net"
    print(f"note: {path}: boxes are {order}, counted from {first} (lowest number {lowest:g}; "
          f"{why})", file=sys.stderr)  # fmt: skip
    return order, first


def _checked(path: Path, photo: Photo, boxes: np.ndarray) -> np.ndarray:
    """The boxes that have an inside on the photo, cut to it."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise DataError(f"{path}: the boxes of {printable(photo.name)} are no rows of 4 numbers")
    edges = np.array([photo.width, photo.height] * 2)
    boxes = np.clip(boxes, 0, edges).astype(np.float32)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]


def _mat(path: Path) -> dict[str, np.ndarray]:
    import h5py
    from scipy.io import loadmat

    try:
        if h5py.is_hdf5(path):
            names, boxes = _mat73(path)
        else:
            found = loadmat(str(path), squeeze_me=False)
            names = [str(np.squeeze(n)) for n in found["images"].reshape(-1)]
            boxes = [np.asarray(b, np.float64).reshape(-1, 4) for b in found["boxes"].reshape(-1)]
    except KeyError as e:
        raise DataError(f"{path}: no {e} in it; needs the cells images and boxes") from None
    if len(names) != len(boxes):
        raise DataError(f"{path}: {len(names)} images but boxes of {len(boxes)}")
    return dict(zip(names, boxes))


def _mat73(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Of MAT 7.3, which is HDF5: cells are references, texts are numbers, arrays transposed."""
    import h5py

    with h5py.File(path, "r") as file:
        cells = {name: file[name][()].reshape(-1) for name in ("images", "boxes")}
        names = ["".join(map(chr, file[r][()].reshape(-1))) for r in cells["images"]]
        boxes = [np.asarray(file[r][()], np.float64) for r in cells["boxes"]]
    return names, [b.T.reshape(-1, 4) if b.ndim == 2 else np.zeros((0, 4)) for b in boxes]


def _json(path: Path) -> dict[str, np.ndarray]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return {str(k): np.array(v, np.float64).reshape(-1, 4) for k, v in found.items()}


def _text(path: Path) -> dict[str, np.ndarray]:
    rows: dict[str, list] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.rsplit(maxsplit=4)
        if not words:
            continue
        try:
            rows.setdefault(words[0], []).append([float(w) for w in words[1:]])
            if len(words) != 5:
                raise ValueError
        except ValueError:
            form = "<photo> left top right bottom"
            raise DataError(f"{path}:{number}: must be {form}, not {line[:60]!r}") from None
    return {name: np.array(boxes) for name, boxes in rows.items()}
