"""Mining of hard negatives, photo by photo (convnet/detect/svm.py says by which rules).

The first photo gives all of its negatives; of the photos after it only those come in that score
above `enter`, inside the margin. After `retrain` new ones a class is trained anew, and negatives
below `leave` leave.
"""

import warnings
from typing import NamedTuple

import numpy as np

from convnet.detect.svm import Recipe, Svms

MOST = 50_000  # negatives of a class that are kept; those that score least leave
USUAL = 12_000  # that are kept of most classes
LOOKS = 100_000  # passes of liblinear over the cases, at most


class Seen(NamedTuple):
    """What a photo shows: features of its distinct windows, and what its boxes are.

    rows: (K, D) float32; of: (N,) window of each box; overlap: (N, classes) largest overlap of the
    box with an object of each class.
    """

    rows: np.ndarray
    of: np.ndarray
    overlap: np.ndarray


def bytes_of(positives: list[np.ndarray]) -> int:
    """What a class takes while photos are mined, about."""
    rows = USUAL + max(len(p) for p in positives)
    return 4 * rows * positives[0].shape[1]


class Objects:
    """Features of the objects of each class, gathered photo by photo; width: of a feature."""

    def __init__(self, classes: int, width: int):
        self.rows = [[np.zeros((0, width), np.float32)] for _ in range(classes)]

    def see(self, rows: np.ndarray, labels: np.ndarray) -> None:
        """Features (n, width) of objects of these classes."""
        for c in np.unique(labels):
            self.rows[c].append(rows[labels == c])

    def features(self) -> list[np.ndarray]:
        """(n, width) of each class."""
        return [np.concatenate(rows) for rows in self.rows]

    def to_arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Plain arrays for a file."""
        return {"objects": {str(c): rows for c, rows in enumerate(self.features())}}

    def restore(self, arrays: dict[str, dict[str, np.ndarray]]) -> None:
        """What to_arrays gave."""
        self.rows = [[arrays["objects"][str(c)]] for c in range(len(self.rows))]


class Class:
    """The cases of one class, its SVM, and the negatives that are kept."""

    def __init__(self, positives: np.ndarray, recipe: Recipe, seed: int):
        self.positives, self.recipe, self.seed = positives, recipe, seed
        self.negatives = np.zeros((0, positives.shape[1]), np.float32)
        self.order: list[tuple[int, int]] = []  # (photo, window) of the negatives
        self.keys: set[tuple[int, int]] = set()  # the same
        self.waiting: list[np.ndarray] = []
        self.fresh = 0
        self.w, self.b = np.zeros(positives.shape[1]), 0.0
        self.trainings, self.stopped = 0, False

    def see(self, rows: np.ndarray, scores: np.ndarray | None, keys: list[tuple]) -> None:
        """Negatives of a photo, scaled; scores: by this class, None: all of them come in."""
        come = np.ones(len(rows), bool) if scores is None else scores > self.recipe.enter
        come &= np.array([key not in self.keys for key in keys], bool)
        new = [keys[i] for i in np.flatnonzero(come)]
        self.keys.update(new)
        self.order += new
        self.waiting.append(rows[come])
        self.fresh += len(new)

    def train(self) -> None:
        """Train on all cases, then let go of the negatives that are far outside."""
        self.negatives = np.concatenate([self.negatives, *self.waiting])
        self.waiting, self.fresh = [], 0
        if not len(self.positives) or not len(self.negatives):
            return
        self._fit()
        scores = self.negatives @ self.w + self.b
        stay = scores >= self.recipe.leave
        if stay.sum() > MOST:
            stay &= scores >= np.partition(scores, -MOST)[-MOST]
        self.negatives = self.negatives[stay]
        self.order = [key for key, yes in zip(self.order, stay) if yes]
        self.keys = set(self.order)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All but the positives."""
        waiting = {"waiting": np.concatenate(self.waiting)} if self.waiting else {}
        counts = np.array([self.fresh, self.trainings, self.stopped])
        return {"negatives": self.negatives, "order": np.array(self.order).reshape(-1, 2),
                "w": self.w, "b": np.array([self.b]), "counts": counts, **waiting}  # fmt: skip

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """What to_arrays gave."""
        self.negatives, self.w, self.b = arrays["negatives"], arrays["w"], float(arrays["b"][0])
        self.order = [(photo, window) for photo, window in arrays["order"].tolist()]
        self.keys = {*self.order}
        self.waiting = [arrays["waiting"]] if "waiting" in arrays else []
        self.fresh, self.trainings, stopped = arrays["counts"].tolist()
        self.stopped = bool(stopped)

    def _fit(self) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        r = self.recipe
        machine = LinearSVC(
            C=r.C, loss="hinge", dual=True, intercept_scaling=r.bias, class_weight={1: r.positive},
            tol=1e-3, max_iter=LOOKS, random_state=self.seed,
        )  # fmt: skip
        cases = np.concatenate([self.positives, self.negatives], dtype=np.float64)
        truth = np.repeat([1, -1], [len(self.positives), len(self.negatives)])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            machine.fit(cases, truth)
        self.stopped = any(issubclass(w.category, ConvergenceWarning) for w in caught)
        self.w, self.b = machine.coef_[0], float(machine.intercept_[0])
        self.trainings += 1


