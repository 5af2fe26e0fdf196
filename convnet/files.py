"""Files that a crash, a full disk or a second process cannot spoil."""

import contextlib
import errno
import os
import re
import secrets
import time
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
    errno.ENOTDIR: "a part of its path is a file",
}
PART = re.compile(r"\.\d+-[0-9a-f]{8}\.part")  # what `replace` writes to
DAY = 24 * 3600  # seconds


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
    part, file = _begun(path.parent)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)  # noqa: PTH105 the steps read alike
        _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _begun(folder: Path) -> tuple[Path, IO]:
    """A new file there, marked as ours before a sweep could have taken it for a leftover."""
    while True:
        part = folder / f".{os.getpid()}-{secrets.token_hex(4)}.part"
        file = part.open("x+b")
        if hold(file) and part.exists():
            return part, file
        file.close()


def sweep(folder: Path) -> None:
    """Delete what `replace` has left where others keep files as well: by its whole name."""
    for path in leftovers(folder):
        if PART.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def leftovers(folder: Path) -> Iterator[Path]:
    """What `replace` has left in a folder where its process died on the way; each held meanwhile.

    On a disk without locks nobody can tell; there it is what nothing was written to for a day.
    """
    for path in folder.glob(".*.part"):
        with abandoned(path) as found:
            if found:
                yield path


@contextlib.contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Whether the process that held a file is dead; if so, the file is held meanwhile.

    On a disk without locks: whether nothing was written to it for a day.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            ours = _locked(file)
            found = ours or (ours is None and time.time() - path.stat().st_mtime > DAY)
        except (FileNotFoundError, PermissionError):  # gone, or another user's
            found = False
        yield found


def hold(file: IO) -> bool:
    """Mark an open file as ours until it is closed or we die; False if another process has it."""
    return _locked(file) is not False


class Held(Exception):
    """Another process has what a lock is for; the text is its number."""


def locked(path: Path) -> IO:
    """A file that is held until it is closed or we die, with our number in it.

    Raises Held where another process has it; OSError where the disk does.
    """
    while True:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(path.open("a+b", buffering=0))
            if not hold(file):
                file.seek(0)
                other = file.read(20).decode("ascii", "replace").strip()
                raise Held(other or "of unknown number")
            try:
                there = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                there = False
            if there:
                file.truncate(0)
                file.write(b"%d\n" % os.getpid())
                stack.pop_all()
                return file
        # the process that had it has just taken it away


def _locked(file: IO) -> bool | None:
    """Whether a file is locked for us now; None on a disk without locks."""
    try:
        if fcntl is None:
            return _hold_windows(file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        return None
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


def unread(error: Exception) -> str | None:
    """What keeps a file from being read, and what may help; None if the error is of its content."""
    if not isinstance(error, OSError) or error.errno in (None, errno.EINVAL):  # as HDF5 raises them
        return None
    return f"cannot be read, {os.strerror(error.errno).lower()}; look at its rights and the disk"


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
