"""A run as a whole: the same bits again and after a resume, signals, full disks, NaN, updates."""

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numba
import numpy as np
import pytest

from convnet import cli, files, given, gradcheck, runfolder
from convnet.checkpoint import CheckpointError, load
from convnet.engine import Ours
from convnet.loader import DataError
from convnet.net import Net
from convnet.providers import Provider
from convnet.providers.digits import Digits
from convnet.report import Report
from convnet.schedule import schedule
from convnet.sgd import Sgd
from convnet.train import Run
from tests.tooling import ROOT, call, commands, environment, metrics, photos, spawn, tiny

BATCHES = 6  # of an epoch of 1,437 digits, 256 at a time
OPTIONS = ("--minibatch=256", "--epochs=2", "--test-freq=4", "--keep=99")
NAMES = ["1.4.h5", "1.6.h5", "2.2.h5", "2.6.h5"]
LOSSES = [4.477761, 3.682997, 2.920494, 2.599241, 2.481046, 2.495755,
          2.325841, 2.359846, 2.411257, 2.360219]  # fmt: skip


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("cfg"))


@pytest.fixture(scope="module")
def whole(cfg, tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert call("train", f"--layer-def={cfg}", *OPTIONS, f"--save-path={folder}").code == 0
    return folder


def copy(whole, folder, upto):
    """The folder as it was when the checkpoint `upto` had been written."""
    shutil.copytree(whole, folder)
    for name in NAMES[NAMES.index(upto) + 1 :]:
        (folder / name).unlink()
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.h5"))}


def kill_at(monkeypatch, step, number, what="batch", times=1):
    """Send ourselves a signal as soon as this step is done."""
    original = getattr(Report, what)

    def report(self, *args):
        original(self, *args)
        if self.run.net.step == step:
            for _ in range(times):
                os.kill(os.getpid(), number)

    monkeypatch.setattr(Report, what, report)


# ---------------------------------------------------------------- the same bits


def test_a_second_run_has_the_same_bits(whole, cfg, tmp_path):
    call("train", f"--layer-def={cfg}", *OPTIONS, f"--save-path={tmp_path}")
    assert list(contents(whole)) and contents(tmp_path) == contents(whole)
    assert metrics(tmp_path) == metrics(whole)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_resume_has_the_same_bits(whole, tmp_path, name):
    folder = copy(whole, tmp_path / "run", name)
    result = call("train", f"--resume={folder}")
    assert result.code == 0 and result.err == ""
    assert contents(folder) == contents(whole)
    assert metrics(folder) == metrics(whole)


def test_resume_in_a_process_of_its_own(whole, tmp_path):
    folder = copy(whole, tmp_path / "run", "1.4.h5")
    result = spawn("train", f"--resume={folder}", cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    assert "going on after 1.4 (33.33%)" in result.out
    assert contents(folder) == contents(whole)
    assert metrics(folder) == metrics(whole)


def test_resume_with_other_workers(tmp_path):
    """Photographs come from worker processes; their number changes no bit."""
    cfg, data = tiny(tmp_path), photos(tmp_path / "photos")
    argv = (f"--data-path={data}", "--minibatch=4", "--test-freq=2", "--keep=99")
    one, two = tmp_path / "one", tmp_path / "two"
    call("train", f"--layer-def={cfg}", *argv, "--epochs=2", "--workers=0", f"--save-path={one}")
    two.mkdir()
    shutil.copy(one / "1.4.h5", two)
    assert call("train", f"--resume={two}", "--workers=2").code == 0
    a, b = (load(runfolder.newest(folder)) for folder in (one, two))
    for group, arrays in a.arrays.items():
        for name, array in arrays.items():
            assert array.tobytes() == b.arrays[group][name].tobytes(), (group, name)
    assert metrics(one)[-1] == metrics(two)[-1]


def test_another_seed_has_other_bits(whole, cfg, tmp_path):
    argv = (f"--layer-def={cfg}", "--minibatch=256", "--epochs=1", f"--save-path={tmp_path}")
    call("train", *argv, "--seed=1")
    first, other = metrics(whole)[0], metrics(tmp_path)[0]
    assert first["step"] == other["step"] and first["logprob"] != other["logprob"]


def test_an_older_checkpoint_goes_on_and_newer_ones_are_kept(whole, tmp_path):
    folder = copy(whole, tmp_path / "run", "2.6.h5")
    result = call("train", f"--resume={folder / '1.4.h5'}", "--keep=1", "--test-freq=1")
    assert result.code == 0
    assert result.err.count("is newer than") == 3
    assert sorted(contents(folder)) == ["2.6.h5"]
    assert (folder / "2.6.h5.old").read_bytes() == (whole / "2.6.h5").read_bytes()
    assert load(folder / "2.6.h5").arrays["weights"].keys()


def test_a_damaged_checkpoint_is_passed_over_and_never_kept_for_a_good_one(whole, tmp_path):
    folder = copy(whole, tmp_path / "run", "1.6.h5")
    (folder / "1.6.h5").write_bytes((folder / "1.6.h5").read_bytes()[:-1])
    result = call("train", f"--resume={folder}", "--keep=1")
    assert result.code == 0
    assert re.search(r"1\.6\.h5: is \d+ bytes long but was written with", result.err)
    assert list(contents(folder)) == ["2.6.h5"]


def test_metrics_survive_a_torn_line(whole, tmp_path):
    folder = copy(whole, tmp_path / "run", "1.6.h5")
    text = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(text[: text.index(b'{"step": 8') + 20])
    result = call("train", f"--resume={folder}")
    assert (result.code, result.err) == (0, "")
    assert metrics(folder) == metrics(whole)


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON\n",
        b"two\nlines\n",
        b"\n",
        b'{"step": 3}\n',
        b'{"step": 3, "epoch": 1, "batch": "3", "logprob": 1.0}\n',
        b'{"step": 3, "epoch": 1, "batch": 3, "logprob": NaN}\n',
        b'{"step": 3, "epoch": 1, "batch": 3, "logprob": 1' + b"0" * 400 + b"}\n",
        b'{"step": 3, "epoch": 1, "batch": 3, "test": {"logprob": 1.0}, "rates": [1]}\n',
        b'{"step": 3, "epoch": 1, "batch": 3, "test": {"logprob": 1.0}, "rates": {"epsW": "x"}}\n',
        b'{"step": 3, "epoch": 1, "batch": 3, "logprob": 1e308, "images": 128}\n',
        b'{"step": 3, "epoch": 1, "batch": 3, "logprob": 1.0, "images": 0}\n',
        b'{"step": 3, "epoch": 1, "batch": 3, "logprob": 1.0, "seconds": -1.0}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_row_of_metrics_that_is_none_is_told_of(whole, tmp_path, line):
    folder = copy(whole, tmp_path / "run", "1.6.h5")
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line, *lines[3:]]))
    result = call("train", f"--resume={folder}")
    assert result.code == 0
    more = ", and 1 more of the kind" if line.count(b"\n") > 1 else ""
    told = (
        rf"note: {re.escape(str(path))}:3: (is|has|tells|does) .*, so is no row of a run; taken out"
    )
    assert re.fullmatch(f"{told}{more}\n", result.err)
    rows = metrics(whole)
    assert metrics(folder) == rows[:2] + rows[3:]


