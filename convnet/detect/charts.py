"""Curves and shares as pictures; convnet/show/style.py says how they look."""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from convnet.cli import UsageError
from convnet.detect import analysis
from convnet.detect.detections import Found
from convnet.detect.evaluate import Result
from convnet.detect.sets import DetectionSet
from convnet.show import style

LEGEND = 24  # classes that a legend can name


def curves(folder: Path, result: Result, photos: DetectionSet, found: list[Found]) -> list[Path]:
    """Precision over recall, and kinds of errors, by class; the paths of the pictures."""
    try:
        style.matplotlib_or_error()
    except UsageError as e:
        print(f"note: no curves; {e}", file=sys.stderr)
        return []
    paths = folder / "precision-recall.png", folder / "errors.png"
    style.write(paths[0], partial(_precision, result), (6, 5))
    style.write(paths[1], partial(_errors, photos, found), (7, 1.5 + 0.3 * len(photos.classes)))
    return [*paths]


def _precision(result: Result, figure) -> None:
    axes = figure.subplots()
    for name, ap, (recall, precision) in zip(result.classes, result.ap, result.curves):
        if len(recall):
            label = f"{name} {100 * ap:.1f}"
            axes.plot(recall, np.where(np.asarray(precision) < 0, np.nan, precision), label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02),
             title=f"mAP {100 * result.mean:.1f} ({result.rule})")  # fmt: skip
    if 0 < len(axes.lines) <= LEGEND:
        axes.legend(loc="lower left")


def _errors(photos: DetectionSet, found: list[Found], figure) -> None:
    shares = np.nan_to_num(analysis.shares(photos, found))
    axes, left = figure.subplots(), np.zeros(len(photos.classes))
    rows = np.arange(len(photos.classes))
    for kind, values in zip(analysis.KINDS, shares.T):
        axes.barh(rows, 100 * values, left=left, label=kind)
        left += 100 * values
    axes.set(yticks=rows, yticklabels=photos.classes, xlim=(0, 100),
             xlabel="% of the best detections, as many as there are objects")  # fmt: skip
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(analysis.KINDS))
