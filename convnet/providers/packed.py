"""Images packed by tools/make_data.py: a folder of shards (convnet/shards.py) and index.json.

    packed/index.json  packed/train-00000.h5  packed/train-00001.h5 ..  packed/test-00000.h5 ..

They are trained and tested on as those they were packed from, in the same order of images, with the
same views. As long as there are at most BUFFER shards to train on, the batches are the same, too.
With more the order of an epoch is one of shards, BUFFER of which at a time are mixed, so that only
these are read from at a time; each of them holds images of all classes. Only tables are in memory,
some 40 bytes for each image; an image whose checksum is wrong counts as a bad one.
"""

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convnet import files, shards
from convnet.ilsvrc import Devkit
from convnet.loader import DataError
from convnet.providers import SPLITS, Split, fingerprint, printable
from convnet.providers.images import Images
from convnet.shards import From, Place, Places, Shard

FORMAT = "convnet set of shards 1"
INDEX = "index.json"
BUFFER = 16  # shards that are read from at a time
UNLABELLED = "unlabelled"  # ILSVRC's test set
NAME = re.compile(rf"({'|'.join((*SPLITS, UNLABELLED))})-\d{{5,}}\.h5")  # of a shard


class Table(Sequence):
    """Where the images of a split are: the Place of each, in the order of their positions."""

    def __init__(self, found: list[Shard], first: int):
        """first: the number of the first shard among all files. Raises DataError."""
        self.first, self.starts = first, np.cumsum([0, *map(len, found)])
        position, self.label, self.crc32 = (
            np.concatenate([getattr(s, name) for s in found] or [np.empty(0, np.int64)])
            for name in ("position", "label", "crc32")
        )
        self.begin = _joined([s.begin + s.offset[:-1] for s in found])
        self.length = _joined([np.diff(s.offset) for s in found])
        self.key_at = [s.keys for s in found]
        self.row = np.argsort(position, kind="stable").astype(np.int32)
        if (np.diff(position[self.row]) <= 0).any():
            raise DataError("two of its images have one position; make the set again")

    def __len__(self) -> int:
        return len(self.row)

    def shard(self, i: int) -> tuple[int, int]:
        """(which of its shards image i is in, which there)."""
        row = self.row[i]
        shard = int(np.searchsorted(self.starts, row, "right")) - 1
        return shard, int(row - self.starts[shard])

    def __getitem__(self, i: int) -> Place:
        row = self.row[i]
        return Place(self.first + self.shard(i)[0], int(self.begin[row]), int(self.length[row]),
                     int(self.crc32[row]))  # fmt: skip

    def mixed(self, rng: np.random.Generator) -> np.ndarray:
        """All images in a random order in which BUFFER shards at a time take turns."""
        image = np.empty_like(self.row)  # the image of a row
        image[self.row] = np.arange(len(self))
        order, parts = rng.permutation(len(self.starts) - 1), []
        for i in range(0, len(order), BUFFER):
            few = [np.arange(*self.starts[s : s + 2]) for s in order[i : i + BUFFER]]
            parts.append(image[rng.permutation(np.concatenate(few))])
        return np.concatenate(parts)


class Keys(Sequence):
    """The names of the images of a table, read when asked for."""

    def __init__(self, table: Table, places: Places):
        self.table, self.places = table, places

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> str:
        shard, row = self.table.shard(range(len(self))[i])
        begin, size = self.table.key_at[shard]
        data = self.places.read(self.table.first + shard, begin + row * size, size)
        return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


