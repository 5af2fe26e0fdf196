"""Boxes that may hold an object: found on each photo, or read from a file, and kept for each."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from convnet.cli import UsageError
from convnet.detect import proposal_files, selective
from convnet.detect.grid import grid
from convnet.detect.sets import DetectionSet, Photo
from convnet.detect.store import Store
from convnet.loader import deaf
from convnet.machine import cores

METHODS = ("fast", "quality", "grid")


def finder(method: str) -> Callable[[np.ndarray], np.ndarray]:
    """What finds boxes (N, 4) on a uint8 photo (H, W, 3). UsageError for a method that is none."""
    if method == "grid":
        return _grid
    if method not in METHODS:
        raise UsageError(f"--proposals={method}: must be {', '.join(METHODS)}, or a file of boxes")
    selective.check()
    return partial(selective.selective, mode=method)


def _grid(pixels: np.ndarray) -> np.ndarray:
    return grid(pixels.shape[1], pixels.shape[0])


def make(
    photos: DetectionSet,
    store: Store,
    method: str,
    shard: tuple[int, int] = (1, 1),
    every: list[Photo] | None = None,
) -> None:
    """Put the boxes of all photos that have none yet into the store.

    method: one of METHODS, or a file (convnet/detect/proposal_files.py); every: the photos of which
    the file may tell, where there are more than these. DataError, UsageError.
    """
    from tqdm import tqdm

    todo = [*store.missing(photos.photos, shard)]
    if not todo:
        return
    bar = tqdm(total=len(todo), unit="photo", desc="proposals", disable=not sys.stderr.isatty())
    if method not in METHODS and Path(method).exists():
        for photo, boxes in proposal_files.read(Path(method), photos, todo, every):
            store.save(photo, {"boxes": boxes})
            bar.update()
        return
    find = finder(method)
    if method == "grid" or len(todo) == 1:
        for photo in todo:
            store.save(photo, {"boxes": find(photo.pixels())})
            bar.update()
        return
    workers = min(cores(), len(todo))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:  # spawned: the threads of OpenCV and Numba do not survive a fork
        with deaf():
            found = pool.map(partial(_of, find), todo)
        for photo, boxes in zip(todo, found):
            store.save(photo, {"boxes": boxes})
            bar.update()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In a process of its own, where OpenCV is not to start threads as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks will stop us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import cv2

    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    """Where the one who asks is killed, nobody else would end us."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _of(find: Callable, photo: Photo) -> np.ndarray:
    return find(photo.pixels())
