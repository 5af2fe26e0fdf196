"""Passes over photos that learn something, and go on where a killed one stopped."""

import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from convnet import checkpoint
from convnet.checkpoint import Checkpoint, CheckpointError
from convnet.detect.sets import Photo

EVERY = 30.0  # seconds between two saves
TIMES = 20  # and as often as long as a save took: saving takes no more than 5 % of a pass


class Learner(Protocol):
    """What learns from one photo after the other."""

    def to_arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Where it stands, {group: {name: array}}."""

    def restore(self, arrays: dict[str, dict[str, np.ndarray]]) -> None:
        """Stand where to_arrays was called."""


class Pass:
    """A pass over photos for a learner, which is kept in a file now and then.

    path: that file; made_from: what the learner depends on. A file of the same is taken up, any
    other is not. CheckpointError where none can be written.
    """

    def __init__(self, path: Path, made_from: dict[str, Any], learner: Learner):
        self.path, self.made_from, self.learner = path, made_from, learner
        self.done = 0  # photos
        self._saved, self._took = time.monotonic(), 0.0
        if not path.exists():
            return
        try:
            saved = checkpoint.load(path)
        except CheckpointError as e:
            print(f"note: {e}; that pass begins anew", file=sys.stderr)
            return
        if saved.meta["made_from"] == made_from:
            learner.restore(saved.arrays)
            self.done = saved.meta["done"]

    def left(self, photos: list[Photo]) -> list[Photo]:
        """The photos that are not done."""
        return photos[self.done :]

    def photo(self) -> None:
        """One more is done."""
        self.done += 1
        if time.monotonic() - self._saved > max(EVERY, TIMES * self._took):
            self.save()

    def save(self) -> None:
        """Keep where it stands."""
        begin = time.monotonic()
        meta = {"made_from": self.made_from, "done": self.done}
        checkpoint.save(self.path, Checkpoint(self.learner.to_arrays(), meta))
        self._saved = time.monotonic()
        self._took = self._saved - begin


def groups(count: int, size: int, memory: int | None) -> list[list[int]]:
    """Numbers 0 to count - 1 in groups that half of the memory holds, `size` bytes each."""
    at_once = max(1, min(count, (memory or 4 << 30) // 2 // size))
    return [[*range(i, min(i + at_once, count))] for i in range(0, count, at_once)]
