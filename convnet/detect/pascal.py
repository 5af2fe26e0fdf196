"""Sets as PASCAL VOC lays them out: JPEGImages, Annotations, ImageSets/Main/<split>.txt."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from convnet.cfg import nearest
from convnet.detect.boxes import from_voc
from convnet.detect.sets import DetectionSet, Notes, Photo, no_objects, objects, size_of
from convnet.loader import DataError
from convnet.providers import printable

CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
]  # fmt: skip
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp")
LARGEST = 8 << 20  # bytes of an annotation


def folder_of(devkit: Path) -> Path | None:
    """The folder with ImageSets/Main: this one, or the last VOC<year> in it."""
    found = [f for f in [devkit, *sorted(devkit.glob("*"))] if (f / "ImageSets/Main").is_dir()]
    return found[-1] if found else None


def read(devkit: str | Path, split: str, classes: Sequence[str] | None = None) -> DetectionSet:
    """The photos of a split, `trainval` or another file of ImageSets/Main. Raises DataError.

    classes: their names in order; None: VOC's 20 if all names in Annotations are among them, else
    those names, sorted. A photo without a file in Annotations has no objects.
    """
    root = folder_of(Path(devkit))
    if root is None:
        raise DataError(
            f"{printable(str(devkit))}: no ImageSets/Main in it, nor in a folder of it; a set in "
            "VOC's layout has JPEGImages, Annotations and ImageSets/Main/<split>.txt"
        )
    names, notes = _names(root, split), Notes()
    images = {p.stem: p for p in sorted((root / "JPEGImages").glob("*")) if p.suffix in SUFFIXES}
    missing = [n for n in names if n not in images]
    if missing:
        raise DataError(
            f"{root / 'ImageSets/Main' / split}.txt: {len(missing)} of {len(names)} photos are not "
            f"in JPEGImages, first {printable(missing[0])}"
        )
    if classes is None:
        classes = _all_names(root)
    photos = [_photo(root, name, images[name], list(classes), notes) for name in names]
    return DetectionSet(f"{root.name}_{split}", list(classes), photos, "voc", (), notes.lines())


def _names(root: Path, split: str) -> list[str]:
    """The names of the photos of a split."""
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    known = sorted(p.stem for p in path.parent.glob("*.txt") if "_" not in p.stem)
    if not path.is_file():
        raise DataError(f"{path}: no such split{nearest(split, known)}; there are {known}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text") from None
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: is empty")
    twice = (
        next((n for n in names if names.count(n) > 1), None) if len({*names}) < len(names) else 0
    )
    if twice:
        raise DataError(f"{path}: {printable(twice)} for the second time")
    return names


def _all_names(root: Path) -> list[str]:
    """The classes of all annotations, so that every split has the same."""
    found = set()
    for path in sorted((root / "Annotations").glob("*.xml")):
        found |= {name for _, name, _ in _objects(path)[1]}
    if not found:
        raise DataError(f"{root / 'Annotations'}: no annotation with an object in it")
    return CLASSES if found <= {*CLASSES} else sorted(found)


def _photo(root: Path, name: str, image: Path, classes: list[str], notes: Notes) -> Photo:
    size, path = size_of(image), root / "Annotations" / f"{name}.xml"
    if not path.is_file():
        notes.add("no annotation: taken as a photo without objects", printable(name))
        return Photo(name, image, *size, *no_objects())
    rows, (told, found) = [], _objects(path)
    if told not in (None, size):
        raise DataError(
            f"{path}: is for a photo of {told[0]}x{told[1]} pixels, {printable(image.name)} has "
            f"{size[0]}x{size[1]}"
        )
    for box, of, difficult in found:
        if of not in classes:
            raise DataError(f"{path}: class {of!r} is none of {classes}{nearest(of, classes)}")
        rows.append((from_voc([box])[0], classes.index(of), difficult))
    return Photo(name, image, *size, *objects(rows, size, str(path), notes))


Object = tuple[list[float], str, bool]  # [x1, y1, x2, y2] as in the file, class, difficult


def _objects(path: Path) -> tuple[tuple[int, int] | None, list[Object]]:
    """The (width, height) that the file tells of its photo, if any, and the objects. DataError."""
    try:
        text = path.read_bytes()
        if len(text) > LARGEST or b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise ValueError("an annotation has no DOCTYPE and is not so large")
        found, tree = [], ET.fromstring(text)
        sides = [int(float(tree.findtext(f"size/{k}") or 0)) for k in ("width", "height")]
        for o in tree.findall("object"):
            box = o.find("bndbox")
            corners = [float(box.find(k).text) for k in ("xmin", "ymin", "xmax", "ymax")]
            hard = (o.findtext("difficult") or "0").strip() == "1"
            name = (o.findtext("name") or "").strip()
            if not name:
                raise ValueError("an object lacks its name")
            found.append((corners, name, hard))
    except OSError as e:
        raise DataError(f"{path}: {e.strerror.lower()}") from None
    except (ET.ParseError, ValueError, TypeError, AttributeError) as e:
        why = str(e) if isinstance(e, (ET.ParseError, ValueError)) else "an object lacks its bndbox"
        raise DataError(f"{path}: no annotation of VOC ({why})") from None
    return (sides[0], sides[1]) if all(sides) else None, found
