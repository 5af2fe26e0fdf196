"""Worker processes that make views of images, for data that is slow to decode.

    with Loader(view, (224, 224, 3), workers=2) as loader:
        for images, bad in loader.run(pieces):     # pieces: lists of (item, draw)
            ...                                    # images: uint8 (n, 224, 224, 3)

`view(item, draw)` gives one array or raises BadImage; it is pickled to each worker once, and its
result depends on its arguments only, so that the number of workers changes nothing but the time.
A run gives its pieces in order. Workers write into shared memory of a fixed size: a ring of DEPTH
pieces for each worker and for each of at most RINGS runs at a time (training, and a test inside
it); a run beyond these is served by the calling process. With shape=None the views may be of any
kind and size, and come through the pipes.

Processes are spawned, never forked (a CUDA context or a thread does not survive a fork). They
end when their pipe does, so also with a parent that was killed, and leave nothing behind: the
memory has no name. A worker that dies ends the run in DataError at once.
"""

import contextlib
import ctypes
import multiprocessing as mp
import signal
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from convnet import machine

PIECE = 16  # images in a piece, at most
FEW = 4  # likewise where views come through the pipes: all that is under way must fit into these
DEPTH = 6  # pieces under way for each worker
RINGS = 2
PATIENCE = 60  # seconds without any result, after which a worker counts as stuck

Piece = list[tuple[Any, np.ndarray | None]]
Bad = dict[int, str]  # position in the piece -> what is wrong with the image


class DataError(Exception):
    """The data cannot be used; one line that says which and why."""


class BadImage(Exception):
    """One image cannot be used; says why."""


def default_workers() -> int:
    """As many as this process may use cores, at most 4."""
    return min(4, machine.cores())


def fill(view: Callable, piece: Piece, out: np.ndarray | list) -> Bad:
    """Write the views of a piece into out[: len(piece)]; rows of bad images are 0."""
    bad = {}
    for i, (item, draw) in enumerate(piece):
        try:
            out[i] = view(item, draw)
        except BadImage as e:
            out[i], bad[i] = 0, str(e)
    return bad


class _Ring:
    """The share of the memory that one run uses."""

    def __init__(self, index: int):
        self.index, self.taken = index, False
        self.waiting = 0  # pieces that a worker has
        # number of the piece -> its bad images, and its views where they come through the pipe
        self.done: dict[int, tuple[Bad | Exception, list | None]] = {}


