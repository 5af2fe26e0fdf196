"""What the fc layers see of boxes of a photo: windows of its maps (SPP-net), or crops (R-CNN).

Both are asked alike: view(photo, boxes) gives the outputs of the layers below the first fc layer,
one row for each different window, and the window of each box.
"""

from typing import Any, NamedTuple

import numpy as np

from convnet.cli import UsageError
from convnet.detect._resample import resampled
from convnet.detect.boxes import mirrored
from convnet.detect.maps import (
    PhotoMaps,
    channel_means,
    fingerprint_of,
    on_device,
    packed,
    unpacked,
)
from convnet.detect.sets import Photo
from convnet.detect.store import Store
from convnet.detect.windows import Windows, best_scales, cells, distinct, resized
from convnet.graph import Graph
from convnet.net import Net
from convnet.work import needed

PADDING = 16 / 227  # context around a warped window, in sides of it (R-CNN, appendix A)
CROPS = 64  # crops that are convolved together
ROWS = 2048  # windows that go through the fc layers together


class Seen(NamedTuple):
    """Outputs {layer: (K, ...)} on the device; box i is window of[i]."""

    parts: dict[str, Any]
    of: np.ndarray


class SppView:
    """Windows of the maps of a photo.

    semantics: one of convnet.detect.windows.SEMANTICS.
    """

    def __init__(self, maps: PhotoMaps, semantics: str):
        self.maps, self.trunk, self.semantics = maps, maps.trunk, semantics
        graph = self.trunk.net.graph
        self.layers = graph.parts("spp")
        self.windows_name = graph.feeds.get(2)
        if self.windows_name is None:
            raise UsageError("this net's pyramid reads no windows (type=data dataIdx=2)")

    def __call__(
        self,
        photo: Photo,
        boxes: np.ndarray,
        mirror: bool = False,
        which: np.ndarray | None = None,
        once: bool = True,
    ) -> Seen:
        """Of the photo, or of its mirror image; the boxes are those of the photo.

        which: (N,) number of the scale of each box; None: the one that serves it. once: boxes with
        the same cells are one window; without, each is computed.
        """
        maps = self.maps(photo, mirror)
        windows = self.windows(photo, boxes, [m.shape[:2] for m in maps], mirror, which, once)
        return Seen(self.pooled(maps, windows), windows.of)

    @property
    def scales(self) -> tuple[int, ...]:
        """The shorter sides of the photo at which there is a map."""
        return self.maps.scales

    def images(self, photo: Photo, boxes: np.ndarray, mirror: bool, rng) -> dict[str, Any]:
        """What the net's data layers take to train on these boxes, at one scale drawn by rng."""
        i = int(rng.integers(len(self.scales)))
        pixels, scale = photo.pixels(), self.scales[i]
        size = resized(photo.height, photo.width, scale)
        x = self.trunk.image(pixels, *size, mirror)
        which = np.full(len(boxes), i)
        sides = [self.trunk.shape(*resized(photo.height, photo.width, s)) for s in self.scales]
        found = self.windows(photo, boxes, sides, mirror, which)
        rows = np.zeros((len(boxes), 1, 1, 5), np.int32)
        rows[:, 0, 0, 1:] = found.cells[found.of]
        return {self.trunk.source: x, self.windows_name: self.trunk.net.device.array(rows)}

    def windows(self, photo, boxes, sides, mirror=False, which=None, once=True) -> Windows:
        """The cells of each box; sides: (rows, columns) of the map at each scale."""
        size, scales = (photo.height, photo.width), self.maps.scales
        boxes = mirrored(boxes, photo.width) if mirror else boxes
        if which is None:
            which = best_scales(boxes, *size, scales, self.trunk.aim, self.semantics)
        at = cells(boxes, np.array(scales)[which], size, np.array(sides)[which], self.trunk.field,
                   self.semantics)  # fmt: skip
        if once:
            return distinct(which, at)
        order = np.argsort(which, kind="stable")
        return Windows(np.asarray(which)[order], at[order], np.argsort(order))

    def pooled(self, maps: list, windows: Windows) -> dict[str, Any]:
        """The pyramid over windows of the maps of one photo."""
        net, count = self.trunk.net, len(windows.cells)
        made = {n: net.device.empty((count, *net.graph.shapes[n])) for n in self.layers}
        for i in np.unique(windows.scale):
            first, end = np.searchsorted(windows.scale, [i, i + 1])
            rows = np.zeros((end - first, 1, 1, 5), np.int32)
            rows[:, 0, 0, 1:] = windows.cells[first:end]
            given = {self.trunk.layer: maps[i][None], self.windows_name: rows}
            outs = net.fprop(given, self.layers)[0]
            if end - first == count:
                return outs
            for name, whole in made.items():
                whole[first:end] = outs[name]
        return made


