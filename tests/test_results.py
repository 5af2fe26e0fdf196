"""results.csv and the event files of TensorBoard: the numbers of metrics.jsonl, also resumed."""

import csv
import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from convnet.results import Table
from convnet.sgd import rates_at
from convnet.source import Source
from tests.tooling import call, tiny

OPTIONS = ("--minibatch=256", "--epochs=2", "--test-freq=4", "--keep=99", "--tensorboard")
TIMES = ("seconds", "images/s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of 2 x 6 batches, tested after 4, 6, 8 and 12 of them."""
    pytest.importorskip("tensorboardX")
    folder = tmp_path_factory.mktemp("whole")
    argv = (f"--layer-def={tiny(folder)}", f"--save-path={folder / 'run'}")
    assert call("train", *argv, *OPTIONS).code == 0
    return folder / "run"


def table(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_rows_are_means_of_metrics(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    batches = [row for row in rows if "test" not in row]
    found = table(whole)
    assert [(row["epoch"], row["batch"], row["step"]) for row in found] == [
        ("1", "4", "4"), ("1", "6", "6"), ("2", "2", "8"), ("2", "6", "12")
    ]  # fmt: skip
    assert batches[5]["images"] == 1437 - 5 * 256
    for row, some in zip(found, (slice(0, 4), slice(4, 6), slice(6, 8), slice(8, 12))):
        images = [b["images"] for b in batches[some]]
        for name in ("logprob", "logprob.error"):
            mean = np.average([b[name] for b in batches[some]], weights=images)
            assert float(row[f"train {name}"]) == pytest.approx(mean, rel=1e-5)
        seconds = sum(b["seconds"] for b in batches[some])
        assert float(row["seconds"]) == pytest.approx(seconds, abs=2e-3)
        assert float(row["images/s"]) == pytest.approx(sum(images) / seconds, rel=1e-3)
    tests = [row["test"] for row in rows if "test" in row]
    for row, test in zip(found, tests):
        assert float(row["test logprob.error"]) == pytest.approx(test["logprob.error"], rel=1e-5)


def test_rates(whole, tmp_path):
    """linear[base=0.01;tgtFactor=10] after 1/3, 1/2, 2/3 and all of the batches."""
    found = table(whole)
    assert [float(row["epsW"]) for row in found] == pytest.approx([0.007, 0.0055, 0.004, 0.001])
    assert {row["epsB"] for row in found} == {"0.01"}
    cfg = tiny(tmp_path)
    graph = Source.read(cfg, None, ("fc1.epsB=0.5",)).graph({0: (16, 16, 1)}, 10)
    rates = rates_at(graph, 1)
    assert rates["epsW"] == pytest.approx(0.001)
    each = {"epsB conv1/b": 0.01, "epsB fc1/b": 0.5, "epsB fc2/b": 0.01}
    assert {k: v for k, v in rates.items() if k != "epsW"} == each


@pytest.mark.parametrize("left", ["whole", "none", "torn"])
def test_resumed_it_is_the_same(whole, tmp_path, left):
    for path in whole.iterdir():
        if path.name not in ("1.6.h5", "2.2.h5", "2.6.h5"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    if left == "torn":
        (tmp_path / "results.csv").write_text("epoch,bat")
    elif left == "none":
        (tmp_path / "results.csv").unlink()
    assert call("train", f"--resume={tmp_path}").code == 0
    assert without_times(table(tmp_path)) == without_times(table(whole))
    assert not list(tmp_path.glob(".*.part"))


def test_rows_of_older_versions():
    """No images, no rates: each batch counts alike, and no speed is made up."""
    batch = {"step": 1, "epoch": 1, "batch": 1, "seconds": 0.5, "images_per_s": 8.0}
    rows = [batch | {"cost": 1.0}, batch | {"step": 2, "cost": 2.0}]
    made = Table([*rows, {"step": 2, "epoch": 1, "batch": 2, "test": {"cost": 3.0}}])
    assert made.rows == [
        {"epoch": 1, "batch": 2, "step": 2, "train cost": "1.5", "test cost": "3", "seconds": 1.0}
    ]
    assert made.csv() == b"epoch,batch,step,train cost,test cost,seconds\r\n1,2,2,1.5,3,1.0\r\n"


@pytest.mark.parametrize("name", ["step", "images", "test", "rates"])
def test_a_cost_with_the_name_of_another_field(tmp_path, name):
    cfg = tiny(tmp_path)
    cfg.write_text(cfg.read_text().replace("[logprob]", f"[{name}]"))
    line = cfg.read_text().splitlines().index(f"[{name}]") + 1
    result = call("train", f"--layer-def={cfg}", f"--save-path={tmp_path / 'run'}")
    why = "metrics.jsonl has a field of this name; a cost needs another"
    assert (result.code, result.err) == (2, f"{cfg}:{line}: [{name}] {why}\n")
    assert not (tmp_path / "run").exists()


def test_a_cost_with_the_name_of_a_value_of_another(tmp_path):
    cfg = tiny(tmp_path)
    last = cfg.read_text().partition("[logprob]")[2]
    cfg.write_text(f"{cfg.read_text()}\n[logprob.error]{last}")
    result = call("train", f"--layer-def={cfg}", f"--save-path={tmp_path / 'run'}")
    assert result.code == 2 and ": [logprob.error] metrics.jsonl has a field" in result.err


# ---------------------------------------------------------------- TensorBoard


def events(folder):
    """All events of a folder in the order of its files, read as TFRecords."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.*")):  # as TensorBoard orders them
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = struct.unpack_from("<Q", data, at)[0]
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def kept(folder):
    """{tag: {step: value}} as TensorBoard keeps it: what a restart purges is gone."""
    scalars = {}
    for event in events(folder):
        if event.session_log.status == 1:  # START
            for steps in scalars.values():
                for step in [step for step in steps if step >= event.step]:
                    del steps[step]
        for value in event.summary.value:
            steps = scalars.setdefault(value.tag, {})
            assert event.step not in steps, "a step is told twice"
            steps[event.step] = value.simple_value
    return scalars


def test_tensorboard_has_what_metrics_have(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    found = kept(whole)
    assert set(found) == {"train/logprob", "train/logprob.error", "test/logprob", "rate/epsB",
                          "test/logprob.error", "rate/epsW", "speed/images_per_s",
                          "filters"}  # fmt: skip
    told = {row["step"]: row["logprob"] for row in rows if "test" not in row}
    assert found["train/logprob"] == pytest.approx(told, rel=1e-6)
    told = {row["step"]: row["test"]["logprob.error"] for row in rows if "test" in row}
    assert found["test/logprob.error"] == pytest.approx(told, rel=1e-6)
    assert list(found["filters"]) == [4, 6, 8, 12]


@pytest.mark.parametrize("clock", ["true", "stopped"])
def test_tensorboard_after_a_resume(whole, tmp_path, monkeypatch, clock):
    """The run goes on with it, and steps that are trained again are not told twice.

    Also within one second: that is all that tensorboardX tells its files apart by.
    """
    if clock == "stopped":
        from tensorboardX import event_file_writer

        began = int(next(whole.glob("events.out.*")).name.split(".")[3])
        stopped = SimpleNamespace(time=lambda: began + 0.5)
        monkeypatch.setattr(event_file_writer, "time", stopped)
    for path in whole.iterdir():
        if path.name not in ("1.6.h5", "2.2.h5", "2.6.h5"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert call("train", f"--resume={tmp_path}").code == 0
    assert len(list(tmp_path.glob("events.out.*"))) == 2
    found, before = kept(tmp_path), kept(whole)
    assert found["train/logprob"] == before["train/logprob"]
    assert found["test/logprob"] == before["test/logprob"]
    more = f"--resume={tmp_path}"
    assert call("train", more, "--epochs=3", "--tensorboard=no").code == 0
    assert len(list(tmp_path.glob("events.out.*"))) == 2
    assert call("train", more, "--epochs=4", "--tensorboard").code == 0
    assert len(list(tmp_path.glob("events.out.*"))) == 3
    assert list(kept(tmp_path)["train/logprob"]) == [*range(1, 13), *range(19, 25)]


def test_without_tensorboardx(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    folder = tmp_path / "run"
    argv = (f"--layer-def={tiny(tmp_path)}", f"--save-path={folder}", "--tensorboard")
    result = call("train", *argv)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("--tensorboard: needs tensorboardX: python -m pip install")
    assert not folder.exists()
