"""Files that a crash, a full disk or a second process cannot spoil."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EACCES: "get the right to write into its folder",
    errno.EPERM: "get the right to write into its folder",
    errno.EROFS: "choose a folder that can be written to",
    errno.ENOENT: "make its folder first",
}


def replace(path: Path, pieces: Iterable[Any]) -> None:
    """Write bytes to a file so that at any instant it is the old one or the new one, complete."""
    with replacing(path) as file:
        for piece in pieces:
            file.write(piece)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO]:
    """A file to write that takes the place of another at the end, complete.

    Written beside it, synced, renamed, the folder synced. Where that raises, or the caller does,
    the old file is as it was and nothing is left beside it.
    """
    path = path.resolve()  # a link stays one
    part = path.parent / f".{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        with part.open("x+b") as file:
            hold(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)  # noqa: PTH105 the steps read alike
        _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what `replace` has left where others keep files as well: by its whole name."""
    for path in leftovers(folder):
        if re.fullmatch(r"\.\d+-[0-9a-f]{8}\.part", path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def leftovers(folder: Path) -> Iterator[Path]:
    """What `replace` has left in a folder where its process died on the way."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            with path.open("rb") as file:
                dead = hold(file)
            if dead:
                yield path


def hold(file: IO) -> bool:
    """Mark an open file as ours until it is closed or we die; False if another process has it."""
    try:
        if fcntl is None:
            return _hold_windows(file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):  # a disk without locks
            raise
    return True


def _hold_windows(file: IO) -> bool:
    """The same with a lock on a byte far behind the end, so that the file can still be read."""
    import msvcrt

    at = file.tell()
    file.seek(1 << 40)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except PermissionError:
        return False
    finally:
        file.seek(at)
    return True


def advice(error: OSError) -> str:
    """What went wrong with a file, and what may help."""
    return f"{error.strerror or error}; {ADVICE.get(error.errno, 'check the disk')}"


def _sync(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system has a way to."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks know no such thing
            raise
    finally:
        os.close(fd)
