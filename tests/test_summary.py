"""What tools/check.py prints."""

import pytest

from convnet.cli import UsageError
from convnet.source import Source
from convnet.summary import keys_of, memory, table, totals

NET = """[data]
type=data
dataIdx=0
imgSize=12
channels=3
[labels]
type=data
dataIdx=1
[conv1]
type=conv
inputs=data
filters=4
filterSize=3
neuron=relu
[conv2]
type=conv
inputs=conv1
filters=4
filterSize=3
[conv3]
type=conv
inputs=conv2
filters=4
filterSize=3
weightSource=conv2
[fc4]
type=fc
inputs=conv3,conv1
outputs=classes
[probs]
type=softmax
inputs=fc4
[logprob]
type=cost.logreg
inputs=labels,probs
"""
TABLE = """\
layer         type         inputs        output       weights  multiply-adds  MiB
---------------------------------------------------------------------------------
data          data                       12x12x3                              0.2
labels        data                       1x1x1                                0.0
conv1         conv         data          10x10x4          112         10,800  0.2
conv1_neuron  neuron       conv1         10x10x4                              0.2
conv2         conv         conv1         8x8x4            148          9,216  0.1
conv3         conv         conv2         6x6x4    4 + [conv2]          5,184  0.1
fc4           fc           conv3,conv1   1x1x10         5,450          5,440  0.1
probs         softmax      fc4           1x1x10                               0.0
logprob       cost.logreg  labels,probs  1x1x2                                0.0
---------------------------------------------------------------------------------
                                                        5,714         30,640  1.3
5.71 k weights, 30.64 k multiply-adds an image, about 1.3 MiB to train 128 at a time"""


def graph():
    return Source("n.cfg", NET).graph(None, 10)


def test_table():
    assert table(graph(), 128) == TABLE


def test_totals():
    assert totals(graph()) == {
        "weights": 3 * 3 * 3 * 4 + 4 + 3 * 3 * 4 * 4 + 4 + 4 + (144 + 400 + 1) * 10,
        "macs": 100 * 108 + 64 * 144 + 36 * 144 + 5440,
        "activations": 432 + 1 + 400 + 400 + 256 + 144 + 10 + 10 + 2,
    }
    assert memory(graph(), 5) == 4 * (3 * 5714 + 5 * (1655 + 2 * 432))


def test_table_without_memory():
    rows = table(graph()).split("\n")
    assert rows[0].endswith("multiply-adds")
    assert rows[-1] == "5.71 k weights, 30.64 k multiply-adds an image"


def test_keys():
    text = keys_of("pool").split("\n")
    assert text[0].startswith("type=pool: ")
    assert "  pool          required   what to keep of each window: max, avg, maxabs" in text
    assert "  start         0          where the first window begins; negative is outside" in text
    assert max(map(len, keys_of("all").split("\n"))) <= 100
    assert "  momW          0.9        momentum of the weights (rate)" in keys_of("fc")
    with pytest.raises(UsageError, match="--keys=pol: no such type; did you mean 'pool'"):
        keys_of("pol")
