"""Memory of the CPU: nothing lent twice, holes that become one, chunks that go back."""

import threading

import numpy as np
import pytest

from convnet.arena import CHUNK, SMALL, Arena

MB = 1 << 20


def block(arena, bytes_):
    return arena.empty((bytes_,), np.dtype(np.uint8))


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lent_twice(seed):
    """Arrays of all sizes come and go in any order; each keeps what was written into it."""
    rng, arena, lent = np.random.default_rng(seed), Arena(), {}
    for number in range(1, 2000):
        if lent and rng.random() < 0.5:
            gone = int(rng.choice(list(lent)))
            x = lent.pop(gone)
            assert (x == gone).all()
            del x
        x = arena.empty((int(2 ** rng.uniform(2, 18)), 2), np.dtype(np.float32))
        assert x.ctypes.data % 64 == 0 or x.nbytes < SMALL
        x[:] = number
        lent[number] = x
    assert all((x == number).all() for number, x in lent.items())
    lent.clear()
    del x
    arena.trim()
    assert arena.taken == 0 and not arena.holes


def test_holes_become_one():
    arena = Arena()
    parts = [block(arena, 8 * MB) for _ in range(7)]
    taken = arena.taken
    assert CHUNK <= taken < CHUNK + MB
    del parts[::2]
    del parts[:]
    whole = block(arena, 60 * MB)
    assert arena.taken == taken and whole.nbytes == 60 * MB


def test_the_lowest_hole_is_taken():
    arena = Arena()
    first, second, third = (block(arena, MB) for _ in range(3))
    where = first.ctypes.data
    del first
    assert block(arena, MB // 2).ctypes.data == where
    assert second.ctypes.data < third.ctypes.data


def test_older_chunks_are_filled_first():
    arena = Arena()
    kept = [block(arena, MB) for _ in range(5)]
    large = block(arena, CHUNK)
    assert len(arena.chunks) == 2
    del large
    before = [block(arena, MB) for _ in range(9)]
    ends = [x.ctypes.data for x in kept + before]
    assert max(ends) - min(ends) < CHUNK


def test_a_view_keeps_the_memory():
    arena = Arena()
    x = block(arena, MB)
    x[:] = 7
    view = x[5:9]
    del x
    other = block(arena, MB)
    other[:] = 1
    assert (view == 7).all()


def test_a_chunk_goes_back_when_nothing_of_it_is_lent():
    arena = Arena()
    small, large = block(arena, MB), block(arena, 4 * CHUNK)
    both = arena.taken
    del large
    arena.trim()
    assert 0 < arena.taken < both
    del small
    arena.trim()
    assert arena.taken == 0


def test_threads_share_it():
    arena, wrong = Arena(), []

    def work(number):
        for _ in range(300):
            xs = [block(arena, SMALL * (1 + number % 3)) for _ in range(3)]
            for x in xs:
                x[:] = number
            wrong.extend(number for x in xs if (x != number).any())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    arena.trim()
    assert arena.taken == 0


def test_where_memory_is_short_it_asks_for_less(monkeypatch):
    arena, empty = Arena(), np.empty

    def little(size, dtype):
        if size > 2 * MB:
            raise MemoryError
        return empty(size, dtype)

    monkeypatch.setattr(np, "empty", little)
    assert block(arena, MB).nbytes == MB and arena.taken == MB
    with pytest.raises(MemoryError):
        block(arena, 4 * MB)
