"""Fast variants of kernels against the plain ones, layer by layer, on the same inputs.

The error is the largest difference, as a share of the largest number of the plain result. 1e-4 is
what every variant must keep; Winograd's with 8 points, the worst, comes to 2e-5, the others, which
only add in another order, to 2e-6.
"""

import os
import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from convnet import Net, kernel
from convnet.layer import Run, Variant
from convnet.sgd import Sgd
from layers import _dense, _tile, _transforms, _winograd, _winograd_grid
from layers._transforms import KINDS
from tests import contract
from tests.layers import test_lrn_pool

RELU = SimpleNamespace(type="neuron", neuron=("relu", 0.0, 0.0))
CONV = """
    13x13x64  filters=64 filterSize=3 padding=1
    9x11x5    filters=9 filterSize=3 padding=1
    13x11x34  filters=20 filterSize=3 groups=2
    7x40x32   filters=64 filterSize=3 padding=2
    4x1x8     filters=8 filterSize=3 padding=1
    15x17x20  filters=37 filterSize=5 stride=2
    15x17x20  filters=37 filterSize=6 stride=2 padding=1
    35x37x3   filters=96 filterSize=7 stride=2 padding=1
    15x16x64  filters=32 filterSize=5 padding=2
    27x19x3   filters=10 filterSize=11 stride=4 padding=2
    14x17x20  filters=37 filterSize=3 stride=3
    14x17x20  filters=37 filterSize=2 stride=2 rounding=floor
    9x9x20    filters=37 filterSize=1 stride=2
    12x12x16  filters=16 filterSize=4 stride=3 padding=1
    5x6x3     filters=8 filterSize=5 padding=4
    6x6x8     filters=12 filterSize=3 padding=1 modulesX=7
    9x9x3     filters=8 filterSize=1 padding=1
    9x9x3     filters=8 filterSize=2 padding=1 stride=2
    10x9x5    filters=9 filterSize=3 padding=1 stride=3
    11x12x3   filters=8 filterSize=5 padding=1 stride=5
    6x5x4     filters=8 filterSize=2 padding=3
"""


def lines(text):
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def ways():
    """(line, the number of a way to compute it)."""
    cases = [(line, contract.build("conv", line)) for line in lines(CONV)]
    return [(line, i) for line, c in cases for i in range(len(c.layer.ways(c.shapes[0])))]


def passes(case, fast, n=3, then=None, seed=0, change=lambda xs, w: None):
    """Output and all gradients; that of the output has both signs. change: inputs and weights."""
    xs, w = case.arrays(np.float32, n, seed)
    xs, w = [x.copy() for x in xs], {k: v.copy() for k, v in w.items()}
    change(xs, w)
    run = Run(contract.Poisoned(), True, 0, fast, then)
    y, bprop = case.layer.fprop(run, w, *xs)
    dy = case.dy(y.shape, y.dtype) * np.random.default_rng(seed).choice([-1, 1], y.shape)
    dy = dy.astype(np.float32)
    if then and not fast:
        y = np.maximum(y, 0)
        dy = np.where(y > 0, dy, np.float32(0))
    dxs, dw = bprop(dy, {*range(len(xs)), *w})
    whole = {k: g if hasattr(g, "shape") else g.array() for k, g in dw.items()}
    return {"y": y, **{f"dx{i}": dx for i, dx in enumerate(dxs)}, **whole}


def gaps(got, wanted):
    assert got.keys() == wanted.keys()
    assert all(np.isfinite(got[k]).all() for k in wanted), "not finite"  # NaN hides in max()
    return {k: abs(got[k] - wanted[k]).max() / abs(wanted[k]).max() for k in wanted}


@pytest.mark.parametrize("relu", [None, RELU], ids=["bare", "relu"])
@pytest.mark.parametrize("line,i", ways())
def test_conv(line, i, relu, monkeypatch):
    case = contract.build("conv", line)
    name = case.layer.ways(case.shapes[0])[i].name
    monkeypatch.setattr(case.layer, "variant", lambda *ins, **then: Variant(name, "forced"))
    found = gaps(passes(case, True, then=relu), passes(case, False, then=relu))
    limit = 1e-4 if "winograd" in name else 3e-6
    assert max(found.values()) < limit, found


