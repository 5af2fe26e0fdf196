"""ILSVRC classification: the devkit's numbers of classes, submissions, and the errors of one.

A net numbers its classes in the order of their WNIDs, as Caffe and torchvision do. The devkit has
numbers of its own, ILSVRC2012_ID 1 to 1000; data/meta.mat says which WNID has which. A submission
is a text with one line for each image, in the order of the images' names: at most five of these
numbers, the most probable class first. An image counts as wrong if its class is not among the first
k ("flat error"); since 2012 the devkit measures this task by nothing else.
"""

import functools
import re
from pathlib import Path

import numpy as np

from convnet import files
from convnet.cli import UsageError, check_target
from convnet.loader import DataError
from convnet.providers import Provider, printable

GUESSES = 5  # classes in a line, at most
FOLDER = "ILSVRC2012_devkit_t12"
FOLDERS = "ILSVRC201[2-7]*devkit*"  # later ones have the same classes, with the same numbers
METAS = ("meta.mat", "meta_clsloc.mat")
CLASSES, TESTS = 1000, 100_000  # of the contest, and the images of its test set
NUMBER = re.compile(r"_(\d{8})\.")  # in the name of an image, from 1


class Devkit:
    """The files of a devkit's folder data/ that tell of classification."""

    def __init__(self, meta: Path):
        self.meta, here = meta, meta.parent
        others = [f / "data" for f in sorted(here.absolute().parents[1].glob(FOLDERS))]
        self.truth = _first([here], "validation_ground_truth.txt")
        self.blacklist_file = _first([here, *others], "clsloc_validation_blacklist.txt")

    @classmethod
    def find(cls, *places: Path) -> "Devkit | None":
        """The first devkit that is one of these folders, or in one of them."""
        for place in places:
            for folder in (place, *sorted(place.glob(FOLDERS))):
                for path in (folder / d / meta for meta in METAS for d in ("data", "")):
                    if path.is_file():
                        return cls(path)
        return None

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """{WNID: ILSVRC2012_ID} of the classes; not of the synsets above them. Raises DataError."""
        from scipy.io import loadmat

        try:
            found = loadmat(str(self.meta), variable_names=["synsets"], squeeze_me=True)
            synsets, fields = found["synsets"], found["synsets"].dtype.names or ()
            number = next(f for f in fields if re.fullmatch(r"ILSVRC\d{4}_(CLSLOC_)?ID", f))
            rows = [row for row in np.atleast_1d(synsets) if row[number] <= 1000]
            if "num_children" in fields:
                rows = [row for row in rows if row["num_children"] == 0]
            found = {str(row["WNID"]): int(row[number]) for row in rows}
        except Exception as e:  # loadmat raises about anything at a damaged file
            if told := files.unread(e):
                raise DataError(f"{printable(str(self.meta))}: {told}") from None
            found = {}
        if not found or sorted(found.values()) != list(range(1, len(found) + 1)):
            raise DataError(f"{printable(str(self.meta))}: has no table 'synsets' of classes from "
                            f"1 on, each with a WNID; unpack {FOLDER} again")  # fmt: skip
        return found

    @functools.cached_property
    def ground_truth(self) -> np.ndarray:
        """The ILSVRC2012_ID of every image of val, in the order of their names."""
        if self.truth is None:
            raise DataError(f"{printable(str(self.meta.parent))}: there is no "
                            "ILSVRC2012_validation_ground_truth.txt in it; unpack "
                            f"{FOLDER} again")  # fmt: skip
        return read(self.truth, 1, len(self.ids))[:, 0]

    def blacklist(self, images: int) -> np.ndarray | None:
        """Which of so many images of val the devkit distrusts the boxes of; None: no list."""
        if self.blacklist_file is None:
            return None
        listed = np.zeros(images, bool)
        listed[read(self.blacklist_file, 1, images)[:, 0] - 1] = True
        return listed


def _first(folders: list[Path], ending: str) -> Path | None:
    found = (path for folder in folders for path in sorted(folder.glob(f"ILSVRC20*_{ending}")))
    return next(found, None)


