"""Linear SVMs, one against the rest for each class, by liblinear as scikit-learn has it.

`truth` is (N, classes) of 1, -1, and 0 for what a class is not to learn from. All of them minimise
|w|^2 / 2 + C * sum of squared hinge losses, the bias being one more weight; liblinear's default.
"""

import warnings
from collections.abc import Callable

import numpy as np

from convnet.cli import UsageError

TRIED = (0.01, 0.1, 1.0, 10.0, 100.0)  # C where it is to be found
FOLDS = 5
PASSES = 5000  # over the cases, at most


def check() -> None:
    """UsageError where scikit-learn is missing."""
    try:
        import sklearn.svm  # noqa: F401
    except ImportError:
        why = "scikit-learn is missing; python -m pip install 'scikit-learn>=1.5,<2'"
        raise UsageError(f"linear SVMs: {why}") from None


def normalised(rows: np.ndarray) -> np.ndarray:
    """Each row at length 1; a row of zeros stays."""
    largest = np.abs(rows).max(1, initial=0, keepdims=True)  # or squares may be too large
    rows = rows / np.where(largest > 0, largest, 1)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    return rows / np.where(length > 0, length, 1).astype(np.float32)


def fit_and_score(
    train: np.ndarray, truth: np.ndarray, test: np.ndarray, C: float, seed: int
) -> np.ndarray:
    """(N, classes): how far each test row is on the side of each class.

    0 for a class of which the training rows are all, or none.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    train, test = train.astype(np.float64), test.astype(np.float64)  # once, not for each class
    scores = np.zeros((len(test), truth.shape[1]))
    machine = LinearSVC(C=C, dual="auto", max_iter=PASSES, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if _one_each(truth):  # the same machines in one call, which takes half the time
            machine.fit(train, truth.argmax(1))
            scores[:, machine.classes_] = machine.decision_function(test)
            return scores
        for c in range(truth.shape[1]):
            known = truth[:, c] != 0
            if len(np.unique(truth[known, c])) == 2:
                machine.fit(train if known.all() else train[known], truth[known, c])
                scores[:, c] = machine.decision_function(test)
    return scores


def _one_each(truth: np.ndarray) -> bool:
    """Whether each row is of one class, and there are three or more with rows."""
    one = ((truth > 0).sum(1) == 1).all() and (truth != 0).all()
    return bool(one and (truth > 0).any(0).sum() > 2)


def best_C(
    rows: np.ndarray, truth: np.ndarray, score: Callable[[np.ndarray, np.ndarray], float], seed: int
) -> float:
    """Of TRIED the C with the highest score(scores, truth) in five-fold cross-validation.

    Each class is spread evenly over the folds. Of equals the smallest. UsageError for fewer rows
    than folds.
    """
    if len(rows) < FOLDS:
        raise UsageError(f"--C=auto: {len(rows)} training images are too few for {FOLDS} folds")
    fold = folds(truth, seed)
    found = np.empty((len(truth), len(TRIED), truth.shape[1]))
    for k in range(FOLDS):
        here = fold == k
        for i, C in enumerate(TRIED):
            found[here, i] = fit_and_score(rows[~here], truth[~here], rows[here], C, seed)
    values = [score(found[:, i], truth) for i in range(len(TRIED))]
    return TRIED[int(np.argmax(values))]


def folds(truth: np.ndarray, seed: int) -> np.ndarray:
    """The number of the fold of each row: the rows of each class in turn, in random order."""
    order = np.random.default_rng([seed, 1]).permutation(len(truth))
    order = order[np.argsort(np.argmax(truth[order] > 0, axis=1), kind="stable")]
    fold = np.empty(len(truth), np.int64)
    fold[order] = np.arange(len(truth)) % FOLDS
    return fold
