"""Public sets of images: fetched, checked, unpacked.

An archive is fetched into <name>.part, taken up there after a broken connection or a killed run,
and gets its name when its checksum is that of the table. It is unpacked beside its place and then
renamed. One that somebody has put into the folder already is used.
"""

import contextlib
import hashlib
import http.client
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from convnet import __version__, files
from convnet.cfg import nearest
from convnet.cli import UsageError
from convnet.loader import DataError
from convnet.providers import printable

TRIES = 5  # in a row without a byte
PATIENCE = 60  # seconds without a byte
BLOCK = 1 << 20
LOCK = ".lock"  # in a folder that is unpacked into


class Archive(NamedTuple):
    """A tar file, and how to know that it is the right one."""

    url: str
    size: int  # bytes
    kind: str  # of the checksum, as hashlib calls it
    checksum: str


S3 = "https://s3.amazonaws.com/fast-ai-imageclas"
VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007"
# {name: (the folder that it makes, its archives)}. The checksum of CIFAR-10 is from its home page,
# www.cs.toronto.edu/~kriz/cifar.html; those of the others, which have no such page, are from
# imagenette/checksums.tsv of TensorFlow Datasets and datasets/voc.py of torchvision.
SETS = {
    "cifar10": ("cifar-10-batches-py", [
        Archive("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", 170498071, "md5",
                "c58f30108f718f92721af3b95e74349a"),
    ]),
    "imagenette": ("imagenette2-320", [
        Archive(f"{S3}/imagenette2-320.tgz", 341663724, "sha256",
                "569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c"),
    ]),
    "imagenette160": ("imagenette2-160", [
        Archive(f"{S3}/imagenette2-160.tgz", 99003388, "sha256",
                "64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5"),
    ]),
    "voc2007": ("VOCdevkit/VOC2007", [
        Archive(f"{VOC}/VOCtrainval_06-Nov-2007.tar", 460032000, "md5",
                "c52e279531787c972589f7e41ab4ae64"),
        Archive(f"{VOC}/VOCtest_06-Nov-2007.tar", 451020800, "md5",
                "b6e924de25625d8de591ea690078ad9f"),
    ]),
}  # fmt: skip


def download(args) -> int:
    """tools/make_data.py --download=NAME"""
    if args.download not in SETS:
        raise UsageError(f"--download={args.download}: no such set{nearest(args.download, SETS)}; "
                         f"has {', '.join(SETS)}")  # fmt: skip
    folder = Path(args.to)
    made, archives = SETS[args.download]
    if (folder / made).exists():
        print(f"{folder / made}: is there already")
        return 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [fetch(archive, folder) for archive in archives]
        unpack(paths, folder, made)
    except OSError as e:
        raise UsageError(f"--to={args.to}: {files.advice(e)}") from None
    print(f"{folder / made}: {args.download} is there")
    return 0


def fetch(archive: Archive, folder: Path) -> Path:
    """The archive in this folder, whole. Raises DataError; OSError where the disk does."""
    path = folder / archive.url.rpartition("/")[2]
    if path.exists():
        _check(path, path, archive)
        return path
    part = path.with_name(f"{path.name}.part")
    with part.open("ab") as file:
        if not files.hold(file):
            raise DataError(f"{part}: another process is fetching it")
        _fetch(archive, file)
    _check(part, path, archive)
    part.rename(path)
    return path


def _fetch(archive: Archive, file) -> None:
    """Append to an open file until it has the size of the archive. Raises DataError."""
    tries = 0
    with _bar(archive, file.tell()) as bar:
        while (have := file.tell()) < archive.size:
            try:
                for block in _blocks(archive, file):
                    file.write(block)
                    bar.update(len(block))
                why = "the connection broke off"
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError,
                    ConnectionError) as e:  # fmt: skip
                why = _why(e)
            tries = tries + 1 if file.tell() == have else 0
            if tries == TRIES or isinstance(why, Final):
                if not have:
                    Path(file.name).unlink()
                kept = f"; {have / 1e6:.0f} MB are there, the same command goes on" if have else ""
                raise DataError(f"{archive.url}: {why}{kept}; or put the file into "
                                f"{Path(file.name).parent} yourself")  # fmt: skip
            time.sleep(min(tries, 1))


