"""Costs and errors of one run or several: of every batch of the training, and of every test."""

import math
import re
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet.cli import UsageError
from convnet.results import LARGEST_COST, costs_of
from convnet.show import opened, style

POINTS = 1500  # of a line, at most; more than there are pixels
WINDOW, LEAST = 0.02, 5  # a smoothed line averages over this share of a run, and so many batches
BEGINNING = 0.05  # share of a run whose costs may be cut off at the top
FEW = 40  # tests that are marked one by one


class Curve(NamedTuple):
    """One value of a cost: at batches of the training and at tests."""

    train: np.ndarray  # (2, n): epochs, values
    test: np.ndarray
    images: np.ndarray  # (n,) of each batch


def curves(args) -> Path:
    """tools/show.py curves"""
    found = [opened.folder_of(run) for run in args.run]
    folders = [*{folder.resolve(): folder for folder in found}.values()]  # each once
    name = "curves.png" if args.cost is None else f"curves-{args.cost}.png"
    path = opened.target(args, folders[0], name, style.KINDS)
    runs = [read(opened.metrics(folder)) for folder in folders]
    style.write(path, *picture(runs, _names(folders), args.cost))
    return path


def read(rows: Iterable[dict]) -> dict[str, Curve]:
    """The curves of a run by the names of the values, given the rows of its metrics.jsonl.

    Runs have hundreds of thousands of rows: numbers alone are kept of them.
    """
    places, images = array("q"), array("d")
    train: dict[str, tuple[array, array]] = {}  # numbers of the rows, values
    test: dict[str, tuple[array, array]] = {}
    for number, row in enumerate(rows):
        places.extend((row["epoch"], row["batch"], row.get("batches", 0)))
        images.append(row.get("images", math.nan))
        into, values = (test, row["test"]) if "test" in row else (train, costs_of(row))
        for name, value in values.items():
            if not abs(value) < LARGEST_COST:  # a test of weights that have run away
                continue
            at, told = into.setdefault(name, (array("q"), array("d")))
            at.append(number)
            told.append(value)
    done, weights = epochs(np.array(places).reshape(-1, 3)), np.array(images)
    known = weights[np.isfinite(weights)]  # runs of before do not tell: as many as is usual
    weights[np.isnan(weights)] = np.median(known) if len(known) else 1

    def line(at: Sequence[int], values: Sequence[float]) -> np.ndarray:
        return np.array([done[np.array(at, int)], values])

    return {
        name: Curve(line(*told), line(*test.get(name, ((), ()))), weights[np.array(told[0])])
        for name, told in train.items()
    }


def epochs(places: np.ndarray) -> np.ndarray:
    """How many epochs are done at each row (epoch, batch, batches of the epoch; 0: not told).

    Where it is not told, as by runs of before, an epoch that is not over counts as long as the last
    was.
    """
    epoch, batch, of = places.T
    numbers, which = np.unique(epoch, return_inverse=True)
    most = np.zeros(len(numbers), int)
    np.maximum.at(most, which, batch)
    if len(numbers) > 1:
        most[-1] = max(most[-2:])
    return epoch - 1 + batch / np.where(of, of, most[which])