class Loader:
    """`workers` processes that call view(item, draw) -> uint8 array of `shape`; 0: none.

    shape None: anything that can be pickled, in pieces of at most FEW.
    """

    def __init__(self, view: Callable, shape: tuple | None, workers: int):
        self.view, self.shape, self.depth = view, shape, DEPTH * max(1, workers)
        self.rings = [_Ring(i) for i in range(RINGS if workers else 0)]
        self.pipes: list[Connection] = []
        self.processes: list = []
        self.close = weakref.finalize(self, _close, self.pipes, self.processes)
        if workers:
            context = mp.get_context("spawn")
            memory = full = self.slots = None
            if shape is not None:
                full = (RINGS, self.depth, PIECE, *shape)
                size = int(np.prod(full))
                try:
                    memory = context.RawArray(ctypes.c_uint8, size)
                except OSError as e:
                    raise DataError(
                        f"no {size / 1e6:.0f} MB of shared memory for the loader processes, "
                        f"{(e.strerror or str(e)).lower()}; --workers=0 needs none"
                    ) from None
                self.slots = np.frombuffer(memory, np.uint8).reshape(full)
            with deaf():
                for _ in range(workers):
                    self._start(context, memory, full)

    def _start(self, context, memory, full: tuple | None) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, memory, full, self.view), daemon=True, name="convnet-loader"
        )
        self.pipes.append(ours)
        process.start()
        self.processes.append(process)
        theirs.close()  # or the end of the worker would not end the pipe

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def run(self, pieces: Iterable[Piece]) -> Iterator[tuple[np.ndarray, Bad]]:
        """(views, bad) of each piece of at most PIECE items, in order.

        The views are an array, valid until the next one is asked for; with shape None a list.
        Raises DataError where a worker dies.
        """
        ring = self._free_ring()
        if ring is None:
            yield from self._run_here(pieces)
            return
        ring.taken = True
        try:
            pieces, sent, sizes = iter(pieces), 0, {}
            for now in count():
                while sent < now + self.depth and (piece := next(pieces, None)) is not None:
                    self._send(ring, sent, piece)
                    sizes[sent] = len(piece)
                    sent += 1
                if now == sent:
                    return
                while now not in ring.done:
                    self._receive()
                bad, made = ring.done.pop(now)
                if isinstance(bad, Exception):
                    raise bad
                size = sizes.pop(now)
                yield self.slots[ring.index, now % self.depth, :size] if made is None else made, bad
        finally:
            ring.taken = False

    def _run_here(self, pieces: Iterable[Piece]) -> Iterator[tuple[np.ndarray, Bad]]:
        out = None if self.shape is None else np.empty((PIECE, *self.shape), np.uint8)
        for piece in pieces:
            made = [None] * len(piece) if out is None else out
            bad = fill(self.view, piece, made)
            yield made[: len(piece)], bad

    def _free_ring(self) -> _Ring | None:
        """A ring that nobody uses, after the pieces of a run that was left early are in."""
        ring = next((r for r in self.rings if not r.taken), None)
        if ring:
            while ring.waiting:
                self._receive()
            ring.done.clear()
        return ring

    def _send(self, ring: _Ring, number: int, piece: Piece) -> None:
        self._check_open()
        worker = number % len(self.pipes)
        try:
            self.pipes[worker].send((ring.index, number % self.depth, number, piece))
        except OSError:
            raise self._dead(worker) from None
        ring.waiting += 1

    def _receive(self) -> None:
        """Take in what the workers have; wait for it if there is nothing."""
        self._check_open()
        for _ in range(PATIENCE):  # short waits: a parent that was stopped (Ctrl-Z) is no delay
            if ready := wait(self.pipes, timeout=1):
                break
        else:
            raise DataError(f"the loader processes have given no image for {PATIENCE} s")
        for pipe in ready:
            try:
                index, number, *done = pipe.recv()
            except (EOFError, OSError):
                raise self._dead(self.pipes.index(pipe)) from None
            self.rings[index].done[number] = tuple(done)
            self.rings[index].waiting -= 1

    def _check_open(self) -> None:
        if not self.close.alive:
            raise DataError("the loader processes have ended")

    def _dead(self, worker: int) -> DataError:
        """The error that says how the worker ended; the others are ended too."""
        process = self.processes[worker]
        process.join(timeout=5)
        code = process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        why = "; out of memory?" if code == -9 else ""
        self.close()
        return DataError(f"a loader process (pid {process.pid}) died: {how}{why}")


def _close(pipes: list[Connection], processes: list) -> None:
    """End the workers: they see the end of their pipes; kill what does not within 2 s."""
    for pipe in pipes:
        pipe.close()
    end = time.monotonic() + 2
    for process in processes:
        process.join(timeout=max(0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


@contextlib.contextmanager
def deaf():
    """Processes started here never hear Ctrl-C: it is for the parent, which then ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # the first process would begin it, which ends any block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, memory, full: tuple | None, view: Callable) -> None:
    """The life of a worker: pieces in, bad images out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    slots = None if memory is None else np.frombuffer(memory, np.uint8).reshape(full)
    with contextlib.suppress(EOFError, OSError):
        while True:
            ring, slot, number, piece = pipe.recv()
            made = [None] * len(piece) if slots is None else None
            try:
                bad = fill(view, piece, slots[ring, slot] if made is None else made)
            except Exception as e:  # a mistake in view(): raised where the run is
                bad = RuntimeError(f"{type(e).__name__} in a loader process: {e}")
            pipe.send((ring, number, bad, made))
