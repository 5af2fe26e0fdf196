"""A tiny net with a pyramid, and photos with objects pasted on them at known places."""

from pathlib import Path

import numpy as np
from PIL import Image

from convnet.detect.sets import DetectionSet, Photo
from convnet.net import Net
from convnet.source import Source
from tests.tooling import TINY, tiny

CLASSES = ["disc", "square"]


def net(size: int = 16, classes: int = 2, text: str = TINY) -> tuple[Source, Net]:
    """An untrained classifier with a mean of 100."""
    source = Source("tiny.cfg", text)
    made = Net(source.graph({0: (size, size, 3)}, classes))
    made.mean = np.full((size, size, 3), 100, np.float32)
    return source, made


def picture(rng: np.random.Generator, width: int, height: int):
    """A noisy photo with one to three objects: pixels, boxes, labels."""
    pixels = rng.integers(70, 130, (height, width, 3)).astype(np.uint8)
    boxes, labels = [], []
    for _ in range(int(rng.integers(1, 4))):
        side = int(rng.integers(min(width, height) // 4, min(width, height) // 2))
        left, top = int(rng.integers(width - side)), int(rng.integers(height - side))
        box = np.array([left, top, left + side, top + side], np.float32)
        if any(_apart(box, other) for other in boxes):
            continue
        label = int(rng.integers(2))
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        inside = (x**2 + y**2 <= side**2 / 4) if label == 0 else np.ones((side, side), bool)
        part = pixels[top : top + side, left : left + side]
        part[inside] = [230, 40, 40] if label == 0 else [40, 40, 230]
        boxes.append(box)
        labels.append(label)
    return pixels, np.array(boxes, np.float32), np.array(labels, np.int32)


def _apart(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.minimum(a[2:], b[2:]) > np.maximum(a[:2], b[:2])).all())


def pasted(folder: Path, count: int, seed: int = 0, width: int = 96, height: int = 72):
    """A set of photos in a folder, PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, photos = np.random.default_rng(seed), []
    for i in range(count):
        pixels, boxes, labels = picture(rng, width, height)
        path = folder / f"{seed}_{i:03}.png"
        Image.fromarray(pixels).save(path)
        hard = np.zeros(len(boxes), bool)
        photos.append(Photo(path.stem, path, width, height, boxes, labels, hard))
    return DetectionSet(folder.name, CLASSES, photos)


def windows(photo: Photo, seed: int = 0, count: int = 60) -> np.ndarray:
    """Proposals: boxes near the objects of a photo, and others anywhere."""
    rng = np.random.default_rng([seed, len(photo.boxes), *map(ord, photo.name)])
    near = np.repeat(photo.boxes, 12, 0)
    sides = near[:, 2:] - near[:, :2]
    near = near + np.tile(sides, 2) * rng.uniform(-0.2, 0.2, near.shape)
    first = rng.uniform(0, 0.8, (count, 2)) * [photo.width, photo.height]
    other = np.concatenate([first, first + rng.uniform(8, 40, (count, 2))], 1)
    edges = np.array([photo.width, photo.height] * 2)
    return np.clip(np.round(np.concatenate([near, other])), 0, edges).astype(np.float32)


def devkit(folder: Path, **counts: int) -> Path:
    """A set in VOC's layout: so many pasted photos of each split."""
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    for seed, (split, count) in enumerate(counts.items()):
        photos = pasted(folder / "JPEGImages", count, seed).photos
        names = "".join(f"{p.name}\n" for p in photos)
        (folder / f"ImageSets/Main/{split}.txt").write_text(names)
        for photo in photos:
            (folder / f"Annotations/{photo.name}.xml").write_text(annotation(photo))
    return folder


def annotation(photo: Photo) -> str:
    """The XML of a photo; VOC counts pixels from 1."""
    rows = [
        f"<object><name>{CLASSES[c]}</name><difficult>0</difficult><bndbox>"
        f"<xmin>{box[0] + 1:g}</xmin><ymin>{box[1] + 1:g}</ymin>"
        f"<xmax>{box[2]:g}</xmax><ymax>{box[3]:g}</ymax></bndbox></object>"
        for box, c in zip(photo.boxes, photo.labels)
    ]
    size = f"<width>{photo.width}</width><height>{photo.height}</height><depth>3</depth>"
    return f"<annotation><size>{size}</size>{''.join(rows)}</annotation>"


__all__ = ["CLASSES", "devkit", "net", "pasted", "picture", "tiny", "windows"]
