"""ILSVRC DET: 200 classes, photos that were not searched for all of them, val1 and val2.

<root>/ILSVRC2013_DET_val/*.JPEG, ILSVRC2013_DET_bbox_val/*.xml, ILSVRC2013_DET_train/<wnid>/...
<root>/ILSVRC2013_devkit/data/meta_det.mat, det_lists/{val,test,train_pos_<k>,...}.txt,
ILSVRC2013_det_validation_blacklist.txt
"""

import xml.etree.ElementTree as ET
from pathlib import Path

from convnet import files
from convnet.cfg import nearest
from convnet.detect.sets import DetectionSet, Notes, Photo, no_objects, objects, size_of
from convnet.loader import DataError
from convnet.providers import printable

COUNT = 200


def devkit_of(root: Path) -> Path | None:
    """The folder data/ of a devkit in a folder, or of the devkit that the folder is."""
    found = [p.parent for p in (*root.glob("data/meta_det.mat"), *root.glob("*/data/meta_det.mat"))]
    return found[0] if found else None


def read(root: str | Path, split: str) -> DetectionSet:
    """The photos of a list of the devkit (val, val1, val2, test, train_pos_1, ...). DataError."""
    root = Path(root)
    data = devkit_of(root)
    if data is None:
        raise DataError(
            f"{printable(str(root))}: no */data/meta_det.mat in it, the devkit of ILSVRC DET"
        )
    wnids, classes = _classes(data / "meta_det.mat")
    path = data / "det_lists" / f"{split}.txt"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise DataError(f"{path}: no such list{nearest(split, known)}; there are {known[:9]}")
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    where = "train" if split.startswith("train") else "test" if split == "test" else "val"
    hidden, notes = _blacklist(data) if where == "val" else {}, Notes()
    photos = []
    for at, words in enumerate(lines, 1):
        number = int(words[1]) if len(words) > 1 and words[1].isdigit() else at
        photos.append(_photo(root, where, words[0], number, wnids, hidden, notes))
    numbers = tuple(range(1, len(classes) + 1))
    return DetectionSet(f"ilsvrc_{split}", classes, photos, "ilsvrc", numbers, notes.lines())


def _classes(path: Path) -> tuple[dict[str, int], list[str]]:
    """({WNID: label}, names) of the 200 classes."""
    from scipy.io import loadmat

    try:
        found = loadmat(str(path), variable_names=["synsets"], squeeze_me=True)["synsets"]
        rows = sorted((int(r["ILSVRC2013_DET_ID"]), str(r["WNID"]), str(r["name"])) for r in found)
        rows = [row for row in rows if row[0] <= COUNT]
        if [row[0] for row in rows] != [*range(1, len(rows) + 1)]:
            raise ValueError
    except Exception as e:  # loadmat raises about anything at a damaged file
        if told := files.unread(e):
            raise DataError(f"{printable(str(path))}: {told}") from None
        raise DataError(
            f"{printable(str(path))}: has no table 'synsets' of the classes of DET; unpack the "
            "devkit again"
        ) from None
    return {wnid: i - 1 for i, wnid, _ in rows}, [name for _, _, name in rows]


def _blacklist(data: Path) -> dict[int, set[str]]:
    """{number of an image of val: WNIDs that it may show without a box}."""
    found: dict[int, set[str]] = {}
    for path in sorted(data.glob("*det_validation_blacklist.txt"))[:1]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            words = line.split()
            if len(words) != 2 or not words[0].isdigit():
                raise DataError(f"{path}:{number}: must be an image and a WNID, not {line[:40]!r}")
            found.setdefault(int(words[0]), set()).add(words[1])
    return found


def _photo(root, where, name, number, wnids, hidden, notes) -> Photo:
    folders = {kind: next(iter(sorted(root.glob(f"ILSVRC*_DET_{kind}{where}"))), None)
               for kind in ("", "bbox_")}  # fmt: skip
    if folders[""] is None:
        raise DataError(f"{printable(str(root))}: no ILSVRC2013_DET_{where} in it")
    image = folders[""] / f"{name}.JPEG"
    size = size_of(image)
    unknown = frozenset(wnids[w] for w in hidden.get(number, ()) if w in wnids)
    path = folders["bbox_"] / f"{name}.xml" if folders["bbox_"] else None
    if path is None or not path.is_file():
        return Photo(name, image, *size, *no_objects(), unknown, number)
    try:
        text = path.read_bytes()
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise ValueError("an annotation has no DOCTYPE")
        rows = []
        for o in ET.fromstring(text).findall("object"):
            if (wnid := o.findtext("name")) in wnids:
                x1, y1, x2, y2 = (float(o.find("bndbox").findtext(k))
                                  for k in ("xmin", "ymin", "xmax", "ymax"))  # fmt: skip
                rows.append(([x1, y1, x2 + 1, y2 + 1], wnids[wnid], False))  # counted from 0
    except (ET.ParseError, ValueError, TypeError, AttributeError) as e:
        raise DataError(f"{path}: no annotation ({e})") from None
    return Photo(name, image, *size, *objects(rows, size, str(path), notes), unknown, number)
