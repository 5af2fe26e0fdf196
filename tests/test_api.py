"""The Python API as somebody uses it who has not read it; what the tools make of odd weights."""

import numpy as np
import pytest

from convnet import Net, scores
from convnet.cfg import parse
from convnet.graph import Graph

HEAD = "[data]\ntype=data\ndataIdx=0\nimgSize=8\n[labels]\ntype=data\ndataIdx=1\n"
CONV = "[conv]\ntype=conv\ninputs=data\nfilters=4\nfilterSize=3\npadding=1\nneuron=relu\n"
TAIL = (
    "[fc]\ntype=fc\ninputs={}\noutputs=classes\n[probs]\ntype=softmax\ninputs=fc\n"
    "[cost]\ntype=cost.logreg\ninputs=labels,probs\n"
)


def make(body: str = CONV, reads: str = "conv") -> Net:
    return Net(Graph(parse(HEAD + body + TAIL.format(reads)), classes=10))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    "bad, words",
    [
        (images(8, 8, 3), r"must be \(N, H, W, C\)"),
        ([images(8, 8, 4)], r"uint8 \(H, W, 3\)"),
        ([images(3, 8, 8)], r"uint8 \(H, W, 3\)"),
        ([images(0, 8, 3)], r"uint8 \(H, W, 3\)"),
        ([np.zeros((8, 8, 3))], "not float64"),
        ([None], r"uint8 \(H, W, 3\)"),
    ],
)
def test_what_is_no_image(bad, words):
    for use in (make().predict, lambda x: make().features(x, "conv")):
        with pytest.raises(ValueError, match=words):
            use(bad)


def test_nothing_and_grey():
    net = make()
    assert net.predict([]).shape == (0, 10)
    assert net.features([], "conv") == []
    assert net.predict([images(8, 8)]).shape == (1, 10)
    with pytest.raises(ValueError, match="must be one of centre, ten, full, warp, asis"):
        net.predict([images(8, 8, 3)], view="center")


def test_run_refuses_what_does_not_fit():
    net, conv = make(), np.ones((2, 8, 8, 4), np.float32)
    labels = np.zeros((3, 1, 1, 1), int)
    for values in ({}, {"conv": conv, "labels": labels}, {"conv": conv[0]}, {"conv": conv[:0]}):
        with pytest.raises(ValueError, match="needs arrays"):
            net.run(values, "probs")
    with pytest.raises(ValueError, match="did you mean 'conv'"):
        net.run({"conf": conv}, "probs")
    with pytest.raises(ValueError, match="needs arrays"):
        net.run({"conv": conv}, "probs", batch=-1)
    assert net.run({"conv": conv}, "conv") is conv
    assert net.run({"conv": conv.astype(np.float64)}, "probs").dtype == np.float32
    one = net.run({"conv": conv}, "probs", batch=1)  # sums of another order in BLAS
    np.testing.assert_allclose(one, net.run({"conv": conv.astype(int)}, "probs"), rtol=1e-5)


def test_layers_below_fc_take_any_size():
    """Only what is asked for must be possible."""
    net = make()
    assert net.features([images(20, 12, 3)], "conv", view="asis").shape == (1, 20, 12, 4)
    for shape in ((20, 12, 3), (4, 16, 3)):  # the second has as many numbers as 8x8
        with pytest.raises(ValueError, match=r"\[fc\] gets"):
            net.predict([images(*shape)], view="asis")


def test_ordinary_pools_are_no_pyramid():
    """2/2 pools halve a map, also where another pool reads the same map for another reader."""
    pools = (
        "[half]\ntype=pool\npool=max\ninputs=conv\nsizeX=2\nstride=2\n"
        "[all]\ntype=pool\npool=avg\ninputs=conv\nsizeX=8\nstride=8\n"
        "[conv2]\ntype=conv\ninputs=half\nfilters=4\nfilterSize=4\n"
    )
    net = make(CONV + pools, "conv2,all")
    assert net.features([images(16, 16, 3)], "half", view="asis").shape == (1, 8, 8, 4)
    net = make(CONV + pools.split("[conv2]")[0], "half,all")
    assert net.features([images(16, 16, 3)], "half", view="asis").shape == (1, 4, 4, 4)


def test_ten_views_of_what_has_no_mirror_image():
    net, x = make(), images(2, 9, 11, 3)
    assert net.features(x, "conv", view="ten").shape == (20, 8, 8, 4)
    net.mirror = False
    five = net.features(x, "conv", view="ten")
    assert five.shape == (10, 8, 8, 4)
    np.testing.assert_array_equal(five[::5], net.features(x, "conv"))


def test_views_of_an_image_of_the_nets_size():
    """The first of the ten is the image itself, as in training and in a test of one view."""
    net, x = make(), images(1, 8, 8, 3)
    ten, one = net.features(x, "conv", view="ten"), net.features(x, "conv")
    np.testing.assert_array_equal(ten[0], one[0])
    assert (ten[1] != one[0]).any()


def test_scores_know_ties_and_nan():
    """cost.logreg's rule: 1 - 1/n where n classes share the greatest probability."""
    even, sure = np.full((1, 10), 0.1), np.eye(10)[:1]
    assert scores.errors(even, even[:, 3], 1) == pytest.approx(0.9)
    assert scores.errors(even, even[:, 3], 5) == pytest.approx(0.5)
    assert scores.errors(sure, sure[:, 0], 1) == 0
    assert scores.errors(sure, sure[:, 1], 1) == 1
    assert scores.errors(even * np.nan, even[:, 3] * np.nan, 5) == 1


def test_weights_that_are_not_finite():
    net = make()
    arrays = {name: w.copy() for name, w in net.own_weights().items()}
    arrays["conv/W0"][0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="conv/W0 are not finite"):
        net.set_weights(arrays)