def read(path: Path, most: int, top: int) -> np.ndarray:
    """(lines, most): whole numbers from 1 to `top`, then 0 where a line has fewer than `most`.

    Raises DataError, which names the line.
    """
    where = printable(str(path))
    try:
        lines = path.read_text("ascii").rstrip().split("\n")
    except UnicodeDecodeError:
        raise DataError(f"{where}: is no text of numbers") from None
    except OSError as e:
        raise DataError(f"{where}: {e.strerror.lower()}") from None
    found = np.zeros((len(lines), most), np.int32)
    for i, line in enumerate(lines):
        words = line.replace(",", " ").split()
        if not 1 <= len(words) <= most:
            what = "1 number" if most == 1 else f"1 to {most} classes, and no boxes"
            raise DataError(f"{where}:{i + 1}: {len(words)} words; a line has {what}")
        for word in words:
            if not word.isdecimal() or len(word) > 9 or not 1 <= int(word) <= top:
                raise DataError(f"{where}:{i + 1}: {word[:20]}: must be a whole number "
                                f"from 1 to {top}")  # fmt: skip
        found[i, : len(words)] = words
    return found


def flat_errors(guesses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n, k): whether the class of image n is not among its first k + 1 guesses."""
    return ~np.logical_or.accumulate(guesses == truth[:, None], axis=1)


def evaluate(args) -> int:
    """tools/ilsvrc_eval.py"""
    kit = Devkit.find(Path(args.devkit))
    if kit is None:
        raise DataError(f"--devkit={args.devkit}: no data/meta.mat in it; name the folder {FOLDER}")
    truth, path = kit.ground_truth, Path(args.submission)
    guesses = read(path, GUESSES, len(kit.ids))
    if len(guesses) != len(truth):
        raise DataError(f"{path}: {len(guesses):,} lines for the {len(truth):,} images of "
                        f"{kit.truth}; it must have one for each image of val")  # fmt: skip
    wrong = flat_errors(guesses, truth)
    _print_errors("all", wrong)
    listed = kit.blacklist(len(truth))
    if listed is not None and not listed.all():
        _print_errors("without the blacklist", wrong[~listed])
    return 0


def _print_errors(which: str, wrong: np.ndarray) -> None:
    top1, top5 = 100 * wrong[:, [0, GUESSES - 1]].mean(0)
    print(f"{which}: {len(wrong):,} images, flat error top-1 {top1:.3f} %, top-5 {top5:.3f} %")


class Submission:
    """A file to hand in; what would keep it from being written is told before the work is done."""

    def __init__(self, path: str, provider: Provider):
        """Raises UsageError, DataError."""
        check_target(path, "--submission")
        if not hasattr(provider, "devkit"):
            raise UsageError(f"--submission={path}: is for ImageNet in its own layout "
                             f"(docs/imagenet.md), not for {provider.name}")  # fmt: skip
        if provider.devkit is None:
            raise DataError(f"{printable(provider.path)}: a submission needs the numbers of the "
                            f"classes; put the folder {FOLDER} into it or beside it")  # fmt: skip
        self.path, self.provider = Path(path), provider
        self._ids = [str(provider.devkit.ids[name]) for name in provider.classes]
        self._check_complete()

    def _check_complete(self) -> None:
        """DataError if an image is missing, because its line would be, too."""
        names, devkit = self.provider.test.keys, self.provider.devkit
        found = {int(n[1]) for n in map(NUMBER.search, names) if n}
        known = self.provider.test.labels[0] >= 0 and devkit.truth is not None
        whole = len(self._ids) == CLASSES and "_test_" in names[0]
        total = max([len(devkit.ground_truth) if known else TESTS * whole, *found])
        missing = sorted(set(range(1, total + 1)) - found)
        if found and missing:
            raise DataError(
                f"{printable(self.provider.path)}: {len(missing):,} of {total:,} images missing, "
                f"such as number {missing[0]:08}; a submission has a line for each"
            )

    def write(self, probs: np.ndarray, keys: list[str]) -> None:
        """A line for each test image; `keys` are those that the rows of `probs` are of.

        One that could not be read gets the classes with the most training images.
        """
        rows, lines, lost = dict(zip(keys, probs)), [], []
        often = np.bincount(self.provider.train.labels, minlength=len(self._ids))
        for key in self.provider.test.keys:
            if key not in rows:
                lost.append(key)
            best = np.argsort(-rows.get(key, often), kind="stable")[:GUESSES]
            lines.append(" ".join(self._ids[i] for i in best) + "\n")
        if lost:
            self.provider.warn(f"lines of bad images ({len(lost)}, such as {printable(lost[0])}) "
                               "name the classes with the most training images")  # fmt: skip
        try:
            files.replace(self.path, ["".join(lines).encode()])
        except OSError as e:
            raise UsageError(f"--submission={self.path}: {files.advice(e)}") from None
        print(f"the submission, {len(lines):,} lines, is in {self.path}")
