"""cost.logreg: values by hand, ties, huge logits, and what it must not sit on."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.layers._one import build, numeric, run


def cost(*keys, classes=5, inputs="labels,probs"):
    return build("cost.logreg", *keys, inputs=inputs, words={"classes": classes})


def values(labels, logits, *keys, dtype=np.float64):
    """The columns for these labels and logits, and bprop."""
    x = np.array(logits, dtype).reshape(len(labels), 1, 1, -1)
    t = np.array(labels, np.int32).reshape(-1, 1, 1, 1)
    probs, _ = build("softmax").fprop(run(), {}, x)
    layer = cost(*keys, classes=x.shape[3])
    y, bprop = layer.fprop(run(), {}, t, probs, x)
    assert y.shape == (len(labels), 1, 1, len(layer.values)) and y.dtype == dtype
    return y[:, 0, 0], bprop


def test_known_values():
    y, bprop = values([2, 0], np.log([[1, 2, 5], [3, 1, 4]]))
    np.testing.assert_allclose(y, [[-np.log(5 / 8), 0], [-np.log(3 / 8), 1]])
    dy = np.zeros((2, 1, 1, 2))
    dy[:, 0, 0, 0] = 2  # coeff=2
    (no, nor, dx), dw = bprop(dy, {2})
    assert no is None and nor is None and dw == {}
    want = np.array([[1, 2, -3], [-5, 1, 4]]) / 4
    np.testing.assert_allclose(dx[:, 0, 0], want)
    assert bprop(dy, set())[0] == [None] * 3


def test_gradient():
    rng = np.random.default_rng(0)
    x, t, coeff = rng.normal(size=(4, 5)), [0, 4, 2, 2], rng.normal(size=4)
    dy = rng.normal(size=(4, 1, 1, 3))  # the columns of errors have no gradient
    dy[:, 0, 0, 0] = coeff
    _, bprop = values(t, x, "topk=2")
    want = numeric(lambda x: values(t, x)[0][:, 0] @ coeff, x)
    np.testing.assert_allclose(bprop(dy, {2})[0][2][:, 0, 0], want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "logits,error",
    [
        ([5, 1, 2, 3, 4], 0),
        ([4, 5, 1, 2, 3], 1),
        ([5, 5, 1, 2, 3], 1 / 2),
        ([5, 5, 5, 2, 3], 2 / 3),
        ([4, 5, 5, 4, 4], 1),
        ([0, 0, 0, 0, 0], 4 / 5),
    ],
)
def test_error_and_its_ties(logits, error):
    assert values([0], [logits])[0][0, 1] == pytest.approx(error)


@pytest.mark.parametrize(
    "logits,k,error",
    [
        ([3, 5, 4, 2, 1], 3, 0),
        ([3, 5, 4, 2, 1], 2, 1),
        ([4, 5, 4, 4, 1], 2, 2 / 3),
        ([4, 5, 4, 4, 1], 3, 1 / 3),
        ([4, 5, 4, 4, 1], 4, 0),
        ([1, 5, 4, 3, 2], 5, 0),
        ([0, 0, 0, 0, 0], 3, 2 / 5),
    ],
)
def test_topk_and_its_ties(logits, k, error):
    assert values([0], [logits], f"topk={k}")[0][0, 2] == pytest.approx(error)


def test_names_of_the_values():
    assert cost().values == ("logprob", "error")
    assert cost("topk=5").values == ("logprob", "error", "top5")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits(dtype):
    y, bprop = values([0, 1, 1], [[1e4, -1e4], [1e4, -1e4], [1e4, 1e4]], dtype=dtype)
    np.testing.assert_allclose(y[:, 0], [0, 2e4, np.log(2)], rtol=1e-6)
    dy = np.ones((3, 1, 1, 2), dtype)
    dx = bprop(dy, {2})[0][2][:, 0, 0]
    assert dx.dtype == dtype
    np.testing.assert_allclose(dx, [[0, 0], [1, -1], [0.5, -0.5]], rtol=1e-6)


def test_a_nan_is_an_error():
    x, t = np.full((1, 1, 1, 3), np.nan), np.zeros((1, 1, 1, 1), np.int32)
    y, _ = cost(classes=3).fprop(run(), {}, t, x, x)
    assert np.isnan(y[0, 0, 0, 0]) and y[0, 0, 0, 1] == 1


@pytest.mark.parametrize("label", [-1, 5, 7])
def test_a_label_that_is_no_class(label):
    with pytest.raises(ValueError, match=rf"label {label} is not in 0\.\.4: 5 classes"):
        values([0, label], np.zeros((2, 5)))


LABELS = SimpleNamespace(name="labels", type="data", dataIdx=1, reads=[])
IMAGES = SimpleNamespace(name="data", type="data", dataIdx=0, reads=[])
PROBS = SimpleNamespace(name="probs", type="softmax", reads=["fc10"])
FC = SimpleNamespace(name="fc10", type="fc", reads=["pool3"])


def test_reads_the_logits_of_its_softmax():
    assert cost().link([LABELS, PROBS]) == ["fc10"]


@pytest.mark.parametrize(
    "producers,why",
    [
        ([LABELS, FC], "second input must be a type=softmax layer; 'fc10' is type=fc"),
        ([IMAGES, PROBS], "first input must be the labels, .*dataIdx=1; 'data' is none"),
        ([PROBS, LABELS], "first input must be the labels"),
        ([LABELS], "needs 2 inputs, labels and a softmax; has 1"),
    ],
)
def test_link_refuses(producers, why):
    with pytest.raises(ValueError, match=why):
        cost().link(producers)


@pytest.mark.parametrize(
    "keys,labels,outputs,why",
    [
        ([], (1, 1, 2), 5, "labels must be one number a case, not 1x1x2"),
        ([], (1, 1, 1), 10, "has 10 outputs, but there are 5 classes: set outputs=classes"),
        (["topk=6"], (1, 1, 1), 5, "topk=6, but there are only 5 classes"),
    ],
)
def test_shape_refuses(keys, labels, outputs, why):
    with pytest.raises(ValueError, match=why):
        cost(*keys).shape(labels, (1, 1, outputs), (1, 1, outputs))


def test_any_number_of_classes_where_the_data_does_not_say():
    layer = build("cost.logreg", inputs="labels,probs")
    assert layer.shape((1, 1, 1), (1, 1, 7), (1, 1, 7)) == (1, 1, 2)
