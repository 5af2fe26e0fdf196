"""SVMs of a detector, one against the rest for each class, with hard negatives mined.

As in the authors' release and in R-CNN, section 2.3: the windows of objects are the positive cases;
windows that overlap objects of the class by less than 0.3 are negative. All negatives of the first
photo begin; of the photos after it only those that score above -1.0001, inside the margin, come in.
After 2,000 new ones a class is trained anew, and negatives below -1.2 leave. liblinear, inside
scikit-learn, minimises

    |w|^2 / 2 + (b / B)^2 / 2 + C (2 sum of hinge losses of positives + that of negatives)

over features that are scaled to a mean length of 20.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Recipe:
    """C and weights as above; bias: B; norm: mean length of the scaled features.

    negative: overlap below which a window is one; enter, leave: scores above which a negative comes
    in, below which it leaves (R-CNN for ILSVRC has -1.1); retrain: new negatives until a class is
    trained anew.
    """

    C: float = 0.001
    positive: float = 2.0
    bias: float = 10.0
    norm: float = 20.0
    negative: float = 0.3
    enter: float = -1.0001
    leave: float = -1.2
    retrain: int = 2000


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


def joined(parts: list[Svms]) -> Svms:
    """The SVMs of several groups of classes as one."""
    W, b = (np.concatenate([getattr(p, name) for p in parts], -1) for name in ("W", "b"))
    return Svms(W, b, parts[0].scale)


def mean_norm(rows: Iterable[np.ndarray]) -> float:
    """Mean length of features (n, D), array after array. ValueError where all are 0."""
    lengths = [np.linalg.norm(r.astype(np.float64), axis=1) for r in rows]
    mean = float(np.concatenate([*lengths, []]).mean()) if any(map(len, lengths)) else 0.0
    if not mean > 0:
        raise ValueError("the features of all windows are 0: this net has learned nothing")
    return mean