class Final(str):
    """Why it is of no use to try again."""


def _why(e: Exception) -> str:
    if isinstance(e, urllib.error.HTTPError):
        e.close()
        said = f"the server says {e.code} {e.reason}"
        return said if e.code >= 500 else Final(said)
    reason = getattr(e, "reason", e)
    return f"cannot be reached ({getattr(reason, 'strerror', None) or reason})"


def _blocks(archive: Archive, file) -> Iterator[bytes]:
    """What is missing of the archive, as far as the connection goes."""
    have = file.tell()
    request = urllib.request.Request(archive.url, headers={"User-Agent": f"convnet/{__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        if have and answer.status != 206:  # a server that always begins at the beginning
            file.truncate(0)
            file.seek(0)
            have = 0
        while have < archive.size and (block := answer.read(min(BLOCK, archive.size - have))):
            have += len(block)
            yield block


def _check(path: Path, whole: Path, archive: Archive) -> None:
    """DataError unless the file is the archive; one that is in the making goes."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(archive.kind, usedforsecurity=False))
    if found.hexdigest() == archive.checksum and path.stat().st_size == archive.size:
        return
    what = f"its {archive.kind} is {found.hexdigest()}, not {archive.checksum}"
    if path == whole:
        raise DataError(f"{path}: {what}; delete it, or take it away")
    path.unlink()
    raise DataError(f"{archive.url}: {what}: not the file it was; try again, later or elsewhere")


def _bar(archive: Archive, have: int):
    """A bar on a terminal."""
    from tqdm import tqdm

    return tqdm(total=archive.size, initial=have, desc=archive.url.rpartition("/")[2], unit="B",
                unit_scale=True, disable=not sys.stderr.isatty())  # fmt: skip


def unpack(paths: list[Path], folder: Path, made: str) -> None:
    """Unpack tar files, all of which make the one folder `made`. Raises DataError, OSError."""
    _sweep(folder)
    if not hasattr(tarfile, "data_filter"):
        raise DataError("to unpack safely takes Python 3.11.4 or newer")
    with contextlib.ExitStack() as stack:
        beside = stack.enter_context(_beside(folder))
        for path in paths:
            try:
                with tarfile.open(path) as tar:
                    tar.extractall(beside, filter="data")
            except tarfile.FilterError as e:
                name = printable(e.tarinfo.name)
                why = f"{name} would be written elsewhere, or is no plain file"
                raise DataError(f"{path}: cannot be unpacked, {why}") from None
            except (tarfile.TarError, EOFError, zlib.error) as e:
                why = " ".join(str(e).split())[:150]
                raise DataError(f"{path}: cannot be unpacked ({why})") from None
        if not (beside / made).is_dir():
            raise DataError(f"{paths[0]}: makes no folder {made}")
        (folder / made).parent.mkdir(exist_ok=True)
        (beside / made).rename(folder / made)


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder to unpack into, held as ours by a lock in it; it is gone afterwards."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=".unpacked-", dir=folder))
        try:
            file = files.locked(made / LOCK)
            break
        except (files.Held, FileNotFoundError):  # a sweep has just taken it for a leftover
            continue
    try:
        with file:
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Delete what runs that were killed have unpacked; what live ones have is let be."""
    for old in folder.glob(".unpacked-*"):
        lock = old / LOCK
        # it may be another user's, or its owner may just take it away
        with contextlib.suppress(OSError), files.abandoned(lock) as dead:
            begun = not lock.exists() and time.time() - old.stat().st_mtime > files.DAY
            if dead or begun:
                shutil.rmtree(old, ignore_errors=True)
