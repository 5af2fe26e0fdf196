"""Multi-size training: networks of several sizes that share all weights."""

import re
from itertools import pairwise

import numpy as np
import pytest

from convnet import Net, views
from convnet.checkpoint import load
from convnet.cli import UsageError
from convnet.sgd import Sgd
from convnet.sizes import Turns, windows
from convnet.source import Source
from tests.tooling import ROOT, TINY, call, metrics, tiny

POOLS = TINY.replace(
    "[spp]\ntype=spp\ninputs=conv1\nlevels=3,2,1\npool=max\n",
    "".join(
        f"[pool{n}]\ntype=pool\npool=max\ninputs=conv1\nsizeX={-(-16 // n)}\nstride={16 // n}\n\n"
        for n in (3, 2, 1)
    ),
).replace("inputs=spp", "inputs=pool3,pool2,pool1")
OPTIONS = "--minibatch=300", "--epochs=4"


def pools_at(side: int, levels=(3, 2, 1)) -> str:
    """The net of POOLS for images of another side, levels by the paper's rule."""
    text = POOLS.replace("imgSize=16", f"imgSize={side}")
    for n in levels:
        before = f"sizeX={-(-16 // n)}\nstride={16 // n}\n"
        text = text.replace(before, f"sizeX={-(-side // n)}\nstride={side // n}\n")
    return text


def two(folder, small=12, text=None):
    """The command-line names of a net for 16 x 16 and of one for a smaller side."""
    names = []
    for name, body in ("big", POOLS), ("small", text or pools_at(small)):
        (folder / name).mkdir()
        names.append(str(tiny(folder / name, body)))
    return names


# the paper's sides of maps, 13 and 18 at 224, 10 and 14 at 180 (spec: SPP-net 1.4)
@pytest.mark.parametrize(
    "a,found",
    [
        (13, {6: 6, 4: 4, 3: 3, 2: 2, 1: 1}),
        (18, {6: 6, 4: 5, 3: 3, 2: 2, 1: 1}),
        (10, {6: 9, 4: 5, 3: 3, 2: 2, 1: 1}),
        (14, {6: 7, 4: 5, 3: 4, 2: 2, 1: 1}),
    ],
)
def test_windows_of_the_papers_rule(a, found):
    assert {n: windows(a, n) for n in found} == found


def test_two_networks_share_weights_and_momenta(tmp_path):
    """Two networks of two sizes give what one with type=spp gives at these sizes, bit for bit."""
    big, small = two(tmp_path)
    options = (*OPTIONS, "--seed=3")
    done = call("train", f"--layer-def={big},{small}", *options, f"--save-path={tmp_path}/two")
    assert done.code == 0 and "sizes 16, 12 in turn, a new one each epoch" in done.out, done
    assert re.findall(r"epoch (\d) at (\d+)x", done.out) == [*zip("1234", ("16", "12") * 2)]
    one = call(
        "train", f"--layer-def={big}", *options, "--sizes=16,12", f"--save-path={tmp_path}/1"
    )
    assert one.code == 0, one
    assert metrics(tmp_path / "two") == metrics(tmp_path / "1")
    sizes = [row["size"] for row in metrics(tmp_path / "two") if "size" in row]
    assert sizes == [16] * 5 + [12] * 5 + [16] * 5 + [12] * 5
    a, b = (load(tmp_path / name / "4.5.h5").arrays for name in ("two", "1"))
    assert all((a["weights"][k] == w).all() for k, w in b["weights"].items())


@pytest.mark.parametrize("sizes", ["16,12,8", "9:16"])
@pytest.mark.parametrize("switch", ["epoch", "batch"])
def test_a_resumed_run_has_the_same_bits(sizes, switch, tmp_path):
    cfg = tiny(tmp_path)
    options = (f"--sizes={sizes}", f"--switch={switch}", "--minibatch=300", "--test-freq=3")
    args = (f"--layer-def={cfg}", *options, "--keep=99", f"--save-path={tmp_path}/run")
    assert call("train", *args, "--epochs=3").code == 0
    before = (tmp_path / "run/3.5.h5").read_bytes(), metrics(tmp_path / "run")
    for path in (tmp_path / "run").glob("*.h5"):
        if path.name > "2.1.h5":
            path.unlink()
    again = call("train", f"--resume={tmp_path}/run")
    assert again.code == 0, again
    after = (tmp_path / "run/3.5.h5").read_bytes(), metrics(tmp_path / "run")
    assert after == before
    found = [row["size"] for row in before[1] if "size" in row]
    changes = sum(a != b for a, b in pairwise(found))
    assert len(set(found)) > 1 and (changes > 3 if switch == "batch" else changes <= 2)


