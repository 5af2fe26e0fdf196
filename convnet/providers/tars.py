"""Images in tar files that are not compressed, read where they are: nothing is unpacked.

    photos.tar      photos/train/cat/1.jpg ..  photos/test/cat/..    or cat/1.jpg ..  dog/..
    shop/           cat.tar  dog.tar           or train.tar  test.tar
    downloads/      ILSVRC2012_img_train.tar  ILSVRC2012_img_val.tar  ILSVRC2012_devkit_t12/
                    ILSVRC2012_img_test_v10102019.tar, which may be missing

A tar file in a folder, or in a tar file, counts as a folder of its name. What is in them is used as
if it were unpacked: ImageNet, or folders of images.
"""

import bisect
import os
import posixpath
import re
import tarfile
from array import array
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from convnet.ilsvrc import FOLDERS, Devkit
from convnet.loader import DataError
from convnet.providers import printable
from convnet.providers._decode import SUFFIXES
from convnet.providers._tree import Disk, changed, folders
from convnet.providers.ilsvrc import OF_VAL, WNID, Ilsvrc
from convnet.providers.images import Images
from convnet.shards import From, Place, Places

OF_ILSVRC = re.compile(r"ILSVRC2012_img_(train|val|test)")


class Tree(Disk):
    """What is in tar files, as if it were in one folder; paths are from there on."""

    def __init__(self, root: Path, paths: list[Path]):
        """Reads through the tar files, but not what is in them. Raises DataError."""
        super().__init__(root)
        self._changed = [changed(path) for path in paths]
        inside: dict[str, tuple[list[str], array]] = defaultdict(lambda: ([], array("q")))
        for number, path in enumerate(paths):
            known = OF_ILSVRC.match(path.stem)
            top = "" if path == root else known[1] if known else path.stem
            for folder, name, begin, size in _members(path, top):
                if known:  # the images of test/ are in test/ in their tar, those of val/ are not
                    folder = folder.replace(f"{top}/{top}", top, 1)
                inside[folder][0].append(name)
                inside[folder][1].extend((number, begin, size))
        self._names: dict[str, list[str]] = {}
        self._where: dict[str, np.ndarray] = {}  # (images, 3): as of Place
        for folder, (names, where) in _stripped(inside).items():
            at = {name: i for i, name in enumerate(names)}  # of two of a name the last counts
            self._names[folder] = sorted(at, key=os.fsencode)
            order = [at[name] for name in self._names[folder]]
            self._where[folder] = np.array(where, np.int64).reshape(-1, 3)[order]
        self._inner: dict[str, set[str]] = defaultdict(set)  # folder -> the folders in it
        for folder in self._names:
            while folder:
                above, _, name = folder.rpartition("/")
                self._inner[above].add(name)
                folder = above

    def has(self, path):
        """Whether there is such a folder."""
        return path in self._names or path in self._inner

    def folders(self, path):
        """The names of the folders in a folder, sorted."""
        return sorted(self._inner.get(path, ()), key=os.fsencode)

    def files(self, path):
        """(path, bytes) of every image in a folder and the folders in it, sorted."""
        within = f"{path}/" if path else ""
        found = [
            (posixpath.join(folder, name), int(size))
            for folder, names in self._names.items()
            if folder == path or folder.startswith(within)
            for name, size in zip(names, self._where[folder][:, 2])
        ]
        return sorted(found, key=lambda file: os.fsencode(file[0]))

    def names(self, path):
        """The names of the images in a folder, sorted."""
        return list(self._names.get(path, ()))

    def tars(self, path):
        """None: they count as folders."""
        return []

    def place(self, path: str) -> Place:
        """Where an image is."""
        folder, _, name = path.rpartition("/")
        names = self._names[folder]
        at = bisect.bisect_left(names, os.fsencode(name), key=os.fsencode)
        return Place(*self._where[folder][at].tolist())

    def size(self, path):
        """The bytes of an image."""
        return self.place(path).length

    def changed(self, path):
        """When the tar file that an image is in was written or put there, in ns."""
        return self._changed[self.place(path).file]


