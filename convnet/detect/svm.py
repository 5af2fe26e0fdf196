"""SVMs of a detector, one against the rest for each class, with hard negatives mined.

As in the authors' release and in R-CNN, section 2.3: the windows of objects are the positive cases;
windows that overlap objects of the class by less than 0.3 are negative. All negatives of the first
photo begin; of the photos after it only those that score above -1.0001, inside the margin, come in.
After 2,000 new ones a class is trained anew, and negatives below -1.2 leave. liblinear, inside
scikit-learn, minimises

    |w|^2 / 2 + (b / B)^2 / 2 + C (2 sum of hinge losses of positives + that of negatives)

over features that are scaled to a mean length of 20.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MOST = 50_000  # negatives of a class that are kept; those that score least leave
LOOKS = 100_000  # passes of liblinear over the cases, at most


@dataclass(frozen=True)
class Recipe:
    """C and weights as above; bias: B; norm: mean length of the scaled features.

    negative: overlap below which a window is one; enter, leave: scores above which a negative comes
    in, below which it leaves (R-CNN for ILSVRC has -1.1); retrain: new negatives until a class is
    trained anew; passes: over the photos.
    """

    C: float = 0.001
    positive: float = 2.0
    bias: float = 10.0
    norm: float = 20.0
    negative: float = 0.3
    enter: float = -1.0001
    leave: float = -1.2
    retrain: int = 2000
    passes: int = 1


class Seen(NamedTuple):
    """What a photo shows: features of its distinct windows, and what its boxes are.

    rows: (K, D) float32; of: (N,) window of each box; overlap: (N, classes) largest overlap of the
    box with an object of each class.
    """

    rows: np.ndarray
    of: np.ndarray
    overlap: np.ndarray


@dataclass
class Svms:
    """W: (D, classes) and b: (classes,) of the scaled features; scale: what those are times."""

    W: np.ndarray
    b: np.ndarray
    scale: float

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """(K, classes) margins of features (K, D); -inf of a class that had no object."""
        return rows @ (self.W * np.float32(self.scale)) + self.b

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for a file."""
        return {"W": self.W, "b": self.b, "scale": np.array([self.scale])}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Svms":
        """From what to_arrays gives. ValueError where the shapes do not belong together."""
        W, b = arrays["W"], arrays["b"]
        if W.ndim != 2 or b.shape != W.shape[1:]:
            raise ValueError(f"SVMs of {W.shape} weights and {b.shape} biases")
        return cls(W, b, float(arrays["scale"][0]))


def mean_norm(rows: Iterable[np.ndarray]) -> float:
    """Mean length of features (n, D), array after array. ValueError where all are 0."""
    lengths = [np.linalg.norm(r.astype(np.float64), axis=1) for r in rows]
    mean = float(np.concatenate([*lengths, []]).mean()) if any(map(len, lengths)) else 0.0
    if not mean > 0:
        raise ValueError("the features of all windows are 0: this net has learned nothing")
    return mean


class Class:
    """The cases of one class, its SVM, and the negatives that are kept."""

    def __init__(self, positives: np.ndarray, recipe: Recipe, seed: int):
        self.positives, self.recipe, self.seed = positives.astype(np.float64), recipe, seed
        self.negatives = np.zeros((0, positives.shape[1]), np.float32)
        self.keys: set[tuple[int, int]] = set()  # (photo, window) of the negatives
        self.order: list[tuple[int, int]] = []
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

    def _fit(self) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        r = self.recipe
        machine = LinearSVC(
            C=r.C, loss="hinge", dual=True, intercept_scaling=r.bias, class_weight={1: r.positive},
            tol=1e-3, max_iter=LOOKS, random_state=self.seed,
        )  # fmt: skip
        cases = np.concatenate([self.positives, self.negatives])
        truth = np.repeat([1, -1], [len(self.positives), len(self.negatives)])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            machine.fit(cases, truth)
        self.stopped = any(issubclass(w.category, ConvergenceWarning) for w in caught)
        self.w, self.b = machine.coef_[0], float(machine.intercept_[0])
        self.trainings += 1


def train(
    positives: list[np.ndarray],
    photos: Callable[[], Iterable[Seen]],
    count: int,
    recipe: Recipe,
    scale: float,
    seed: int = 0,
) -> tuple[Svms, list[Class]]:
    """SVMs of the classes, and what they were trained on.

    positives: (n, D) features of the objects of each class; photos: those to mine, `count` of them,
    afresh at each call; scale: of the features, recipe.norm over their mean length. A class without
    objects scores -inf.
    """
    classes = [Class(p * np.float32(scale), recipe, seed) for p in positives]
    for turn in range(recipe.passes):
        for number, seen in enumerate(photos()):
            rows, lowest = seen.rows * np.float32(scale), np.ones((len(seen.rows), len(classes)))
            np.minimum.at(lowest, seen.of, seen.overlap)
            W, b = _stacked(classes)
            scores = rows @ W + b
            for c, one in enumerate(classes):
                at = np.flatnonzero(lowest[:, c] < recipe.negative)
                keys = [(number, int(i)) for i in at]
                one.see(rows[at], scores[at, c] if one.trainings else None, keys)
                last = turn == recipe.passes - 1 and number == count - 1
                if not one.trainings or one.fresh > recipe.retrain or last:
                    one.train()
    W, b = _stacked(classes)
    b = np.where([len(p) > 0 for p in positives], b, -np.inf)
    return Svms(W, b.astype(np.float32), scale), classes


def _stacked(classes: list[Class]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.stack([c.w for c in classes], 1).astype(np.float32),
        np.array([c.b for c in classes], np.float32),
    )


def objective(one: Class) -> float:
    """What liblinear minimises, over the positives and the negatives that are kept."""
    r = one.recipe
    losses = (
        r.positive * np.maximum(0, 1 - one.positives @ one.w - one.b).sum()
        + np.maximum(0, 1 + one.negatives @ one.w + one.b).sum()
    )
    return float(r.C * losses + one.w @ one.w / 2 + (one.b / r.bias) ** 2 / 2)