def test_a_drawn_size_is_any_of_the_range():
    net = Net(Source("n.cfg", TINY).graph({0: (16, 16, 1)}, 10))
    turns = Turns(net, sizes="9:16")
    drawn = [turns(epoch, 0, 5).size for epoch in range(1, 400)]
    assert set(drawn) == set(range(9, 17))
    counts = np.bincount(drawn)[9:]
    assert counts.min() > 25 and counts.max() < 80  # 50 each, sd 6.6
    other = Turns(Net(net.graph, seed=1), sizes="9:16")
    assert drawn != [other(epoch, 0, 5).size for epoch in range(1, 400)]


def test_the_view_is_the_same_crop_resized():
    from convnet.providers import DataOptions
    from convnet.providers.digits import Digits

    with Digits(None, 16, 1, DataOptions(seed=2)) as data:
        data.mean = 0.0
        a, b = (
            next(data.batches("train", 4, 1)),
            next(data.batches("train", 4, 1, size=lambda _: 9)),
        )
        assert (a.indices == b.indices).all() and b.images.shape == (4, 9, 9, 1)
        for big, small in zip(a.images, b.images):
            assert (views.resize(np.rint(big).astype(np.uint8), 9, 9) == small).all()


def test_rates_are_those_of_the_network_that_trains(tmp_path):
    """An epsW of 0 in the second network's params file stops its epochs alone."""
    big, small = two(tmp_path)
    (tmp_path / "small/tiny-params.cfg").write_text("[DEFAULT]\nepsW=0\nepsB=0\nmomW=0\nmomB=0\n")
    options = "--minibatch=300", "--epochs=2", "--keep=9", f"--save-path={tmp_path}/run"
    assert call("train", f"--layer-def={big},{small}", *options).code == 0
    a, b = (load(tmp_path / f"run/{name}.h5").arrays["weights"] for name in ("1.5", "2.5"))
    assert all((a[k] == w).all() for k, w in b.items())


def test_twins_share_arrays_not_graphs():
    net = Net(Source("n.cfg", POOLS).graph({0: (16, 16, 1)}, 10))
    other = Source("o.cfg", pools_at(12)).graph({0: (12, 12, 1)}, 10)
    first, second = Turns(net, [other])(1, 0, 1).net, Turns(net, [other])(2, 0, 1).net
    assert first is net and second.graph is other
    images = np.ones((2, 12, 12, 1), np.float32)
    outs, tape = second.fprop(second.feed(images, [0, 1]), ["logprob"], train=True)
    before = net.predict(np.full((1, 16, 16, 1), 9, np.uint8), "asis")
    gradients = second.bprop(tape, second.cost_gradients(outs), lazy=True)
    Sgd(net).update(gradients, 2, 0.0, second)
    assert not np.allclose(before, net.predict(np.full((1, 16, 16, 1), 9, np.uint8), "asis"))


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    "sizes,why",
    [
        ("16,x", "must be sides as in 224,180, or from:to as in 180:224"),
        ("16:9", "must be sides as in 224,180"),
        ("0,16", "must be sides as in 224,180"),
        ("16,20", "20 is more than the 16 of the net's imgSize"),
    ],
)
def test_sizes_that_are_none(sizes, why):
    net = Net(Source("n.cfg", TINY).graph({0: (16, 16, 1)}, 10))
    with pytest.raises(UsageError, match=re.escape(why)):
        Turns(net, sizes=sizes)


def test_a_net_without_a_pyramid_takes_one_size(tmp_path):
    cfg = ROOT / "layer_configs" / "cifar10.cfg"
    done = call("train", f"--layer-def={cfg}", "--sizes=32,24", f"--save-path={tmp_path}/run")
    assert done.code == 2 and done.err.startswith("--sizes=32,24: at 24x24: [")
    assert "takes images of 32x32 only" in done.err and not (tmp_path / "run").exists()


