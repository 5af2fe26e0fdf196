"""What several processes compile at the first start is what the first step needs."""

import os
import signal
import subprocess
import sys
import time

import numba
import numpy as np
import pytest

from convnet import ahead, kernel
from convnet.net import Net
from convnet.sgd import sgd_step
from tests.tooling import RATES, ROOT, TINY

FIRST = """
import gc
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from convnet import ahead
from convnet.engine import Ours
from convnet.net import Net
net = Net.from_cfg("net.cfg", classes=3)
if sys.argv[1] == "ahead":
    ahead.machine.cores = lambda: 2
    ahead.compile_kernels(net, 8)
images = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
Ours(net, 1).train(images, np.arange(8) % 3)
bodies = [b for b in gc.get_objects() if isinstance(b, Dispatcher)]
print("compiled here:", sum(sum(b.stats.cache_misses.values()) for b in bodies))
print("loaded:", sum(sum(b.stats.cache_hits.values()) for b in bodies))
"""


@pytest.fixture
def net(tmp_path):
    """A small net."""
    (tmp_path / "net.cfg").write_text(TINY + RATES)
    return Net.from_cfg(tmp_path / "net.cfg", classes=3, device="cpu:plain")


def test_the_first_step_finds_all_of_it(tmp_path):
    (tmp_path / "net.cfg").write_text(TINY + RATES)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def start(how: str) -> list[str]:
        argv = [sys.executable, "-c", FIRST, how]
        done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        return done.stdout.splitlines()

    said, compiled, loaded = start("ahead")
    n = int(loaded.split(": ")[1])
    assert compiled == "compiled here: 0"
    assert n > 3
    assert said == (
        f"compiling {n} kernels of the net in 2 processes; this takes a while, "
        "at the first start only"
    )
    assert start("ahead") == [compiled, loaded]  # nothing is said where nothing is to do
    assert start("plain") == [compiled, loaded]


def test_nothing_runs_while_calls_are_noted(net):
    x, inc, g = np.ones((3, 4), np.float32)
    args = 0.0, 1.0, 0.0, 1.0
    with kernel.noted() as calls:
        sgd_step[4](x, inc, g, *args)
    assert (x == 1).all() and [body for body, _ in calls] == [sgd_step.on_cpu]
    sgd_step[4](x, inc, g, *args)  # and now it does again
    assert not x.any()


def test_the_net_is_left_as_it_is(net):
    before = {name: w.copy() for name, w in net.own_weights().items()}
    step, threads = net.step, numba.get_num_threads()
    names = {body.py_func.__name__ for body, _ in ahead._step_kernels(net, 4)}
    assert "sgd_step" in names and "bins_max_back" in names
    assert net.step == step and numba.get_num_threads() == threads and not net.device.arena.taken
    for name, w in net.own_weights().items():
        assert np.array_equal(w, before[name])


def jobs(n: int = 3) -> list[ahead.Job]:
    """Kernels that nobody has."""
    return [ahead.Job("convnet.nothing", f"k{i}", ()) for i in range(n)]


def test_what_cannot_be_compiled_is_left(capfd):
    ahead._share(jobs(), 2)
    assert capfd.readouterr() == ("", "")


def test_processes_that_die_at_once(monkeypatch, capfd):
    monkeypatch.setattr(ahead.sys, "executable", "/bin/false")
    ahead._share(jobs(), 2)
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_leaves_no_process(monkeypatch):
    children = []

    class Started(subprocess.Popen):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            children.append(self)

    def join(thread):
        raise KeyboardInterrupt

    monkeypatch.setattr(ahead.subprocess, "Popen", Started)
    monkeypatch.setattr(ahead.threading.Thread, "join", join)
    with pytest.raises(KeyboardInterrupt):
        ahead._share(jobs(), 2)
    assert [c.returncode for c in children] == [-signal.SIGKILL] * 2


def test_a_process_ends_with_its_parent():
    with ahead._compiler() as child:
        child.stdin.close()
        until = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert child.returncode == 0


def test_one_core_compiles_by_itself(net, monkeypatch):
    said = []
    monkeypatch.setattr(ahead.machine, "cores", lambda: 1)
    monkeypatch.setattr(ahead.kernel, "on_disk", lambda *_: False)
    monkeypatch.setattr(ahead, "_share", lambda *_: pytest.fail("one core, several processes"))
    ahead.compile_kernels(net, 4, said.append)
    assert len(said) == 1 and "kernels of the net; this takes a while" in said[0]


def test_no_folder_for_a_cache(net, monkeypatch):
    said = []
    monkeypatch.setattr(ahead.kernel, "on_disk", lambda *_: None)
    ahead.compile_kernels(net, 4, said.append)
    assert len(said) == 1 and "at each start" in said[0] and "NUMBA_CACHE_DIR" in said[0]


def test_without_a_cache_none_is_asked():
    assert kernel.on_disk(numba.njit(lambda x: x), ()) is None