@pytest.mark.parametrize("line,i", [(line, i) for line, i in ways() if i])
def test_the_wide_schedule(line, i, monkeypatch):
    """What large layers use, on small ones."""
    monkeypatch.setattr(_winograd, "SMALL_U", 0)
    test_conv(line, i, RELU, monkeypatch)


@pytest.mark.parametrize("n", [1, 3, 4, 33])
@pytest.mark.parametrize(
    "line", ["3x2x2 outputs=5", "5x13x2 4x3x1 outputs=67", "1x1x300 outputs=32"]
)
def test_fc(line, n):
    case = contract.build("fc", line)
    found = gaps(passes(case, True, n), passes(case, False, n))
    assert max(found.values()) < 3e-6, found


def test_what_is_chosen():
    def chosen(line, n=1):
        case = contract.build("conv", line)
        return case.layer.variant(*[(n, *shape) for shape in case.shapes])

    assert chosen("13x13x256 filters=384 filterSize=3 padding=1").name == "winograd F(5+4,3)"
    assert chosen("12x12x256 filters=384 filterSize=3 padding=1").name == "winograd F(6,3)"
    assert chosen("4x4x256 filters=384 filterSize=3 padding=1").name == "winograd F(4,3)"
    assert chosen("56x56x64 filters=64 filterSize=3 padding=1").name == "winograd F(6+5,3)"
    assert chosen("16x16x32 filters=32 filterSize=5 padding=2").name == "winograd F(4,5)"
    assert chosen("224x224x3 filters=96 filterSize=7 stride=2").name == "winograd F(4,4)"
    assert chosen("32x32x3 filters=32 filterSize=5 padding=2").name == "direct"
    assert chosen("13x13x256 filters=64 filterSize=1").name == "direct"
    for line, why in (
        ("9x9x8 9x9x8 filters=16 filterSize=3", "2 inputs"),
        ("9x9x8 filters=16 filterSize=3 sharedBiases=0", "a bias for each position"),
        ("9x9x8 filters=1 filterSize=3 groups=8", "less than 8 filters in a group"),
    ):
        assert chosen(line) == Variant("plain", why)


def no_bias(xs, w):
    w["b"][:] = 0


@pytest.mark.parametrize("padding", [3, 4, 7])
def test_windows_of_nothing_but_padding(padding):
    """Without a bias they are exactly 0, and their relu stays shut; Winograd would leave noise."""
    case = contract.build("conv", f"13x13x16 filters=16 filterSize=3 padding={padding}")
    assert case.layer.variant((3, 13, 13, 16)).name == "direct"
    both = [passes(case, fast, then=RELU, change=no_bias) for fast in (True, False)]
    assert not both[0]["y"][:, 0, 0].any() and max(gaps(*both).values()) < 3e-6


def test_direct_computes_what_is_wanted():
    """Whether or not the gradient of the weights is among it."""
    case = contract.build("conv", "7x8x3 filters=9 filterSize=3 padding=1")
    xs, w = case.arrays(np.float32)
    y, bprop = case.layer.fprop(Run(contract.Poisoned(), True, 0, True), w, *xs)
    dy = case.dy(y.shape, y.dtype)
    (dx,), dw = bprop(dy, {0, "W0", "b"})
    (alone,), only = bprop(dy, {0, "b"})
    np.testing.assert_array_equal(alone, dx)
    assert set(only) == {"b"} and np.array_equal(only["b"], dw["b"])


def test_a_plain_conv_takes_no_relu():
    case = contract.build("conv", "9x9x8 filters=1 filterSize=3 groups=8")
    assert not case.layer.takes(RELU, (1, 9, 9, 8))
    case = contract.build("conv", "9x9x8 filters=16 filterSize=3")
    assert case.layer.takes(RELU, (1, 9, 9, 8))
    assert not case.layer.takes(SimpleNamespace(type="neuron", neuron=("tanh", 1, 1)), (1, 9, 9, 8))
    assert not case.layer.takes(SimpleNamespace(type="pool"), (1, 9, 9, 8))


