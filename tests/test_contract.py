"""Every file in layers/ keeps the promises of convnet/layer.py. Nothing here names a layer."""

import re
import sys

import numpy as np
import pytest

from tests import contract

CASES = [(name, line) for name in contract.types() for line in contract.lines(name)]
each_case = pytest.mark.parametrize("name,line", CASES)
each_type = pytest.mark.parametrize("name", contract.types())


@each_type
def test_every_type_says_what_it_is(name):
    cls = contract.layer_class(name)
    assert contract.lines(name), "no examples"
    page = sys.modules[cls.__module__].__doc__
    assert page and page.startswith(f"type={name}:"), "the file begins with what the type is"
    assert re.search(rf"^ +\[\w+\]\n +type={re.escape(name)}$", page, re.M), "no [section] to copy"
    short = [k for k, key in cls.keys().items() if len(key.doc) <= 8]
    assert not short, f"keys that do not say what they mean: {short}"


@each_case
def test_shapes_and_dtypes(name, line):
    """Poisoned memory: a number that nobody wrote would be NaN."""
    case = contract.build(name, line)
    found = {}
    for dtype in (np.float32, np.float64):
        xs, w = case.arrays(dtype)
        for train in (False, True):
            y, _ = case.layer.fprop(contract.run(train), w, *xs)
            assert y.shape == (contract.N, *case.layer.shape(*case.shapes))
            assert y.dtype == dtype
            assert np.isfinite(y).all()
        grads = contract.gradients(case, xs, w, {*range(len(xs)), *w})
        for of, g in grads.items():
            array = w[of] if of in w else xs[of]
            assert (g.shape, g.dtype) == (array.shape, dtype), f"gradient of {of}"
            assert np.isfinite(g).all()
        found[dtype] = {"y": y, **grads}
    for of, exact in found[np.float64].items():
        gap = abs(found[np.float32][of] - exact).max() / abs(exact).max()
        assert gap < 1e-4, f"{of}: float32 is {gap:.1e} from float64"


@each_case
def test_inputs_stay_as_they_are(name, line):
    case = contract.build(name, line)
    xs, w = case.arrays(np.float64)
    before = [a.tobytes() for a in (*xs, *w.values())]
    y, bprop = case.layer.fprop(contract.run(), w, *xs)
    dy, out = case.dy(y.shape, y.dtype), y.tobytes()
    given = dy.tobytes()
    bprop(dy, {*range(len(xs)), *w})
    assert [a.tobytes() for a in (*xs, *w.values())] == before
    assert (dy.tobytes(), y.tobytes()) == (given, out)


@each_case
def test_nothing_stays_alive_in_a_test(name, line):
    """Where nothing will be learnt no memory is held but the output's."""
    case = contract.build(name, line)
    xs, w = case.arrays(np.float32)
    run = contract.run(train=False)
    y, bprop = case.layer.fprop(run, w, *xs)
    kept = [a.shape for a in run.device.alive() if not np.shares_memory(a, y)]
    assert not kept, f"kept: {kept} with {bprop}"


@each_case
def test_gradients(name, line):
    """Central differences; the last line shows that a gradient 1 % wrong would be seen."""
    case = contract.build(name, line)
    xs, w = case.arrays(np.float64)
    floats = {i for i, x in enumerate(xs) if x.dtype.kind == "f"}
    got = contract.gradients(case, xs, w, {*floats, *w})
    assert got, "no gradient at all"
    for of in (*floats, *w):
        wanted = contract.numeric(case, xs, w, of)
        scale = abs(wanted).max()
        if of not in got:
            assert scale == 0, f"bprop gives none for {of}, but the output depends on it"
            continue
        assert scale > 1e-7, f"vacuous: the output does not depend on {of}"
        assert abs(got[of] - wanted).max() <= 1e-6 * scale, f"gradient of {of}"
        assert abs(got[of] * 1.01 - wanted).max() > 1e-3 * scale


@each_case
def test_only_what_is_wanted(name, line):
    case = contract.build(name, line)
    xs, w = case.arrays(np.float64)
    whole = contract.gradients(case, xs, w, {*range(len(xs)), *w})
    for of in whole if len(whole) > 1 else ():
        one = contract.gradients(case, xs, w, {of})
        assert set(one) == {of}
        np.testing.assert_array_equal(one[of], whole[of])


@each_case
def test_two_batches_at_once(name, line):
    """Nothing is stored on the layer: a second fprop does not disturb the first one's bprop."""
    case = contract.build(name, line)
    xs, w = case.arrays(np.float64)
    wants = {*range(len(xs)), *w}
    alone = contract.gradients(case, xs, w, wants)
    y, bprop = case.layer.fprop(contract.run(), w, *xs)
    others, _ = case.arrays(np.float64, contract.N - 1, seed=5)
    case.layer.fprop(contract.run(), w, *others)
    dxs, dws = bprop(case.dy(y.shape, y.dtype), wants)
    for of, g in alone.items():
        np.testing.assert_array_equal(dws[of] if of in w else dxs[of], g)
