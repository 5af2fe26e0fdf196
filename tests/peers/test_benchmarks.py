"""The benchmarks run from end to end; what they measure here means nothing."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnet import Net
from convnet.engine import Clock
from convnet.job import Job

torch = pytest.importorskip("torch", reason="needs PyTorch: make peer")

ROOT = Path(__file__).parent.parent.parent


def run(script, *args):
    """What the script prints; a warning is an error."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = [sys.executable, script, *map(str, args)]
    found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_step(tmp_path):
    out = tmp_path / "step.json"
    text = run("benchmarks/step.py", "--layer-def", "layer_configs/spp_small.cfg", "--batch", "4,2",
               "--rounds", 1, "--seconds", 0, "--classes", 10, "--engine", "ours,onnx",
               "--threads", 1, "--json", out)  # fmt: skip
    assert text.count("times as fast as ONNX Runtime") == 2, "it does not train"
    cases = json.loads(out.read_text())["cases"]
    assert [(case["mode"], case["batch"]) for case in cases] == [
        ("train", 4), ("train", 2), ("infer", 4), ("infer", 2)
    ]  # fmt: skip
    work = {w["layers"][0]: w for w in cases[0]["engines"]["ours"]["work"]}
    conv1 = 2 * 4 * 25 * 25 * 32 * 75
    assert work["conv1"]["flops"] == [conv1, conv1], "its input needs no gradient"
    assert work["conv2"]["flops"][1] == 2 * work["conv2"]["flops"][0] > conv1
    for case, train in zip(cases, (1, 1, 0, 0)):
        flops = sum(w["flops"][0] + train * w["flops"][1]
                    for w in case["engines"]["ours"]["work"])  # fmt: skip
        assert case["bound"]["direct"] == pytest.approx(flops / case["sgemm"])
        assert case["bound"]["done"] > 0


SEVERAL = """
[data]
type=data
dataIdx=0
imgSize=19
scale=0.02
[labels]
type=data
dataIdx=1
[conv1]
type=conv
inputs=data
filters=4
filterSize=4
stride=3
padding=1
groups=1
neuron=tanh[1.7,0.6]
[lrn1]
type=cmrnorm
inputs=conv1
size=3
scale=2
minDiv=2
[conv2]
type=conv
inputs=lrn1,conv1
filters=4
filterSize=3,1
padding=1,0
groups=2
neuron=relu
[lrn2]
type=rnorm
inputs=conv2
size=2
scale=2
[pool]
type=pool
pool=avg
inputs=lrn2
sizeX=3
stride=2
start=-1
sum=1
[spp]
type=spp
inputs=lrn2
levels=3,2,1
pool=avg
[fc3]
type=fc
inputs=spp,pool
outputs=20
neuron=logistic
[drop3]
type=dropout2
inputs=fc3
[fc4]
type=fc
inputs=drop3
outputs=classes
[probs]
type=softmax
inputs=fc4
[logprob]
type=cost.logreg
inputs=labels,probs
"""


@pytest.mark.parametrize("name", ["several", "cifar10", "spp_small", "cifar10_spp"])
def test_onnx_gives_what_the_net_gives(name, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: make peer")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    engines = importlib.import_module("engines")
    path = f"layer_configs/{name}.cfg"
    if name == "several":
        (tmp_path / "several.cfg").write_text(SEVERAL)
        path = str(tmp_path / "several.cfg")
    job = Job(path, batch=3)
    for last in ("conv2_neuron", "probs"):
        images, _ = job.noise(job.graph())
        mine = engines.Ours(Net(job.graph()), 1, last).infer(images)
        engine = engines.Onnx(Net(job.graph()), 1, last)
        theirs = engine.infer(engine.own(images))
        assert mine.shape == theirs.shape and mine.std() > 0
        assert abs(mine - theirs).max() < 1e-4 * abs(mine).max()


def test_the_bench_tool_next_to_pytorch(tmp_path):
    """Layer by layer; both run the same layers, each with a time of its own."""
    out = tmp_path / "bench.json"
    text = run("tools/bench.py", "--layer-def", "layer_configs/spp_small.cfg", "--batch", 4,
               "--rounds", 2, "--seconds", 0, "--threads", 1, "--compare", "torch",
               "--json", out)  # fmt: skip
    assert "times as fast" in text and "conv2+conv2_neuron" in text and "the fastest of" in text
    engines = json.loads(out.read_text())["engines"]
    assert engines["ours"]["peak"] > 0 < engines["torch"]["peak"]
    assert engines["torch"]["setting"] in engines["torch"]["trials"]
    for r in engines["torch"]["rounds"]:
        seconds = {(layer, way): t for layer, _, way, t in r["layers"]}
        learn = "conv1", "conv1_neuron", "conv2", "pool3x3", "fc3", "logprob"
        assert all(seconds[layer, way] > 0 for layer in learn for way in ("fprop", "bprop")), (
            seconds
        )
        assert ("data", "bprop") not in seconds
        assert sum(seconds.values()) + sum(r["parts"].values()) <= r["step"]


def test_backward_times_are_those_of_the_layer(monkeypatch):
    """A layer whose backward pass is slow in PyTorch is the one that is told to be slow."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    engines, torch_net = (importlib.import_module(name) for name in ("engines", "torch_net"))

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, dy):
            time.sleep(0.3)
            return dy

    pool = torch_net.OPS["pool"]
    monkeypatch.setitem(torch_net.OPS, "pool", lambda l, w, x: Slow.apply(pool(l, w, x))
                        if l.name == "pool2x2" else pool(l, w, x))  # fmt: skip
    job = Job("layer_configs/spp_small.cfg", batch=2)
    engine, clock = engines.Torch(Net(job.graph()), 1), Clock()
    engine.watch(clock)
    engine.train(*job.noise(job.graph()))
    found = {layer: t for (layer, _, way), t in clock.layers.items() if way == "bprop"}
    assert max(found, key=found.get) == "pool2x2" and found["pool2x2"] > 0.3
    assert sum(found.values()) - found["pool2x2"] < 0.3


def test_cifar10(tmp_path):
    rng = np.random.default_rng(0)
    for split, name in [(s, n) for s in ("train", "test") for n in ("cat", "dog")]:
        folder = tmp_path / split / name
        folder.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    out = tmp_path / "out.json"
    text = run("benchmarks/cifar10.py", "--data", tmp_path, "--epochs", 2, "--minibatch", 4,
               "--limit", 8, "--layer-def", "layer_configs/cifar10.cfg", "--out", out)  # fmt: skip
    assert "with PyTorch; convnet is" in text
    mine, theirs = (r["epochs"] for r in json.loads(out.read_text())["runs"].values())
    assert [row["loss"] for row in mine] == pytest.approx([row["loss"] for row in theirs], rel=1e-4)