class CropView:
    """Windows warped to the size of the net, with some context around them (R-CNN).

    store: of what the layers below the fc layers make of boxes, where that is kept.
    """

    def __init__(
        self,
        net: Net,
        mean: float | None = None,
        store: Store | None = None,
    ):
        self.net, self.mean = net, channel_means(net, mean)
        self.padding = round(PADDING * net.graph.size)
        self.store, self.layers = store, below_fc(net.graph, net.output)
        self.scales = (net.graph.size,)

    @staticmethod
    def made_from(net: Net, mean: float | None) -> dict:
        """What a store of crops depends on."""
        layers = needed(net.graph, below_fc(net.graph, net.output))
        means = channel_means(net, mean)
        return {"net": fingerprint_of(net, layers, means), "size": net.graph.size}

    def __call__(
        self,
        photo: Photo,
        boxes: np.ndarray,
        mirror: bool = False,
        which: np.ndarray | None = None,
        once: bool = True,
    ) -> Seen:
        """As SppView; there is one scale only."""
        of = np.arange(len(boxes))
        if once and len(boxes):
            boxes, of = np.unique(boxes, axis=0, return_inverse=True)
        kept = self._kept(photo, boxes, mirror)
        return Seen(self._made(photo, boxes, mirror) if kept is None else kept, of.reshape(-1))

    def _made(self, photo: Photo, boxes: np.ndarray, mirror: bool) -> dict[str, Any]:
        pixels = on_device(self.net, photo.pixels())
        made = {name: [] for name in self.layers}
        for i in range(0, len(boxes), CROPS):
            x = self.crops(pixels, boxes[i : i + CROPS], mirror)
            outs = self.net.fprop({self.net.graph.feeds[0]: x}, self.layers)[0]
            for name, found in made.items():
                found.append(outs[name])
        xp, shape = self.net.device.xp, self.net.graph.shapes
        return {
            n: xp.concatenate(x) if x else xp.empty((0, *shape[n]), np.float32)
            for n, x in made.items()
        }

    def _kept(self, photo: Photo, boxes: np.ndarray, mirror: bool) -> dict[str, Any] | None:
        """What the store has of these boxes; None where it has not all of them."""
        if self.store is None or photo not in self.store:
            return None
        arrays, sign = self.store.load(photo), "m" if mirror else ""
        rows = {tuple(box): i for i, box in enumerate(arrays["boxes"].tolist())}
        at = [rows.get(tuple(box)) for box in boxes.tolist()]
        if None in at or f"{self.layers[0]}{sign}/shape" not in arrays:
            return None
        array = self.net.device.array
        return {n: array(unpacked(arrays, f"{n}{sign}")[at]) for n in self.layers}

    def save(self, photo: Photo, boxes: np.ndarray, mirrors: bool) -> None:
        """Put what is made of these boxes, and of their mirror images, into the store."""
        boxes = np.unique(boxes, axis=0)
        arrays = {"boxes": boxes}
        for mirror in [False, True] if mirrors else [False]:
            for name, x in self._made(photo, boxes, mirror).items():
                arrays |= packed(self.net.device.numpy(x), f"{name}{'m' if mirror else ''}")
        self.store.save(photo, arrays)

    def images(self, photo: Photo, boxes: np.ndarray, mirror: bool, rng) -> dict[str, Any]:
        """What the net's data layer takes to train on these boxes."""
        return {self.net.graph.feeds[0]: self.crops(on_device(self.net, photo.pixels()), boxes,
                                                    mirror)}  # fmt: skip

    def crops(self, pixels, boxes: np.ndarray, mirror: bool = False):
        """(K, S, S, C) of a photo on the device, minus the mean."""
        size = self.net.graph.size
        rects = warps(boxes, *pixels.shape[:2], size, self.padding)
        return resampled(self.net.device, pixels, rects, (size, size), self.mean, mirror)


def warps(boxes: np.ndarray, height: int, width: int, size: int, padding: int) -> np.ndarray:
    """(K, 8) rectangles for `resampled`: each box and its context, warped to size x size.

    R-CNN's `warp` (appendix A): the box is enlarged about its centre such that the box itself
    becomes size - 2 padding pixels; what is outside of the photo is the mean.
    """
    grown = size / (size - 2 * padding)
    first, last = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    half, centre = (last - first) / 2 * grown, (first + last) / 2 + 1  # counted from 1
    begin, end = away(centre - half), away(centre + half)
    limit = np.array([width, height])
    whole = np.maximum(end - begin + 1, 1)
    out = np.maximum(0, 1 - begin)
    begin = np.clip(begin, 1, limit)
    end = np.clip(end, begin, limit)
    factor = size / whole
    at = np.minimum(away(out * factor), size - 1)
    inside = np.clip(away((end - begin + 1) * factor), 1, size - at)
    rows = np.concatenate([begin - 1, end - begin + 1, at, inside], 1)
    return rows[:, [1, 0, 3, 2, 5, 4, 7, 6]].astype(np.int32)


def away(x: np.ndarray) -> np.ndarray:
    """Rounded, halves away from 0, as MATLAB does."""
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def below_fc(graph: Graph, output: str) -> list[str]:
    """The layers that the first fc layer of the net reads."""
    if any(l.bins() for l in graph.layers):
        return graph.parts("spp")
    wanted = needed(graph, [output])
    return next(l.reads for l in graph.layers if l.name in wanted and l.positional)


def through_fc(net: Net, parts: dict[str, Any], layers: list[str]) -> dict[str, np.ndarray]:
    """Outputs (K, numbers) of layers above `parts`, as NumPy arrays, so many windows at a time."""
    count = len(next(iter(parts.values())))
    if not count:
        sizes = {name: int(np.prod(net.graph.shapes[name])) for name in layers}
        return {name: np.zeros((0, n), np.float32) for name, n in sizes.items()}
    made: dict[str, list] = {name: [] for name in layers}
    for i in range(0, count, ROWS):
        some = {name: x[i : i + ROWS] for name, x in parts.items()}
        outs = net.fprop(some, [name for name in layers if name not in some])[0] | some
        for name in layers:
            out = net.device.numpy(outs[name])
            made[name].append(out.reshape(len(out), -1))
    return {name: x[0] if len(x) == 1 else np.concatenate(x) for name, x in made.items()}