def _names(folders: list[Path]) -> list[str]:
    """What runs are called in a legend: the names of their folders, or their paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len({*names}) == len(names) else [str(folder) for folder in folders]


def picture(runs: list[dict[str, Curve]], names: list[str], only: str | None = None):
    """(paint, size in inches): a panel for each value that any of the runs has."""
    values = list(dict.fromkeys(value for run in runs for value in run))
    if only is not None:
        if only not in values:
            raise UsageError(f"--cost={only}: the runs have {', '.join(values)}")
        values = [only]

    tested = any(run[value].test.size for run in runs for value in values if value in run)

    def paint(figure) -> None:
        panels = figure.subplots(1, len(values), squeeze=False)[0]
        for axes, value in zip(panels, values):
            having = {n: _scaled(run[value], value) for n, run in enumerate(runs) if value in run}
            for number, curve in having.items():
                _panel(axes, curve, number, len(runs) > 1)
            top = max(map(_top, having.values()))
            axes.set(title=_title(value), xlabel="epochs", xlim=(0, None), ylim=(0, top))
            axes.grid(True)
        _legend(figure, names, tested)

    return paint, (max(4.6 * len(values), 5.2), 3.9 if len(runs) < 5 else 4.4)


def _title(value: str) -> str:
    cost, _, kind = value.rpartition(".")
    if not _is_share(value):
        return f"{kind} of {cost}" if cost else value
    kind = kind if kind == "error" else f"{kind.replace('top', 'top-')} error"
    return f"{kind} of {cost}, %"


def _is_share(value: str) -> bool:
    """Whether it is a share of the images, which people read in %: what cost.logreg gives."""
    return bool(re.fullmatch(r".+\.(error|top\d+)", value))


def _scaled(curve: Curve, value: str) -> Curve:
    """A share of the images in %, all else as it is."""
    scale = np.array([[1], [100 if _is_share(value) else 1]])
    return curve._replace(train=curve.train * scale, test=curve.test * scale)


def _top(curve: Curve) -> float:
    """The end of an axis. The first batches, which may cost anything, may be cut off, nothing else
    of the smoothed line or of the tests."""
    values = curve.train[1]
    later = smooth(values, curve.images)[int(BEGINNING * len(values)) :]
    return 1.08 * max(np.quantile(values, 0.98), *later, *curve.test[1], 1e-6)


def _panel(axes, curve: Curve, number: int, several: bool) -> None:
    """One run: what each batch gave, pale; its mean along the way; the tests."""
    colour = style.COLOURS[number % len(style.COLOURS)]
    dash = ("-", "--", ":")[number // len(style.COLOURS) % 3]
    x, y = curve.train
    axes.plot(*_thinned(x, y), color=colour, alpha=0.12 if several else 0.25, lw=0.7)
    axes.plot(*_thinned(x, smooth(y, curve.images)), color=colour, lw=1.0 if several else 1.6,
              alpha=0.6 if several else 1, ls=dash)  # fmt: skip
    x, y = curve.test
    marker = {"marker": "o", "ms": 4} if len(x) <= FEW else {}
    axes.plot(x, y, color=colour if several else style.COLOURS[1], lw=1.8, ls=dash, **marker)


def _legend(figure, names: list[str], tested: bool) -> None:
    from matplotlib.lines import Line2D

    test = {"marker": "o", "ms": 4, "lw": 1.8}
    if len(names) == 1:
        lines = [
            Line2D([], [], color=style.COLOURS[0], lw=0.7, alpha=0.4),
            Line2D([], [], color=style.COLOURS[0], lw=1.6),
            Line2D([], [], color=style.COLOURS[1], **test),
        ]
        words = ["each batch", "training, smoothed", "test"]
    else:
        colours = [style.COLOURS[i % len(style.COLOURS)] for i in range(len(names))]
        lines = [Line2D([], [], color=colour, lw=3) for colour in colours]
        lines += [
            Line2D([], [], color=style.INK, lw=1, alpha=0.6),
            Line2D([], [], color=style.INK, **test),
        ]
        words = [*names, "training, smoothed", "test"]
    words = words if tested else words[:-1]
    columns = min(len(words), 4)
    figure.legend(lines[: len(words)], words, loc="outside upper left", ncols=columns, fontsize=9)


def smooth(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The mean around each value, over a share of all of them; at the ends of those there are.

    images: of each batch; the mean is theirs, for the last batch of an epoch may have few.
    """
    n = len(values)
    half = max(int(n * WINDOW), LEAST) // 2
    sums, counts = (np.append(0, np.cumsum(a)) for a in (values * images, images))
    at = np.arange(n)
    first, end = np.maximum(at - half, 0), np.minimum(at + half + 1, n)
    return (sums[end] - sums[first]) / (counts[end] - counts[first])


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """No more points than can be told apart: of each stretch the lowest and the highest."""
    if len(x) <= POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), POINTS // 2)
    ends = [(part[y[part].argmin()], part[y[part].argmax()]) for part in parts]
    at = np.unique([0, *np.ravel(ends), len(x) - 1])
    return x[at], y[at]