class Mining:
    """SVMs of some classes, while one photo after the other is looked at.

    positives: (n, D) features of the objects of each class; scale: of all features, recipe.norm
    over their mean length.
    """

    def __init__(self, positives: list[np.ndarray], recipe: Recipe, scale: float, seed: int = 0):
        self.classes = [Class(p * np.float32(scale), recipe, seed) for p in positives]
        self.recipe, self.scale = recipe, scale

    def see(self, number: int, seen: Seen) -> None:
        """The photo of this number; its overlaps are those of these classes."""
        lowest = np.ones((len(seen.rows), len(self.classes)))
        np.minimum.at(lowest, seen.of, seen.overlap)
        rows = seen.rows * np.float32(self.scale)
        W, b = self._stacked()
        scores = rows @ W + b
        for c, one in enumerate(self.classes):
            if not len(one.positives):
                continue  # nothing to tell them from
            at = np.flatnonzero(lowest[:, c] < self.recipe.negative)
            keys = [(number, int(i)) for i in at]
            one.see(rows[at], scores[at, c] if one.trainings else None, keys)
            if not one.trainings or one.fresh > self.recipe.retrain:
                one.train()

    def end(self) -> Svms:
        """The SVMs, after the last photo. A class without objects scores -inf."""
        for one in self.classes:
            if one.waiting:
                one.train()
        W, b = self._stacked()
        b = np.where([len(one.positives) > 0 for one in self.classes], b, -np.inf)
        return Svms(W, b.astype(np.float32), self.scale)

    def _stacked(self) -> tuple[np.ndarray, np.ndarray]:
        W = np.stack([one.w for one in self.classes], 1).astype(np.float32)
        return W, np.array([one.b for one in self.classes], np.float32)

    def to_arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Where it stands, but for the positives: plain arrays for a file."""
        return {f"class {c}": one.to_arrays() for c, one in enumerate(self.classes)}

    def restore(self, arrays: dict[str, dict[str, np.ndarray]]) -> None:
        """Stand where to_arrays was called."""
        for c, one in enumerate(self.classes):
            one.restore(arrays[f"class {c}"])


def objective(one: Class) -> float:
    """What liblinear minimises, over the positives and the negatives that are kept."""
    r = one.recipe
    losses = (
        r.positive * np.maximum(0, 1 - one.positives @ one.w - one.b).sum()
        + np.maximum(0, 1 + one.negatives @ one.w + one.b).sum()
    )
    return float(r.C * losses + one.w @ one.w / 2 + (one.b / r.bias) ** 2 / 2)
