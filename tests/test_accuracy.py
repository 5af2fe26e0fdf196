"""benchmarks/accuracy.py: errors of each way to compute a convolution."""

import re

import numpy as np
import pytest

from convnet.source import Source
from tests.tooling import ROOT


@pytest.fixture
def accuracy(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import accuracy

    return accuracy


def test_a_net(accuracy, monkeypatch, capsys):
    cfg = ROOT / "layer_configs" / "spp_small.cfg"
    monkeypatch.setattr("sys.argv", ["accuracy.py", f"--layer-def={cfg}", "--set=conv2.filters=33"])
    accuracy.main()
    rows = re.findall(r"^(conv\d) +(\w+(?: F\([\d+]+,\d\))?)(\*?) +(\S+) +(\S+) +(\S+)$",
                      capsys.readouterr().out, re.M)  # fmt: skip
    assert [layer for layer, _, star, *_ in rows if star] == ["conv1", "conv2"]
    errors = {(layer, name): [float(e) for e in row] for layer, name, _, *row in rows}
    for (_, name), row in errors.items():
        least, most = (1e-7, 1e-4) if "winograd" in name else (1e-8, 4e-6)
        assert least < min(row) and max(row) < most
    assert max(errors["conv2", "winograd F(6,3)"]) > max(errors["conv2", "direct"])


def test_a_wrong_way_is_seen(accuracy, monkeypatch):
    graph = Source.read(ROOT / "layer_configs" / "spp_small.cfg").graph({}, 10)
    layer = graph.by_name["conv2"]
    ask = (layer, graph.shapes["pool1"], graph.asked(layer), 2, 0)
    true = type(layer.ways(ask[1])[0]).forward

    def wrong(self, run, x, w, bias, low, y):
        kept = true(self, run, x, w, bias, low, y)
        y *= np.float32(1.01)
        return kept

    monkeypatch.setattr(type(layer.ways(ask[1])[0]), "forward", wrong)
    assert accuracy.errors(*ask)["direct"][0] == pytest.approx(0.01, rel=1e-3)
    assert "variant" not in vars(layer)
