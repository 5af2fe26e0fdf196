"""Training with the fast kernels and with the plain ones: the same curve, within the seeds.

benchmarks/curves.py does it for whole nets; here is a small one on the built-in digits.
"""

import json

import numpy as np
import pytest

from convnet.source import Source
from tests.tooling import ROOT

STEPS = 100


@pytest.fixture
def curves(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import curves

    return curves


def arguments(curves, *more):
    cfg = ROOT / "layer_configs" / "spp_small.cfg"
    # one thread: the same bits on every machine, and no waiting for a second where cores are busy
    options = f"--layer-def={cfg} --steps={STEPS} --minibatch=8 --windows=4 --threads=1"
    return curves.arguments([*options.split(), *more])


def test_fast_and_plain_are_the_same_curve(curves):
    args = arguments(curves)
    runs = [curves.train(args, seed) for seed in range(3)]
    fast, plain = (np.array([run[name]["loss"] for run in runs]) for name in curves.DEVICES)
    assert fast.shape == (3, STEPS) and (fast != plain).any(), "these are the same kernels"
    assert (fast[:, -25:].mean(1) < fast[:, :5].mean(1) - 1).all(), "nothing was learnt"
    rows = curves.table(runs, 4)
    assert list(rows)[-2:] == ["steps 76-100", "test error"]
    assert all(row["same"] for row in rows.values()), rows
    assert np.abs(fast - plain)[:, :10].max() < 1e-3, "last bits have not grown yet"


def test_that_net_has_fast_kernels(curves):
    graph = Source.read(arguments(curves).layer_def).graph({}, 10)
    for name in ("conv1", "conv2", "fc3"):
        l = graph.by_name[name]
        assert l.variant(*[(8, *graph.shapes[below]) for below in l.reads]).name != "plain"


def test_the_same_seed_is_the_same_bits(curves):
    args = arguments(curves)
    once, again = (curves.train(args, 5, ["cpu"]) for _ in range(2))
    assert once == again and len(once["cpu"]["loss"]) == STEPS
    assert once != curves.train(args, 6, ["cpu"])


def test_the_criterion(curves):
    """By hand: variances 0.01, so two standard errors of four seeds are 2 sqrt(0.02 / 4)."""
    plain = [1.0 + d * np.sqrt(0.0075) for d in (-1, -1, 1, 1)]
    found = curves.compare([loss + 0.14 for loss in plain], plain)
    assert found["spread"] == pytest.approx(0.1) and found["limit"] == pytest.approx(0.02**0.5)
    assert found["gap"] == pytest.approx(0.14) and found["same"]
    assert not curves.compare([loss - 0.15 for loss in plain], plain)["same"]


def test_kernels_that_are_wrong_are_told(curves, tmp_path, capsys, monkeypatch):
    """The curve of a device that sees all images at an eighth of their contrast is another one."""
    args = arguments(curves, "--steps=60", "--seeds=2", f"--json={tmp_path}/found.json")
    monkeypatch.setattr(curves, "arguments", lambda: args)

    class Pale(curves.Ours):
        def train(self, images, *rest):
            share = 8 if self.net.device.name == "cpu" else 1
            return super().train(images / np.float32(share), *rest)

    monkeypatch.setattr(curves, "Ours", Pale)
    assert curves.main() == 1
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict.startswith("different: ") and "steps 46-60" in verdict
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["same"] and len(found["runs"]) == 2


@pytest.mark.parametrize("option,why", [("--seeds=1", "2 or more"), ("--steps=3", "6 windows")])
def test_refused(curves, option, why, capsys):
    with pytest.raises(SystemExit) as e:
        curves.arguments([option])
    assert e.value.code == 2 and why in capsys.readouterr().err
