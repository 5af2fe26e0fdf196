"""Whole nets next to PyTorch: losses and every gradient of one step, losses of ten steps."""

import zlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make peer")

from benchmarks import torch_net  # noqa: E402
from benchmarks.torch_net import Sgd as TorchSgd  # noqa: E402
from benchmarks.torch_net import TorchNet  # noqa: E402
from convnet import Net, cfg, gradcheck  # noqa: E402
from convnet.graph import Graph  # noqa: E402
from convnet.layer import Run  # noqa: E402
from convnet.sgd import Sgd  # noqa: E402

LAYOUTS = "channels_last", "nchw"


def net_of(name, dtype=np.float32, overrides=(), classes=10):
    net = Net.from_cfg(f"layer_configs/{name}.cfg", overrides=overrides, classes=classes)
    return as_dtype(net, dtype)


def as_dtype(net, dtype):
    if dtype == np.float64:
        gradcheck._to_float64(net)
    return net


def batch_of(net, n, seed=0):
    """Noise with the variance of pictures, and labels."""
    rng = np.random.default_rng(seed)
    shape = (n, *net.graph.shapes[net.graph.feeds[0]])
    dtype = next(iter(net.own_weights().values())).dtype
    return net.feed(rng.normal(0, 60, shape).astype(dtype), rng.integers(0, 10, n))


def masks_of(net, n, other):
    """What each dropout layer multiplies with at this step: its output for ones."""
    masks = {}
    for l in net.layers:
        if l.type in ("dropout", "dropout2"):
            ones = np.ones((n, *net.graph.shapes[l.name]), np.float32)
            seed = zlib.crc32(f"{net.seed}/{net.step}/{l.name}".encode())
            masks[l.name] = other.tensor(l.fprop(Run(net.device, True, seed), {}, ones)[0])
    return masks


def step(net, other, given):
    """Losses of the cases and gradients of one pass, here and there."""
    outs, tape = net.fprop(given, net.graph.costs, train=True)
    losses = {name: outs[name].reshape(len(out), -1)[:, 0].copy() for name, out in outs.items()}
    dw = net.bprop(tape, net.cost_gradients(outs))
    masks = masks_of(net, len(next(iter(given.values()))), other)
    tensors = {name: other.tensor(x) for name, x in given.items()}
    theirs = other(tensors, net.graph.costs, train=True, masks=masks)
    sum(net.by_name[name].coeff * out.sum() for name, out in theirs.items()).backward()
    return losses, dw, {name: out.detach().numpy() for name, out in theirs.items()}


def gap(mine, theirs):
    """The largest difference in units of the largest number."""
    assert mine.shape == theirs.shape
    scale = abs(theirs).max()
    assert scale > 0, "vacuous"
    return abs(mine - theirs).max() / scale


def compare(net, layout, n, limit):
    dtype = next(iter(net.own_weights().values())).dtype
    other = TorchNet(net, getattr(torch, dtype.name), layout)
    losses, dw, theirs = step(net, other, batch_of(net, n))
    gaps = {name: gap(losses[name], theirs[name]) for name in theirs}
    found = other.gradients()
    assert found.keys() == dw.keys()
    gaps |= {"/".join(key): gap(dw[key], found[key]) for key in found}
    wrong = {name: f"{g:.1e}" for name, g in gaps.items() if not g <= limit}
    assert not wrong, f"of {len(gaps)} arrays more than {limit} off: {wrong}"


