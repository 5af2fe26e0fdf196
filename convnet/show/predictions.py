"""Test images, and the five classes that a net finds most probable."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet import given
from convnet.cli import UsageError
from convnet.net import Net
from convnet.providers import DataError, Provider, printable
from convnet.show import opened, style

TOP = 5
COLUMNS = 4


class Guess(NamedTuple):
    """One image, and what the net says to it."""

    number: int  # in the test set
    name: str  # of its file
    view: np.ndarray  # uint8 (H, W, C)
    label: int  # -1: nobody knows
    probs: np.ndarray  # (classes,)

    @property
    def top(self) -> np.ndarray:
        """The most probable classes, the first first."""
        return np.argsort(-self.probs, kind="stable")[:TOP]

    @property
    def wrong(self) -> bool:
        """Whether the first guess is not what the image is known to show."""
        return self.label >= 0 and self.label != self.top[0]


def predictions(args) -> Path:
    """tools/show.py predictions"""
    run = given.opened(args.run, args.device)
    with opened.data(args, run) as provider:
        out = opened.target(args, run.path.parent, "predictions.png", style.KINDS)
        found = drawn(run.net, provider, args.images, args.only_errors, args.seed)
    if not found and args.only_errors:
        raise UsageError(f"{run.path}: --only-errors: there is none among the test images")
    if not found:
        raise DataError(f"{provider.path}: none of the images that were drawn can be read")
    style.write(out, *picture(found, run.net.classes))
    return out


def guesses(net: Net, provider: Provider, numbers: Sequence[int]) -> list[Guess]:
    """Of test images by their numbers; those that cannot be read are left out."""
    found = []
    for some in opened.seen(net, provider, numbers, [[net.output]]):
        for i, view, probs in zip(some.indices, some.views, some.outputs[0]):
            name = printable(str(provider.test.keys[i]))
            label = int(provider.test.labels[i])
            found.append(Guess(int(i), name, view, label, probs.reshape(-1)))
    return found


def drawn(
    net: Net, provider: Provider, count: int, only_errors: bool = False, seed: int = 0
) -> list[Guess]:
    """Of `count` test images, or as many as there are, drawn from all of them (or all errors)."""
    order = np.random.default_rng(seed).permutation(provider.test.size)
    found: list[Guess] = []
    step = max(count, 32) if only_errors else count
    for start in range(0, len(order), step):
        some = guesses(net, provider, order[start : start + step])
        found += [guess for guess in some if guess.wrong] if only_errors else some
        if len(found) >= count:
            break
    return found[:count]


def picture(found: list[Guess], classes: list[str]):
    """(paint, size in inches): images, below each its bars, the true class in orange."""
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)

    def paint(figure) -> None:
        heights = [1.5, 0.2 * len(found[0].top)] * rows
        panels = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=heights)
        for axes in panels.flat:
            axes.set_axis_off()
        for i, guess in enumerate(found):
            row, column = divmod(i, columns)
            above, below = panels[2 * row, column], panels[2 * row + 1, column]
            style.image(above, guess.view)
            truth = style.short(classes[guess.label], 22) if guess.label >= 0 else "nobody knows"
            above.set_title(
                truth, fontsize=10, loc="center", color=style.TRUE, weight="bold", pad=16
            )
            name = style.short(guess.name, 30)
            above.text(0.5, 1.02, name, transform=above.transAxes, fontsize=7, color=style.PALE,
                       ha="center", va="bottom")  # fmt: skip
            _bars(below, guess, classes)

    return paint, (2.3 * columns, (2.5 + 0.19 * len(found[0].top)) * rows)


def _bars(axes, guess: Guess, classes: list[str]) -> None:
    axes.set_axis_on()
    at, probs = np.arange(len(guess.top)), guess.probs[guess.top]
    colours = [style.TRUE if c == guess.label else style.OTHER for c in guess.top]
    axes.barh(at, probs, color=colours, alpha=0.5, height=0.84)
    for y, c in enumerate(guess.top):
        axes.text(0.02, y, style.short(classes[c], 20), va="center", fontsize=8,
                  weight="bold" if c == guess.label else "normal")  # fmt: skip
        axes.text(1.2, y, f"{100 * guess.probs[c]:.0f} %", va="center", ha="right", fontsize=8)
    axes.set(xlim=(0, 1.2), ylim=(len(at) - 0.5, -0.5), xticks=[], yticks=[])
    axes.spines[["bottom"]].set_visible(False)
