"""Predictions from many views of an image, pooled from feature maps (SPP-net, section 3.1.4).

    look = Multiview(net, plan("96+2"))
    probs = look.predict(images)          # (N, classes) of uint8 images (H, W, C) of any sizes

The whole image is resized to each scale and convolved once, and once mirrored. A view is a
rectangle of the resized image; the cells of the map that it covers (convnet/geometry.py) are cut
out, pooled by the pyramid and go through the fc layers. Views that come to the same cells are
computed once. The probabilities of all views are averaged.

A net without a pyramid, or views="images", has every view cut from the image instead and sees it
from its first layer on.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convnet import views
from convnet.geometry import SEMANTICS, cells, field
from convnet.graph import FLOAT, bytes_of, memory_of_computer
from convnet.net import Net
from convnet.work import needed

SCALES = (224, 256, 300, 360, 448, 560)  # of the 96 views, where images are fitted to 256
NAMES = ("10", "96", "96+2", "full")
WINDOWS = 256  # views that go through the fc layers together


class ImageError(ValueError):
    """The views of one of several images cannot be had; `number` says of which."""

    def __init__(self, number: int, why: ValueError):
        super().__init__(str(why))
        self.number = number


class View(NamedTuple):
    """A rectangle of a resized image: pixels top..bottom - 1, left..right - 1 of rows x columns.

    flip: what is seen is the mirror image of this rectangle.
    """

    rows: int
    columns: int
    top: int
    left: int
    bottom: int
    right: int
    flip: bool = False
    weight: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether it is all of the image."""
        return self[2:6] == (0, 0, self.rows, self.columns)


# (rows and columns of the image, side of the net, side that images are fitted to) -> views
Plan = Callable[[int, int, int, int], list[View]]


def plan(name: str) -> Plan:
    """The views of a name.

    10     centre and corners of the whole image at the scale of training, and their mirror images
    96     3 x 3 places at six scales, and their mirror images; 96 for a photograph, as where the
           image is no larger than the view in a direction its three places are one
    96+2   these, the whole image and its mirror image
    full   the whole image

    ValueError for another name.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r}: must be one of {', '.join(NAMES)}")

    def ten(h, w, S, fit):
        return [_square(h, w, y, x, S) for y, x in views.five(h, w, S)]

    def at_scales(h, w, S, fit):
        return [
            _square(*size, y, x, S)
            for scale in SCALES
            for size in [views.fitted(h, w, max(S, round(scale * fit / SCALES[1])))]
            for y, x in views.positions(*size, S)
        ]

    def whole(h, w, S, fit):
        return [View(h, w, 0, 0, h, w)]

    parts = {"10": [ten], "96": [at_scales], "96+2": [at_scales, whole], "full": [whole]}[name]

    def made(h, w, S, fit):
        size = views.fitted(h, w, fit)
        found = [
            v for part in parts for v in part(*(size if part != at_scales else (h, w)), S, fit)
        ]
        return found if name == "full" else [*found, *(v._replace(flip=True) for v in found)]

    return made


def _square(rows: int, columns: int, y: int, x: int, S: int) -> View:
    return View(rows, columns, y, x, y + S, x + S)


ROW = re.compile(
    r"(\d{1,5})\s+(full|(\d{1,5}|left|centre|right),(\d{1,5}|top|middle|bottom),"
    r"([1-9]\d{0,4})x([1-9]\d{0,4}))\s+([01])\s+(\d{1,6}\.?\d{0,9})"
)
FORM = "scale left,top,widthxheight flip weight, as in '256 centre,middle,224x224 0 1', or full"


def read_plan(path: str | Path) -> Plan:
    """The views of a file, one a line; '#' begins a comment. ValueError with the line.

        # scale  rectangle               flip  weight
        256      left,top,224x224        0     1
        256      centre,middle,224x224   1     2
        300      16,32,200x180           0     1
        256      full                    0     1

    scale: the shorter side of the resized image, in pixels; left and top of the rectangle in
    pixels of it, or words; flip 1: the mirror image of the rectangle.
    """
    rules = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = ROW.fullmatch(text)
        if not found or int(found[1]) < 1 or float(found[8]) <= 0:
            raise ValueError(f"{path}:{number}: {text[:60]!r}: a view is {FORM}; the weight is > 0")
        rules.append((f"{path}:{number}", found))
    if not rules:
        raise ValueError(f"{path}: no view in it; a line is {FORM}")

    def made(h, w, S, fit):
        return [_view(where, found, h, w) for where, found in rules]

    return made


def _view(where: str, found: re.Match, h: int, w: int) -> View:
    """The view of a line for an image of h x w pixels. ValueError where it is not inside."""
    rows, columns = views.fitted(h, w, int(found[1]))
    flip, weight = found[7] == "1", float(found[8])
    if found[2] == "full":
        return View(rows, columns, 0, 0, rows, columns, flip, weight)
    width, height = int(found[5]), int(found[6])
    words = {"left": 0, "centre": (columns - width) // 2, "right": columns - width}
    left = words[found[3]] if found[3] in words else int(found[3])
    words = {"top": 0, "middle": (rows - height) // 2, "bottom": rows - height}
    top = words[found[4]] if found[4] in words else int(found[4])
    view = View(rows, columns, top, left, top + height, left + width, flip, weight)
    if not (0 <= left < view.right <= columns and 0 <= top < view.bottom <= rows):
        raise ValueError(
            f"{where}: {found[2]} is outside the image, which at scale {found[1]} is "
            f"{columns}x{rows} (width x height)"
        )
    return view


def trunk_of(net: Net) -> str | None:
    """The layer whose map all levels of the net's pyramid read; None where there is no pyramid."""
    wanted = needed(net.graph, [net.output])
    sources = {l.reads[0] for l in net.layers if l.bins() and l.name in wanted}
    return sources.pop() if len(sources) == 1 else None


