"""Crops of the objects of a detection set, by class, to train a classifier on where none is had.

    <out>/<class>/<photo>_<number>.png        an object with some context, as it is on the photo
    <out>/background/<photo>_<number>.png     a place without one

tools/train.py --data-path=<out> takes such a folder.
"""

import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from convnet import files
from convnet.cli import UsageError
from convnet.detect.boxes import overlap
from convnet.detect.sets import DetectionSet, Photo

CONTEXT = 1.2  # sides of a crop, in sides of the box
GROUND = 4  # crops without an object, of each photo
TRIES = 50


def write(photos: DetectionSet, out: Path, seed: int = 0) -> dict[str, int]:
    """Write the crops; how many of each class. UsageError where the folder cannot be written to."""
    from tqdm import tqdm

    counts = dict.fromkeys([*photos.classes, "background"], 0)
    if "background" in photos.classes:
        raise UsageError("a class of these photos is called background, as crops without one are")
    try:
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"--out={out}: is not empty; name a new folder")
        for name in counts:
            (out / folder_name(name)).mkdir(parents=True, exist_ok=True)
        for i, photo in enumerate(tqdm(photos.photos, "crops", unit="photo",
                                       disable=not sys.stderr.isatty())):  # fmt: skip
            pixels = photo.pixels()
            boxes, labels = crops_of(photo, np.random.default_rng([seed, i]))
            for k, (box, label) in enumerate(zip(boxes, labels)):
                name = "background" if label < 0 else photos.classes[label]
                left, top, right, bottom = box
                path = out / folder_name(name) / f"{folder_name(photo.name)}_{k}.png"
                Image.fromarray(pixels[top:bottom, left:right]).save(path)
                counts[name] += 1
    except OSError as e:
        raise UsageError(f"--out={out}: {files.advice(e)}") from None
    return counts


def folder_name(name: str) -> str:
    """A name that can be that of a file."""
    name = re.sub(r"[/\\\0]", "_", name)
    return name if name.strip(".") else f"_{name[1:]}".replace(".", "_")


def crops_of(photo: Photo, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) whole pixels inside of the photo, and the class of each, -1 without an object."""
    limit = np.array([photo.width, photo.height])
    middle = (photo.boxes[:, :2] + photo.boxes[:, 2:]) / 2
    sides = (photo.boxes[:, 2:] - photo.boxes[:, :2]) * CONTEXT
    found = [*np.concatenate([middle - sides / 2, middle + sides / 2], 1)]
    labels = [*photo.labels.tolist()]
    typical = sides.mean(1) if len(sides) else np.array([min(limit) / 3])
    for _ in range(TRIES):
        if len(found) == len(photo.boxes) + GROUND:
            break
        side = min(rng.choice(typical) * rng.uniform(0.7, 1.4), *limit)
        first = rng.uniform(0, 1, 2) * (limit - side)
        box = np.concatenate([first, first + side])
        if not len(photo.boxes) or overlap(box[None], photo.boxes).max() < 0.1:
            found.append(box)
            labels.append(-1)
    boxes = np.array(found).reshape(-1, 4)
    first = np.clip(np.floor(boxes[:, :2]), 0, limit - 1)
    last = np.clip(np.ceil(boxes[:, 2:]), first + 1, limit)
    return np.concatenate([first, last], 1).astype(int), np.array(labels, int)
