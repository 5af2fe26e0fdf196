"""A detection set by where it is; the kind is seen from what is there."""

from collections.abc import Sequence
from pathlib import Path

from convnet.detect import coco, ilsvrc_det, pascal
from convnet.detect.sets import DetectionSet
from convnet.loader import DataError
from convnet.providers import printable


def open_set(
    path: str | Path,
    split: str,
    kind: str | None = None,
    images: str | None = None,
    classes: Sequence[str] | None = None,
) -> DetectionSet:
    """The photos of a split. kind: voc, coco or ilsvrc; None: the one that it looks like.

    A COCO set is one file for each split: `path` with {split} in it, or the file itself. Raises
    DataError.
    """
    path = Path(str(path).replace("{split}", split))
    if not path.exists():
        raise DataError(f"{printable(str(path))}: no such file or folder")
    if kind is None:
        kind = _kind(path)
    if kind == "coco":
        return coco.read(path, images)
    return ilsvrc_det.read(path, split) if kind == "ilsvrc" else pascal.read(path, split, classes)


def _kind(path: Path) -> str:
    if path.is_file():
        return "coco"
    return "ilsvrc" if ilsvrc_det.devkit_of(path) else "voc"
