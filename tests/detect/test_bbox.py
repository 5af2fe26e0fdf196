"""Box regression: scikit-learn's ridge, the release's formulas written out, both of the systems."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Theirs

from convnet.detect import bbox
from convnet.detect.bbox import LAST, BoxLearner, BoxRegressors, Ridge, whitening
from convnet.detect.boxes import decoded, encoded
from convnet.detect.passes import groups


def boxes(n, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, 200, (n, 2))
    return np.concatenate([first, first + rng.uniform(10, 100, (n, 2))], 1).astype(np.float32)


def test_encoded_and_back():
    """By hand: a box of 10 x 20 at (0, 0), an object of 20 x 20 at (5, 10)."""
    a, b = np.array([[0, 0, 10, 20]], np.float32), np.array([[5, 10, 25, 30]], np.float32)
    np.testing.assert_allclose(encoded(a, b), [[1, 0.5, np.log(2), 0]])
    np.testing.assert_allclose(decoded(a, encoded(a, b)), b, atol=1e-5)
    many, others = boxes(50), boxes(50, 1)
    np.testing.assert_allclose(decoded(many, encoded(many, others)), others, atol=1e-3)
    flat = np.array([[3, 3, 3, 3]], np.float32)
    assert (
        np.isfinite(encoded(flat, b)).all() and np.isfinite(decoded(flat, encoded(b, flat))).all()
    )


def release(rows, from_boxes, to_boxes, penalty):
    """R-CNN's training of one class as its text says; x2 is the last pixel, counted from 1."""
    eps, x, g = np.spacing(1.0), from_boxes + [1, 1, 0, 0], to_boxes + [1, 1, 0, 0]
    w, h = x[:, 2] - x[:, 0] + eps, x[:, 3] - x[:, 1] + eps
    gw, gh = g[:, 2] - g[:, 0] + eps, g[:, 3] - g[:, 1] + eps
    dx = (g[:, 0] + gw / 2 - x[:, 0] - w / 2) / w
    dy = (g[:, 1] + gh / 2 - x[:, 1] - h / 2) / h
    Y = np.stack([dx, dy, np.log(gw / w), np.log(gh / h)], 1)
    mu = Y.mean(0)
    values, V = np.linalg.eigh((Y - mu).T @ (Y - mu) / len(Y))
    T = V @ np.diag(1 / np.sqrt(values + 0.001)) @ V.T
    T_inv = V @ np.diag(np.sqrt(values + 0.001)) @ V.T
    X = np.concatenate([rows, np.ones((len(rows), 1))], 1)
    beta = np.linalg.solve(X.T @ X + penalty * np.eye(X.shape[1]), X.T @ ((Y - mu) @ T))

    def predict(rows, boxes):
        x = boxes + [1, 1, 0, 0]
        w, h = x[:, 2] - x[:, 0] + eps, x[:, 3] - x[:, 1] + eps
        y = np.concatenate([rows, np.ones((len(rows), 1))], 1) @ beta @ T_inv + mu
        cx, cy = y[:, 0] * w + x[:, 0] + w / 2, y[:, 1] * h + x[:, 1] + h / 2
        pw, ph = np.exp(y[:, 2]) * w, np.exp(y[:, 3]) * h
        made = np.stack([cx - pw / 2, cy - ph / 2, cx + pw / 2, cy + ph / 2], 1)
        return made - [1, 1, 0, 0]

    return predict


@pytest.mark.parametrize("n", [12, 300])
def test_as_the_release(n):
    """With fewer windows than features and with more of them, in parts."""
    rng = np.random.default_rng(0)
    rows, start = rng.normal(size=(n, 20)).astype(np.float32), boxes(n)
    goal = decoded(start, rows[:, :4] * [0.1, 0.1, 0.05, 0.05] + 0.02)
    learner = BoxLearner(3, 20, 1.0)
    for at in np.array_split(np.arange(n), 3):
        learner.see(rows[at], start[at], goal[at], np.full(len(at), 1))
    found = BoxRegressors.from_arrays(learner.solve(3.0).to_arrays())
    new, where = rng.normal(size=(9, 20)).astype(np.float32), boxes(9, 5)
    wanted = release(rows.astype(float), start.astype(float), goal.astype(float), 3.0)(new, where)
    np.testing.assert_allclose(found.moved(new, where, np.full(9, 1)), wanted, atol=2e-3)
    np.testing.assert_allclose(found.moved(new, where, np.full(9, 2)), where, atol=1e-4)


