"""What the bins of a pyramid look for: the windows of the test images that they answer most.

A bin keeps the strongest answer of each filter in its part of the map; that answer comes from one
cell, and the cell sees one window of the image (convnet/geometry.py). Figure 3 of the SPP-net paper
shows such windows for filters of conv5.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet import given
from convnet.cli import UsageError
from convnet.geometry import field
from convnet.graph import Graph
from convnet.net import Net
from convnet.providers import DataError, Provider
from convnet.show import opened, style
from convnet.show.windows import Row, cut, picture

WINDOWS = 8  # of a row
ROWS = 30  # as many bins as are shown where no level is named: those of levels 4,3,2,1


class Wanted(NamedTuple):
    """What of a net is to be shown."""

    layer: str
    level: int | None = None  # None: all, as far as there is room
    filters: Sequence[int] = ()  # none: for each bin one of its own
    images: int | None = None  # so many of the test images, drawn at random; None: all
    windows: int = WINDOWS


class Bin(NamedTuple):
    """A part of a map: bin (row, column) of level x level, the cells that it covers."""

    level: int
    row: int
    column: int
    cells: tuple[slice, slice]


class Best(NamedTuple):
    """For each bin and filter the strongest answers, the best first: (bins, filters, windows)."""

    values: np.ndarray
    images: np.ndarray  # which test image
    places: np.ndarray  # which cell of the map, row by row
    means: np.ndarray  # (bins, filters), over all images


def bins(args) -> Path:
    """tools/show.py bins"""
    run = given.opened(args.run, args.device)
    name = args.layer or opened.last_map(run.net)
    own = opened.map_layer(run.net, name)
    filters = wanted_filters(args.filters, run.net.graph.shapes[own][2])
    with opened.data(args, run) as provider:
        out = opened.target(args, run.path.parent, f"bins-{name}.png", style.KINDS)
        wanted = Wanted(name, args.level, filters, args.images, args.windows)
        drawn = made_of(run.net, provider, wanted)
    style.write(out, *drawn)
    return out


def made_of(net: Net, provider: Provider, wanted: Wanted):
    """The picture; levels for which there is no room are told of. Raises UsageError."""
    own, graph = opened.map_layer(net, wanted.layer), net.graph
    try:
        seen_by = field(graph, own)
    except ValueError as e:
        raise UsageError(f"--layer={wanted.layer}: {e}") from None
    parts, left = wanted_bins(graph, own, wanted.level or (1 if wanted.filters else None))
    if left:
        levels = ", ".join(map(str, left))
        given.say_notes([f"no room for the bins of level {levels}; --level=N shows one alone"])
    order = np.random.default_rng(0).permutation(provider.test.size)
    images = np.sort(order[: wanted.images])  # by class where the data is: all have to be there
    best = strongest(opened.seen(net, provider, images, [[own]]), parts, wanted.windows)
    if best is None:
        raise DataError(f"{provider.path}: no test image can be read")
    chosen = [(b, f) for b in range(len(parts)) for f in wanted.filters] or choose(best, parts)
    views = _views(net, provider, {int(i) for b, f in chosen for i in best.images[b, f]})
    width, rows = graph.shapes[own][1], []
    for b, f in chosen:
        fires = int((best.values[b, f] > 0).sum())
        places = zip(best.images[b, f][:fires], best.places[b, f])
        windows = [cut(views[int(i)], seen_by, divmod(int(at), width)) for i, at in places]
        rows.append(Row(parts[b], f, best.values[b, f], windows))
    title = (f"{wanted.layer}: windows of {seen_by.size}x{seen_by.size} pixels of "
             f"{graph.size}x{graph.size} that filters answer most")  # fmt: skip
    return picture(rows, title)


def wanted_filters(text: str | None, count: int) -> list[int]:
    """Numbers of filters of a comma list. UsageError for what is none."""
    found = []
    for word in text.split(",") if text else ():
        if not word.strip().isdecimal() or int(word) >= count:
            raise UsageError(f"--filters={text}: must be numbers from 0 to {count - 1}")
        found.append(int(word))
    return found


def wanted_bins(graph: Graph, own: str, level: int | None) -> tuple[list[Bin], list[int]]:
    """The bins of a level over a map, or of all levels, coarse ones first; those without room.

    UsageError where the net has no such level; level 1, the whole map, is always there.
    """
    h, w = graph.shapes[own][:2]
    readers = [l for l in graph.layers if l.bins() and l.reads[0] == own]
    levels = {n: l for l in readers for n in l.bins()}
    if level and level != 1 and level not in levels:
        having = ", ".join(map(str, sorted(levels))) or "none over this layer"
        raise UsageError(f"--level={level}: the pyramid has {having}")
    found: list[Bin] = []
    left: list[int] = []
    for n in [level] if level else sorted(levels) or [1]:
        if found and len(found) + n * n > ROWS:
            left.append(n)
            continue
        window = levels[n].window(0) if n in levels else None
        for i, j in np.ndindex(n, n):
            found.append(Bin(n, i, j, (_cells(i, n, h, window), _cells(j, n, w, window))))
    return found, left


def _cells(i: int, n: int, side: int, window: tuple[int, int, int] | None) -> slice:
    """The cells of bin i of n: those of a pool's window, or as type=spp cuts them."""
    if window:
        size, step, start = window
        return slice(max(start + i * step, 0), min(start + i * step + size, side))
    return slice(i * side // n, -(-(i + 1) * side // n))


def strongest(seen, parts: list[Bin], windows: int = WINDOWS) -> Best | None:
    """The strongest answers over all images, by bin and filter; an image counts once for each.

    None where there is no image.
    """
    found, sums, count = None, 0, 0
    for some in seen:
        maps = some.outputs[0]
        made = [_answers(maps, part, some.indices) for part in parts]
        new = [np.stack(arrays) for arrays in zip(*made)]  # each (bins, filters, images)
        sums, count = sums + new[0].sum(2), count + len(maps)
        both = new if found is None else [np.concatenate(x, 2) for x in zip(found, new)]
        order = np.argsort(-both[0], axis=2, kind="stable")[..., :windows]
        found = [np.take_along_axis(x, order, 2) for x in both]
    return None if found is None else Best(*found, sums / count)


def _answers(maps: np.ndarray, part: Bin, indices: np.ndarray) -> tuple:
    """(values, images, places), each (filters, images), of one bin."""
    n, _, w, filters = maps.shape
    cells = maps[:, part.cells[0], part.cells[1]]
    columns = cells.shape[2]
    cells = cells.reshape(n, -1, filters)
    at = cells.argmax(1)
    y, x = at // columns + part.cells[0].start, at % columns + part.cells[1].start
    images = np.broadcast_to(indices[:, None], at.shape)
    return cells.max(1).T, images.T, (y * w + x).T


def choose(best: Best, parts: list[Bin]) -> list[tuple[int, int]]:
    """(bin, filter): for each bin the filter that answers rarely elsewhere but strongly there.

    That is, whose strongest answers are the most times its mean over all bins of the level. Where
    several filters do, no filter is taken twice for a level.
    """
    top = best.values.mean(2)
    loud = top >= 0.25 * top.max(1, keepdims=True)
    levels = np.array([part.level for part in parts])
    chosen: list[tuple[int, int]] = []
    for level in dict.fromkeys(levels):
        mean = best.means[levels == level].mean(0)
        used: set[int] = set()
        for b in np.flatnonzero(levels == level):
            times = np.where(loud[b], top[b] / np.maximum(mean, 1e-9), -np.inf)
            order = [int(f) for f in np.argsort(-times, kind="stable")]
            f = next((f for f in order if f not in used), order[0])
            used.add(f)
            chosen.append((int(b), f))
    return chosen


def _views(net, provider, images: set[int]) -> dict[int, np.ndarray]:
    """What the net was shown of these images."""
    numbers = sorted(images)
    which = [("test", i) for i in numbers]
    return {numbers[at]: cuts[0] for at, cuts in provider.seen(which, net.look("centre"))}
