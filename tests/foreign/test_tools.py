"""tools/import.py, tools/export.py and train.py --init-from, from file to file."""

import errno
import os

import numpy as np
import pytest

from convnet import Net, checkpoint, runfolder
from convnet.cli import UsageError
from convnet.foreign import onnx, wire
from convnet.layer import Layer
from layers.spp import Spp
from tests.foreign import files
from tests.tooling import TINY, call, tiny

RNG = np.random.default_rng(2)
SHAPES = {"conv1": (6, 3, 3, 3), "fc1": (20, 84), "fc2": (10, 20)}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of its own with tiny.cfg and net.pth, of 10 classes as the digits."""
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path, TINY.replace("imgSize=16\n", "imgSize=16\nchannels=3\n"))
    arrays = {}
    for name, shape in SHAPES.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        arrays[f"{name}.weight"] = RNG.normal(0, scale, shape)
        arrays[f"{name}.bias"] = RNG.normal(0, 0.1, shape[0])
    (tmp_path / "net.pth").write_bytes(files.state_dict(arrays))
    return tmp_path


def ok(tool, *argv) -> str:
    result = call(tool, *argv)
    assert result.code == 0, result.err
    return result.out


def refused(tool, *argv, code=5) -> str:
    result = call(tool, *argv)
    assert result.code == code and result.err.count("\n") == 1, result
    return result.err.strip()


def weights(path) -> dict:
    return runfolder.find(path)[0].arrays["weights"]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_import_test_train(here):
    """With data it is a run that has not begun: tested, and trained on with the same bits."""
    out = ok("import", "net.pth", "--layer-def=tiny.cfg", "--data-provider=digits")
    assert "of PyTorch, 3 layers with weights, matched by name; 3 of ours filled" in out
    assert out.endswith("1.0.h5: 10 classes, the mean is 123.7, 116.3, 103.5\n")
    ok("test")
    begun = weights("runs/tiny_001")
    ok("train", "--resume=runs/tiny_001", "--epochs=1", "--minibatch=64")
    ok("train", "--layer-def=tiny.cfg", "--init-from=net.pth", "--epochs=1", "--minibatch=64",
       "--save-path=other")  # fmt: skip
    assert not same(weights("runs/tiny_001"), begun)
    trained = runfolder.find("other")[0]
    assert same(begun, weights("runs/tiny_001/1.0.h5")) and trained.meta["epoch"] == 1


def test_help_names_every_provider():
    told = " ".join(ok("import", "--help").split())
    assert "digits, images, cifar, ilsvrc, packed or tars (default: found from the folder)" in told


def test_without_data(here):
    ok("import", "net.pth", "--layer-def=tiny.cfg", "--out=net.h5")
    assert Net.from_checkpoint("net.h5").classes == [str(i) for i in range(10)]
    said = "the net was imported and has no data of its own; --data-path=DIR"
    assert refused("test", "net.h5", code=2) == said
    resume = refused("train", "--resume=net.h5", code=2)
    assert resume == "net.h5: was imported without data; --init-from=net.h5 trains it"
    ok("test", "net.h5", "--data-provider=digits")


def test_names_mean_and_channels(here):
    (here / "words").write_text("".join(f"class {i}\n" for i in range(10)))
    ok("import", "net.pth", "--layer-def=tiny.cfg", "--out=a.h5", "--classes=words",
       "--channels=bgr", "--mean=10,20,30", "--std=1,2,4")  # fmt: skip
    ok("import", "net.pth", "--layer-def=tiny.cfg", "--out=b.h5", "--mean=5", "--std=1")
    a, b = (checkpoint.load(f"{name}.h5") for name in "ab")
    assert a.meta["classes"][3] == "class 3" and b.meta["classes"][3] == "3"
    assert a.arrays["data"]["mean"][4, 5].tolist() == [30, 20, 10]
    assert (b.arrays["data"]["mean"] == 5).all()
    turned = a.arrays["weights"]["conv1/W0"][:, :, ::-1] * np.array([1, 2, 4])[:, None]
    np.testing.assert_allclose(turned, b.arrays["weights"]["conv1/W0"], rtol=1e-6)


@pytest.mark.parametrize(
    "more,code,why",
    [
        (["--set=fc1.outputs=21"], 5, "net.pth: has nothing for [fc1] and 1 more; nothing written"),
        (["--set=conv1.filters=7", "--set=fc1.outputs=9", "--classes=3"], 5,
         "net.pth: the weights of another net, none fits"),
        (["--classes=11"], 5, "net.pth: has nothing for [fc2]; nothing written. --partial"),
        (["--map=fc1"], 2, "--map=fc1: must be ours=theirs, several with commas; 'fc1' is not"),
        (["--map=="], 2, "--map==: must be ours=theirs, several with commas; '=' is not"),
        (["--map=fc1=fc1,"], 2, "must be ours=theirs, several with commas; an empty one is not"),
        (["--map=fc1= "], 2, "several with commas; 'fc1= ' is not"),
        (["--map=fc1=fc1,fc1=fc2"], 2, "--map=fc1=fc1,fc1=fc2: fc1 is there twice"),
        (["--map=fc1=fc3"], 5, "net.pth has no layer 'fc3' with weights; did you mean 'fc"),
        (["--mean=1,2"], 2, "--mean=1,2: must be a number or 3 with commas"),
        (["--mean=data"], 2, "--mean=data: --data-path=DIR says of which"),
        (["--std=0"], 2, "--std=0: must be a number above 0 or 3 with commas"),
        (["--classes=0"], 2, "--classes=0: must be a number from 1 to 1000000, or a file with a"),
        (["--classes=99999999999"], 2, "--classes=99999999999: must be a number from 1 to 1000000"),
        (["--classes=1e3"], 2, "or a file with a name a line; there is no such file"),
        (["--size=20x16"], 2, "tiny.cfg:5: [data] imgSize=16: --size=20x16 is for a cfg that"),
        (["--size=20"], 2, "--size=20 is for a cfg that leaves it open; --set=data.imgSize=20 ch"),
        (["--mean=net.pth"], 5, "net.pth: no mean image of Caffe"),
        (["--classes=tiny.cfg"], 2, "--classes=tiny.cfg: must have a line for each class"),
        (["--out=net.pth"], 2, "--out=net.pth: must end in .h5"),
        (["--out=x.xyz"], 2, "--out=x.xyz: must end in .h5"),
        (["--out=words.h5"], 2, "--out=words.h5: is there already; name another file"),
        (["--layer-def=nothing.cfg"], 2, "nothing.cfg"),
    ],
)  # fmt: skip
def test_an_import_that_cannot_be(here, more, code, why):
    """One line, and nothing is written."""
    (here / "words.h5").write_text("a\nb\n")
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert why in refused("import", "net.pth", "--layer-def=tiny.cfg", "--out=x.h5", *more,
                          code=code)  # fmt: skip
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_a_full_disk_leaves_no_folder(here, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(os, "fsync", full)
        assert "not saved" in refused("import", "net.pth", "--layer-def=tiny.cfg")
    assert not [*(here / "runs").iterdir()]
    assert "runs/tiny_001/1.0.h5: 10" in ok("import", "net.pth", "--layer-def=tiny.cfg")


def test_partial(here):
    out = ok("import", "net.pth", "--layer-def=tiny.cfg", "--out=x.h5", "--classes=3", "--partial")
    assert "[fc2]" not in out and "fc2    fc2    as initialised: W0 is 20x10 there" in out
    assert weights("x.h5")["fc2/W0"].shape == (20, 3)


def test_what_would_be_lost(here):
    """An import that would be another net is none; --partial and --init-from do it with a note."""
    kinds = {"conv1": "Convolution", "fc1": "InnerProduct", "fc2": "InnerProduct"}
    layers = [
        (
            name,
            kind,
            name,
            name,
            [RNG.normal(size=shape) / 9 for shape in (SHAPES[name], SHAPES[name][0])],
        )
        for name, kind in kinds.items()
    ]
    layers.insert(1, ("prelu1", "PReLU", "conv1", "conv1", [np.ones(6)]))
    layers.insert(1, ("aux", "InnerProduct", "conv1", "aux", [np.ones((3, 3))]))  # not wanted
    (here / "net.caffemodel").write_bytes(files.caffemodel(layers))
    argv = ["net.caffemodel", "--layer-def=tiny.cfg", "--out=x.h5"]
    why = "net.caffemodel: prelu1: of type PReLU, which has no counterpart here"
    told = f"{why}; nothing written. --partial leaves such weights out, which makes another net"
    assert refused("import", *argv) == told and not (here / "x.h5").exists()
    note = f"note: {why}; left out\n"
    assert note in ok("import", *argv, "--partial") and (here / "x.h5").exists()
    assert note in ok("train", "--layer-def=tiny.cfg", "--init-from=net.caffemodel", "--epochs=1",
                      "--minibatch=200", "--save-path=run")  # fmt: skip
    del layers[2]
    (here / "net.caffemodel").write_bytes(files.caffemodel(layers))
    assert "not used: aux\n" in ok("import", *argv[:2], "--out=y.h5")


def test_fine_tuning_from_a_run(here):
    """Layers by name; a rate of 0 keeps one; a resumed run never looks at the file again."""
    ok("import", "net.pth", "--layer-def=tiny.cfg", "--out=x.h5")
    argv = ["--layer-def=tiny.cfg", "--set=fc1.outputs=30", "--minibatch=200", "--epochs=1"]
    argv += ["--set=conv1.epsW=0", "--set=conv1.epsB=0", "--init-from=x.h5"]
    out = ok("train", *argv, "--save-path=tuned")
    assert "of convnet, 3 layers with weights, matched by name; 1 of ours filled, 2 left" in out
    for name in ("conv1/W0", "conv1/b"):
        assert np.array_equal(weights("tuned")[name], weights("x.h5")[name])
    (here / "x.h5").unlink()
    assert "x.h5" not in ok("train", "--resume=tuned", "--epochs=2")
    both = refused("train", "--resume=tuned", "--init-from=net.pth", code=2)
    assert both == "--init-from=net.pth: --resume has the weights of the run"
    assert "gone.h5: cannot be read" in refused("train", *argv[:-1], "--init-from=gone.h5")
    assert not (here / "runs").exists()


# ---------------------------------------------------------------- export


@pytest.fixture
def net(here):
    ok("import", "net.pth", "--layer-def=tiny.cfg", "--out=net.h5")
    return here / "net.h5"


def test_safetensors_and_back(net):
    out = ok("export", "net.h5", "--safetensors=net.safetensors")
    assert out == "net.safetensors: 3 layers with weights\n"
    ok("import", "net.safetensors", "--layer-def=tiny.cfg", "--out=again.h5")
    assert same(weights("again.h5"), weights("net.h5"))
    means = [checkpoint.load(name).arrays["data"]["mean"] for name in ("net.h5", "again.h5")]
    np.testing.assert_allclose(*means, rtol=1e-6)


def graph_of(path) -> tuple[list[str], dict, dict]:
    """Kinds of the nodes of a model, and the sides of inputs and outputs by name."""
    graph = next(v for n, v in wire.fields(memoryview(path.read_bytes())) if n == 7)
    found = {n: [v for k, v in wire.fields(graph) if k == n] for n in (1, 11, 12)}
    kinds = [wire.text(dict(wire.fields(node))[4]) for node in found[1]]
    return kinds, *(dict(map(sides, found[n])) for n in (11, 12))


def sides(info) -> tuple[str, list]:
    parts = dict(wire.fields(info))
    tensor = dict(wire.fields(dict(wire.fields(parts[2]))[1]))
    dims = [dict(wire.fields(v)) for _, v in wire.fields(tensor[2])]
    return wire.text(parts[1]), [dim.get(1) or wire.text(dim[2]) for dim in dims]


def test_onnx(net):
    said = ok("export", "net.h5", "--onnx=net.onnx")
    assert said == "net.onnx: images N x 16x16x3, uint8 -> probs Nx10, float32\n"
    kinds, inputs, outputs = graph_of(net.with_name("net.onnx"))
    assert inputs == {"images": ["N", 16, 16, 3]} and outputs == {"probs": ["N", 10]}
    assert kinds[:3] == ["Cast", "Transpose", "Sub"]
    assert kinds.count("Conv") == 1 and kinds.count("Gemm") == 2 and "Dropout" not in kinds
    ok("export", "net.h5", "--onnx=net.onnx", "--size=20x33", "--layer=conv1:pre,spp")
    _, inputs, outputs = graph_of(net.with_name("net.onnx"))
    assert inputs == {"images": ["N", 20, 33, 3]}
    assert outputs == {"conv1:pre": ["N", 20, 33, 6], "spp": ["N", 84]}


def test_an_export_that_cannot_be(net, monkeypatch):
    for argv, why in (
        ([], "--onnx=FILE or --safetensors=FILE is needed"),
        (["--safetensors=a.safetensors", "--layer=conv1"], "--layer: goes with --onnx"),
        (
            ["--onnx=a.onnx", "--layer=fc1,conv9"],
            "--layer=conv9: net.h5: no layer 'conv9'; did you mean 'conv1'?",
        ),
        (["--onnx=a.onnx", "--layer=nope"], "--layer=nope: net.h5: no layer 'nope'"),
        (["--onnx=a.onnx", "--layer=fc1,"], "--layer=fc1,: a name is empty"),
        (
            ["--onnx=a.onnx", "--layer=logprob"],
            "[logprob] type=cost.logreg: reads [labels]; an ONNX model takes images only",
        ),
        (["--onnx=a.onnx", "--layer=labels"], "[labels]: an ONNX model takes images only"),
        (["--onnx=net.h5"], "--onnx=net.h5: must end in .onnx"),
        (["--onnx=metrics.jsonl"], "--onnx=metrics.jsonl: must end in .onnx"),
        (["--safetensors=a.onnx"], "--safetensors=a.onnx: must end in .safetensors"),
        (["--onnx=no/a.onnx"], "--onnx=no/a.onnx: there is no folder no"),
    ):
        assert why in refused("export", "net.h5", *argv, code=2)
    monkeypatch.setattr(Spp, "onnx", Layer.onnx)
    told = refused("export", "net.h5", "--onnx=a.onnx", code=2)
    assert told == "[spp] type=spp: has no form in ONNX"
    monkeypatch.setattr(onnx, "LARGEST", 1000)
    with pytest.raises(UsageError, match="ONNX holds 2 GB"):
        onnx.model(Net.from_checkpoint("net.h5"), ["conv1"])
    assert not net.with_name("a.onnx").exists()


def test_a_model_that_is_too_large_is_told_before_it_is_made(net, monkeypatch):
    """Where the mean alone of such images is more than a model holds, it is not warped to them."""
    monkeypatch.setattr(onnx, "warp_mean", None)
    told = refused("export", "net.h5", "--onnx=a.onnx", "--size=30000", code=2)
    assert told == "the model for images of 30000x30000x3 would be 10.8 GB; ONNX holds 2 GB"
