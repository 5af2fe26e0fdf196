"""A file of weights, whatever its format, known by what it holds and not by its name."""

import mmap
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from convnet import runfolder
from convnet.checkpoint import MAGIC, Checkpoint
from convnet.files import advice
from convnet.foreign import caffe, cuda_convnet, own, safetensors, torch_pickle
from convnet.foreign.found import Found, WeightsError
from convnet.providers import printable
from convnet.refused import Refused

FORMATS = (
    "a run or checkpoint of convnet, Caffe's .caffemodel, PyTorch's .pth of a state dict, "
    ".safetensors, or a checkpoint of cuda-convnet"
)
CAFFE = b"\n", b"\x12", b"\xa2\x06"  # a message whose first field is a name or a layer
SHRUNK = 100  # times at most that a zip file of weights, which are noise, is smaller
# what Python's zipfile raises for damaged files
ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError,
)  # fmt: skip


def read(name: str | Path) -> Found:
    """The layers of a file, or of the newest checkpoint in a folder.

    Raises WeightsError, CheckpointError: one line with the file and what is wrong with it.
    """
    path = Path(name)
    if path.is_dir():
        newest = cuda_convnet.newest(path)
        if newest is None:
            return _own(path)
        path = newest
    data = _bytes(path)
    if data[: len(MAGIC)] == MAGIC:
        return _own(path)
    try:
        found = _read(str(path), data)
        if not found.layers:
            raise Refused("no layer in it can be used: " + "; ".join(found.lost[:2]))
        return found
    except Refused as e:
        raise WeightsError(f"{path}: {printable(str(e))}") from None
    except MemoryError:
        raise WeightsError(f"{path}: does not fit into memory") from None
    except Exception as e:  # of Python's and NumPy's readers, at what no check here foresaw
        raise WeightsError(f"{path}: is damaged, or not what it looks like") from e


def mean_image(name: str) -> np.ndarray:
    """The image (H, W, C) of a .binaryproto. Raises WeightsError."""
    try:
        return caffe.mean(_bytes(Path(name)))
    except Refused as e:
        raise WeightsError(f"{name}: no mean image of Caffe: {e}") from None


def _own(path: Path) -> Found:
    saved, where, _ = runfolder.find(path)
    return _of_checkpoint(saved, where)


def _of_checkpoint(saved: Checkpoint, path: Path) -> Found:
    try:
        return own.read(str(path), saved)
    except (ValueError, KeyError, TypeError) as e:
        raise WeightsError(f"{path}: not a net of tools/train.py: {e}") from None


def _read(path: str, data: memoryview) -> Found:
    if not len(data):
        raise Refused("is empty")
    if data[:4] == b"PK\x03\x04":
        return _read_zip(path, data)
    if torch_pickle.is_legacy(data):
        return torch_pickle.read_legacy(path, data)
    if data[8:9] == b"{":
        return safetensors.read(path, data)
    in_ascii = data[:1] in (b"(", b"c") and data[-1:] == b"."  # of protocol 0, no text
    if data[0] == 0x80 or in_ascii:
        return cuda_convnet.read(path, data)
    try:
        return caffe.read(path, data)
    except Refused as e:
        if str(e).startswith("layer "):
            raise
        named = path.endswith(".caffemodel") or bytes(data[:2]).startswith(CAFFE)
        told = f"read as a .caffemodel it {e}" if named else "is of no known format"
        raise Refused(f"{told}; can be {FORMATS}") from None


def _read_zip(path: str, data: memoryview) -> Found:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.infolist()
            if sum(part.compress_size for part in inside) > len(data):
                raise zipfile.BadZipFile
            size = sum(part.file_size for part in inside)
            if size > SHRUNK * len(data):
                raise Refused(f"is a zip file of {len(data):,} bytes that would become {size:,}")
            of_torch = any(name.endswith("/data.pkl") for name in archive.namelist())
            reader = torch_pickle if of_torch else cuda_convnet
            return reader.read_zip(path, archive)
    except ZIP_ERRORS:
        raise Refused("is a damaged zip file, or one of a kind that is not read here") from None


def _bytes(path: Path) -> memoryview:
    """The contents of a file, read as they are looked at."""
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path}: is not a file")
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as e:
        raise WeightsError(
            f"{path}: cannot be read, {advice(e).partition(';')[0].lower()}"
        ) from None
