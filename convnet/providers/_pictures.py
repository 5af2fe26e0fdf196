"""Pictures of which nobody says what they show: nothing to train on, but to look at.

    photos/1.jpg photos/2009/2.jpg     a folder of them, its folders included
    list.txt                           a text file that names one a line, from where it lies itself

As a provider: no classes, the label -1, and all of them in `test`.
"""

from pathlib import Path

import numpy as np

from convnet.loader import DataError
from convnet.providers import Split, fingerprint, printable
from convnet.providers._tree import Disk, files, folders
from convnet.providers.images import Images
from convnet.providers.tars import Tars


def has_no_classes(path: str) -> bool:
    """Whether a path is a list, or a folder of pictures that are not sorted into classes."""
    root = Path(path)
    if not root.is_dir():
        return root.is_file() and not Tars.recognises(path)
    if (root / "train").is_dir():
        return False
    return sum(bool(files(folder)[0]) for folder in folders(root)) < 2 and bool(files(root)[0])


class Pictures(Images):
    def _open(self, path, size, channels):
        self._root, self._loader, self._side, self._small = Path(path), None, None, {}
        self.size, self.channels = size, channels or 3
        if self._root.is_file():
            keys = _lines(self._root)
            self._root = self._root.parent
        else:
            self._tree = Disk(self._root)
            keys = [path for path, _ in self._tree.files("")]
            self._report_broken()
        self.classes = []
        self.splits = {
            "train": Split(np.empty(0, np.int64), []),
            "test": Split(np.full(len(keys), -1, np.int64), keys),
        }
        self.fingerprint = fingerprint(keys)


def _lines(path: Path) -> list[str]:
    """The lines of a list of images. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise DataError(f"{printable(str(path))}: cannot be read, {e.strerror.lower()}") from None
    if b"\0" in data:
        raise DataError(f"{printable(str(path))}: is no text that names one image a line")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    found = [line.strip("\r") for line in text.split("\n")]
    found = [line for line in found if line.strip()]
    if not found:
        raise DataError(f"{printable(str(path))}: names no image")
    return found
