"""benchmarks/transfer.py: the whole of it, on classes that are told apart by their colours."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.tooling import ROOT, call


@pytest.fixture
def transfer(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import transfer

    return transfer


def here(name, *more):
    """Run a tool in this process."""
    result = call(name, *more)
    assert result.code == 0, result


def test_a_small_one(transfer, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for split, each in (("train", 8), ("test", 5)):
        for c, name in enumerate("abcd"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 90, (32, 32, 3))
                pixels[..., c % 3] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    monkeypatch.setattr(transfer, "tool", here)  # a process for each would take a minute
    monkeypatch.setattr(transfer, "LAYERS", {"data": "the pixels", "spp": "spp"})
    argv = [f"--data={tmp_path / 'data'}", f"--runs={tmp_path / 'runs'}", "--epochs=1"]
    monkeypatch.setattr("sys.argv", ["transfer.py", *argv, "--seen=2", "--per-class=3"])
    assert transfer.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 classes seen for 1 epochs, 2 told apart, 3 images of each" in lines[0]
    found = {}
    for line in lines[2:]:
        words, *figures = re.split(r"  +", line.replace("+- ", ""))
        found[words] = [float(figure.split()[0]) for figure in figures]
    assert list(found) == ["the pixels", "spp", "spp, whole image at 48"]
    assert found["the pixels"] == [100, 100]  # c is blue, d is red
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {
        "seen", "held_out", "trained", "first_weights", "features.h5", "found.json"
    }  # fmt: skip
    assert {p.name for p in (tmp_path / "runs" / "held_out" / "test").iterdir()} == {"c", "d"}
    monkeypatch.setattr("sys.argv", ["transfer.py", *argv, "--seen=3"])
    with pytest.raises(transfer.UsageError, match=r"--seen=3: .* has 4 classes; two at least"):
        transfer.main()
