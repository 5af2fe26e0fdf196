"""The benchmarks run from end to end; what they measure here means nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs PyTorch: make peer")

ROOT = Path(__file__).parent.parent.parent


def run(script, *args):
    """What the script prints; a warning is an error."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = [sys.executable, f"benchmarks/{script}", *map(str, args)]
    found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_step(tmp_path):
    out = tmp_path / "step.json"
    text = run("step.py", "--layer-def", "layer_configs/spp_small.cfg", "--batch", 4, "--rounds", 1,
               "--seconds", 0, "--classes", 10, "--layers", "--json", out)  # fmt: skip
    assert "times as fast" in text and "conv2_neuron" in text and "PyTorch 2" in text
    figures = json.loads(out.read_text())
    assert all(t > 0 for job in figures["seconds"].values() for ts in job.values() for t in ts)
    conv1 = 2 * 4 * 25 * 25 * 32 * 75
    assert figures["flops"]["conv1"] == [conv1, conv1], "its input needs no gradient"
    assert figures["flops"]["conv2"][1] == 2 * figures["flops"]["conv2"][0] > conv1


def test_cifar10(tmp_path):
    rng = np.random.default_rng(0)
    for split, name in [(s, n) for s in ("train", "test") for n in ("cat", "dog")]:
        folder = tmp_path / split / name
        folder.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    out = tmp_path / "out.json"
    text = run("cifar10.py", "--data", tmp_path, "--epochs", 2, "--minibatch", 4, "--limit", 8,
               "--layer-def", "layer_configs/cifar10.cfg", "--out", out)  # fmt: skip
    assert "with PyTorch; convnet is" in text
    mine, theirs = (r["epochs"] for r in json.loads(out.read_text())["runs"].values())
    assert [row["loss"] for row in mine] == pytest.approx([row["loss"] for row in theirs], rel=1e-4)
