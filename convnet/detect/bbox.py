"""Box regression: from the pooled map of a window to the object that it shows, for each class.

As in the authors' release and in R-CNN, appendix C: a ridge regression for each class from the
pyramid of a window, scaled to a mean length of 20, and a 1, to the shift of the centre in widths
and heights and the logarithms of the factors of both. The four targets are whitened first. Widths
are x2 - x1 there, without the + 1 of VOC's inclusive pixels, and so here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from convnet.detect.boxes import decoded, encoded

LAST = np.array([0, 0, 1, 1], np.float32)  # from the edge of a box to its last pixel
BLOCK = 1024  # rows that are added to a Gram matrix at once
LAMBDAS = {"spp": (4000.0, 0.5), "rcnn": (1000.0, 0.6)}  # and the overlap above which one learns


@dataclass
class BoxRegressors:
    """W: (classes, D + 1, 4), the last row times 1; mean, back: undo the whitening of targets."""

    W: np.ndarray
    mean: np.ndarray
    back: np.ndarray
    scale: float

    def moved(self, rows: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of these labels, moved by what the features (N, D) of each say."""
        made = np.array(boxes, np.float32)
        for c in np.unique(labels):
            at = np.flatnonzero(labels == c)
            by = (rows[at] * np.float32(self.scale)) @ self.W[c, :-1] + self.W[c, -1]
            by = by @ self.back[c] + self.mean[c]
            made[at] = decoded(made[at] - LAST, by) + LAST
        return made

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for a file."""
        scale = np.array([self.scale])
        return {"W": self.W, "mean": self.mean, "back": self.back, "scale": scale}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "BoxRegressors":
        """From what to_arrays gives. ValueError where the shapes do not belong together."""
        W, mean, back = (arrays[name] for name in ("W", "mean", "back"))
        n = len(W)
        if W.shape[2:] != (4,) or mean.shape != (n, 4) or back.shape != (n, 4, 4):
            raise ValueError(f"box regression of shapes {W.shape}, {mean.shape}, {back.shape}")
        return cls(W, mean, back, float(arrays["scale"][0]))


class Ridge:
    """Least squares with a penalty over rows that come in parts.

    While there are fewer rows than numbers in one they are kept, and the smaller system of the two
    equal ones is solved; after that only their products, in float64.
    """

    def __init__(self, width: int):
        self.width, self.rows, self.count = width, [], 0
        self.gram: np.ndarray | None = None
        self.targets: list[np.ndarray] = []
        self.cross = np.zeros((width, 4))
        self.sums = np.zeros(width)

    def see(self, rows: np.ndarray, targets: np.ndarray) -> None:
        """Rows (n, width) float32 and what they are to give, (n, 4)."""
        self.targets.append(targets)
        self.count += len(rows)
        self.sums += rows.sum(0, dtype=np.float64)
        self.cross += rows.T.astype(np.float64) @ targets
        if self.gram is not None:
            self._add(rows)
            return
        self.rows.append(rows)
        if self.count >= self.width:
            self.gram = np.zeros((self.width, self.width))
            for part in self.rows:
                self._add(part)
            self.rows = []

    def _add(self, rows: np.ndarray) -> None:
        for i in range(0, len(rows), BLOCK):
            part = rows[i : i + BLOCK].astype(np.float64)
            self.gram += part.T @ part

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Where it stands: plain arrays for a file."""
        kept = {"gram": self.gram} if self.gram is not None else {
            "rows": np.concatenate([np.zeros((0, self.width), np.float32), *self.rows]),
            "parts": np.array([len(part) for part in self.rows], np.int64),
        }  # fmt: skip
        targets = np.concatenate([np.zeros((0, 4)), *self.targets])
        return {"cross": self.cross, "sums": self.sums, "targets": targets, **kept}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """What to_arrays gave; the rows in the parts that they came in, for the same sums."""
        self.cross, self.sums, self.targets = arrays["cross"], arrays["sums"], [arrays["targets"]]
        self.count, self.gram = len(arrays["targets"]), arrays.get("gram")
        if self.gram is None:
            self.rows = np.split(arrays["rows"], np.cumsum(arrays["parts"])[:-1])

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(weights (width, 4), mean of the targets, matrix that undoes their whitening)."""
        from scipy.linalg import cho_factor, cho_solve

        targets = np.concatenate(self.targets)
        mean = targets.mean(0)
        forth, back = whitening(targets - mean)
        if self.gram is None:
            X = np.concatenate(self.rows).astype(np.float64)
            small = X @ X.T
            small[np.diag_indices(len(X))] += penalty
            return X.T @ cho_solve(cho_factor(small), (targets - mean) @ forth), mean, back
        wanted = (self.cross - np.outer(self.sums, mean)) @ forth
        self.gram[np.diag_indices(self.width)] += penalty
        found = cho_solve(cho_factor(self.gram, overwrite_a=True), wanted)
        self.gram = None
        return found, mean, back


def whitening(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T = V diag(1 / sqrt(d + 0.001)) V', of the covariance V diag(d) V', and its inverse."""
    values, vectors = np.linalg.eigh(targets.T @ targets / len(targets))
    root = np.sqrt(np.maximum(values, 0) + 0.001)
    return vectors / root @ vectors.T, vectors * root @ vectors.T


class BoxLearner:
    """Learns from windows and the objects that they show.

    classes: how many there are; width: numbers of the features; scale: what they are times; only:
    the classes to learn now, where all of them would take too much memory.
    """

    def __init__(self, classes: int, width: int, scale: float, only: Iterable[int] | None = None):
        self.classes, self.width, self.scale = classes, width, scale
        self.ridges = {c: Ridge(width + 1) for c in (range(classes) if only is None else only)}

    def see(
        self, rows: np.ndarray, boxes: np.ndarray, objects: np.ndarray, labels: np.ndarray
    ) -> None:
        """Features (n, D) of windows, their boxes, the objects that these are to become, and of
        which classes those are."""
        for c in {*labels.tolist()} & {*self.ridges}:
            at = np.flatnonzero(labels == c)
            ones = np.ones((len(at), 1), np.float32)
            wide = np.concatenate([rows[at] * np.float32(self.scale), ones], 1)
            self.ridges[c].see(wide, encoded(boxes[at] - LAST, objects[at] - LAST))

    def to_arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Where it stands: plain arrays for a file."""
        return {f"class {c}": ridge.to_arrays() for c, ridge in self.ridges.items()}

    def restore(self, arrays: dict[str, dict[str, np.ndarray]]) -> None:
        """What to_arrays gave."""
        for c, ridge in self.ridges.items():
            ridge.restore(arrays[f"class {c}"])

    def solve(self, penalty: float, into: BoxRegressors | None = None) -> BoxRegressors:
        """The regressors; a class without windows moves nothing. into: those of other classes."""
        n = self.classes
        made = into or BoxRegressors(
            np.zeros((n, self.width + 1, 4), np.float32),
            np.zeros((n, 4)),
            np.tile(np.eye(4), (n, 1, 1)),
            self.scale,
        )
        for c, ridge in self.ridges.items():
            if ridge.count:
                made.W[c], made.mean[c], made.back[c] = ridge.solve(penalty)
        return made