@pytest.mark.parametrize("m,r", KINDS)
def test_winograd_matrices_are_exact(m, r):
    """A^T [ (G g) * (B^T d) ] is the correlation of g and d, in fractions; so are the phases."""
    at, bt, g = _transforms.matrices(m, r)
    rng = np.random.default_rng(m)
    taps = [Fraction(int(v)) for v in rng.integers(-9, 9, r)]
    pixels = [Fraction(int(v)) for v in rng.integers(-9, 9, m + r - 1)]

    def times(matrix, vector):
        return [sum(a * v for a, v in zip(row, vector)) for row in matrix]

    products = [a * b for a, b in zip(times(g, taps), times(bt, pixels))]
    assert times(at, products) == [sum(taps[k] * pixels[i + k] for k in range(r)) for i in range(m)]


@pytest.mark.parametrize("r", sorted({r for _, r in KINDS}))
def test_a_small_tile_has_the_first_points_of_a_large_one(r):
    """G of the one is the beginning of that of the other."""
    small, *rest = (_transforms.matrices(m, r)[2] for m in sorted(m for m, k in KINDS if k == r))
    assert all(g[: len(small)] == small for g in rest)


@pytest.mark.parametrize("side,large,small,counts", [
    (13, 5, 4, (1, 2)), (26, 6, 4, (3, 2)), (26, 6, 5, (1, 4)), (12, 6, 4, (2, 0)),
    (8, 6, 4, (0, 2)), (3, 5, 4, (0, 1)), (1, 6, 5, (0, 1)), (56, 6, 4, (8, 2)),
])  # fmt: skip
def test_a_side_is_cut_into_the_fewest_points(side, large, small, counts):
    large, small = (_winograd_grid.Size(m, m + 2, 0) for m in (large, small))
    assert _winograd_grid.cut(side, large, small) == counts


@pytest.mark.parametrize("m,m2,out", [(5, 4, (13, 9)), (6, 4, (26, 14)), (6, 5, (6, 5)),
                                      (6, 6, (11, 12)), (5, 4, (8, 5))])  # fmt: skip
