"""Which class is taken for which: a matrix, or with many classes the worst pairs."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet import given, scores
from convnet.cli import UsageError
from convnet.providers import Provider
from convnet.show import opened, style

MATRIX = 50  # classes that a matrix can show
NUMBERS = 20  # classes up to which each cell has its number
PAIRS = 25  # that are listed
BATCH = 32  # images at a time


class Confusion(NamedTuple):
    """How often class i (row) is taken for class j (column)."""

    counts: np.ndarray  # (classes, classes)
    classes: list[str]

    @property
    def shares(self) -> np.ndarray:
        """Of the images of each class; a row of zeros where there is none."""
        return self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)

    @property
    def error(self) -> float:
        """The share of all images that are taken for another class."""
        return 1 - np.trace(self.counts) / self.counts.sum()

    def pairs(self, most: int = PAIRS) -> list[tuple[int, int]]:
        """(class, what it is taken for), the most frequent first, then the larger share."""
        counts = self.counts * (1 - np.eye(len(self.classes), dtype=int))
        order = np.lexsort((-self.shares.ravel(), -counts.ravel()))[:most]
        found = zip(*np.unravel_index(order, counts.shape))
        return [(int(i), int(j)) for i, j in found if counts[i, j]]


def confusion(args) -> Path:
    """tools/show.py confusion"""
    run = given.opened(args.run, args.device)
    with opened.data(args, run) as provider:
        out = opened.target(args, run.path.parent, "confusion.png", style.KINDS)
        found = of(scores.predict(run.net, provider, None, BATCH), provider, run.net.classes)
    style.write(out, *picture(found))
    return out


def of(predicted: scores.Predictions, provider: Provider, classes: list[str]) -> Confusion:
    """Over the test images that could be read. UsageError where no labels are known."""
    labels = provider.test.labels[predicted.indices]
    if (labels < 0).all():
        raise UsageError("the test images have no labels; nobody knows what they are confused with")
    known, n = labels >= 0, len(classes)
    counts = np.zeros((n, n), int)
    np.add.at(counts, (labels[known], predicted.probs[known].argmax(1)), 1)
    return Confusion(counts, classes)


def picture(found: Confusion):
    """(paint, size in inches)."""
    return _matrix(found) if len(found.classes) <= MATRIX else _pairs(found)


def _matrix(found: Confusion):
    n = len(found.classes)
    side = max(3.2, min(9.5, 0.46 * n if n <= NUMBERS else 0.2 * n))
    names = [style.short(name, 18) for name in found.classes]

    def paint(figure) -> None:
        from matplotlib.colors import PowerNorm

        axes, shares = figure.subplots(), 100 * found.shares
        norm = PowerNorm(0.5, 0, 100)  # 2 % is to be seen as well
        drawn = axes.imshow(shares, cmap="Blues", norm=norm)
        size = 9 if n <= NUMBERS else 6.5
        axes.set_xticks(range(n), names, rotation=90 if n > 5 else 0, fontsize=size)
        axes.set_yticks(range(n), names, fontsize=size)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="taken for", ylabel="shows", title=_title(found))
        for i, j in np.ndindex(n, n) if n <= NUMBERS else ():
            if shares[i, j] > 0.5:
                ink = "white" if norm(shares[i, j]) > 0.55 else "black"  # on the cell
                axes.text(j, i, f"{shares[i, j]:.0f}", ha="center", va="center", color=ink,
                          fontsize=8.5)  # fmt: skip
        bar = figure.colorbar(drawn, ax=axes, shrink=0.6, label="% of the images of a class",
                              ticks=[0, 1, 5, 10, 25, 50, 100])  # fmt: skip
        bar.outline.set_visible(False)

    longest = 0.075 * max(map(len, names))
    return paint, (side + longest + 1.4, side + longest + 0.5)


def _title(found: Confusion) -> str:
    return f"{100 * found.error:.1f} % of {found.counts.sum():,} images are taken for another class"


def _pairs(found: Confusion):
    pairs = found.pairs()

    def paint(figure) -> None:
        axes, at = figure.subplots(), np.arange(len(pairs))
        values = [int(found.counts[i, j]) for i, j in pairs]
        axes.barh(at, values, color=style.OTHER, alpha=0.75, height=0.8)
        names = [style.short(name, 26) for name in found.classes]
        words = [f"{names[i]} → {names[j]}" for i, j in pairs]
        axes.set_yticks(at, words)
        axes.tick_params(axis="y", length=0)
        for y, ((i, _), value) in enumerate(zip(pairs, values)):
            of = f"  {value:,} of {found.counts[i].sum():,}"
            axes.text(value, y, of, va="center", fontsize=8, color=style.PALE)
        axes.set(xlabel="images", title=_title(found))
        axes.set(ylim=(len(pairs) - 0.4, -0.6), xlim=(0, 1.18 * max(values, default=1)))

    return paint, (8, 1.3 + 0.23 * max(len(pairs), 1))
