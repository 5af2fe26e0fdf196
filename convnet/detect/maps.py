"""The map of a whole photo at each scale: what is convolved once for all of its windows.

A photo is convolved in strips along its longer side where a layer's output would otherwise be
larger than LIMIT. A strip begins at a multiple of the map's stride and reaches as far as the
receptive fields of the cells that are taken from it, so that these are the cells of the whole
(up to the order in which sums are rounded).
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from convnet.cli import UsageError
from convnet.detect._resample import resampled
from convnet.detect.sets import Photo
from convnet.detect.store import Store
from convnet.detect.windows import Aim, aim_of, resized
from convnet.geometry import field
from convnet.graph import FLOAT, bytes_of, memory_of_computer
from convnet.loader import DataError
from convnet.multiview import trunk_of
from convnet.net import Net
from convnet.providers import fingerprint, printable
from convnet.registry import rates_of
from convnet.views import luma
from convnet.work import needed

LIMIT = 512 << 20  # bytes that one layer's output of a strip may take


class Trunk:
    """The net up to the map `layer` whose windows the pyramid pools.

    mean: what is subtracted from each channel; None: the means of the net's mean image (the
    authors' release takes 128). UsageError for a net without a pyramid.
    """

    def __init__(self, net: Net, mean: float | None = None):
        self.net, self.layer = net, trunk_of(net)
        if self.layer is None:
            raise UsageError(
                "this net has no pyramid (type=spp, or pools of one map read together) to pool "
                "windows of a map with; --method=rcnn takes any net"
            )
        self.source = net.graph.feeds[0]
        self.field, self.order = field(net.graph, self.layer), needed(net.graph, [self.layer])
        self.mean = channel_means(net, mean)

    @property
    def aim(self) -> Aim:
        """How large the boxes are to be at the scale that serves them."""
        return aim_of(self.net.graph, self.layer, self.field)

    @property
    def fingerprint(self) -> str:
        """Changes with what the maps are made of."""
        return fingerprint_of(self.net, self.order, self.mean)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the map of an image of this size. ValueError where it has none."""
        return self._shapes(height, width)[self.layer][:2]

    def _shapes(self, height: int, width: int) -> dict[str, tuple]:
        channels = self.net.graph.shapes[self.source][2]
        return self.net.graph.shapes_at({self.source: (height, width, channels)}, self.order)

    def maps(self, pixels: np.ndarray, scales: Sequence[int], mirror: bool = False) -> list[Any]:
        """The maps (rows, columns, C), on the device, of a uint8 photo (H, W, 3) at each scale.

        mirror: of the mirror image. ValueError where one would not fit into memory.
        """
        sizes = [resized(*pixels.shape[:2], scale) for scale in scales]
        for size in sizes:
            self._check(*size)
        photo = on_device(self.net, pixels)
        return [self._convolved(photo, *size, mirror) for size in sizes]

    def image(self, pixels: np.ndarray, rows: int, columns: int, mirror: bool = False):
        """(1, rows, columns, C) on the device: a uint8 photo at a size, minus the mean."""
        rects = np.array([[0, 0, *pixels.shape[:2], 0, 0, rows, columns]])
        photo = on_device(self.net, pixels)
        return resampled(self.net.device, photo, rects, (rows, columns), self.mean, mirror)

    def _check(self, rows: int, columns: int) -> None:
        """ValueError for a photo so long that its map takes too much of the memory."""
        have, most = memory_of_computer() or math.inf, rows * columns
        cells = most // self.field.stride**2 * self.net.graph.shapes[self.layer][2]
        if most > 1 << 28 or FLOAT * cells > have / 4:
            raise ValueError(
                f"would be {columns}x{rows} at this scale, its map "
                f"{bytes_of(FLOAT * cells)}; cut the photo into parts"
            )

    def _convolved(self, photo, rows: int, columns: int, mirror: bool):
        """The map of the photo at one size, in as many strips as it takes."""
        if columns > rows:
            axis, side = 1, columns
        else:
            axis, side = 0, rows
        shapes = self._shapes(rows, columns)
        largest = FLOAT * max(math.prod(shape) for shape in shapes.values())
        strips = min(-(-largest // LIMIT), max(1, shapes[self.layer][axis]))
        if strips == 1:
            return self._strip(photo, rows, columns, mirror, axis, 0, side)
        size, stride, centre = self.field
        reach = math.floor(centre - (size - 1) / 2)  # first pixel of cell 0; negative is outside
        made = self.net.device.xp.empty(shapes[self.layer], np.float32)
        edges = [i * shapes[self.layer][axis] // strips for i in range(strips + 1)]
        for first, end in itertools.pairwise(edges):
            begin = max(0, first * stride + reach) // stride * stride
            until = min(side, (end - 1) * stride + reach + size)
            part = self._strip(photo, rows, columns, mirror, axis, begin, until)
            cut = slice(first - begin // stride, end - begin // stride)
            made[(slice(None),) * axis + (slice(first, end),)] = part[
                (slice(None),) * axis + (cut,)
            ]
        return made

    def _strip(self, photo, rows, columns, mirror, axis, begin, end):
        """The map of the pixels begin..end - 1 along an axis of the resized photo."""
        size = [rows, columns]
        at = [0, 0, rows, columns]
        size[axis], at[axis] = end - begin, -begin
        if mirror and axis:  # the kernel mirrors its output, which is the end of the photo then
            at[1] = end - columns
        rects = np.array([[0, 0, *photo.shape[:2], *at]])
        x = resampled(self.net.device, photo, rects, tuple(size), self.mean, mirror)
        return self.net.fprop({self.source: x}, [self.layer])[0][self.layer][0]


def channel_means(net: Net, mean: float | None) -> np.ndarray:
    """(C,) what is subtracted from each channel: a number for all, or the means of the net's."""
    channels = net.graph.shapes[net.graph.feeds[0]][2]
    if mean is not None:
        return np.full(channels, mean, np.float32)
    return net.mean_image.mean((0, 1), dtype=np.float64).astype(np.float32)


def fingerprint_of(net: Net, layers: Iterable[str], mean: np.ndarray) -> str:
    """Changes with the keys of these layers, rates aside, their weights, and the mean."""
    parts, arrays = [], [mean]
    for l in net.layers:
        if l.name in layers:
            rates = rates_of(l.section)
            keys = {k: str(v) for k, v in l.section.items() if k not in (*rates, "inputs")}
            parts.append((l.name, *l.reads[:1], sorted(keys.items())))
            arrays += [net.device.numpy(w) for w in net.weights[l.name].values()]
    return fingerprint(parts, *arrays)


def on_device(net: Net, pixels: np.ndarray):
    """The photo (H, W, 3) with as many channels as the net takes, on its device."""
    channels = net.graph.shapes[net.graph.feeds[0]][2]
    return net.device.array(luma(pixels) if channels == 1 else pixels)


class PhotoMaps:
    """The maps of photos at some scales, from a store where they are there.

    keep: whether maps that are not are put there.
    """

    def __init__(
        self, trunk: Trunk, scales: Sequence[int], store: Store | None = None, keep: bool = False
    ):
        self.trunk, self.scales, self.store, self.keep = trunk, tuple(scales), store, keep

    @staticmethod
    def made_from(trunk: Trunk, scales: Sequence[int]) -> dict:
        """What a store of maps depends on."""
        return {"net": trunk.fingerprint, "scales": list(scales)}

    def __call__(self, photo: Photo, mirror: bool = False) -> list[Any]:
        """The map at each scale, on the device. DataError names the photo."""
        if self.store is not None and photo in self.store:
            arrays = self.store.load(photo)
            if f"{self._name(0, mirror)}/shape" in arrays:
                return [
                    self.trunk.net.device.array(unpacked(arrays, self._name(i, mirror)))
                    for i in range(len(self.scales))
                ]
        try:
            return self.trunk.maps(photo.pixels(), self.scales, mirror)
        except ValueError as e:
            raise DataError(f"{printable(str(photo.path))}: {e}") from None

    def save(self, photo: Photo, mirrors: bool) -> None:
        """Put the maps of a photo, and of its mirror image, into the store."""
        arrays = {}
        for mirror in [False, True] if mirrors else [False]:
            for i, made in enumerate(self(photo, mirror)):
                arrays |= packed(self.trunk.net.device.numpy(made), self._name(i, mirror))
        self.store.save(photo, arrays)

    def _name(self, i: int, mirror: bool) -> str:
        return f"{self.scales[i]}{'m' if mirror else ''}"


def packed(array: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """A map as which of its numbers are not 0, a bit each, and those: after a ReLU, a third."""
    flat = array.reshape(-1)
    there = flat != 0
    shape = np.array(array.shape, np.int32)
    return {f"{name}/shape": shape, f"{name}/there": np.packbits(there),
            f"{name}/values": flat[there]}  # fmt: skip


def unpacked(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The map that `packed` has taken apart."""
    shape = arrays[f"{name}/shape"]
    flat = np.zeros(math.prod(shape.tolist()), np.float32)
    there = np.unpackbits(arrays[f"{name}/there"], count=len(flat)).astype(bool)
    flat[there] = arrays[f"{name}/values"]
    return flat.reshape(shape)
