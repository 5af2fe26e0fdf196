"""Curves and shares as pictures. matplotlib draws them, without a screen or any global state."""

import sys
import warnings
from pathlib import Path

import numpy as np

from convnet.cli import UsageError
from convnet.detect import analysis
from convnet.detect.detections import Found
from convnet.detect.evaluate import Result
from convnet.detect.sets import DetectionSet
from convnet.files import advice, replacing

LEGEND = 24  # classes that a legend can name


def curves(folder: Path, result: Result, photos: DetectionSet, found: list[Found]) -> list[Path]:
    """Precision over recall, and kinds of errors, by class; the paths of the pictures."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("note: no curves without matplotlib; python -m pip install 'convnet[detect]'",
              file=sys.stderr)  # fmt: skip
        return []
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for name, ap, (recall, precision) in zip(result.classes, result.ap, result.curves):
        if len(recall):
            label = f"{name} {100 * ap:.1f}"
            axes.plot(recall, np.where(np.asarray(precision) < 0, np.nan, precision), label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02),
             title=f"mAP {100 * result.mean:.1f} ({result.rule})")  # fmt: skip
    if 0 < len(axes.lines) <= LEGEND:
        axes.legend(loc="lower left")
    return [
        _write(figure, folder / "precision-recall.png"),
        _write(_errors(Figure, photos, found), folder / "errors.png"),
    ]


def _errors(Figure, photos: DetectionSet, found: list[Found]):
    shares = np.nan_to_num(analysis.shares(photos, found))
    figure = Figure(figsize=(7, 1.5 + 0.3 * len(photos.classes)), layout="constrained")
    axes, left = figure.subplots(), np.zeros(len(photos.classes))
    rows = np.arange(len(photos.classes))
    for kind, values in zip(analysis.KINDS, shares.T):
        axes.barh(rows, 100 * values, left=left, label=kind)
        left += 100 * values
    axes.set(yticks=rows, yticklabels=photos.classes, xlim=(0, 100),
             xlabel="% of the best detections, as many as there are objects")  # fmt: skip
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(analysis.KINDS))
    return figure


def _write(figure, path: Path) -> Path:
    try:
        with replacing(path) as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # letters that the font lacks
            figure.savefig(file, format="png", dpi=110)
    except OSError as e:
        raise UsageError(f"{path}: no picture written, {advice(e)}") from None
    return path