def test_the_tiles_of_a_point_lie_side_by_side(m, m2, out):
    """Every tile has a place of its own, and each point the run of those that it needs."""
    f = _winograd_grid.shape((9, 9, 4), (*out, 8), 0, 4, 0, 8, 3, 1, 0, m, m2)
    first = f.down - 1
    for lines, column, columns in ((1, 0, f.across), (2 * f.down + 1, 0, f.across), (3, 1, 2)):
        columns = min(columns, f.across - column)
        places, sizes, runs = tiles_of(f, first, lines, column, columns)
        assert sorted(places) == list(range(lines * columns))
        for q, (begin, end) in enumerate(runs):
            needed = {place for place, (rows, across) in zip(places, sizes)
                      if q // f.n < rows and q % f.n < across}  # fmt: skip
            assert needed == set(range(begin, end))


@kernel.jit()
def tiles_of(f, first, lines, column, columns):
    """Place and points of each tile of a block, and the run of each point."""
    B = _winograd_grid.block(f, first, lines, column, columns)
    places, sizes = [], []
    for line in range(first, first + lines):
        for j in range(column, column + columns):
            places.append(_winograd_grid.spot(f, B, line, j))
            rows = _winograd_grid.extent(f, line % f.down, f.tall)[1].n
            sizes.append((rows, _winograd_grid.extent(f, j, f.wide)[1].n))
    return places, sizes, [_winograd_grid.point(f, B, q)[-2:] for q in range(f.n * f.n)]


def test_same_threads_same_bits():
    case = contract.build("conv", "35x37x3 filters=96 filterSize=7 stride=2 padding=1")
    once, again = passes(case, True), passes(case, True)
    assert all(once[k].tobytes() == again[k].tobytes() for k in once)


@pytest.mark.parametrize("line", lines(CONV)[:8])
def test_any_number_of_threads(line):
    case = contract.build("conv", line)
    many, before = passes(case, True), numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        one = passes(case, True)
    finally:
        numba.set_num_threads(before)
    # a thread adds up its images; G^T makes the last bits of such sums up to ten times larger
    assert max(gaps(one, many).values()) < 2e-5


def test_a_nan_stays_one():
    """It shows in the output, and a relu does not hide it."""
    for line in ("13x13x64 filters=64 filterSize=3 padding=1", "13x13x3 filters=16 filterSize=5"):
        case = contract.build("conv", line)
        xs, w = case.arrays(np.float32)
        x = xs[0].copy()
        x[1, 6, 6, 1] = np.nan
        run = Run(contract.Poisoned(), False, 0, True, RELU)
        y, _ = case.layer.fprop(run, {k: v.copy() for k, v in w.items()}, x)
        assert np.isnan(y[1]).any() and np.isfinite(y[[0, 2]]).all()


# ---------------------------------------------------------------- whole nets


def batch(net, n=4):
    rng = np.random.default_rng(3)
    shape = net.graph.shapes[net.graph.feeds[0]]
    return rng.normal(0, 40, (n, *shape)).astype(np.float32), rng.integers(0, 10, n)


def step(net, lazy):
    """Gradients, then weights after one update."""
    images, labels = batch(net)
    outs, tape = net.fprop(net.feed(images, labels), net.graph.costs, train=True)
    gradients = net.bprop(tape, net.cost_gradients(outs), lazy)
    sgd = Sgd(net)
    assert not sgd.first_not_finite(gradients)
    whole = {k: g if hasattr(g, "shape") else g.array() for k, g in gradients.items()}
    sgd.update(gradients, 4, 0.5)
    return whole, {k: w.copy() for k, w in net.own_weights().items()}


@pytest.mark.parametrize("cfg", ["spp_small", "cifar10"])
def test_a_step_of_a_net(cfg):
    """The lazy gradients of fc layers, updated tile by tile, too."""
    nets = [
        Net.from_cfg(f"layer_configs/{cfg}.cfg", classes=10, device=device, seed=1)
        for device in ("cpu", "cpu", "cpu:plain")
    ]
    lazy, whole, plain = (step(net, i == 0) for i, net in enumerate(nets))
    for (fast_g, fast_w), limit in ((lazy, 1e-4), (whole, 1e-4)):
        assert max(gaps(fast_g, plain[0]).values()) < limit
        assert max(gaps(fast_w, plain[1]).values()) < limit
    assert max(gaps(lazy[1], whole[1]).values()) < 1e-6


def test_prepared_weights_are_not_used_after_a_change():
    """Winograd's are kept from one pass to the next, also if somebody writes on the weights."""
    net = Net.from_cfg("layer_configs/cifar10.cfg", classes=10, seed=1)
    images, _ = batch(net)
    given = net.feed(images)
    first = net.fprop(given, [net.output])[0][net.output].copy()
    w = net.weights["conv2"]["W0"]
    w[1, 1, 3, 4] += 1
    changed = net.fprop(given, [net.output])[0][net.output].copy()
    assert abs(changed - first).max() > 1e-3
    w[1, 1, 3, 4], w[1, 1, 3, 5] = w[1, 1, 3, 5], w[1, 1, 3, 4]
    plain = Net.from_cfg("layer_configs/cifar10.cfg", classes=10, seed=1, device="cpu:plain")
    plain.set_weights(net.own_weights())
    for got in (net, plain):
        got.out = got.fprop(given, [net.output])[0][net.output].copy()
    assert abs(net.out - plain.out).max() < 1e-4 * abs(plain.out).max()


SHARE = """
[data]
type=data
dataIdx=0
imgSize=16
channels=32

[a]
type=conv
inputs=data
filters=16
filterSize=3
padding=1
groups=2

[mid]
type=conv
inputs=data
filters=16
filterSize=1

[b]
type=conv
inputs=mid
filters=32
filterSize=3
padding=1
weightSource=a

[labels]
type=data
dataIdx=1

[fc]
type=fc
inputs=a,b
outputs=10

[probs]
type=softmax
inputs=fc

[logprob]
type=cost.logreg
inputs=labels,probs
"""


def test_prepared_weights_belong_to_a_shape(tmp_path):
    """The same numbers, which one layer cuts in groups and the other does not."""
    (tmp_path / "share.cfg").write_text(SHARE)
    fast, plain = (Net.from_cfg(tmp_path / "share.cfg", device=d) for d in ("cpu", "cpu:plain"))
    x = np.random.default_rng(0).normal(0, 1, (2, 16, 16, 32)).astype(np.float32)
    for _ in range(2):
        got, wanted = (net.fprop({"data": x}, ["a", "b"])[0] for net in (fast, plain))
        assert max(gaps(got, wanted).values()) < 1e-4


@pytest.mark.parametrize(
    "x,why",
    [
        (np.zeros((2, 16, 16, 32), np.uint8), "takes float32 or float64 numbers, not uint8"),
        (np.zeros((0, 16, 16, 32), np.float32), "is given no case"),
    ],
)
def test_what_a_net_does_not_take(x, why, tmp_path):
    (tmp_path / "share.cfg").write_text(SHARE)
    with pytest.raises(ValueError, match=f"layer 'data' {why}"):
        Net.from_cfg(tmp_path / "share.cfg").fprop({"data": x}, ["a"])


def test_arrays_in_any_order(tmp_path):
    (tmp_path / "share.cfg").write_text(SHARE)
    net = Net.from_cfg(tmp_path / "share.cfg")
    x = np.random.default_rng(0).normal(0, 1, (2, 16, 16, 32)).astype(np.float32)
    wanted = net.fprop({"data": x}, ["b"])[0]["b"]
    for other in (np.asfortranarray(x), np.repeat(x, 2, axis=2)[:, :, ::2]):
        np.testing.assert_array_equal(net.fprop({"data": other}, ["b"])[0]["b"], wanted)


def test_a_gradient_that_is_not_a_number_stays_one():
    """Also of a layer without a relu behind it, where its output is no number."""
    case = contract.build("conv", "13x13x64 filters=64 filterSize=3 padding=1")
    xs, w = case.arrays(np.float32)
    x = xs[0].copy()
    x[1, 6, 6, 1] = np.nan
    run = Run(contract.Poisoned(), True, 0, True)
    y, bprop = case.layer.fprop(run, {k: v.copy() for k, v in w.items()}, x)
    _, dw = bprop(np.ones_like(y), {"W0", "b"})
    np.testing.assert_allclose(dw["b"], y.size // y.shape[3])
    assert np.isnan(dw["W0"]).any()


def test_what_is_not_finite_is_found_in_a_lazy_gradient():
    run = Run(contract.Poisoned(), True, 0, True)
    x, dy = np.ones((4, 6), np.float32), np.ones((4, 5), np.float32)
    assert _dense.Outer(run, x, dy).finite()
    for bad in (np.nan, np.inf, 1e30):
        x[2, 3] = bad
        assert not _dense.Outer(run, x, dy).finite()


# ---------------------------------------------------------------- other CPUs

FEATURES = {
    "avx2": ("haswell", "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+bmi,+bmi2"),
    "sse2": ("x86-64", "+sse,+sse2"),
}


def on_this_cpu():
    """Called in a process that compiles for another CPU than this one: its lanes, the errors."""
    found = {}
    for name, line in (
        ("conv", "13x13x34 filters=40 filterSize=3 padding=1"),
        ("conv", "15x17x3 filters=24 filterSize=5 stride=2"),
        ("fc", "5x13x2 outputs=67"),
    ):
        case = contract.build(name, line)
        fast, plain = (
            passes(case, True, 5, RELU if name == "conv" else None),
            passes(case, False, 5, RELU if name == "conv" else None),
        )
        found[line] = max(gaps(fast, plain).values())
    rnorm, pool, shape = test_lrn_pool.both("13x11x33 size=3 scale=2 | sizeX=3 stride=2")
    given = rnorm, pool, *test_lrn_pool.data(shape, 2, pool)
    for got, wanted in zip(test_lrn_pool.fused(*given), test_lrn_pool.plain(*given)):
        found[len(found)] = test_lrn_pool.off(got, wanted)  # 0, but for numbers nearly equal
    print(_tile.LANES, _tile.ROWS, max(found.values()))


@pytest.mark.skipif(sys.platform == "darwin", reason="x86 only")
@pytest.mark.parametrize("kind,lanes,rows", [("avx2", 8, 6), ("sse2", 4, 6)])
def test_smaller_vectors(kind, lanes, rows):
    """The tiles of CPUs without AVX-512."""
    cpu, features = FEATURES[kind]
    env = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    code = "from tests.test_variants import on_this_cpu; on_this_cpu()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = done.stdout.split()
    assert [int(v) for v in got[:2]] == [lanes, rows] and float(got[2]) < 1e-4
