"""Exported nets next to onnxruntime: every type by its examples, every cfg that ships."""

import csv
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx", reason="needs onnx: make peer")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: make peer")

from convnet import Net  # noqa: E402
from convnet.foreign.onnx import FLOAT, Builder, Value, model, pieces  # noqa: E402
from convnet.layer import CostLayer  # noqa: E402
from tests import contract  # noqa: E402
from tests.test_layer_configs import NAMES, source  # noqa: E402
from tests.tooling import ROOT, call, photos  # noqa: E402

CASES = [
    (name, line)
    for name in contract.types()
    for line in contract.lines(name)
    if not issubclass(contract.layer_class(name), CostLayer) and "windows" not in line
]


def run(parts: list, given: dict) -> list[np.ndarray]:
    """What onnxruntime makes of a model that onnx finds nothing wrong with."""
    data = b"".join(parts)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    return outputs_of(data, given)


def outputs_of(data: bytes, given: dict) -> list[np.ndarray]:
    """What onnxruntime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, given)


def compare(mine: np.ndarray, theirs: np.ndarray, limit: float = 1e-4) -> float:
    assert mine.shape == theirs.shape
    scale = abs(mine).max()
    assert scale > 0, "vacuous"
    off = float(abs(mine - theirs).max() / scale)
    assert off < limit
    return off


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name,line", CASES)
def test_each_example_of_each_type(name, line, flat):
    """Its inputs as maps, or as what is behind an fc layer."""
    case = contract.build(name, line)
    xs, w = case.arrays(np.float32)
    mine, _ = case.layer.fprop(contract.run(train=False), w, *xs)
    g = Builder()
    g.layer = "layer"
    ins = [Value(f"x{i}", shape, flat) for i, shape in enumerate(case.shapes)]
    y = case.layer.onnx(g, w, *ins)
    assert y.shape == mine.shape[1:]
    g.nodes.append(("Identity", [g.flat(y)], "y", {}))
    given = {x.name: array.transpose(0, 3, 1, 2) for x, array in zip(ins, xs)}
    if flat:
        given = {x.name: array.reshape(len(array), -1) for x, array in zip(ins, xs)}
    inputs = {name: (FLOAT, array.shape[1:]) for name, array in given.items()}
    (theirs,) = run(pieces(g, inputs, {"y": [mine[0].size]}, {}), given)
    compare(mine.reshape(len(mine), -1), theirs, 1e-5)


def few(name: str) -> Net:
    """A net that ships, its fc layers small where the weights would be many."""
    graph = source(name).graph({}, 10)
    small = [f"{l.name}.outputs=64" for l in graph.layers
             if l.type == "fc" and l.outputs > 64]  # fmt: skip
    net = Net(source(name, *small).graph({}, 10), seed=1)
    net.mean = np.random.default_rng(2).uniform(90, 140, net.mean_image.shape).astype(np.float32)
    return net


@pytest.mark.parametrize("name", NAMES)
def test_each_net(name):
    """At the size of the training; every prediction, and the pyramid or what the fc layers read."""
    net = few(name)
    image = net.graph.shapes[net.graph.feeds[0]]
    images = np.random.default_rng(0).integers(0, 256, (1, *image), np.uint8)
    ends = [net.graph.by_name[cost].reads[1] for cost in net.graph.costs]
    logits = [net.graph.by_name[end].reads[0] for end in ends]
    parts, outputs = model(net, [*ends, *logits])
    for name, theirs in zip(outputs, run(parts, {"images": images})):
        mine = net.features(images, name, view="asis")
        compare(mine.reshape(theirs.shape), theirs)


@pytest.mark.parametrize("name", ["spp_small", "cifar10_spp"])
def test_other_sizes(name):
    """Bins that are no windows of one size, the mean image stretched, maps as an output."""
    net = few(name)
    images = np.random.default_rng(0).integers(0, 256, (3, 61, 83, 3), np.uint8)
    parts, outputs = model(net, ["spp", "conv2:pre", "probs"], (61, 83))
    for name, theirs in zip(outputs, run(parts, {"images": images})):
        mine = net.features(images, name, view="asis")
        compare(mine.reshape(theirs.shape) if mine.shape[1:3] == (1, 1) else mine, theirs)


def turned(source: Path, target: Path) -> None:
    """The same picture as a camera that was held upright saves it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(source).save(target, exif=exif)


def test_the_page(tmp_path, monkeypatch, capsys):
    """What docs/deploy.md shows for onnxruntime gives the scores of test.py, image by image."""
    text = (ROOT / "docs" / "deploy.md").read_text()
    shown = re.search(r"^    import numpy.*?(?=^\S)", text, re.M | re.S)[0]
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "data" / "train", each=2)
    photos(tmp_path / "data" / "test", each=2)  # of 70 to 90 pixels, none square
    turned(Path("data/test/ant/0.jpg"), Path("data/test/ant/turned.jpg"))
    photos(tmp_path / "data" / "test" / "cat", classes=("small",), each=2, side=30)
    pixels = np.random.default_rng(5).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(pixels).save("data/test/bee/exact.png")
    tools = (
        ("train", f"--layer-def={ROOT}/layer_configs/spp_small.cfg", "--data-path=data",
         "--epochs=1", "--workers=0", "--save-path=run"),
        ("test", "run", "--predictions=out.csv"),
        ("export", "run", "--onnx=net.onnx"),
    )  # fmt: skip
    for words in tools:
        result = call(*words)
        assert result.code == 0, result.err
    capsys.readouterr()
    with Path("out.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    assert len(rows) == 10
    for key, _, best, *theirs in rows:
        found = {}
        exec(textwrap.dedent(shown.replace("photo.jpg", f"data/{key}")), found)
        np.testing.assert_allclose(found["probs"][0], np.array(theirs, float), atol=1e-5)
        assert capsys.readouterr().out == f"{best}\n"
    assert np.ptp([float(row[3]) for row in rows]) > 1e-3, "vacuous"
