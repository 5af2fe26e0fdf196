"""ImageNet as ILSVRC 2012 to 2017 gave it out, and as Kaggle does.

    imagenet/train/n01440764/n01440764_18.JPEG ..
    imagenet/val/ILSVRC2012_val_00000001.JPEG ..      or val/n01440764/ILSVRC2012_val_00000293.JPEG
    imagenet/test/ILSVRC2012_test_00000001.JPEG ..    which has no labels, and may be missing
    imagenet/ILSVRC2012_devkit_t12/data/meta.mat ..   or beside imagenet/

    kaggle/ILSVRC/Data/CLS-LOC/train/ ..              val/ and test/ likewise
    kaggle/LOC_val_solution.csv, LOC_synset_mapping.txt

The classes are the WNIDs of the folders in train/, sorted; without train/, those of the devkit or
of LOC_synset_mapping.txt. `test` is val/ in the order of the images' names; what they show is said
by the folders they are in, or the devkit, or LOC_val_solution.csv. Files are only listed until they
are read: of 1.28 million not even the sizes are asked for, but for one of each class.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from convnet.ilsvrc import FOLDER, NUMBER, Devkit
from convnet.loader import DataError
from convnet.providers import Split, fingerprint, printable
from convnet.providers._tree import Disk, folders
from convnet.providers.images import Images

WNID = re.compile(r"n\d{8}")
OF_VAL = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")
KAGGLE = ("ILSVRC", "Data", "CLS-LOC")
MAPPING, SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"


class Names(Sequence):
    """Paths of files, one text for all of them: a third of what as many str would take."""

    def __init__(self, folders: list[str], names: Iterable[list[str]],
                 inside: np.ndarray | None = None):  # fmt: skip
        """names: a list for each folder; or just names, file i being in folder inside[i]."""
        pieces = [os.fsencode("\0".join(some) + "\0") for some in names]
        if inside is None:
            counts = np.array([piece.count(0) for piece in pieces], np.int64)
            inside = np.repeat(np.arange(len(pieces)), counts)
        self.folders, self.inside, self.text = folders, inside, b"".join(pieces)
        self.ends = np.flatnonzero(np.frombuffer(self.text, np.uint8) == 0)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        i = range(len(self))[i]
        begin = self.ends[i - 1] + 1 if i else 0
        name = os.fsdecode(self.text[begin : self.ends[i]])
        return f"{self.folders[self.inside[i]]}{os.sep}{name}"


class Ilsvrc(Images):
    devkit: Devkit | None

    @classmethod
    def recognises(cls, path):
        """Folders named by WNIDs, or images by numbers, and one thing more that only ILSVRC has."""
        if not path:
            return False
        images, *others = _places(Path(path))
        found = [f.name for split in ("train", "val") for f in folders(images / split)]
        flat = _flat(images / "val")
        if not all(map(WNID.fullmatch, found)) or not (found or flat):
            return False
        return flat or _beside(MAPPING, others) is not None or Devkit.find(*others) is not None

    def _found(self):
        super()._found()
        self._root, *self._others = _places(self._root)
        return Disk(self._root)

    def _list(self):
        self.devkit = Devkit.find(*self._others)
        found = self._tree.folders("train")
        self.classes = found or self._told_classes()
        self._check_classes()
        names = Names([f"train{os.sep}{name}" for name in found],
                      (self._of_class("train", name) for name in found))  # fmt: skip
        self._labelled = self._val()
        self._note_missing()
        self.splits = {"train": Split(names.inside, names), "test": self._labelled}
        self.fingerprint = self._print()

    def _of_class(self, split: str, name: str) -> list[str]:
        """The names of the images of a class, sorted. Raises DataError if there are none."""
        if found := self._tree.names(os.path.join(split, name)):  # noqa: PTH118 (it is a str)
            return found
        where = printable(str(self._root / split / name))
        raise DataError(f"{where}: no image in it; unpack it again, or take the folder away")

    def _told_classes(self) -> list[str]:
        """The classes where there is no train/."""
        where = printable(str(self._root))
        if self._tree.has("train"):
            raise DataError(f"{where}/train: no folder in it; unpack n01440764.tar and the others, "
                            "each into a folder of its own")  # fmt: skip
        if self.devkit:
            return sorted(self.devkit.ids)
        if mapping := _beside(MAPPING, self._others):
            return sorted({found[0] for line in _lines(mapping) if (found := WNID.match(line))})
        if found := self._tree.folders("val"):
            return found
        raise DataError(f"{where}: no train/ in it, nor anything that names the classes; put "
                        f"the folder {FOLDER} into it or beside it")  # fmt: skip

    def _check_classes(self) -> None:
        where = printable(str(self._root))
        if len(self.classes) < 2:
            raise DataError(f"{where}: {len(self.classes)} class; it takes two to classify")
        for name in self.classes:
            if not WNID.fullmatch(name):
                raise DataError(f"{where}: folder {printable(name)} is not named by a WNID as "
                                "n01440764 is; --data-provider=images takes any names")  # fmt: skip
            if self.devkit and name not in self.devkit.ids:
                raise DataError(f"{where}: folder {name} is of no synset in {self.devkit.meta}; "
                                "take it away, or give --data-provider=images")  # fmt: skip

    def _val(self) -> Split:
        """The images of val/, in the order of their names."""
        where = printable(str(self._root / "val"))
        inside, names = self._tree.folders("val"), self._tree.names("val")
        if inside and names:
            raise DataError(f"{where}: images and folders; sort all of the images into folders "
                            "or none")  # fmt: skip
        if not inside:
            if not names:
                raise DataError(f"{where}: no image in it; unpack ILSVRC2012_img_val.tar there")
            labels = self._labels(names)
            return Split(labels, Names(["val"], [names]))
        label = {name: i for i, name in enumerate(self.classes)}
        pairs = []
        for folder in inside:
            if folder not in label:
                raise DataError(f"{where}/{printable(folder)}: no such class in train; "
                                "take the folder away")  # fmt: skip
            pairs += [(name, label[folder]) for name in self._of_class("val", folder)]
        names, shown = zip(*sorted(pairs))
        labels = np.array(shown, np.int64)
        return Split(labels, Names([f"val{os.sep}{c}" for c in self.classes], [names], labels))

    def _note_missing(self) -> None:
        """Say so if the devkit knows more images of val/, of these classes, than there are."""
        if not self.devkit:
            return
        ids, known = [self.devkit.ids[name] for name in self.classes], 0
        with contextlib.suppress(DataError):  # a sorted val/ needs no ground truth
            known = int(np.isin(self.devkit.ground_truth, ids).sum())
        if self._labelled.size < known:
            self.warn(f"{printable(str(self._root / 'val'))}: {self._labelled.size:,} of {known:,} "
                      "images are there; unpack ILSVRC2012_img_val.tar again")  # fmt: skip

    def _labels(self, names: list[str]) -> np.ndarray:
        """What the images of a flat val/ show, int64."""
        label = {name: i for i, name in enumerate(self.classes)}
        said, source = self._said()
        labels = np.empty(len(names), np.int64)
        for i, name in enumerate(names):
            wnid = said(name)
            if wnid not in label:
                why = f"is of {wnid}, which has no folder in train/; add it, or take the image away"
                why = why if wnid else f"{source} does not say what it shows; take it away"
                raise DataError(f"{printable(str(self._root / 'val' / name))}: {why}")
            labels[i] = label[wnid]
        return labels

    def _said(self) -> tuple[Callable[[str], str | None], Path]:
        """(name of an image -> the WNID of what it shows, or None; the file that says so)."""
        if self.devkit and self.devkit.truth:
            wnids = {number: wnid for wnid, number in self.devkit.ids.items()}
            truth = [wnids[number] for number in self.devkit.ground_truth.tolist()]

            def by_number(name: str) -> str | None:
                number = NUMBER.search(name)
                at = int(number[1]) if number else 0
                return truth[at - 1] if 1 <= at <= len(truth) else None

            return by_number, self.devkit.truth
        if path := _beside(SOLUTION, self._others):
            rows = (re.match(r"([^,]+),\"?(n\d{8})\b", line) for line in _lines(path))
            told = {row[1]: row[2] for row in rows if row}
            return lambda name: told.get(name.rpartition(".")[0]), path
        raise DataError(
            f"{printable(str(self._root))}/val: nothing says what its images show: put the folder "
            f"{FOLDER} or {SOLUTION} into {printable(self.path)} or beside it"
        )

    def test_with(self, name):
        """test: the images of test/, in the order of their names, without labels; or val again."""
        if name == "val":
            self.splits["test"] = self._labelled
        elif found := self.unlabelled(name):
            self.splits["test"] = found
        else:
            raise DataError(f"{printable(str(self._root / name))}: no image in it; unpack the tar "
                            "of the test images there")  # fmt: skip
        self._small.pop("test", None)

    def unlabelled(self, name: str) -> Split | None:
        """The images of a folder that nobody tells anything of; None if there are none."""
        names = self._tree.names(name)
        return Split(np.full(len(names), -1), Names([name], [names])) if names else None

    def _print(self) -> str:
        """The fingerprint; the same for a val/ that is flat and one that is sorted."""
        train, test = self.train, self.test
        firsts = np.unique(train.labels, return_index=True)[1]
        sizes = [self._tree.size(train.keys[i]) for i in firsts]
        names = [np.frombuffer(split.keys.text, np.uint8) for split in (train, test)]
        return fingerprint(self.classes, sizes, *names, train.labels, test.labels)

    def _probe(self):
        return super()._probe() if self.train.size else None


def _places(path: Path) -> list[Path]:
    """The folder that has train/ and val/, and then those in which the rest may be."""
    inner = (path.joinpath(*KAGGLE[i:]) for i in range(len(KAGGLE)))
    images = next((folder for folder in inner if folder.is_dir()), path)
    whole = images.absolute()
    top = whole.parents[2] if whole.parts[-3:] == KAGGLE else whole
    return [images, images, path, top, top.parent]


def _beside(name: str, places: list[Path]) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)


def _flat(folder: Path) -> bool:
    """Whether one of the first files in a folder is named as ILSVRC names those of val."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(OF_VAL.fullmatch(entry.name) for entry, _ in zip(entries, range(9)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError as e:
        raise DataError(f"{printable(str(path))}: {e.strerror.lower()}") from None