class Multiview:
    """A net that sees each image by the views of a plan.

    semantics: how a view becomes cells, one of convnet.geometry.SEMANTICS. of: "maps" or "images",
    what views are cut from; None: maps where the net has a pyramid. batch: views of the net's own
    size that are convolved together, or as many pixels. ValueError where the net cannot do it.
    """

    def __init__(
        self,
        net: Net,
        plan: Plan,
        semantics: str = "crop",
        of: str | None = None,
        batch: int = 32,
    ):
        self.net, self.plan, self.semantics, self.batch = net, plan, semantics, batch
        trunk = trunk_of(net)
        if semantics not in SEMANTICS:
            raise ValueError(f"semantics={semantics!r}: must be one of {', '.join(SEMANTICS)}")
        if of not in (None, "maps", "images"):
            raise ValueError(f"of={of!r}: must be maps or images")
        if of == "maps" and trunk is None:
            raise ValueError(
                "this net has no pyramid: its views are cut from images, not from maps"
            )
        self.source = net.graph.feeds[0]
        self.cut_at = trunk if of != "images" and trunk else self.source
        self.field = field(net.graph, self.cut_at)
        self.before = needed(net.graph, [self.cut_at])
        self.convolved = self.passes = 0  # images convolved, views that went through the fc layers

    def views(self, image: np.ndarray) -> list[View]:
        """The views of an image (h, w, C). ValueError where one lies outside or is too large."""
        h, w = self._whole(image).shape[:2]
        size = self.net.graph.size
        found = self.plan(h, w, size, h if image.shape[:2] == (size, size) else self.net.resize_to)
        for rows, columns in {(v.rows, v.columns) for v in found}:
            self._check_memory(rows, columns)
        return found if self.net.mirror else [v for v in found if not v.flip]

    def _check_memory(self, rows: int, columns: int) -> None:
        """ValueError where the maps of an image of this size cannot be held."""
        graph, have = self.net.graph, memory_of_computer()
        shapes = {self.source: (rows, columns, graph.shapes[self.source][2])}
        shapes = graph.shapes_at(shapes, self.before)
        most = max(shapes, key=lambda name: math.prod(shapes[name]))
        if have is not None and FLOAT * math.prod(shapes[most]) > have:
            raise ValueError(
                f"a view at {columns}x{rows} takes {bytes_of(FLOAT * math.prod(shapes[most]))} in "
                f"[{most}]; this computer has {bytes_of(have)} of memory"
            )

    def _whole(self, image: np.ndarray) -> np.ndarray:
        """The image of which views are rectangles: one of the net's own side has a border."""
        size = self.net.graph.size
        return views.bordered(image, size // 8) if image.shape[:2] == (size, size) else image

    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities (N, classes), the weighted means over the views of each image.

        Raises ImageError for an image whose views cannot be had.
        """
        classes = int(np.prod(self.net.graph.shapes[self.net.output]))
        sums, weights = np.zeros((len(images), classes)), np.zeros((len(images), 1))
        for found, share, probs in self._run(images):
            np.add.at(sums, found, share[:, None] * probs)
            np.add.at(weights, found, share[:, None])
        if not weights.all():
            raise ValueError("an image has no view: the plan has mirrored ones only")
        return (sums / weights).astype(np.float32)

    def _run(self, images: Sequence[np.ndarray]) -> Iterator[tuple]:
        """(number of the image, weight, probabilities) of many views at a time."""
        waiting: dict[tuple, list] = defaultdict(list)
        for numbers, group, maps in self._maps(images):
            for number, of_image, map_ in zip(numbers, group, maps):
                for (top, bottom, left, right), weight in self._cells(of_image, map_.shape).items():
                    here = waiting[bottom - top, right - left]
                    here.append((number, weight, map_[top:bottom, left:right].copy()))
                    if len(here) >= WINDOWS:
                        yield self._head(here)
        for here in waiting.values():
            if here:
                yield self._head(here)

    def _head(self, waiting: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the rest of the net says to pieces of maps of one shape."""
        numbers, weights, pieces = zip(*waiting)
        waiting.clear()
        self.passes += len(pieces)
        if self.cut_at == self.source:
            x = self.net.device.array(views.to_net(pieces, self.net.mean_image))
        else:
            x = self.net.device.xp.stack(pieces)
        out = self.net.fprop({self.cut_at: x}, [self.net.output])[0][self.net.output]
        probs = self.net.device.numpy(out).reshape(len(pieces), -1)
        return np.array(numbers), np.array(weights), probs

    def _maps(self, images: Sequence[np.ndarray]) -> Iterator[tuple[list, list, Any]]:
        """(numbers of images, their views, their maps): each image once for a scale and mirror."""
        groups = defaultdict(list)
        for number, image in enumerate(images):
            passes = defaultdict(list)
            try:
                seen = self.views(image)
            except ValueError as e:
                raise ImageError(number, e) from None
            for view in seen:
                passes[view.rows, view.columns, view.flip].append(view)
            for (rows, columns, flip), found in passes.items():
                groups[rows, columns].append((number, flip, found))
        size = self.net.graph.size
        for (rows, columns), members in groups.items():
            members.sort(key=lambda member: member[0])  # an image and its mirror image together
            step = max(1, self.batch * size * size // (rows * columns))
            for i in range(0, len(members), step):
                numbers, flips, found = zip(*members[i : i + step])
                whole = {n: views.resize(self._whole(images[n]), rows, columns) for n in {*numbers}}
                seen = [whole[n][:, ::-1] if flip else whole[n] for n, flip in zip(numbers, flips)]
                self.convolved += len(seen)
                yield numbers, found, self._convolve(seen)

    def _convolve(self, whole: list[np.ndarray]):
        """The maps of images of one size; these images themselves where views are cut from them."""
        if self.cut_at == self.source:
            return whole
        x = self.net.device.array(views.to_net(whole, self.net.mean_image))
        return self.net.fprop({self.source: x}, [self.cut_at])[0][self.cut_at]

    def _cells(self, found: list[View], shape: tuple) -> dict[tuple, float]:
        """The weight of each different rectangle of cells of a map of this shape."""
        weights: dict[tuple, float] = defaultdict(float)
        for v in found:
            weights[self._rectangle(v, *shape[:2])] += v.weight
        return weights

    def _rectangle(self, v: View, rows: int, columns: int) -> tuple[int, int, int, int]:
        left, right = (v.columns - v.right, v.columns - v.left) if v.flip else (v.left, v.right)
        if self.cut_at == self.source:
            return v.top, v.bottom, left, right
        if v.whole:
            return 0, rows, 0, columns
        own = self._own(v.bottom - v.top, v.right - v.left)
        return (
            *cells(self.field, self.semantics, v.top, v.bottom, rows, own[0]),
            *cells(self.field, self.semantics, left, right, columns, own[1]),
        )

    def _own(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of the map of an image of this size; 1 x 1 where it is too small."""
        graph = self.net.graph
        try:
            given = {self.source: (rows, columns, graph.shapes[self.source][2])}
            return graph.shapes_at(given, self.before)[self.cut_at][:2]
        except ValueError:
            return 1, 1
