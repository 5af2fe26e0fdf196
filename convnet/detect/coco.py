"""Sets as COCO describes them: one JSON file of images, categories and annotations."""

import json
from collections import Counter
from pathlib import Path

from convnet.detect.sets import DetectionSet, Notes, Photo, objects
from convnet.loader import DataError
from convnet.providers import printable


def read(path: str | Path, images: str | Path | None = None) -> DetectionSet:
    """The photos of a file such as annotations/instances_val2017.json. Raises DataError.

    images: their folder; None: the one named like the split beside the folder of the file. Crowds
    are difficult. `numbers` are the ids of the categories, `number` is the id of an image.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted(found["categories"], key=lambda c: c["id"])
        pictures, rows = found["images"], found.get("annotations") or []
        of: dict[int, list] = {p["id"]: [] for p in pictures}
        sizes = {p["id"]: (int(p["width"]), int(p["height"])) for p in pictures}
        files = {p["id"]: str(p["file_name"]) for p in pictures}
        label = {c["id"]: i for i, c in enumerate(categories)}
        names = [str(c["name"]) for c in categories]
    except OSError as e:
        raise DataError(f"{printable(str(path))}: {e.strerror.lower()}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(
            f"{printable(str(path))}: no JSON of COCO's detection sets with images, categories "
            f"and annotations ({type(e).__name__} {e})"
        ) from None
    folder, notes = _images(path, images, next(iter(files.values()), "")), Notes()
    for row in rows:
        try:
            x, y, w, h = map(float, row["bbox"])
            of[row["image_id"]].append(
                ([x, y, x + w, y + h], label[row["category_id"]], bool(row.get("iscrowd", 0)))
            )
        except (KeyError, ValueError, TypeError) as e:
            raise DataError(
                f"{path}: annotation {row.get('id') if isinstance(row, dict) else row!r}: no bbox, "
                f"or of an image or category that is not there ({e})"
            ) from None
    photos = []
    for number, size in sizes.items():
        made = objects(of[number], size, f"{path}: image {number}", notes)
        name = files[number].rpartition(".")[0] or files[number]
        photos.append(Photo(name, folder / files[number], *size, *made, number=number))
    twice = [n for n, count in Counter(p.name for p in photos).items() if count > 1]
    if twice:
        raise DataError(f"{path}: two photos are called {printable(twice[0])}")
    numbers = tuple(c["id"] for c in categories)
    return DetectionSet(path.stem, names, photos, "coco", numbers, notes.lines())


def _images(path: Path, images: str | Path | None, first: str) -> Path:
    """The folder of the photos. DataError where the first one is not in it."""
    word = path.stem.rpartition("_")[2]
    beside = [path.parent.parent, path.parent]
    tried = [Path(images)] if images else [b / w for b in beside for w in (word, "images", ".")]
    for folder in tried:
        if (folder / first).is_file() or not first:
            return folder
    raise DataError(
        f"{path}: its first photo {printable(first)} is not in "
        f"{', '.join(printable(str(t)) for t in tried)}; --images= names the folder"
    )
