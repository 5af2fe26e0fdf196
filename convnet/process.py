"""An object in a process of its own: its methods are called by name, one at a time.

While one process works the others wait in a read, so that no pool of threads spins beside it.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from convnet.cli import UsageError
from convnet.device import DeviceError
from convnet.loader import deaf

THREADS = "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"


def serve(make: Callable[[], Any], pipe) -> None:
    """Answer the names of methods of what `make` makes, until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks will stop us
    try:
        worker = make()
        pipe.send(None)
        while (asked := pipe.recv()) is not None:
            pipe.send(getattr(worker, asked)())
    except (DeviceError, UsageError, MemoryError) as e:
        pipe.send(e)


class Process:
    """What `make` makes, in a fresh process with a number of threads; a call waits for the answer.

    variables: more of the environment of the process. Raises what `serve` hands over.
    """

    def __init__(self, name: str, make: Callable[[], Any], threads: int, variables: dict):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(make, theirs), daemon=True)
        with deaf(), _variables({**dict.fromkeys(THREADS, str(threads)), **variables}):
            self.process.start()
        theirs.close()
        self._answer()

    def __call__(self, method: str) -> Any:
        return self._answer(method)

    def _answer(self, *asked: str) -> Any:
        try:
            for method in asked:
                self.pipe.send(method)
            found = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            why = "killed; too little memory?" if code == -signal.SIGKILL else "its error is above"
            raise UsageError(f"the process of {self.name} ended with {code}: {why}") from None
        if isinstance(found, Exception):
            raise found
        return found

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error) -> None:
        if self.process.is_alive() and not any(error):
            self.pipe.send(None)
        else:
            self.process.kill()
        self.process.join()


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """The environment with these variables, which a process that starts now takes over."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
