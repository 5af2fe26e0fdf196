"""type=cost.boxes: known answers, the background, and what it says of a wrong cfg."""

import numpy as np
import pytest

from convnet.cfg import CfgError
from convnet.source import Source
from tests.layers._one import build, run

CFG = """
[data]
type=data
dataIdx=0
imgSize=4
[labels]
type=data
dataIdx=1
[targets]
type=data
dataIdx=3
[fc]
type=fc
inputs=data
outputs={outputs}
[cost]
type=cost.boxes
inputs={inputs}
"""


def test_known_answers():
    """Class 1 of case 0: differences 0.5, -2, 0, 1; case 1 is background."""
    layer = build("cost.boxes", inputs="labels,targets,boxes", words={"classes": 3})
    labels = np.array([1, 0], np.int32).reshape(2, 1, 1, 1)
    targets = np.array([[1, 2, 3, 4], [9, 9, 9, 9]], float).reshape(2, 1, 1, 4)
    boxes = np.full((2, 3, 4), 7.0)
    boxes[0, 1] = [1.5, 0, 3, 5]
    y, bprop = layer.fprop(run(), {}, labels, targets, boxes.reshape(2, 1, 1, 12))
    (_, _, dx), weights = bprop(np.ones_like(y), {2})
    assert weights == {}
    np.testing.assert_allclose(y[:, 0, 0, 0], [0.125 + 1.5 + 0 + 0.5, 0])
    wanted = np.zeros((2, 3, 4))
    wanted[0, 1] = [0.5, -1, 0, 1]
    np.testing.assert_array_equal(dx.reshape(2, 3, 4), wanted)


@pytest.mark.parametrize(
    "inputs,outputs,why",
    [
        ("labels,fc,targets", 12, "needs 3 inputs: labels"),
        ("labels,targets", 12, "needs 3 inputs: labels"),
        ("labels,targets,fc", 11, "'fc' has 11 outputs, but 4 for each of 3 classes"),
    ],
)
def test_a_wrong_cfg(inputs, outputs, why):
    text = CFG.format(inputs=inputs, outputs=outputs)
    with pytest.raises(CfgError, match=why):
        Source("x.cfg", text).graph({}, 3)
