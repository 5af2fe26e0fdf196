"""SVMs: the objective by its formula, its optimum by scipy, and mining that loses no case."""

import numpy as np
import pytest
from scipy.optimize import minimize

from convnet.detect.mining import Class, Mining, Seen, objective
from convnet.detect.svm import Recipe, Svms, joined, mean_norm

EASY = Recipe(C=0.05, retrain=40, leave=-1.5)


def cases(n=120, dim=6, seed=0, apart=1.0):
    rng = np.random.default_rng(seed)
    centre = np.zeros(dim)
    centre[0] = apart
    return (rng.normal(size=(n, dim)) + centre).astype(np.float32)


def photos_of(rows: np.ndarray, each: int, classes: int = 1) -> list[Seen]:
    """Negatives only, so many a photo."""
    parts = [rows[i : i + each] for i in range(0, len(rows), each)]
    return [Seen(p, np.arange(len(p)), np.zeros((len(p), classes))) for p in parts]


def train(positives, photos, recipe, scale=1.0) -> tuple[Svms, list[Class]]:
    """The SVMs, and what they were trained on."""
    mining = Mining(positives, recipe, scale)
    for number, seen in enumerate(photos):
        mining.see(number, seen)
    return mining.end(), mining.classes


def test_the_optimum_of_the_formula():
    """Where scipy's minimiser, which knows nothing of SVMs, ends as well (a smooth dual)."""
    one = Class(cases(40, apart=2.5), Recipe(C=0.05), 0)
    negatives = cases(90, seed=1)
    one.see(negatives, None, [(0, i) for i in range(90)])
    one.train()
    X = np.concatenate([one.positives, negatives])
    t = np.repeat([1.0, -1.0], [40, 90])
    upper = 0.05 * np.where(t > 0, 2, 1)
    wide = np.concatenate([X, np.full((130, 1), 10.0)], 1) * t[:, None]
    gram = wide @ wide.T

    def dual(a):
        return a @ gram @ a / 2 - a.sum(), gram @ a - 1

    found = minimize(dual, upper / 2, jac=True, bounds=[(0, u) for u in upper], method="L-BFGS-B",
                     options={"maxiter": 20000, "ftol": 1e-13, "gtol": 1e-9})  # fmt: skip
    everything = Class(one.positives.astype(np.float32), Recipe(C=0.05, leave=-99), 0)
    everything.see(negatives, None, [(0, i) for i in range(90)])
    everything.train()
    assert objective(everything) == pytest.approx(-found.fun, rel=2e-3)
    assert objective(everything) >= -found.fun - 1e-6  # no primal is below the best dual


def test_mining_finds_the_svm_of_all_negatives():
    """Photo by photo it comes to the machine that sees all cases at once."""
    positives, negatives = cases(200, apart=4), cases(2000, seed=1)
    photos = photos_of(negatives, 50)
    mined, (one,) = train([positives], photos, EASY)
    every, _ = train([positives], photos_of(negatives, 2000), EASY)
    assert one.trainings > 2 and len(one.negatives) < 1500 and abs(every.W).max() > 0.3
    np.testing.assert_allclose(mined.W, every.W, atol=0.05 * abs(every.W).max())
    again, _ = train([positives], photos, EASY)
    np.testing.assert_array_equal(again.W, mined.W)  # the same bits


def test_who_is_negative_for_whom():
    """A window counts for the classes that it overlaps by less than 0.3; one box of several."""
    rows = np.eye(4, dtype=np.float32)[:3]
    overlap = np.array([[0.9, 0.1], [0.29, 0.31], [0.3, 0.0], [0.5, 0.1]])
    seen = Seen(rows, np.array([0, 1, 2, 2]), overlap)
    positives = [np.eye(4, dtype=np.float32)[3:]] * 2
    _, (a, b) = train(positives, [seen], Recipe(leave=-99))
    np.testing.assert_array_equal(a.negatives, rows[[1]])
    np.testing.assert_array_equal(b.negatives, rows[[0, 2]])


def test_windows_come_in_once():
    """A second pass adds no window a second time."""
    photos = photos_of(cases(300, seed=1), 30)
    mining = Mining([cases(60, apart=2)], Recipe(C=0.05, retrain=10, leave=-99, enter=-99), 1.0)
    for number, seen in [*enumerate(photos)] * 3:
        mining.see(number, seen)
    mining.end()
    assert len(mining.classes[0].negatives) == 300


@pytest.mark.parametrize("stop", [1, 7, 39])
def test_mining_that_stopped_goes_on_with_the_same_bits(stop):
    positives = [cases(200, apart=4), cases(90, apart=3, seed=2)]
    photos = photos_of(cases(2000, seed=1), 50, classes=2)
    whole, _ = train(positives, photos, EASY)
    first, then = (Mining(positives, EASY, 1.0) for _ in range(2))
    for number in range(stop):
        first.see(number, photos[number])
    then.restore(first.to_arrays())
    for number in range(stop, len(photos)):
        then.see(number, photos[number])
    found = then.end()
    np.testing.assert_array_equal(found.W, whole.W)
    np.testing.assert_array_equal(found.b, whole.b)


def test_a_class_without_objects():
    photos = photos_of(cases(50), 25, classes=2)
    empty = np.zeros((0, 6), np.float32)
    svms, _ = train([cases(20, apart=3), empty], photos, EASY, 2.0)
    scores = svms.scores(cases(5))
    assert np.isfinite(scores[:, 0]).all() and (scores[:, 1] == -np.inf).all()


def test_classes_in_groups_are_the_same():
    positives = [cases(60, apart=a, seed=3) for a in (2, 3, 4)]
    photos = photos_of(cases(400, seed=1), 40, classes=3)
    whole, _ = train(positives, photos, EASY)
    some = [
        train([positives[c] for c in only], [Seen(r, of, o[:, only]) for r, of, o in photos], EASY)
        for only in ([0, 1], [2])
    ]
    parts = joined([svms for svms, _ in some])
    np.testing.assert_allclose(parts.W, whole.W, atol=1e-5 * abs(whole.W).max())
    np.testing.assert_allclose(parts.b, whole.b, atol=1e-5)


def test_files_and_scales():
    svms = Svms(np.ones((3, 2), np.float32), np.array([1, 2], np.float32), 0.5)
    again = Svms.from_arrays(svms.to_arrays())
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(again.scores(rows), [[2.5, 3.5], [7, 8]])
    with pytest.raises(ValueError, match="SVMs of"):
        Svms.from_arrays({**svms.to_arrays(), "b": np.zeros(3)})
    assert mean_norm([np.array([[3, 4]]), np.array([[0, 1], [0, 0]])]) == 2
    with pytest.raises(ValueError, match="learned nothing"):
        mean_norm([np.zeros((4, 2))])