def test_a_note_where_windows_would_not_be_n_x_n():
    net = Net(Source("n.cfg", TINY.replace("3,2,1", "6,3")).graph({0: (16, 16, 1)}, 10))
    whole = "at 10x10 [spp] reads 10x10, where sliding windows would give 9x9, not 6x6: it has the "
    assert Turns(net, sizes="10").notes == [whole + "bins of type=spp"]
    assert Turns(net, sizes="16,10").notes == [
        "at 16x16 [spp] reads 16x16, where sliding windows would give 8x8, not 6x6 (and so at 1 "
        "more of the sizes): it has the bins of type=spp",
    ]
    assert Turns(net).notes == []


@pytest.mark.parametrize(
    "size,why", [("17", "17 is more than the 16"), ("0", "must be sides as in")]
)
def test_one_size_is_checked_as_several_are(size, why, tmp_path):
    cfg = tiny(tmp_path, TINY)
    done = call("train", f"--layer-def={cfg}", f"--sizes={size}", f"--save-path={tmp_path}/run")
    assert done.code == 2 and why in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("key,now", [("levels=3,2,1", "levels=1,2,3"), ("pool=max", "pool=avg")])
def test_networks_whose_weights_mean_something_else(tmp_path, key, now):
    """Shapes are equal, but each number of fc1 would belong to another bin, or to a mean."""
    big, small = (tmp_path / name for name in ("big", "small"))
    for folder, text in (big, TINY), (small, TINY.replace(key, now)):
        folder.mkdir()
        tiny(folder, text)
    names = ",".join(str(folder / "tiny.cfg") for folder in (big, small))
    done = call("train", f"--layer-def={names}", f"--save-path={tmp_path}/run")
    assert done.code == 2 and f"[spp] {now}" in done.err
    assert f"in the first network {key.split('=')[1]}" in done.err
    assert not (tmp_path / "run").exists()


def test_networks_that_cannot_share(tmp_path):
    """An error for every layer, with its line, and what of the pyramid is to blame."""
    text = pools_at(10).replace("filters=6", "filters=5").replace("[fc2]", "[fc3]")
    big, small = two(tmp_path, text=text.replace("inputs=fc2", "inputs=fc3"))
    done = call("train", f"--layer-def={big},{small}", f"--save-path={tmp_path}/run")
    lines = done.err.splitlines()
    assert done.code == 2 and all(line.startswith(f"{small}:") for line in lines)
    assert "[conv1] its weights W0 are 3x3x1x5, in the first network 3x3x1x6" in lines[1]
    assert any("has weights, but is not in the first network" in line for line in lines)
    assert "no layer [fc2], which the first network has weights for" in lines[0]
    assert not (tmp_path / "run").exists()


def test_the_level_to_blame_is_named(tmp_path):
    """The rule of the paper at a=14, n=3 gives 4 x 4 (spec: SPP-net 1.4)."""
    big, small = two(tmp_path, 14)
    done = call("train", f"--layer-def={big},{small}", f"--save-path={tmp_path}/run")
    assert done.code == 2 and "[fc1] its weights W0 are 96x20" in done.err
    assert "; [pool3] gives 4x4 bins, there 3x3 (docs/pyramid.md)" in done.err


@pytest.mark.parametrize(
    "more,why",
    [
        (["--switch=batch"], "--switch=batch: there is one size only"),
        (["--layer-params=a,b"], "--layer-params=a,b: 2 files for 1 layer definition"),
    ],
)
def test_options_that_do_not_go_together(more, why, tmp_path):
    done = call("train", f"--layer-def={tiny(tmp_path)}", *more, f"--save-path={tmp_path}/run")
    assert done.code == 2 and why in done.err, done


def test_sizes_do_not_go_with_several_definitions(tmp_path):
    big, small = two(tmp_path)
    done = call("train", f"--layer-def={big},{small}", "--sizes=16,12")
    assert done.code == 2 and "goes with one layer definition" in done.err
    done = call("train", f"--layer-def={small},{big}")
    assert done.code == 2 and "imgSize=16 is more than 12" in done.err
    assert "name the largest first" in done.err


def test_a_resume_with_a_definition_missing(tmp_path):
    big, small = two(tmp_path)
    run = f"{tmp_path}/run"
    call("train", f"--layer-def={big},{small}", *OPTIONS, f"--save-path={run}")
    done = call("train", f"--layer-def={big}", f"--resume={run}", "--epochs=6")
    assert done.code == 5 and "has 2 layer definitions, not 1" in done.err
    done = call("train", f"--resume={run}", "--epochs=5")
    assert done.code == 0 and "epoch 5 at 16x16" in done.out, done
