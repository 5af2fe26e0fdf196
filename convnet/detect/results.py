"""Detections in the files that each devkit reads, and back.

voc      comp4_det_<split>_<class>.txt   photo score left top right bottom, pixels counted from 1
ilsvrc   detections.txt                  photo class score left top right bottom, all numbers;
                                         pixels counted from 0, as in its annotations
coco     detections.json                 [{"image_id", "category_id", "bbox": [x, y, w, h], ...}]
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from convnet import files
from convnet.cli import UsageError
from convnet.detect.boxes import from_voc, to_voc
from convnet.detect.detections import Found, nothing
from convnet.detect.sets import DetectionSet, Photo
from convnet.loader import DataError
from convnet.providers import printable

LAST = np.array([0, 0, 1, 1], np.float32)  # from the last pixel of a box to its edge


def write(folder: Path, photos: DetectionSet, found: list[Found], split: str) -> list[Path]:
    """Write them as the set's own devkit has them; the paths. UsageError."""
    made = {"coco": _coco, "ilsvrc": _ilsvrc}.get(photos.kind, _voc)(photos, found, split)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            files.replace(folder / name, [text.encode()])
    except OSError as e:
        raise UsageError(f"{folder}: no results written, {files.advice(e)}") from None
    return [folder / name for name in made]


def read(folder: Path, photos: DetectionSet, split: str) -> list[Found]:
    """What `write` wrote for this set, photo by photo. DataError, with file and line."""
    rows: dict[str, list] = {photo.name: [] for photo in photos.photos}
    if photos.kind == "coco":
        _read_coco(folder / "detections.json", photos, rows)
    elif photos.kind == "ilsvrc":
        _read_ilsvrc(folder / "detections.txt", photos, rows)
    else:
        for c, name in enumerate(photos.classes):
            path = folder / _voc_name(split, name)
            for where, words in _lines(path, 6):
                box = from_voc(np.array([words[2:]], np.float64))[0]
                _add(rows, words[0], where, (box, float(words[1]), c))
    made = []
    for photo in photos.photos:
        mine = sorted(rows[photo.name], key=lambda row: (row[2], -row[1]))
        columns = zip(*mine) if mine else nothing()
        boxes, scores, labels = map(np.array, columns)
        made.append(Found(boxes.reshape(-1, 4).astype(np.float32), scores.astype(np.float32),
                          labels.astype(np.int32)))  # fmt: skip
    return made


def number_of(photo: Photo, place: int) -> int:
    """The number of a photo in its set's own files; where those have none, its place from 1."""
    return place if photo.number is None else photo.number


def _voc_name(split: str, name: str) -> str:
    return f"comp4_det_{split}_{name}.txt".replace("/", "_")


def _voc(photos: DetectionSet, found: list[Found], split: str) -> dict[str, str]:
    texts: dict[str, list[str]] = {_voc_name(split, name): [] for name in photos.classes}
    lists = [*texts.values()]
    for photo, one in zip(photos.photos, found):
        for box, score, c in zip(to_voc(one.boxes), one.scores, one.labels):
            spelt = " ".join(f"{v:.6f}" for v in box)
            lists[c].append(f"{photo.name} {score:.9g} {spelt}\n")
    return {name: "".join(lines) for name, lines in texts.items()}


def _ilsvrc(photos: DetectionSet, found: list[Found], split: str) -> dict[str, str]:
    lines = []
    for i, (photo, one) in enumerate(zip(photos.photos, found), 1):
        for box, score, c in zip(one.boxes - LAST, one.scores, one.labels):
            spelt = " ".join(f"{v:.6f}" for v in box)
            lines.append(f"{number_of(photo, i)} {c + 1} {score:.9g} {spelt}\n")
    return {"detections.txt": "".join(lines)}


def _coco(photos: DetectionSet, found: list[Found], split: str) -> dict[str, str]:
    numbers = photos.numbers or tuple(range(1, len(photos.classes) + 1))
    rows = []
    for i, (photo, one) in enumerate(zip(photos.photos, found), 1):
        for (x, y, right, bottom), score, c in zip(one.boxes.tolist(), one.scores, one.labels):
            rows.append({"image_id": number_of(photo, i), "category_id": numbers[c],
                         "bbox": [x, y, right - x, bottom - y],
                         "score": float(score)})  # fmt: skip
    return {"detections.json": json.dumps(rows)}


def _lines(path: Path, words: int) -> Iterable[tuple[str, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{printable(str(path))}: cannot be read") from None
    for number, line in enumerate(text.splitlines(), 1):
        where, found = f"{printable(str(path))}, line {number}", line.rsplit(maxsplit=words - 1)
        try:
            [float(word) for word in found[1:]]
        except ValueError:
            found = []
        if len(found) != words:
            raise DataError(f"{where}: must be a photo and {words - 1} numbers")
        yield where, found


def _add(rows: dict[str, list], name: str, where: str, row: tuple) -> None:
    if name not in rows:
        raise DataError(f"{where}: {printable(name)} is no photo of this set")
    rows[name].append(row)


def _read_ilsvrc(path: Path, photos: DetectionSet, rows: dict[str, list]) -> None:
    names = {str(number_of(p, i)): p.name for i, p in enumerate(photos.photos, 1)}
    for where, words in _lines(path, 7):
        c = int(float(words[1])) - 1
        if not 0 <= c < len(photos.classes):
            raise DataError(f"{where}: class {words[1]} of {len(photos.classes)}")
        box = np.array(words[3:], np.float64) + LAST
        _add(rows, names.get(words[0], words[0]), where, (box, float(words[2]), c))


def _read_coco(path: Path, photos: DetectionSet, rows: dict[str, list]) -> None:
    names = {number_of(p, i): p.name for i, p in enumerate(photos.photos, 1)}
    numbers = photos.numbers or tuple(range(1, len(photos.classes) + 1))
    try:
        for i, row in enumerate(json.loads(path.read_text(encoding="utf-8"))):
            x, y, w, h = map(float, row["bbox"])
            found = (np.array([x, y, x + w, y + h]), float(row["score"]),
                     numbers.index(row["category_id"]))  # fmt: skip
            _add(rows, names.get(row["image_id"], str(row["image_id"])), f"{path}, row {i}", found)
    except (OSError, KeyError, TypeError, ValueError) as e:
        raise DataError(f"{printable(str(path))}: no detections of COCO's kind ({e})") from None
