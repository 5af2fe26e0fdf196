"""What all the tools do alike: errors of users become one line and an exit code."""

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

EXITS = {"CfgError": 2, "UsageError": 2, "DataError": 3, "Diverged": 4, "CheckpointError": 5,
         "DeviceError": 6}  # fmt: skip
# what a system refuses, with files or disks, whatever a program does
SYSTEM = {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS,
          errno.EIO, errno.ESTALE, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR}  # fmt: skip


class UsageError(Exception):
    """An option cannot be as it is; one line that says why."""


def check_target(path: str, option: str, *reads: str | Path, kinds: Sequence[str] = ()) -> None:
    """Before the work is done: UsageError where a file for its result could not be written.

    reads: files that the work is done from. It takes the place of none of these, nor of any
    checkpoint. kinds: what it may end in, so that none of another kind is taken for it.
    """
    from convnet.checkpoint import is_one

    if kinds and Path(path).suffix not in kinds:
        *most, last = kinds
        ends = f"{', '.join(most)} or {last}" if most else last
        raise UsageError(f"{option}={path}: must end in {ends}")
    if Path(path).is_dir():
        raise UsageError(f"{option}={path}: is a folder; name a file")
    if not Path(path).parent.is_dir():
        raise UsageError(f"{option}={path}: there is no folder {Path(path).parent}")
    target = Path(path).resolve()
    if any(target == Path(other).resolve() for other in reads):
        raise UsageError(f"{option}={path}: is read from; name another file")
    new = not target.exists()
    if not new and not target.is_file():
        raise UsageError(f"{option}={path}: is no regular file")
    if not new and is_one(target):
        raise UsageError(f"{option}={path}: is a checkpoint; name another file")
    if not os.access(target.parent, os.W_OK):  # where it is written before it takes its place
        raise UsageError(f"{option}={path}: the folder {target.parent} cannot be written to")
    try:
        target.open("a").close()
    except OSError as e:
        raise UsageError(f"{option}={path}: cannot be written, {e.strerror.lower()}") from None
    if new:
        target.unlink()


def command(tool: str, *words: object, python: str = "") -> str:
    """A command for the user to copy, quoted for a shell. python: default: the one that runs."""
    here, own = Path.cwd(), Path(sys.executable)
    python = python or (str(own.relative_to(here)) if own.is_relative_to(here) else "python")
    return shlex.join([python, f"tools/{tool}.py", *map(str, words)])


class Parser(argparse.ArgumentParser):
    """argparse that suggests the nearest option for one it does not know."""

    def error(self, message: str):
        if message.startswith("unrecognized arguments:"):
            from convnet.cfg import nearest

            word = message.split(": ", 1)[1].split()[0].partition("=")[0]
            message += nearest(word, [o for a in self._actions for o in a.option_strings])
        self.exit(2, f"{self.prog}: {message} (--help lists all options)\n")


def _of_the_system(e: Exception) -> Exception:
    """A file that may not be opened, a full disk: told in a line, whoever met it."""
    if not isinstance(e, OSError) or e.errno not in SYSTEM:
        return e
    return UsageError(f"{e.filename}: " * bool(e.filename) + e.strerror.lower())


def run(main: Callable[[], int | None], less: str = "") -> None:
    """Run a tool; exit with 0, or 2 usage, 3 data, 4 diverged, 5 checkpoint, 6 device or memory.

    less: its option that takes less memory where it is smaller.
    """
    if getattr(sys.stdout, "errors", "") == "strict":  # names of files may be anything
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output has gone, as with | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except MemoryError as e:
        why = f": {e}" if str(e) else ""  # Pillow's has no text
        print(f"out of memory{why}{less and f'; a smaller {less} takes less'}", file=sys.stderr)
        code = 6
    except Exception as e:
        e = _of_the_system(e)
        code = next((EXITS[c.__name__] for c in type(e).__mro__ if c.__name__ in EXITS), None)
        if code is None:
            raise
        print(e, file=sys.stderr)
    sys.exit(code)
