"""convnet/loader.py: the same views with any number of processes, and no hang when one dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convnet.loader import FEW, PATIENCE, PIECE, BadImage, DataError, Loader, default_workers
from tests.tooling import environment

SHAPE = (3, 3, 2)


def view(item, draw):
    """What a worker is to make of an item."""
    if item == "mistake":
        raise ZeroDivisionError("by zero")
    if item % 10 == 7:
        raise BadImage(f"{item} is bad")
    return np.full(SHAPE, item % 251, np.uint8) + np.uint8(0 if draw is None else draw)


def slow(item, draw):
    """A view that takes a while."""
    time.sleep(0.02)
    return view(item, draw)


def odd(item, draw):
    """A view that is a list of arrays of any sizes."""
    return [view(item, draw)[: item % 4, 1:], np.full(item * 1000, item % 251, np.uint8)]


def pieces(n, start=0):
    return [[(i * PIECE + j + start, 1) for j in range(PIECE)] for i in range(n)]


def collect(run):
    return [(images.copy(), bad) for images, bad in run]


@pytest.fixture(scope="module")
def two():
    with Loader(view, SHAPE, 2) as loader:
        yield loader


def same(a, b):
    assert len(a) == len(b)
    for (images, bad), (others, ills) in zip(a, b):
        assert np.array_equal(images, others) and bad == ills


def test_workers_change_nothing(two):
    work = [*pieces(40), [(5, None)], []]
    here = collect(Loader(view, SHAPE, 0).run(work))
    same(here, collect(two.run(work)))
    assert len(here[-2][0]) == 1 and len(here[-1][0]) == 0
    assert here[0][1] == {7: "7 is bad"} and not here[0][0][7].any()


def test_runs_at_the_same_time_and_left_early(two):
    first, second, third = (two.run(pieces(30, s)) for s in (0, 1000, 2000))
    expected = [collect(Loader(view, SHAPE, 0).run(pieces(30, s))) for s in (0, 1000, 2000)]
    for i in range(20):
        for run, right in zip((first, second, third), expected):
            images, bad = next(run)
            same([(images, bad)], [right[i]])
    first.close()
    second.close()
    same(expected[1], collect(two.run(pieces(30, 1000))))
    same(expected[2][20:], collect(third))


@pytest.mark.parametrize("workers", [0, 2])
def test_views_of_any_kind(workers):
    """Some of them larger than what a pipe holds, and more of them under way than are asked for."""
    work = [[(4 * i + j, 1) for j in range(FEW)] for i in range(40)] + [[(5, None)], []]
    with Loader(odd, None, workers) as loader:
        run = loader.run(work)
        for piece, (made, bad) in zip(work, run, strict=True):
            assert len(made) == len(piece)
            assert bad == {n: f"{i} is bad" for n, (i, _) in enumerate(piece) if i % 10 == 7}
            for n, (item, draw) in enumerate(piece):
                if n not in bad:
                    assert all(map(np.array_equal, made[n], odd(item, draw)))
        if workers:
            os.kill(loader.processes[1].pid, signal.SIGKILL)
            with pytest.raises(DataError, match=r"a loader process \(pid \d+\) died: signal 9"):
                list(loader.run(work))


def test_a_mistake_in_view_is_raised(two):
    with pytest.raises(RuntimeError, match="ZeroDivisionError in a loader process: by zero"):
        collect(two.run([[("mistake", None)]]))
    assert len(collect(two.run(pieces(2)))) == 2


def test_workers_do_not_hear_ctrl_c(two):
    for process in two.processes:
        os.kill(process.pid, signal.SIGINT)
    assert len(collect(two.run(pieces(3)))) == 3


FRESH = """
import os
import signal
from convnet.loader import Loader
from tests.test_loader import SHAPE, collect, pieces, view

if __name__ == "__main__":
    with Loader(view, SHAPE, 2) as loader:
        for process in loader.processes:
            os.kill(process.pid, signal.SIGINT)
        print(len(collect(loader.run(pieces(3)))))
"""


def test_nor_while_they_start(tmp_path):
    """Also the first process that is ever started: with it multiprocessing starts one of its own,
    and lets go of all signals after that."""
    (tmp_path / "script.py").write_text(FRESH)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], env=environment(),
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_a_killed_worker_ends_the_run_at_once():
    with Loader(slow, SHAPE, 2) as loader:
        run = loader.run(pieces(100))
        next(run)
        victim, other = loader.processes
        os.kill(victim.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(DataError, match=rf"pid {victim.pid}\) died: signal 9; out of memory"):
            collect(run)
        assert time.monotonic() - started < PATIENCE / 2
        assert not other.is_alive()
        with pytest.raises(DataError, match="the loader processes have ended"):
            collect(loader.run(pieces(1)))


def test_workers_end_with_a_loader_that_is_forgotten():
    loader = Loader(view, SHAPE, 1)
    collect(loader.run(pieces(1)))
    (process,) = loader.processes
    del loader
    assert not process.is_alive()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm on this system")
def test_no_shared_memory_has_a_name(two):
    """None of this process: others may be about to take theirs away."""
    assert not list(Path("/dev/shm").glob(f"pym-{os.getpid()}-*"))


def test_default_workers():
    assert 1 <= default_workers() <= 4


SCRIPT = """
import signal
import time
from convnet.loader import Loader
from tests.test_loader import SHAPE, pieces, slow

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
    with Loader(slow, SHAPE, 2) as loader:
        run = loader.run(pieces(10_000))
        next(run)
        print(*(process.pid for process in loader.processes), flush=True)
        for _ in run:
            pass
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path, how):
    (tmp_path / "script.py").write_text(SCRIPT)
    root = Path(__file__).parents[1]
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)  # as a terminal does: all of them
        else:
            parent.send_signal(how)
        _, err = parent.communicate(timeout=60)
    assert len(pids) == 2 and err.count("Traceback") == (how == signal.SIGINT)
    end = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid):
    """Whether the process runs; one that ended and that nobody asked after does not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_without_shared_memory():
    """A file may not become so large, as with ulimit -f or where the disk of memory is full."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    code += "from convnet.loader import DataError, Loader\nfrom tests.test_loader import view\n"
    code += "try:\n    Loader(view, (99, 99, 3), 1)\nexcept DataError as e:\n    print(e)"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("no 6 MB of shared memory for the loader processes, file too l")
    assert done.stdout.endswith("; --workers=0 needs none\n") and not done.stderr