def test_results_that_cannot_be_written(whole, tmp_path):
    folder = copy(whole, tmp_path / "run", "1.6.h5")
    (folder / "results.csv").unlink(missing_ok=True)
    (folder / "results.csv").mkdir()
    result = call("train", f"--resume={folder}")
    assert (result.code, result.err.count("\n")) == (5, 1)
    assert result.err.startswith(f"{folder / 'results.csv'}: ")


def test_resume_at_the_end(whole, tmp_path):
    folder = copy(whole, tmp_path / "run", "2.6.h5")
    before = contents(folder)
    result = call("train", f"--resume={folder}")
    assert result.code == 0 and contents(folder) == before
    assert result.out.splitlines()[-1].startswith("nothing to do: 2 epochs of 2 are trained; --res")
    assert call("train", f"--resume={folder}", "--epochs=3").code == 0
    assert load(runfolder.newest(folder)).meta["step"] == 3 * BATCHES


def test_ten_losses(cfg, tmp_path):
    call("train", f"--layer-def={cfg}", "--epochs=1", "--minibatch=128", f"--save-path={tmp_path}")
    losses = [row["logprob"] for row in metrics(tmp_path) if "test" not in row][:10]
    np.testing.assert_allclose(losses, LOSSES, rtol=0, atol=1e-4)


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("step", "number", "saved"),
    [(3, signal.SIGINT, "1.3.h5"), (4, signal.SIGTERM, "1.4.h5"), (6, signal.SIGINT, "1.6.h5"),
     (12, signal.SIGTERM, "2.6.h5")],
)  # fmt: skip
def test_a_signal_saves(whole, cfg, tmp_path, monkeypatch, capfd, step, number, saved):
    """In the middle of an epoch, where a test is due, at the end of an epoch and of the run."""
    with monkeypatch.context() as patch:
        kill_at(patch, step, number)
        result = call("train", f"--layer-def={cfg}", *OPTIONS, f"--save-path={tmp_path}")
    assert result.code == 128 + number
    assert result.out.splitlines()[-1] == (
        f"stopped; go on with: {cli.command('train', f'--resume={tmp_path}')}"
    )
    assert capfd.readouterr().err.strip().splitlines()[-1].startswith("stopping after this batch")
    assert runfolder.newest(tmp_path).name == saved
    before = contents(tmp_path)
    assert call("train", f"--resume={tmp_path}").code == 0
    if step < 2 * BATCHES:
        assert (tmp_path / "2.6.h5").read_bytes() == (whole / "2.6.h5").read_bytes()
    else:  # all that was left to do is the test
        assert contents(tmp_path) == before
    assert metrics(tmp_path) == metrics(whole)


