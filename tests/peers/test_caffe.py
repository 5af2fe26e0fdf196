"""Models that Caffe has trained next to OpenCV 4, the last that reads them.

They are those of the package hyperlpr (licence plates): halves that OpenCV has shrunk, batch
normalisations, a convolution for each channel.

    pip install --no-deps hyperlpr==0.0.2 'opencv-python-headless<5'
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="needs OpenCV 4")
if not hasattr(cv2, "dnn") or cv2.__version__ >= "5":
    pytest.skip("OpenCV 5 reads no models of Caffe", allow_module_level=True)
if not importlib.util.find_spec("hyperlpr"):
    pytest.skip("needs the models of hyperlpr", allow_module_level=True)

from convnet import Net, cfg  # noqa: E402
from convnet.foreign import begin, read  # noqa: E402
from convnet.graph import Graph  # noqa: E402

MODELS = Path(importlib.util.find_spec("hyperlpr").origin).parent / "models" / "dnn"
END = """
probs type=softmax inputs={0}
cost type=cost.logreg inputs=labels,probs
"""
# model: (rows, columns) of its images, layers of ours, ours and its output to compare
NETS = {
    "HorizonalFinemapping": ((16, 66), """
        conv1 type=conv inputs=data filters=10 filterSize=3 neuron=relu
        pool1 type=pool pool=max inputs=conv1 sizeX=2 stride=2
        conv2 type=conv inputs=pool1 filters=16 filterSize=3 neuron=relu
        conv3 type=conv inputs=conv2 filters=32 filterSize=3 neuron=relu
        dense type=fc inputs=conv3 outputs=2 neuron=relu
     """, "dense:pre", "dense"),
    "SegmenationFree-Inception": ((160, 40), """
        conv0 type=conv inputs=data filters=32 filterSize=3 padding=1 neuron=relu
        pool0 type=pool pool=max inputs=conv0 sizeX=2 stride=2
        conv1 type=conv inputs=pool0 filters=64 filterSize=3 padding=1 neuron=relu
        pool1 type=pool pool=max inputs=conv1 sizeX=2 stride=2
        conv2 type=conv inputs=pool1 filters=128 filterSize=3 padding=1 neuron=relu
     """, "conv2", "relu2"),
    "mininet_ssd_v1": ((96, 64), """
        ssd0_mobilenet0_conv0 type=conv inputs=data filters=8 filterSize=3 stride=2 padding=1 \
            rounding=floor neuron=relu
        ssd0_mobilenet0_conv1 type=conv inputs=ssd0_mobilenet0_conv0 groups=8 filters=1 \
            filterSize=3 padding=1 neuron=relu
        ssd0_mobilenet0_conv2 type=conv inputs=ssd0_mobilenet0_conv1 filters=16 filterSize=1
     """, "ssd0_mobilenet0_conv2", "ssd0_mobilenet0_conv2"),
}  # fmt: skip


def graph_of(size: tuple[int, int], lines: str) -> Graph:
    rows = [line.split() for line in lines.replace("\\\n", "").strip().splitlines()]
    last = rows[-1][0]
    rows += [line.split() for line in END.format(last).strip().splitlines()]
    text = "[data]\ntype=data\ndataIdx=0\n[labels]\ntype=data\ndataIdx=1\n"
    text += "\n".join("\n".join([f"[{name}]", *keys]) for name, *keys in rows)
    return Graph(cfg.parse(text), feeds={0: (*size, 3)})


@pytest.mark.parametrize("name", NETS)
def test_the_models_of_hyperlpr(name):
    size, lines, mine, theirs = NETS[name]
    model = MODELS / f"{name}.caffemodel"
    net, found = Net(graph_of(size, lines), seed=9), read.read(model)
    found.input = found.input._replace(mean=0)
    assert not begin.fill(net, found).left
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    other = cv2.dnn.readNetFromCaffe(str(model.with_suffix(".prototxt")), str(model))
    bgr = np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2))
    other.setInput(bgr.astype(np.float32))
    want = other.forward(theirs).reshape(1, -1)
    got = net.features(images, mine, view="asis")
    got = got.transpose(0, 3, 1, 2).reshape(1, -1)
    assert abs(want).max() > 0.1
    assert abs(got - want).max() < 1e-4 * abs(want).max()


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.caffemodel")), ids=lambda p: p.stem)
def test_as_many_numbers_as_opencv_counts(path):
    """OpenCV merges nothing here: a blob for each weight and bias of conv and fc layers."""
    other = cv2.dnn.readNetFromCaffe(str(path.with_suffix(".prototxt")), str(path))
    found = {layer.name: layer for layer in read.read(path).layers}
    assert found
    for name, layer in found.items():
        W, b = (other.getParam(name, i) for i in (0, 1))
        assert (W.size, b.size) == (layer.kernels[0].size, layer.bias.size), name
