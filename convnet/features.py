"""What layers of a net make of images, in a HDF5 file: one row an image, in their order.

    features   (N, numbers) of fc layers and pyramids, (N, H, W, C) of maps; with ten views
               (N, 10, numbers) and so on. Of several layers a group with one of these for each
    names      (N,) UTF-8 text: the file, from the folder of the images
    labels     (N,) int32: number of the class in the attribute `classes`; -1: nobody knows
    splits     (N,) int8: 0 of the training images, 1 of the test images, -1 of neither

Where the maps of a layer differ in shape from image to image (view full), `features` is one long
array: numbers offsets[i] to offsets[i + 1] are row i, of the shape shapes[i], (H, W, C). Both are
groups where there are several layers. Attributes of the file tell where all this is from.
"""

import hashlib
import itertools
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from convnet import __version__, files, hdf5
from convnet.cli import UsageError
from convnet.look import Look
from convnet.net import Net
from convnet.providers import DataError, Provider, printable
from convnet.rows import Rows, text, texts
from convnet.source import Source

FORMAT = "convnet features 1"
HELD = 256 << 20  # bytes of outputs that wait until their rows are written
SPLITS = {"train": 0, "test": 1}


class Wanted(NamedTuple):
    """One layer to write."""

    name: str  # as the user calls it
    parts: list[str]  # the layers whose outputs it is, one behind the other
    shape: tuple[int, int, int] | None  # of one view; None: differs from image to image

    def row(self, views: int) -> tuple:
        """The shape of a row of so many views."""
        shape = self.shape[2:] if self.shape[:2] == (1, 1) else self.shape
        return (views, *shape) if views > 1 else shape


def wanted(net: Net, names: str, look: Look) -> list[Wanted]:
    """The layers of a list with commas. Raises UsageError where the net cannot give one."""
    found: list[Wanted] = []
    shortest = look.scale or look.usual
    for name in names.split(","):
        if name in (w.name for w in found):
            raise UsageError(f"--layer={names}: {name} twice")
        try:
            parts = net.graph.parts(name)
            if look.name != "full":
                side = look.scale if look.name == "warp" and look.scale else look.size
                shapes = [net.shape_of(parts, side, side)]
            else:
                shapes = [net.shape_of(parts, shortest, n * shortest) for n in (1, 2)]
        except ValueError as e:
            where = f"--layer={name}" if name in net.graph.alias or name == "spp" else "--layer"
            raise UsageError(f"{where}: {e}") from None
        found.append(Wanted(name, parts, shapes[0] if len({*shapes}) == 1 else None))
    return found


def check_look(look: Look) -> None:
    """UsageError for a scale that the view cannot have."""
    if look.scale and look.scale < look.size and look.name in ("centre", "ten"):
        raise UsageError(
            f"--scale={look.scale}: a view of {look.size}x{look.size} does not fit in; "
            "--view=full and --view=warp take smaller images"
        )


def which(provider: Provider, split: str) -> list[tuple[str, int]]:
    """(split, index) of the images to look at: of train, of test, or all."""
    names = SPLITS if split == "all" else [split]
    found = [(name, i) for name in names for i in range(provider.splits[name].size)]
    if not found:
        none = f" of {split}" if split != "all" else ""
        raise DataError(f"{printable(str(provider.path))}: there are no images{none}")
    return found


def write(
    path: Path,
    net: Net,
    provider: Provider,
    images: list[tuple[str, int]],
    layers: list[Wanted],
    look: Look,
    dtype: str,
    minibatch: int,
    attributes: dict[str, Any],
) -> int:
    """Write the file; how many rows it has. Raises DataError, UsageError.

    Images that cannot be read are reported by the provider and left out.
    """
    from tqdm import tqdm

    _check_room(path, layers, look, len(images), dtype)
    names = texts([provider.splits[split].keys[i] for split, i in images])
    labels = np.array([provider.splits[split].labels[i] for split, i in images], np.int32)
    splits = np.array([SPLITS[s] if provider.classes else -1 for s, _ in images], np.int8)
    done = 0
    try:
        with (
            tqdm(total=len(images), unit="img", disable=not sys.stderr.isatty()) as bar,
            Rows(path) as rows,
        ):
            for positions, outputs in _outputs(net, provider, images, layers, look, minibatch):
                for layer, made in zip(layers, outputs):
                    _add(rows, layer, made, dtype, len(layers) > 1)
                for name, values in ("names", names), ("labels", labels), ("splits", splits):
                    rows.add(name, values[positions])
                done += len(positions)
                bar.update(positions[-1] + 1 - bar.n)
            if not done:
                raise DataError(f"{printable(str(provider.path))}: no image can be read")
            for name, value in attributes.items():
                rows.attrs[name] = value
    except OSError as e:
        raise UsageError(f"--out={path}: not written, {files.advice(e)}") from None
    return done