@pytest.mark.parametrize("name", ["spp_small", "cifar10", "cifar10_spp"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_small_nets_in_float64(name, layout):
    compare(net_of(name, np.float64), layout, 7, 1e-8)


@pytest.mark.parametrize("name,n", [("spp_zf5", 3), ("spp_zf5_6321", 2)])
def test_zf5_in_float32(name, n):
    """Where both engines keep the same pixels all is equal, else nearly; see `flips`."""
    net = net_of(name, classes=1000)
    given, other = batch_of(net, n), TorchNet(net)
    turned = flips(net, other, given)
    print(f"{name}: flips {turned}")
    places = n * sum(np.prod(net.graph.shapes[net.by_name[name].reads[0]]) for name in turned)
    assert sum(turned.values()) <= 5e-6 * places  # Winograd's last bits are off by 1e-5
    compare(net, "channels_last", n, 1e-2 if any(turned.values()) else 1e-4)


def flips(net, other, given):
    """{layer: numbers that relu or a max pool lets through in one engine and not in the other}.

    float32 rounds differently in another order of summation; two pixels of a window that are
    closer than that change places, and then a gradient goes another way: neither is wrong.
    """
    names = [l.name for l in net.layers if "data" not in l.type]
    mine, _ = net.fprop(given, names, train=True)
    masks = masks_of(net, len(given["data"]), other)
    with torch.no_grad():
        tensors = {name: other.tensor(x) for name, x in given.items()}
        theirs = other(tensors, names, train=True, masks=masks)
    found = {}
    for l in net.layers:
        if l.type in ("neuron", "pool", "spp"):
            there = np.ascontiguousarray(rows_of(theirs[l.reads[0]]))
            a, b = (choice(net, l, x) for x in (mine[l.reads[0]], there))
            found[l.name] = int((a != b).sum())
    return found


def choice(net, l, x):
    """What comes back for ones: how often each number of x is kept."""
    y, bprop = l.fprop(Run(net.device, True, 0), {}, x)
    return bprop(np.ones_like(y), {0})[0][0].copy()


@pytest.mark.parametrize("name,n", [("spp_zf5", 3), ("spp_zf5_6321", 2)])
def test_zf5_layer_by_layer_in_float32(name, n):
    """Each layer at its size in the net, on the activations and gradients of the net."""
    net = net_of(name, classes=1000, overrides=["rnorm1.scale=2", "rnorm2.scale=2"])
    net.learns = {l.name: {*range(len(l.reads)), *net.weights[l.name]} for l in net.layers}
    other = TorchNet(net)
    for l in net.layers:
        if l.inputs and l.type not in ("cost.logreg", "dropout"):
            l.fprop = beside(l, other.weights[l.name])
    outs, tape = net.fprop(batch_of(net, n), net.graph.costs, train=True)
    compared = net.bprop(tape, net.cost_gradients(outs))
    assert len(compared) == len(net.own_weights())


def beside(l, weights):
    """The fprop of a layer which checks itself against PyTorch's on the way, bprop as well.

    Where relu left a window of zeros a pool gives each the gradient, PyTorch's the first one only;
    relu lets none of it pass. A relu in the same pass as a conv is open for the gradient where it
    was open here: next to 0 the last bits decide.
    """
    fprop = l.fprop

    def both(run, w, *xs):
        y, bprop = fprop(run, w, *xs)
        ts = [torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_() for x in xs]
        theirs = torch_net.OPS[l.type](l, weights, *ts)
        if run.then and run.then.type == "pool":
            theirs = torch_net.OPS["pool"](run.then, {}, theirs)
        if run.then and run.then.type == "neuron":
            check(l, "output", y, np.maximum(rows_of(theirs), 0))
            theirs = theirs * torch.from_numpy(y > 0).permute(0, 3, 1, 2)
        else:
            check(l, "output", y, rows_of(theirs))

        def back(dy, wants):
            dxs, dws = bprop(dy, wants)
            dws = {name: g if hasattr(g, "shape") else g.array() for name, g in dws.items()}
            asked = ts + [weights[name] for name in dws]
            found = torch.autograd.grad(theirs, asked, torch.from_numpy(dy).permute(0, 3, 1, 2))
            for i, (x, g) in enumerate(zip(xs, found)):
                pools = l.type in ("pool", "spp") or (run.then and run.then.type == "pool")
                alive = x != 0 if pools else 1
                ties = 8 if run.then and pools else 0  # of what PyTorch has normalised by itself
                check(l, f"gradient of input {i}", dxs[i] * alive, rows_of(g) * alive, ties)
            for name, g in zip(dws, found[len(ts) :]):
                check(l, f"gradient of {name}", dws[name], torch_net.ours(l, name, g).numpy())
            return dxs, dws

        return y, back

    return both


def rows_of(t):
    """A tensor (N, C, H, W) as an array (N, H, W, C)."""
    return t.detach().permute(0, 2, 3, 1).numpy()


def check(l, what, mine, theirs, but=0):
    """No more than 1e-4 of the largest number off, `but` for so many numbers."""
    off, scale = gap(mine, theirs), abs(theirs).max()
    assert np.isfinite(off)
    far = int((abs(mine - theirs) > 1e-4 * scale).sum())
    assert far <= but, f"[{l.name}] {what} is {off:.1e} off, {far} numbers"


def test_zf5_with_a_response_normalisation_that_matters():
    """As trained, scale=0.00005 is next to nothing; in float64 nothing flips."""
    strong = ["rnorm1.scale=2", "rnorm2.scale=2"]
    compare(net_of("spp_zf5", np.float64, strong, 20), "channels_last", 1, 1e-8)


EVERYTHING = """
[data]
type=data
dataIdx=0
imgSize=27
channels=3
scale=0.02
[labels]
type=data
dataIdx=1
[conv1]
type=conv
inputs=data
filters=8
filterSize=5
stride=2
padding=1
neuron=tanh[1.7,0.6]
[lrn1]
type=cmrnorm
inputs=conv1
size=5
scale=2
minDiv=2
[pool1]
type=pool
pool=maxabs
inputs=lrn1
sizeX=3
stride=2
[conv2a]
type=conv
inputs=pool1
filters=4
filterSize=3
padding=1
groups=2
neuron=softrelu
[conv2b]
type=conv
inputs=pool1,conv1
filters=8
filterSize=3,5
stride=1,2
padding=1
neuron=abs
[conv2c]
type=conv
inputs=pool1
filters=8
filterSize=3
padding=1
weightSource=conv2b
epsW=0
[sum]
type=eltsum
inputs=conv2a,conv2b
coeffs=0.5,-1
[max]
type=eltmax
inputs=sum,conv2c
[lrn2]
type=rnorm
inputs=max
size=3
scale=2
[both]
type=concat
inputs=lrn2,pool1
[spp]
type=spp
inputs=both
levels=3,2,1
pool=avg
[fc3]
type=fc
inputs=spp,both
outputs=20
neuron=relu
epsB=0
[drop3]
type=dropout2
inputs=fc3
[fc4]
type=fc
inputs=drop3
outputs=classes
[probs]
type=softmax
inputs=fc4
[logprob]
type=cost.logreg
inputs=labels,probs
coeff=0.7
"""


def everything():
    """Nearly every type in one net: shared and frozen weights, several readers, groups.

    Shared weights learn at the rates of their owner, so that epsW=0 of [conv2c] changes nothing.
    """
    return Net(Graph(cfg.parse(EVERYTHING), classes=10))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_in_float64(layout):
    compare(as_dtype(everything(), np.float64), layout, 5, 1e-8)


@pytest.mark.parametrize("dtype,limit", [(np.float64, 1e-8), (np.float32, 1e-2)])
@pytest.mark.parametrize("name", ["spp_small", "cifar10_spp", "everything"])
def test_ten_steps(name, dtype, limit):
    """Momentum, decay, schedules and dropout: the same losses, the same weights.

    The first steps of cifar10_spp are rough: a last bit of float32 grows to a thousandth.
    """
    net = as_dtype(everything(), dtype) if name == "everything" else net_of(name, dtype)
    first = {key: w.copy() for key, w in net.own_weights().items()}
    other = TorchNet(net, getattr(torch, np.dtype(dtype).name))
    sgd, torch_sgd, losses = Sgd(net), TorchSgd(other), []
    for i in range(10):
        given = batch_of(net, 16, seed=i % 2)
        mine, dw, theirs = step(net, other, given)
        losses.append((mine["logprob"].mean(), theirs["logprob"].mean()))
        sgd.update(dw, 16, i / 10)
        torch_sgd.update(16, i / 10)
        net.step += 1
    mine, theirs = np.array(losses).T
    assert np.ptp(mine) > 0.1 * mine[0], f"nothing has changed: {mine}"
    np.testing.assert_allclose(mine, theirs, rtol=limit)
    trained = other.arrays()
    for key, w in net.own_weights().items():
        moved = abs(w - first[key]).max()
        assert abs(w - trained[key]).max() <= 10 * limit * moved, key
        assert moved > 0 or key == "fc3/b"


def test_the_update_is_torchs_where_the_rate_is_constant():
    net = net_of("spp_small")
    other, ready = TorchNet(net), TorchNet(net)
    rates = {key: net.graph.asked(net.by_name[layer])[name]
             for key in other.own for layer, name in [key.split("/")]}  # fmt: skip
    sgd = TorchSgd(other)
    groups = [{"params": [p], "lr": rates[key].eps(0), "momentum": rates[key].mom,
               "weight_decay": rates[key].wc} for key, p in ready.own.items()]  # fmt: skip
    torchs = torch.optim.SGD(groups, lr=0.0)
    for i in range(3):
        given = {name: other.tensor(x) for name, x in batch_of(net, 8, i).items()}
        other(given, ["logprob"], train=True)["logprob"].sum().backward()
        sgd.update(8, 0.0)
        torchs.zero_grad()
        ready(given, ["logprob"], train=True)["logprob"].mean().backward()
        torchs.step()
    for key, w in other.arrays().items():
        np.testing.assert_allclose(w, ready.arrays()[key], rtol=1e-4, atol=1e-5 * abs(w).max())


def test_other_sizes_go_through_the_pyramid():
    """A map that the pools of the pyramid were not trained on: bins, here and there."""
    net = net_of("spp_small")
    x = np.random.default_rng(0).normal(0, 60, (2, 61, 83, 3)).astype(np.float32)
    mine = net.fprop({"data": x}, ["probs"])[0]["probs"]
    other = TorchNet(net)
    with torch.inference_mode():
        theirs = other({"data": other.tensor(x)}, ["probs"])["probs"].permute(0, 2, 3, 1)
    np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-4, atol=1e-7)


def test_an_unknown_type_is_told():
    net = net_of("spp_small")
    net.by_name["pool1"].type = "other"
    with pytest.raises(ValueError, match=r"\[pool1\] type=other: not known here; has \["):
        TorchNet(net)
    del net.by_name["pool1"].type