def test_as_scikit_learn():
    rng = np.random.default_rng(1)
    rows, start, goal = rng.normal(size=(200, 9)).astype(np.float32), boxes(200), boxes(200, 2)
    learner = BoxLearner(1, 9, 2.0)
    learner.see(rows, start, goal, np.zeros(200, int))
    found = learner.solve(7.0)
    targets = encoded(start - LAST, goal - LAST)
    mean = targets.mean(0)
    forth, _ = whitening(targets - mean)
    wide = np.concatenate([2 * rows, np.ones((200, 1))], 1)
    theirs = Theirs(alpha=7.0, fit_intercept=False, solver="svd").fit(
        wide, (targets - mean) @ forth
    )
    np.testing.assert_allclose(found.W[0], theirs.coef_.T, atol=1e-5)


def test_both_systems_are_equal(monkeypatch):
    rng = np.random.default_rng(2)
    rows, targets = rng.normal(size=(30, 40)).astype(np.float32), rng.normal(size=(30, 4))
    small = Ridge(40)
    small.see(rows, targets)
    assert small.gram is None
    large = Ridge(40)
    large.gram = np.zeros((40, 40))
    large.see(rows[:7], targets[:7])
    large.see(rows[7:], targets[7:])
    for a, b in zip(small.solve(0.5), large.solve(0.5)):
        np.testing.assert_allclose(a, b, atol=1e-9)
    monkeypatch.setattr(bbox, "BLOCK", 7)
    one = Ridge(20)
    one.see(rows[:, :20], targets)
    np.testing.assert_allclose(one.gram, rows[:, :20].T @ rows[:, :20], atol=1e-4)


def test_classes_in_groups():
    """Classes whose matrices would not fit are learned in several passes, to the same end."""
    size = 8 * 12801**2
    assert groups(20, size, 16 << 30)[0] == [0, 1, 2, 3, 4, 5]
    assert [c for g in groups(20, size, 16 << 30) for c in g] == [*range(20)]
    assert groups(5, 100, None) == [[0, 1, 2, 3, 4]]
    rng = np.random.default_rng(3)
    rows, start, goal = rng.normal(size=(60, 8)).astype(np.float32), boxes(60), boxes(60, 1)
    labels = rng.integers(0, 3, 60)
    at_once = BoxLearner(3, 8, 1.0)
    at_once.see(rows, start, goal, labels)
    whole, parts = at_once.solve(2.0), None
    for only in ([0, 2], [1]):
        learner = BoxLearner(3, 8, 1.0, only)
        learner.see(rows, start, goal, labels)
        parts = learner.solve(2.0, parts)
    np.testing.assert_array_equal(parts.W, whole.W)
    with pytest.raises(ValueError, match="box regression of shapes"):
        BoxRegressors.from_arrays({**whole.to_arrays(), "mean": np.zeros((2, 4))})


@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_pass_that_stopped_goes_on_with_the_same_bits(stop):
    """Also while there are fewer rows than numbers in one, before and after the products."""
    rng = np.random.default_rng(4)
    parts = [
        (rng.normal(size=(9, 20)).astype(np.float32), boxes(9, i), boxes(9, 10 + i),
         rng.integers(0, 2, 9))
        for i in range(8)
    ]  # fmt: skip
    whole, first, then = (BoxLearner(2, 20, 0.5) for _ in range(3))
    for part in parts:
        whole.see(*part)
    for part in parts[:stop]:
        first.see(*part)
    then.restore(first.to_arrays())
    for part in parts[stop:]:
        then.see(*part)
    assert (then.ridges[0].gram is not None) and (first.ridges[0].gram is None) == (stop < 7)
    np.testing.assert_array_equal(then.solve(3.0).W, whole.solve(3.0).W)