def attributes(
    net: Net,
    source: Source,
    checkpoint: Path,
    provider: Provider,
    layers: list[Wanted],
    look: Look,
    mean: float | None,
) -> dict[str, Any]:
    """Where the features are from, as attributes of the file."""
    with checkpoint.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    usual = look.size if look.name == "warp" else look.usual
    return {
        "format": FORMAT,
        "version": __version__,
        "layer": ",".join(layer.name for layer in layers),
        "view": look.name,
        "scale": look.scale or usual,
        "mean": "of the training images" if mean is None else mean,
        "classes": np.array([*map(text, provider.classes)], h5py.string_dtype()),
        "data": text(str(provider.path)),
        "checkpoint": text(str(checkpoint)),
        "checkpoint_sha256": checksum,
        "net": source.text,
        "net_name": text(source.name),
        "net_overrides": "\n".join(source.overrides),
        "net_size": net.graph.size,
    }


def _outputs(
    net: Net, provider: Provider, images: list, layers: list[Wanted], look: Look, minibatch: int
) -> Iterator[tuple[list[int], list[list[np.ndarray]]]]:
    """(positions of some images, for each layer the outputs (views, H, W, C) of each of them).

    Whole images have many sizes: of enough images at once those of one size run together.
    """
    many = minibatch
    if look.name == "full":
        short = look.scale or look.usual
        shapes = [net.shape_of(layer.parts, short, short * 4 // 3) for layer in layers]
        many = HELD // (4 * sum(map(math.prod, shapes)) + 4 * short * short)
        many = max(minibatch, min(many, 8 * minibatch))
    block: list[tuple[int, Sequence[np.ndarray]]] = []
    for found in provider.seen(images, look):
        block.append(found)
        if len(block) == many:
            yield _run(net, block, layers, minibatch)
            block = []
    if block:
        yield _run(net, block, layers, minibatch)


def _run(net: Net, block: list, layers: list[Wanted], minibatch: int):
    """As `_outputs`, of images that are read."""
    by_size: dict[tuple, list[int]] = {}
    cuts = [cut for _, views in block for cut in views]
    for i, cut in enumerate(cuts):
        by_size.setdefault(cut.shape, []).append(i)
    made: list[list] = [[None] * len(cuts) for _ in layers]
    for same in by_size.values():
        for first in range(0, len(same), minibatch):
            part = same[first : first + minibatch]
            outputs = net.show([cuts[i] for i in part], [layer.parts for layer in layers])
            for rows, output in zip(made, outputs):
                for i, row in zip(part, output):
                    rows[i] = row
    if len(by_size) > 1:
        net.device.trim()  # memory for sizes that may not come again
    ends = [0, *itertools.accumulate(len(views) for _, views in block)]
    each = [[np.stack(rows[a:b]) for a, b in itertools.pairwise(ends)] for rows in made]
    return [position for position, _ in block], each


def _add(rows: Rows, layer: Wanted, made: list[np.ndarray], dtype: str, several: bool) -> None:
    """Write the outputs (views, H, W, C) of a layer for some images."""
    behind = f"/{hdf5.spell(layer.name)}" if several else ""
    numbers = np.concatenate([x.reshape(-1) for x in made])
    with np.errstate(over="ignore"):
        kept = numbers.astype(dtype)
    if not np.isfinite(numbers).all():
        raise DataError(f"the output of [{layer.name}] is not finite; the weights are of no use")
    if not np.isfinite(kept).all():
        raise UsageError(
            f"--dtype=float16: [{layer.name}] reaches {abs(numbers).max():,.0f}, which is more "
            "than a float16 can hold; use float32"
        )
    if layer.shape:
        kept = kept.reshape(len(made), *layer.row(len(made[0])))
    written = rows.add(f"features{behind}", kept)
    if len(layer.parts) > 1:
        written.attrs["made_of"] = ",".join(layer.parts)
    if not layer.shape:
        begin = [] if f"offsets{behind}" in rows.file else [0]
        end = len(written) - len(kept) + np.cumsum([x.size for x in made])
        rows.add(f"offsets{behind}", np.array([*begin, *end], np.int64))
        rows.add(f"shapes{behind}", np.array([x.shape[1:] for x in made], np.int32))


def _check_room(path: Path, layers: list[Wanted], look: Look, count: int, dtype: str) -> None:
    """UsageError where the disk has no room for the rows, if they are known to be of one size."""
    views = (10 if look.mirror else 5) if look.name == "ten" else 1
    numbers = sum(math.prod(layer.shape) for layer in layers if layer.shape)
    need, free = numbers * views * count * np.dtype(dtype).itemsize, shutil.disk_usage(path.parent)
    if need > free.free:
        raise UsageError(
            f"--out={path}: takes {need / 1e9:.1f} GB, {free.free / 1e9:.1f} GB are free there"
        )


class Features(NamedTuple):
    """What a file holds of one layer."""

    rows: np.ndarray  # (N, numbers) float32
    names: list[str]
    labels: np.ndarray  # (N,) int64; -1: not known
    splits: np.ndarray  # (N,) int64; as in the file
    classes: list[str]
    about: dict[str, Any]  # the attributes


def read(path: str | Path, layer: str | None = None) -> Features:
    """The features of a layer, by default of the only one; maps as long rows, views averaged.

    Raises DataError for a file that is none of these, or damaged; UsageError for the layer.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: " + ("is not a file" if path.exists() else "no such file"))
    try:
        with h5py.File(path, "r") as file:
            return _read(file, layer)
    except (DataError, UsageError) as e:
        raise type(e)(f"{path}: {e}") from None
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError) as e:
        if told := files.unread(e):
            raise DataError(f"{path}: {told}") from None
        why = " ".join(str(e).split())[:150]
        raise DataError(f"{path}: damaged, or no file of tools/features.py ({why})") from None


def _read(file: h5py.File, layer: str | None) -> Features:
    about = {name: _plain(value) for name, value in file.attrs.items()}
    if about.get("format") != FORMAT:
        raise DataError("no file of tools/features.py, or of a newer one")
    layers = about["layer"].split(",")
    if layer is None and len(layers) > 1:
        raise UsageError(f"has several layers; choose with --layer={layers[0]}, ...")
    name = layers[0] if layer is None else layer
    if name not in layers:
        raise UsageError(f"no layer {name!r}; has {', '.join(layers)}")
    found = hdf5.dataset(file, f"features/{hdf5.spell(name)}" if len(layers) > 1 else "features")
    names, labels, splits = (hdf5.dataset(file, word) for word in ("names", "labels", "splits"))
    if "offsets" in file and found.ndim == 1:
        raise UsageError(
            f"maps of {name} differ in shape, which no SVM can take; --layer=spp would"
        )
    counts = {"features": len(found), "names": len(names), "labels": len(labels)}
    if len({*counts.values(), len(splits)}) > 1:
        told = ", ".join(f"{n} {word}" for word, n in counts.items())
        raise DataError(f"its rows do not belong together: {told}")
    if names.ndim != 1 or labels.ndim != 1 or splits.ndim != 1 or 0 in found.shape[1:]:
        raise DataError("its rows are of no use: one name, label, split and some numbers for each")
    rows = found[:].astype(np.float32, copy=False)
    if about["view"] == "ten":
        rows = rows.mean(1, dtype=np.float32)
    rows = rows.reshape(len(rows), -1)
    if not np.isfinite(rows).all():
        raise DataError("its features are not finite")
    labels, classes = labels[:].astype(np.int64), list(about["classes"])
    wrong = labels[(labels < -1) | (labels >= max(1, len(classes)))]
    if len(wrong):
        raise DataError(f"it has a label {wrong[0]} but {len(classes)} classes")
    return Features(rows, [*names.asstr()[:]], labels, splits[:].astype(np.int64), classes, about)


def _plain(value: Any) -> Any:
    """An attribute as Python's own type."""
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