class Packed(Images):
    @classmethod
    def recognises(cls, path):
        """An index, or the first shard of a set that is not finished."""
        return bool(path) and any((Path(path) / n).is_file() for n in (INDEX, name_of("train", 0)))

    def _list(self):
        about = read_index(self._root)
        self.classes = about["classes"]
        found = {split: self._shards(split, sums) for split, sums in about["shards"].items()}
        self._places = Places([s.path for some in found.values() for s in some])
        self._tables, self.splits, first = {}, {}, 0
        for split, some in found.items():
            try:
                table = self._tables[split] = Table(some, first)
            except DataError as e:
                raise DataError(f"{printable(self.path)}: {split}: {e}") from None
            self.splits[split] = Split(table.label.astype(np.int64)[table.row],
                                       Keys(table, self._places))  # fmt: skip
            first += len(some)
        self._labelled = self._tables["test"], self.splits["test"]
        sides = {s.about.get("side") for s in found["train"] if len(s)}
        side = sides.pop() if len(sides) == 1 else None
        self._common = side if isinstance(side, int) and side > 0 else None
        sums = [s.about["tables"] for some in found.values() for s in some]
        self.fingerprint = fingerprint(self.classes, sums)
        if about["source"] == "ilsvrc":
            self.devkit = Devkit.find(self._root)

    def _shards(self, split: str, sums: list[int]) -> list[Shard]:
        """The shards of a split; sums: the checksums of their tables."""
        found = []
        for number, total in enumerate(sums):
            path = self._root / name_of(split, number)
            found.append(shards.read(path, len(self.classes)))
            if found[-1].about["tables"] != total:
                raise DataError(f"{printable(str(path))}: is not the shard that {INDEX} tells of; "
                                f"delete it, {shards.AGAIN}")  # fmt: skip
        return found

    def _probe(self):
        return self._common

    def item(self, split, index):
        return self._tables[split][index]

    def viewer(self, view):
        return From(self._places, view)

    def mixed(self, split, epoch):
        if len(self._tables[split].key_at) <= BUFFER:
            return super().mixed(split, epoch)
        return self._tables[split].mixed(np.random.default_rng([self.options.seed, epoch]))

    def test_with(self, name):
        """test: ILSVRC's images without labels, if they were packed; or val again."""
        known = {"val": self._labelled}
        if UNLABELLED in self._tables:
            known["test"] = self._tables[UNLABELLED], self.splits[UNLABELLED]
        if not hasattr(self, "devkit") or name not in known:
            super().test_with(name)
        self._tables["test"], self.splits["test"] = known[name]
        self._small.pop("test", None)

    def close(self):
        """End the worker processes, close the files."""
        super().close()
        self._places.close()


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays or [np.empty(0, np.int64)])


def name_of(split: str, number: int) -> str:
    """The file of a shard, as NAME has it."""
    return f"{split}-{number:05}.h5"


def strays(folder: Path, splits: dict[str, list[int]]) -> list[Path]:
    """The files in a set's folder that are named as shards are, but are none of its."""
    own = {name_of(split, number) for split, sums in splits.items() for number in range(len(sums))}
    return [path for path in sorted(folder.glob("*.h5")) if NAME.fullmatch(path.name)
            and path.name not in own]  # fmt: skip


def sealed(index: dict) -> dict:
    """What is in an index, with the CRC-32 of all the rest as one more field."""
    rest = {name: value for name, value in index.items() if name != "crc32"}
    return {**rest, "crc32": zlib.crc32(json.dumps(rest, sort_keys=True).encode())}


def read_index(folder: Path) -> dict:
    """index.json of a set, looked through. Raises DataError."""
    path = folder / INDEX
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["format"] != FORMAT:
            raise ValueError
        classes, splits = found["classes"], found["shards"]
        right = all(isinstance(name, str) for name in (*classes, *splits, found["source"]))
        whole = all(isinstance(n, int) for sums in splits.values() for n in sums)
        right &= isinstance(classes, list) and 1 < len(classes) == len({*classes})
        right &= found.get("crc32") in (None, sealed(found)["crc32"])  # older sets have none
        if not right or not whole or not {*SPLITS} <= {*splits} <= {*SPLITS, UNLABELLED}:
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):
        begun = (folder / name_of("train", 0)).is_file()
        why = f"is no set of tools/make_data.py: there is no {INDEX} in it"
        if begun:
            why = "the set is not finished; the same command of tools/make_data.py goes on with it"
        raise DataError(f"{printable(str(folder))}: {why}") from None
    except OSError as e:
        raise DataError(f"{printable(str(path))}: {files.unread(e) or e}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise DataError(f"{printable(str(path))}: damaged, or of a newer convnet; delete it and "
                        "give the same command of tools/make_data.py") from None  # fmt: skip
    return found
