"""A folder with one file for each photo: proposals, maps, scores. A killed run loses one photo.

Each file is a checkpoint (convnet/checkpoint.py): written whole or not at all, checksummed. What
all of them were made from stands beside them in about.json and in each; asked for with something
else, they are refused rather than used.
"""

import hashlib
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convnet import checkpoint, files
from convnet.checkpoint import Checkpoint, CheckpointError
from convnet.cli import UsageError
from convnet.detect.sets import Photo
from convnet.loader import DataError
from convnet.providers import printable

LONGEST = 200  # characters of a file's name
STEPS = {"proposals": "prepare", "maps": "features", "crops": "features", "detections": "test"}


class Store:
    """`what` (a word for messages) of photos, {name: array} each, in a folder.

    made_from: what the arrays depend on, {what it is called: its fingerprint or value, as JSON
    holds it}. Raises DataError where the folder was made from something else, UsageError where it
    cannot be written to.
    """

    def __init__(self, folder: str | Path, what: str, made_from: dict[str, Any]):
        self.folder, self.what = Path(folder), what
        self.made_from = json.loads(json.dumps(made_from))
        about = self.folder / "about.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if about.exists():
                self._check(json.loads(about.read_text(encoding="utf-8")), about)
            else:
                files.replace(about, [json.dumps(self.made_from, indent=1).encode()])
            files.sweep(self.folder)
        except ValueError:
            raise DataError(f"{about}: damaged; delete the folder {self.folder}") from None
        except OSError as e:
            raise UsageError(f"{self.folder}: no {what} written, {files.advice(e)}") from None

    def path(self, photo: Photo) -> Path:
        """Where a photo's file is, or is to be; names with / or other signs are spelt in %."""
        name = urllib.parse.quote(photo.name, safe=" ()+,@")
        if len(name) > LONGEST:
            name = f"{name[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        return self.folder / f"{name}.h5"

    def __contains__(self, photo: Photo) -> bool:
        return self.path(photo).exists()

    def missing(self, photos: list[Photo], shard: tuple[int, int] = (1, 1)) -> Iterator[Photo]:
        """The photos of shard i of n, counted from 1, that have no file yet."""
        return (photo for photo in photos[shard[0] - 1 :: shard[1]] if photo not in self)

    def save(self, photo: Photo, arrays: dict[str, np.ndarray]) -> None:
        """Write a photo's file. CheckpointError where that cannot be done."""
        meta = {"photo": photo.name, "mark": photo.mark, "made_from": self.made_from}
        checkpoint.save(self.path(photo), Checkpoint({"arrays": arrays}, meta))

    def load(self, photo: Photo) -> dict[str, np.ndarray]:
        """The arrays of a photo. DataError where there are none, or of something else."""
        path = self.path(photo)
        if not path.exists():
            raise DataError(
                f"{path}: no {self.what} of {printable(photo.name)} yet; tools/detect.py "
                f"{STEPS[self.what]} makes them"
            )
        try:
            found = checkpoint.load(path)
        except CheckpointError as e:
            raise DataError(f"{str(e).partition('; use an older')[0]}; delete it") from None
        self._check(found.meta.get("made_from"), path)
        if (found.meta.get("photo"), found.meta.get("mark")) != (photo.name, photo.mark):
            raise DataError(
                f"{path}: {self.what} of another photo than {printable(str(photo.path))} is now; "
                f"delete the folder {self.folder}, or choose another --work"
            )
        return found.arrays["arrays"]

    def _check(self, theirs: Any, where: Path) -> None:
        """DataError unless it was made from the same."""
        theirs = theirs if isinstance(theirs, dict) else {}
        for name in {**self.made_from, **theirs}:
            mine, other = self.made_from.get(name), theirs.get(name)
            if mine != other:
                raise DataError(
                    f"{where}: {self.what} of another {name} ({other}, not {mine}); delete the "
                    "folder, or choose another"
                )
