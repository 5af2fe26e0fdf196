"""The classification sets of PASCAL VOC: which images are of which class."""

from pathlib import Path

import numpy as np

from convnet.cfg import nearest
from convnet.providers import DataError, printable


def classes(root: Path, sets: tuple[str, str]) -> list[str]:
    """The classes of a folder such as VOCdevkit/VOC2007, by name. Raises DataError."""
    folder = root / "ImageSets" / "Main"
    if not folder.is_dir():
        raise DataError(
            f"{printable(str(root))}: no ImageSets/Main in it, so no VOC2007 or the like"
        )
    found = sorted(
        path.name.removesuffix(f"_{sets[0]}.txt") for path in folder.glob(f"*_{sets[0]}.txt")
    )
    if not found:
        known = sorted({path.stem.rpartition("_")[2] for path in folder.glob("*_*.txt")})
        raise DataError(f"{folder}: no <class>_{sets[0]}.txt in it{nearest(sets[0], known)}")
    return found


def truth(root: Path, name: str, subset: str) -> dict[str, int]:
    """{image: 1 of the class, 0 hard to tell, -1 not} of <class>_<subset>.txt. Raises DataError."""
    path, found = root / "ImageSets" / "Main" / f"{name}_{subset}.txt", {}
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise DataError(f"{path}: {e.strerror.lower()}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text") from None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("1", "0", "-1"):
            raise DataError(f"{path}:{number}: must be an image and 1, 0 or -1, not {line[:60]!r}")
        if words[0] in found:
            raise DataError(f"{path}:{number}: {words[0]} for the second time")
        found[words[0]] = int(words[1])
    if not found:
        raise DataError(f"{path}: is empty")
    return found


def table(root: Path, subset: str, names: list[str]) -> tuple[list[str], np.ndarray]:
    """(images, (images, classes) of 1, 0, -1) of a subset. Raises DataError."""
    columns = [truth(root, name, subset) for name in names]
    images = list(columns[0])
    for name, column in zip(names, columns):
        if column.keys() != columns[0].keys():
            odd = min(column.keys() ^ columns[0].keys())
            raise DataError(
                f"{root}: {odd} is in only one of {name}_{subset}.txt and {names[0]}_{subset}.txt"
            )
    return images, np.array([[column[image] for column in columns] for image in images])
