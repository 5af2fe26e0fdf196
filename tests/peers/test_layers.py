"""Every layer type next to PyTorch on the same numbers: the output and every gradient."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make peer")

from benchmarks import torch_net  # noqa: E402
from tests import contract  # noqa: E402

MORE = """
    conv      23x19x6 filters=8 filterSize=5 stride=3 padding=2 groups=2
    conv      23x18x6 filters=8 filterSize=5 stride=3 padding=1 rounding=floor initB=1
    conv      17x14x5 31x25x4 filters=6,3 filterSize=3,7 stride=1,2 padding=1,4 groups=1,2
    conv      20x20x3 filters=16 filterSize=7 stride=4
    conv      13x11x32 filters=33 filterSize=1
    conv      12x12x8 filters=7 filterSize=1 stride=2
    conv      11x9x4 filters=3 filterSize=3 groups=4 sharedBiases=0
    pool      23x26x9 pool=max sizeX=3 stride=2
    pool      23x26x9 pool=max sizeX=5 stride=4
    pool      22x19x4 pool=max sizeX=4 stride=3 start=-2
    pool      22x19x4 pool=max sizeX=4 stride=3 start=2
    pool      13x13x8 pool=max sizeX=13 stride=13
    pool      23x26x9 pool=avg sizeX=4 stride=3
    pool      22x19x4 pool=avg sizeX=5 stride=2 start=-3
    pool      22x19x4 pool=avg sizeX=3 stride=3 start=1 sum=1
    pool      22x19x4 pool=maxabs sizeX=3 stride=2 start=-1
    spp       13x13x7 levels=6,3,2,1
    spp       11x17x5 levels=6,3,2,1
    spp       5x3x4 levels=6,3,2,1
    spp       11x17x5 levels=6,3,2,1 pool=avg
    spp       5x3x4 levels=6,3,2,1 pool=avg
    rnorm     15x12x17 size=3 scale=3
    rnorm     15x12x17 size=4 scale=2 pow=1.5 minDiv=2
    rnorm     9x8x33 size=5 scale=8 pow=0.5
    cmrnorm   5x4x33 size=5 scale=3 minDiv=2
    cmrnorm   5x4x33 size=4 scale=2 pow=0.5
    cmrnorm   5x4x33 size=6 scale=3 blocked=1
    fc        5x7x3 4x2x6 1x1x50 outputs=40 initB=1
    softmax   1x1x1000
    cost.logreg labels100 1x1x100 1x1x100
"""
CASES = [(name, line) for name in contract.types() for line in contract.lines(name)]
CASES += [tuple(row.split(maxsplit=1)) for row in MORE.strip().splitlines()]
LIMIT = {np.float32: 1e-4, np.float64: 1e-9}


def tensor(x):
    """(N, H, W, C) -> (N, C, H, W), a leaf of its own."""
    t = torch.tensor(np.moveaxis(x, 3, 1))
    return t.requires_grad_() if t.is_floating_point() else t


def array(t):
    """The way back."""
    return np.moveaxis(t.detach().numpy(), 1, 3)


def close(name, mine, other, dtype):
    scale = abs(other).max()
    assert mine.shape == other.shape and mine.dtype == dtype
    assert scale > 1e-7, f"{name}: vacuous"
    gap = abs(mine - other).max() / scale
    assert gap <= LIMIT[dtype], f"{name} is {gap:.1e} off"


def compare(case, dtype):
    """Output and gradients of one layer, here and there."""
    l, run = case.layer, contract.run()
    xs, w = case.arrays(dtype)
    options = {}
    if l.type in ("dropout", "dropout2"):
        mask, _ = l.fprop(run, {}, np.ones_like(xs[0]))
        options = {"train": True, "mask": tensor(mask).detach()}
    used = torch_net.USED.get(l.type, range(len(xs)))
    ts = {i: tensor(xs[i]) for i in used}
    tw = {
        k: torch_net.theirs(l, k, torch.tensor(v)).contiguous().requires_grad_()
        for k, v in w.items()
    }
    theirs = torch_net.OPS[l.type](l, tw, *ts.values(), **options)
    mine, bprop = l.fprop(run, w, *xs)
    dy = np.random.default_rng(2).standard_normal(mine.shape).astype(dtype)
    if l.type == "cost.logreg":  # one number a case there, a column here
        theirs, mine, dy = theirs.reshape(-1, 1, 1, 1), mine[..., :1], case.dy(mine.shape, dtype)
    close("output", mine, array(theirs), dtype)
    dxs, dws = bprop(dy, {*range(len(xs)), *w})
    theirs.backward(torch.from_numpy(np.moveaxis(dy, 3, 1)[:, : theirs.shape[1]].copy()))
    for i, t in ts.items():
        if t.requires_grad:
            close(f"gradient of input {i}", dxs[i], array(t.grad), dtype)
    for k, t in tw.items():
        close(f"gradient of {k}", dws[k], torch_net.ours(l, k, t.grad).numpy(), dtype)


@pytest.mark.parametrize("dtype", LIMIT, ids=["float32", "float64"])
@pytest.mark.parametrize("name,line", CASES)
def test_layer(name, line, dtype):
    compare(contract.build(name, line), dtype)


@pytest.mark.parametrize("keep", ["max", "avg", "maxabs"])
@pytest.mark.parametrize("level", [1, 2, 3, 6])
def test_a_pool_that_stands_for_a_level_of_a_pyramid(level, keep):
    case = contract.build("pool", f"11x17x5 pool={keep} sizeX={-(-12 // level)} stride=1")
    case.layer.level, case.layer.trained_on = level, (12, 12, 5)
    compare(case, np.float32)


def test_every_type_is_compared():
    assert {name for name, _ in CASES} == set(torch_net.OPS) == set(contract.types())


def test_the_comparison_can_fail():
    case = contract.build("rnorm", "15x12x17 size=3 scale=3")
    fprop = case.layer.fprop
    case.layer.fprop = lambda *args: (fprop(*args)[0] * np.float32(1.001), fprop(*args)[1])
    with pytest.raises(AssertionError, match="output is"):
        compare(case, np.float32)
