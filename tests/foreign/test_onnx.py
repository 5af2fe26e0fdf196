"""What every type becomes in ONNX hangs together; that it is right: tests/peers/test_onnx.py."""

import pytest

from convnet.cli import UsageError
from convnet.foreign import wire
from convnet.foreign.onnx import Builder, Value, model
from convnet.layer import CostLayer
from convnet.net import Net
from convnet.source import Source
from tests import contract
from tests.tooling import TINY

TYPES = [name for name in contract.types() if not issubclass(contract.layer_class(name), CostLayer)]
CASES = [(name, line) for name in TYPES for line in contract.lines(name) if "windows" not in line]


@pytest.mark.parametrize("name,line", CASES)
def test_nodes_read_what_there_is(name, line):
    """And the shape is the layer's; inputs come as maps and, as behind an fc, flat."""
    case = contract.build(name, line)
    for flat in False, True:
        g = Builder()
        xs = [Value(f"x{i}", shape, flat) for i, shape in enumerate(case.shapes)]
        y = case.layer.onnx(g, case.arrays("f4")[1], *xs)
        assert y.shape == case.layer.shape(*case.shapes)
        g.flat(y), g.maps(y)
        there = {x.name for x in xs} | {*g.constants}
        for kind, reads, made, _ in g.nodes:
            assert {*reads} <= there and made not in there, kind
            there.add(made)
        assert y.name in there


def test_there_are_cases():
    assert len(CASES) > 60


def test_each_class_has_a_line():
    """As docs/deploy.md reads them; also names of folders that are no text."""
    net = Net(Source("x.cfg", TINY).graph({0: (16, 16, 3)}, 4))
    net.classes = ["ant", "two\nlines", "caf\udce9", "Käfer ☕"]
    data = memoryview(b"".join(model(net, ["probs"])[0]))
    about = [dict(wire.fields(value)) for number, value in wire.fields(data) if number == 14]
    found = {wire.text(pair[1]): wire.text(pair[2]) for pair in about}
    assert found["classes"].split("\n") == ["ant", r"'two\nlines'", r"'caf\udce9'", "Käfer ☕"]


def test_no_output_is_called_as_the_input():
    text = TINY.replace("[data]", "[images]").replace("inputs=data", "inputs=images")
    net = Net(Source("x.cfg", text).graph({0: (16, 16, 3)}, 2))
    with pytest.raises(UsageError, match="--layer=images: is what the model's input is called"):
        model(net, ["images"])
    assert model(net, ["fc1"])[1] == {"fc1": (20,)}
