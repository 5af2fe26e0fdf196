"""The folder of a run: checkpoints named <epoch>.<batch>.h5, and one run at a time in it."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from convnet import files
from convnet.checkpoint import Checkpoint, CheckpointError, DamagedError, load

LOCK = "run.lock"


def name(epoch: int, batch: int) -> str:
    """The name of a checkpoint."""
    return f"{epoch}.{batch}.h5"


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder, oldest first: 3.9.h5 is before 3.10.h5."""
    return sorted((path for path in Path(folder).glob("*.h5") if _numbers(path)), key=_numbers)


def _numbers(path: Path) -> tuple[int, ...]:
    """(epoch, batch) of a checkpoint by its name, () of any other file."""
    found = re.fullmatch(r"([0-9]+)\.([0-9]+)\.h5", path.name)
    return (int(found[1]), int(found[2])) if found else ()


def newest(folder: str | Path) -> Path | None:
    """The newest checkpoint in a folder, None if there is none."""
    return (checkpoints(folder) or [None])[-1]


def find(path: str | Path) -> tuple[Checkpoint, Path, list[str]]:
    """The checkpoint that a user means: a file, a run's folder, or a folder of runs (the newest).

    As load_newest_good; raises CheckpointError.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder; train a net first")
    if not path.is_dir():
        return load(path), path, []
    runs = [path, *(folder for folder in path.iterdir() if folder.is_dir())]
    found = [last for folder in runs if (last := newest(folder))]
    if not found:
        begun = (path / "metrics.jsonl").exists()
        what = "tools/show.py curves has what it told" if begun else "train a net first"
        raise CheckpointError(f"{path}: no checkpoint in this folder; {what}")
    return load_newest_good(last_written(found).parent)


def last_written(paths: Iterable[Path]) -> Path:
    """The file, of some that are there, that was written last.

    Within one step of the file system's clock, the one whose name is the last: of two runs the one
    with the higher number.
    """
    return max(paths, key=lambda path: (path.stat().st_mtime_ns, path))


def load_newest_good(folder: str | Path) -> tuple[Checkpoint, Path, list[str]]:
    """The newest checkpoint that is whole, its path, and a line for each damaged one it passed.

    Raises CheckpointError if there is none, or if one before it cannot be read or is too new for
    this convnet: going on from an older one would then write over good work.
    """
    notes = []
    for path in reversed(checkpoints(folder)):
        try:
            return load(path), path, notes
        except DamagedError as e:
            notes.append(str(e))
    raise CheckpointError("\n".join([*notes, f"{folder}: no good checkpoint in this folder"]))


def prune(folder: str | Path, keep: int) -> list[Path]:
    """Delete all but the newest `keep` checkpoints, at least one; returns the deleted ones.

    Raises CheckpointError if one cannot be deleted.
    """
    old = checkpoints(folder)[: -max(keep, 1)]
    for path in old:
        _delete(path)
    return old


def clean(folder: str | Path) -> list[Path]:
    """Delete what writers that died have left behind; returns that. Live ones are let be.

    Raises CheckpointError if a file cannot be deleted.
    """
    found = list(files.leftovers(Path(folder)))
    for path in found:
        _delete(path)
    return found


def set_aside(folder: str | Path, epoch: int, batch: int) -> list[Path]:
    """Rename checkpoints newer than the one that a run goes on from to *.h5.old; returns them.

    Else the run's own next ones would count as older than these, and be deleted in their stead.
    Raises CheckpointError.
    """
    at = Path(name(epoch, batch))
    newer = [path for path in checkpoints(folder) if _numbers(path) > _numbers(at)]
    for path in newer:
        try:
            path.replace(path.with_name(f"{path.name}.old"))
        except OSError as e:
            raise CheckpointError(f"{path}: cannot be renamed, {e.strerror}") from None
    return newer


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be deleted, {e.strerror}") from None


@contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Keep other runs out of a folder; the system ends it if we die.

    Raises CheckpointError if another run is in there, or if the folder cannot be written to.
    """
    path = Path(folder) / LOCK
    try:
        file = files.locked(path)
    except OSError as e:
        raise CheckpointError(f"{path}: {files.advice(e)}") from None
    except files.Held as e:
        raise CheckpointError(
            f"{folder}: process {e} runs in this folder; end it or choose another folder"
        ) from None
    with file:
        yield