def _members(path: Path, top: str) -> Iterator[tuple[str, str, int, int]]:
    """(folder, name, where its bytes begin, how many) of the images in a tar file."""
    try:
        with path.open("rb") as file:
            yield from _walk(path, file, top, os.fstat(file.fileno()).st_size)
    except tarfile.TarError as e:
        why = " ".join(str(e).split())[:100]
        raise DataError(f"{printable(str(path))}: damaged, compressed or no tar file ({why}); "
                        "decompress it, or unpack it into a folder") from None  # fmt: skip
    except OSError as e:
        raise DataError(f"{printable(str(path))}: {e.strerror.lower()}") from None


def _walk(path: Path, file: BinaryIO, top: str, end: int) -> Iterator[tuple[str, str, int, int]]:
    """The images in the tar file that is from here to `end` of a file."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None and member.offset < end:
            tar.members.clear()  # it would keep all of them
            # /a, //a and a are one folder; normpath would keep two slashes
            name = posixpath.normpath("/" + member.name.lstrip("/")).removeprefix("/")
            if any(part.startswith(".") for part in name.split("/")):
                continue
            folder, _, last = posixpath.join(top, name).rpartition("/")
            begin, size = member.offset_data, member.size
            if begin + size > end and member.isreg():
                raise tarfile.ReadError("it is cut short")
            if last.lower().endswith(".tar") and member.isreg():
                here = tar.offset
                file.seek(begin)
                yield from _walk(path, file, posixpath.join(folder, last[:-4]), begin + size)
                tar.offset = here
            elif last.lower().endswith(SUFFIXES):
                if member.issym() or member.islnk() or member.sparse:
                    raise DataError(f"{printable(str(path))}: {printable(name)} is a link; unpack "
                                    "it into a folder")  # fmt: skip
                if member.isreg():
                    yield folder, last, begin, size
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # which must be at the end
            raise tarfile.ReadError("it is cut short, or not what it was")


def _stripped(inside: dict) -> dict:
    """Without the folders that all others are in, above train/ or the classes."""
    while True:
        tops = {folder.partition("/")[0] for folder in inside}
        if (
            len(tops) != 1
            or not all("/" in folder for folder in inside)
            or tops <= {"train", "val"}
        ):
            return inside
        inside = {folder.partition("/")[2]: names for folder, names in inside.items()}


class Tars(Ilsvrc):
    @classmethod
    def recognises(cls, path):
        """A tar file, or a folder that has such and no other folder than a devkit."""
        return bool(path) and bool(_tars(Path(path)))

    def _found(self):
        found = _tars(self._root)
        if not found:
            raise DataError(f"{printable(self.path)}: no tar file, nor a folder of such")
        self._others = [self._root, self._root.absolute().parent]
        tree = Tree(self._root, found)
        self._places = Places(list(map(str, found)))
        return tree

    def _list(self):
        inside, flat = self._tree.folders("train"), self._tree.names("val")
        known = any(map(OF_VAL.fullmatch, flat[:9])) or bool(Devkit.find(*self._others))
        self._ilsvrc = bool(inside or flat) and all(map(WNID.fullmatch, inside)) and known
        if self._ilsvrc:
            super()._list()
        else:
            Images._list(self)

    def item(self, split, index):
        return self._tree.place(self.splits[split].keys[index])

    def viewer(self, view):
        return From(self._places, view)

    def test_with(self, name):
        """As of Ilsvrc, if it is that."""
        if self._ilsvrc:
            super().test_with(name)
        else:
            Images.test_with(self, name)

    def close(self):
        """End the worker processes, close the files."""
        super().close()
        self._places.close()


def _tars(path: Path) -> list[Path]:
    """The tar files that a path stands for."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".tar" else []
    if any(not folder.match(FOLDERS) for folder in folders(path)):
        return []
    return sorted(path.glob("*.tar"))