def test_a_signal_cuts_a_test_short(whole, cfg, tmp_path, monkeypatch):
    original, asked = Provider.batches, []

    def batches(self, split, *args, **more):
        for batch in original(self, split, *args, **more):
            yield batch
            if split == "test" and not asked:
                asked.append(os.kill(os.getpid(), signal.SIGINT))

    monkeypatch.setattr(Provider, "batches", batches)
    result = call("train", f"--layer-def={cfg}", *OPTIONS, f"--save-path={tmp_path}")
    assert result.code == 130 and "test output" not in result.out
    assert call("train", f"--resume={tmp_path}").code == 0
    assert metrics(tmp_path) == metrics(whole)


def test_a_second_signal_stops_at_once(cfg, tmp_path, monkeypatch):
    kill_at(monkeypatch, 2, signal.SIGTERM, times=2)
    result = call("train", f"--layer-def={cfg}", *OPTIONS, f"--save-path={tmp_path}")
    assert result.code == 143
    assert not contents(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


WAITS = """
import sys
from convnet import cli
from convnet.report import Report
from tools.train import main

batch = Report.batch

def told(self, *args):
    batch(self, *args)
    sys.stdin.read()

Report.batch = told
sys.exit(cli.run(main))
"""


def test_a_signal_to_the_tool(whole, cfg, tmp_path):
    """From another process, for which it waits after the first batch: it may be the slower one."""
    folder = tmp_path / "run"
    argv = [sys.executable, "-W", "error", "-c", WAITS, f"--layer-def={cfg}", *OPTIONS]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(
        [*argv, f"--save-path={folder}"], env=environment(), text=True, **pipes
    ) as process:
        for line in process.stdout:
            if line.startswith("1.1 "):
                process.send_signal(signal.SIGTERM)
                process.stdin.close()
        assert process.wait(60) == 143
        assert process.stderr.read().strip().startswith("stopping after this batch")
    assert runfolder.newest(folder).name == "1.1.h5"
    assert call("train", f"--resume={folder}").code == 0
    assert (folder / "2.6.h5").read_bytes() == (whole / "2.6.h5").read_bytes()


def test_killed_at_random_moments():
    """What docs/results.md shows, with 50 kills there."""
    ((_, script, *argv),) = commands("docs/results.md", "benchmarks/kill9.py")
    argv = [sys.executable, str(ROOT / script), *argv, "--kills=2"]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 kills")


# ---------------------------------------------------------------- numbers that run away


def diverges(folder, *argv):
    """Exit 4 with one line, and no checkpoint touched; the line."""
    before = contents(folder)
    result = call("train", f"--resume={folder}", *argv)
    assert result.code == 4 and result.err.count("\n") == 1, result
    assert contents(folder) == before
    return result.err


def poison(monkeypatch, weight, value, after=False):
    """Put a value into a weight before, or right after, the step from 4 to 5."""
    original, (layer, name) = Run._step, weight.split("/")

    def step(self, batch):
        values = original(self, batch) if after else None
        if self.net.step == 4 + after:
            self.net.weights[layer][name][..., 0] = value
        return values or original(self, batch)

    monkeypatch.setattr(Run, "_step", step)


@pytest.mark.parametrize("weight", ["conv1/W0", "fc2/W0"])
def test_a_huge_weight(whole, tmp_path, monkeypatch, weight):
    folder = copy(whole, tmp_path / "run", "1.4.h5")
    poison(monkeypatch, weight, 1e30)
    line = diverges(folder)
    assert re.match(r"epoch 1, batch 5: .*(conv1|spp|fc1|fc2|logprob)", line), line
    assert f"the last good checkpoint is {folder / '1.4.h5'}" in line


def test_a_huge_rate(whole, tmp_path):
    folder = copy(whole, tmp_path / "run", "1.4.h5")
    line = diverges(folder, "--set", "DEFAULT.epsW=1e9", "--epochs=9")
    assert re.match(r"epoch \d, batch \d: .*(conv1|spp|fc1|fc2|logprob)", line), line


@pytest.mark.parametrize("value", [1e30, np.inf, np.nan])
def test_nothing_that_has_run_away_is_saved(whole, tmp_path, monkeypatch, value):
    poison(monkeypatch, "fc2/W0", value, after=True)
    line = diverges(copy(whole, tmp_path / "run", "1.4.h5"), "--test-freq=1")
    assert line == "fc2/W0 is not finite; nothing saved. Try a smaller epsW\n"


def test_nan_in_an_image(whole, tmp_path, monkeypatch):
    original = Digits._read

    def read(self, split, jobs):
        for raw, bad in original(self, split, jobs):
            raw = raw.astype(np.float32)
            raw[3, 2, 2] = np.nan
            yield raw, bad

    monkeypatch.setattr(Digits, "_read", read)
    line = diverges(copy(whole, tmp_path / "run", "1.4.h5"))
    assert line.startswith("epoch 1, batch 5: ") and "the images are not finite" in line


def test_nan_in_a_weight(whole, tmp_path, monkeypatch):
    poison(monkeypatch, "conv1/b", np.nan)
    line = diverges(copy(whole, tmp_path / "run", "1.4.h5"))
    assert line.startswith("epoch 1, batch 5: ") and "weights conv1/b are not finite" in line


# ---------------------------------------------------------------- disks


@pytest.mark.parametrize("limit", [2000, 20_000])
def test_a_full_disk(whole, tmp_path, limit):
    """A limit on the size of a file: on metrics.jsonl, and on a checkpoint."""
    folder = copy(whole, tmp_path / "run", "1.4.h5")
    if limit > 10_000:
        (folder / "metrics.jsonl").unlink()
    before = contents(folder)
    lower = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    result = spawn("train", f"--resume={folder}", preexec_fn=lower)
    assert result.code == 5
    assert result.err.count("\n") == 1 and "ulimit -f" in result.err
    assert contents(folder) == before and not list(files.leftovers(folder))
    assert call("train", f"--resume={folder}").code == 0
    assert contents(folder) == contents(whole)


def test_a_folder_that_cannot_be_written(whole, tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    folder = copy(whole, tmp_path / "run", "1.4.h5")
    before = contents(folder)
    monkeypatch.setattr(files.os, "replace", refuse)
    result = call("train", f"--resume={folder}")
    assert result.code == 5 and result.err.count("\n") == 1
    assert "Permission denied; get the right to write into its folder" in result.err
    assert contents(folder) == before


# ---------------------------------------------------------------- data on the way


def test_data_that_ends_on_the_way_loses_nothing(whole, cfg, tmp_path, monkeypatch):
    original = Provider.batches

    def batches(self, *args, **more):
        for batch in original(self, *args, **more):
            if batch.number == 3:
                raise DataError("a loader process (pid 7) died: signal 9")
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(Provider, "batches", batches)
        result = call("train", f"--layer-def={cfg}", *OPTIONS, f"--save-path={tmp_path}")
    assert (result.code, result.err) == (3, "a loader process (pid 7) died: signal 9\n")
    assert list(contents(tmp_path)) == ["1.3.h5"]
    assert call("train", f"--resume={tmp_path}").code == 0
    assert (tmp_path / "2.6.h5").read_bytes() == (whole / "2.6.h5").read_bytes()


def test_an_epoch_whose_last_batch_is_all_bad(tmp_path):
    data, seen = photos(tmp_path / "photos", each=5), []
    for path in sorted(data.glob("*/*.jpg"))[:2]:
        path.write_bytes(path.read_bytes()[:500])
        seen.append(path.name)
    argv = ("--minibatch=1", "--epochs=2", "--workers=0", "--keep=9")
    folder = tmp_path / "run"
    result = call("train", f"--layer-def={tiny(tmp_path)}", f"--data-path={data}", *argv,
                  f"--save-path={folder}")  # fmt: skip
    assert result.code == 0, result.err
    batches = load(runfolder.newest(folder)).meta["batches"]
    assert list(contents(folder)) == [f"1.{batches}.h5", f"2.{batches}.h5"]
    assert [row["epoch"] for row in metrics(folder) if "test" in row] == [1, 2]


# ---------------------------------------------------------------- the update


def test_updates_by_hand(cfg):
    """Against cuda-convnet's rule: schedules by progress, decay times the rate, biases without."""
    net = Net.from_cfg(cfg, classes=10, channels=1)
    sgd, rng = Sgd(net), np.random.default_rng(0)
    eps = {"W0": schedule("linear[base=0.01;tgtFactor=10]"), "b": schedule("0.01")}
    mom, wc = {"W0": 0.9, "b": 0.8}, {"W0": 0.001, "b": 0}
    w = {k: a.astype(np.float64) for k, a in net.own_weights().items()}
    inc = {k: np.zeros_like(a) for k, a in w.items()}
    for cases, progress in [(32, 0.0), (32, 0.3), (7, 0.6), (32, 1.0)]:
        given = {}
        for k in w:
            layer, name = k.split("/")
            g = rng.normal(size=w[k].shape)
            given[layer, name] = g.astype(np.float32)
            rate = eps[name](progress)
            inc[k] = mom[name] * inc[k] - rate * (g / cases + wc[name] * w[k])
            w[k] += inc[k]
        sgd.update(given, cases, progress)
    for k, a in net.own_weights().items():
        np.testing.assert_allclose(a, w[k], rtol=2e-6, atol=1e-8, err_msg=k)
        np.testing.assert_allclose(sgd.momenta[k], inc[k], rtol=2e-5, atol=1e-9, err_msg=k)


def test_what_the_loop_hands_to_the_update(cfg, tmp_path, monkeypatch):
    """Each batch its own cases, a short last one too, and the progress before the update."""
    seen = []
    monkeypatch.setattr("convnet.session.compile_kernels", lambda *_: None)  # takes a step too
    monkeypatch.setattr(
        Sgd, "update", lambda self, g, cases, progress, net: seen.append((cases, progress))
    )
    call("train", f"--layer-def={cfg}", "--minibatch=500", "--epochs=2", f"--save-path={tmp_path}")
    assert [cases for cases, _ in seen] == [500, 500, 437] * 2
    assert [progress for _, progress in seen] == pytest.approx([i / 6 for i in range(6)])


def test_a_rate_from_the_command_line_wins_over_the_params_file(cfg):
    net = Net.from_cfg(cfg, classes=10, channels=1, overrides=["conv1.epsW=0.5"])
    rates = {l.name: net.graph.asked(l)["W0"].eps for l in net.layers if net.graph.asked(l)}
    assert rates["conv1"] == schedule("0.5")
    assert rates["fc1"] == rates["fc2"] == schedule("linear[base=0.01;tgtFactor=10]")


@pytest.mark.parametrize("name", ["spp_small", "cifar10", "cifar10_spp"])
def test_gradients_of_the_small_nets(name):
    result = call("check", f"--layer-def={ROOT}/layer_configs/{name}.cfg", "--grad")
    errors = re.findall(r"^\S+/\w+ +\S+ +\S+ +(\S+)$", result.out, re.M)
    assert len(errors) >= 8 and max(map(float, errors)) <= 1e-6


def test_gradients_of_the_tiny_net(cfg):
    gaps = _gaps(Net.from_cfg(cfg, classes=10, channels=1))
    assert len(gaps) == 2 + 2 + 2 and max(gap.error for gap in gaps) < 1e-6


def test_a_gradient_that_is_one_percent_wrong_is_caught(cfg, monkeypatch):
    original = Net.bprop

    def bprop(self, *args):
        found = original(self, *args)
        found["fc1", "W0"] = found["fc1", "W0"] * 1.01
        return found

    monkeypatch.setattr(Net, "bprop", bprop)
    wrong = [gap for gap in _gaps(Net.from_cfg(cfg, classes=10, channels=1)) if gap.error > 1e-4]
    assert [gap.name for gap in wrong] == ["fc1/W0"]
    assert wrong[0].error == pytest.approx(0.01, rel=0.05)


def _gaps(net):
    rng = np.random.default_rng(1)
    images = rng.normal(0, 1, (3, *net.graph.shapes["data"]))
    return gradcheck.check(net, images, rng.integers(0, 10, 3))


# ---------------------------------------------------------------- memory


def test_a_step_takes_no_new_memory(cfg, tmp_path, monkeypatch):
    """After the first steps at a shape nothing more comes from the system."""
    taken, fresh, original = [], [], Run._step

    def step(self, batch):
        if len(taken) == 3:
            tracemalloc.start()
        if tracemalloc.is_tracing():
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
        values = original(self, batch)
        if tracemalloc.is_tracing():
            fresh.append(tracemalloc.get_traced_memory()[1] - before)
        taken.append(self.net.device.arena.taken)
        return values

    monkeypatch.setattr(Run, "_step", step)
    try:
        call(
            "train",
            f"--layer-def={cfg}",
            "--minibatch=143",
            "--epochs=1",
            f"--save-path={tmp_path}",
        )
    finally:
        tracemalloc.stop()
    assert len(taken) == 11 and len(set(taken[3:10])) == 1
    conv1 = 143 * 16 * 16 * 6 * 4  # bytes of its output
    assert max(fresh[1:7]) < conv1 / 4, fresh


def test_a_net_of_which_nothing_learns(tmp_path):
    """It is run, and nothing is updated."""
    frozen = ("DEFAULT.epsW=0", "DEFAULT.epsB=0")
    net = Net.from_cfg(tiny(tmp_path), overrides=frozen, classes=10)
    before = {k: w.copy() for k, w in net.own_weights().items()}
    images = np.random.default_rng(0).normal(0, 60, (4, 16, 16, 3)).astype(np.float32)
    assert np.isfinite(Ours(net, numba.get_num_threads()).train(images, np.arange(4)))
    for name, w in net.own_weights().items():
        np.testing.assert_array_equal(w, before[name], name)


def test_runs_that_begin_at_one_instant_have_folders_of_their_own(tmp_path, monkeypatch):
    """Also beside a link that leads nowhere; what cannot be made is told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a_002").symlink_to("gone")
    with ThreadPoolExecutor(8) as pool:
        folders = [*pool.map(lambda _: given.new_folder(None, "x/a.cfg"), range(40))]
    assert len({*folders}) == 40 and Path("runs/a_002") not in folders
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    Path("runs").symlink_to("gone")
    with pytest.raises(CheckpointError, match="runs/a_001: cannot be made, "):
        given.new_folder(None, "a.cfg")
