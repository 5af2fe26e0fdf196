"""What a trained net makes of the test images: probabilities, scores, a CSV file."""

import csv
import functools
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet import files
from convnet.cli import UsageError
from convnet.multiview import ImageError, Multiview
from convnet.net import Net
from convnet.providers import DataError, Provider, printable


class Predictions(NamedTuple):
    """What one net, or several, make of the test images that could be read."""

    indices: np.ndarray  # of the images in the test set
    probs: np.ndarray  # (n, classes)

    def of(self, indices: np.ndarray) -> np.ndarray:
        """The probabilities of some of the images, in this order."""
        return self.probs[np.searchsorted(self.indices, indices)]


def average(found: list[Predictions]) -> Predictions:
    """The mean of the probabilities of several nets, for the images that all of them read."""
    both = functools.reduce(np.intersect1d, [one.indices for one in found])
    return Predictions(both, np.mean([one.of(both) for one in found], axis=0))


def predict(net: Net, provider: Provider, look: Multiview | None, minibatch: int) -> Predictions:
    """Of one net: by the views of `look`, or by the centre of each image. Raises DataError."""
    from tqdm import tqdm

    probs, good = np.empty((0, 0), np.float32), np.empty(provider.test.size, np.int64)
    done = 0
    seen = functools.partial(_many_views, look) if look else functools.partial(_one_view, net)
    with tqdm(total=provider.test.size, unit="img", disable=not sys.stderr.isatty()) as bar:
        for indices, rows in seen(provider, minibatch):
            if not np.isfinite(rows).all():
                raise DataError("the net's probabilities are not finite; its weights are of no use")
            if not done:  # one array: of 50,000 images and 1,000 classes it has 200 MB
                probs = np.empty((provider.test.size, rows.shape[1]), rows.dtype)
            end = done + len(rows)
            probs[done:end], good[done:end] = rows, list(indices)
            done = end
            bar.update(len(rows))
    if not done:
        raise DataError(f"{provider.path}: no test image can be read")
    return Predictions(good[:done], probs[:done])


def _one_view(net: Net, provider: Provider, minibatch: int) -> Iterator:
    """(indices, probabilities) of the centre views, read as the tests of a run read them."""
    provider.mean, source = net.mean, net.graph.feeds[0]
    for batch in provider.batches("test", minibatch):
        probs = net.run({source: batch.images}, net.output)
        yield batch.indices, probs.reshape(len(probs), -1)


def _many_views(look: Multiview, provider: Provider, minibatch: int) -> Iterator:
    """(indices, probabilities) of the averages of the views of whole images."""
    for first in range(0, provider.test.size, minibatch):
        indices = range(first, min(provider.test.size, first + minibatch))
        found = zip(indices, provider.images("test", indices))
        read = {i: image for i, image in found if image is not None}
        if read:
            try:
                yield read, look.predict(list(read.values()))
            except ImageError as e:
                where = provider.test.keys[list(read)[e.number]]
                raise UsageError(f"{printable(where)}: {e}") from None
            except ValueError as e:  # a view that the net cannot take
                raise UsageError(str(e)) from None


def print_scores(probs: np.ndarray, labels: np.ndarray, classes: list[str]) -> None:
    """The table by class; loss, top-1, top-5; nothing where no labels are known."""
    if (labels < 0).all():
        return
    top1 = errors(probs, _of_labels(probs, labels), 1)
    print(f"\n{'class':24}{'images':>8}{'error':>9}   most often taken for")
    for c, name in enumerate(classes):
        rows = labels == c
        if rows.any():
            wrong = np.bincount(probs[rows].argmax(1), minlength=len(classes))
            wrong[c] = 0
            most = wrong.argmax()
            other = f"{printable(classes[most])} ({wrong[most]})" if wrong[most] else ""
            error = 100 * top1[rows].mean()
            print(f"{printable(name)[:23]:24}{rows.sum():8}{error:8.2f}%   {other}")
    print(f"\n{in_a_line(probs, labels)}")


def in_a_line(probs: np.ndarray, labels: np.ndarray) -> str:
    """Loss, top-1 and, with more than five classes, top-5 error."""
    mine = _of_labels(probs, labels)
    loss = -np.log(np.maximum(mine, np.finfo(np.float32).tiny)).mean()
    top1, top5 = (100 * errors(probs, mine, k).mean() for k in (1, 5))
    more = f", top-5 error {top5:.2f} %" if probs.shape[1] > 5 else ""
    return f"loss {loss:.4f}, top-1 error {top1:.2f} %{more}"


def _of_labels(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return probs[np.arange(len(labels)), labels]


def errors(probs: np.ndarray, mine: np.ndarray, k: int) -> np.ndarray:
    """For each case, 0 if the label is among the k most probable, else 1; the rule of cost.logreg.

    mine: the probability of the label. With n classes equal to it, itself among them, and m above,
    the k - m places that are left fall on any of the n. A NaN is above everything.
    """
    equal = (probs == mine[:, None]).sum(1)
    above = probs.shape[1] - (probs < mine[:, None]).sum(1) - equal
    return 1 - np.clip((k - above) / np.maximum(equal, 1), 0, 1)


def write_csv(path: Path, probs, labels, keys, classes: list[str]) -> None:
    """One row an image: name, label, prediction, then the probability of every class."""
    try:
        with files.replacing(path) as raw:
            file = io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline="")
            out = csv.writer(file)
            out.writerow(["image", "label", "prediction", *classes])
            for key, label, row in zip(keys, labels, probs):
                best, own = classes[row.argmax()], classes[label] if label >= 0 else ""
                out.writerow([key, own, best, *(f"{p:.6g}" for p in row)])
            file.flush()
            file.detach()
    except OSError as e:
        raise UsageError(f"--predictions={path}: not written, {files.advice(e)}") from None
    print(f"predictions are in {path}")
