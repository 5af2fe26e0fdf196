"""Files of every format are read as they were meant, or refused in one line; nothing is run."""

import argparse
import builtins
import collections
import datetime
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from convnet.checkpoint import CheckpointError
from convnet.foreign import read, safetensors, wire
from convnet.foreign.found import WeightsError
from convnet.unpickle import Nothing, load
from tests.foreign import files

RNG = np.random.default_rng(0)
W1 = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)  # out, in, rows, columns
B1 = RNG.standard_normal(4).astype(np.float32)
W2 = RNG.standard_normal((5, 36)).astype(np.float32)
B2 = RNG.standard_normal(5).astype(np.float32)
LAYERS = [
    ("conv1", "Convolution", "data", "conv1", [W1, B1]),
    ("relu1", "ReLU", "conv1", "conv1", []),
    ("fc2", "InnerProduct", "conv1", "fc2", [W2, B2]),
]


def found(tmp_path, data: bytes):
    (tmp_path / "file").write_bytes(data)
    return read.read(tmp_path / "file")


def check(layers, names=("conv1", "fc2"), limit=0.0):
    assert [layer.name for layer in layers] == [*names]
    for layer, W, b in zip(layers, (W1, W2), (B1, B2)):
        np.testing.assert_allclose(layer.kernels[0], W, rtol=limit)
        np.testing.assert_allclose(layer.bias, b, rtol=limit)
        assert layer.kernels[0].dtype == np.float32


# ---------------------------------------------------------------- Caffe


@pytest.mark.parametrize("how", ["V0", "V1", "now"])
def test_caffe_in_all_layouts(tmp_path, how):
    made = found(tmp_path, files.caffemodel(LAYERS, how))
    check(made.layers)
    assert (made.format, made.input.bgr, made.notes) == ("Caffe", True, [])


@pytest.mark.parametrize("kind,limit", [(np.float64, 1e-7), (np.float16, 2e-3)])
def test_caffe_numbers_of_other_sizes(tmp_path, kind, limit):
    layers = [(*l[:4], [a.astype(kind) for a in l[4]]) for l in LAYERS]
    made = found(tmp_path, files.caffemodel(layers)).layers
    np.testing.assert_allclose(made[0].kernels[0], W1, rtol=limit)


def test_batch_normalisation_goes_into_the_layer_before_it(tmp_path):
    """Worked out here in the other order: x, then minus mean, over deviation, times, plus."""
    mean, var = RNG.normal(size=4), RNG.uniform(0.5, 2, 4)
    gamma, beta = RNG.normal(size=4), RNG.normal(size=4)
    layers = [
        LAYERS[0],
        ("bn1", "BatchNorm", "conv1", "bn1", [2 * mean, 2 * var, np.array([2.0])]),
        ("scale1", "Scale", "bn1", "bn1", [gamma, beta]),
        ("relu1", "ReLU", "bn1", "bn1", []),
        ("odd", "Scale", "bn1", "bn1", [gamma, beta]),  # behind a relu it cannot
    ]
    made = found(tmp_path, files.caffemodel(layers))
    why = "which has a counterpart only right behind a Convolution or InnerProduct"
    assert made.lost == [f"odd: of type Scale, {why}"] and not made.notes
    x = RNG.normal(size=27)
    was = W1.reshape(4, -1) @ x + B1
    now = made.layers[0].kernels[0].reshape(4, -1) @ x + made.layers[0].bias
    np.testing.assert_allclose(now, (was - mean) / np.sqrt(var + 1e-5) * gamma + beta, rtol=1e-5)


def test_caffe_weights_that_are_turned(tmp_path):
    layers = [*LAYERS[:2], (*LAYERS[2][:4], [W2.T, B2])]
    check(found(tmp_path, files.caffemodel(layers, turned=True)).layers)


def test_batch_normalisation_of_what_others_read_too_is_lost(tmp_path):
    numbers = [np.zeros(4), np.full(4, 9.0), np.ones(1)]
    layers = [LAYERS[0], ("bn1", "BatchNorm", "conv1", "bn1", numbers), LAYERS[2]]
    made = found(tmp_path, files.caffemodel(layers))
    check(made.layers)
    told = "bn1: of type BatchNorm, works on conv1, which others read as it was; no counterpart he"
    assert len(made.lost) == 1 and made.lost[0].startswith(told)
    layers[1] = ("bn1", "BatchNorm", "conv1", "conv1", numbers)  # in place: fc2 reads the result
    made = found(tmp_path, files.caffemodel(layers))
    assert len(made.layers) == 2 and not made.lost


NORM = [np.ones(4), np.ones(4), np.ones(1)]


@pytest.mark.parametrize(
    "at,name,kind,numbers",
    [
        (0, "data", "BatchNorm", [np.ones(3), np.ones(3), np.ones(1)]),
        (2, "conv1", "BatchNorm", NORM),
        (2, "conv1", "Scale", NORM[:2]),
        (1, "conv1", "PReLU", NORM[:1]),
        (1, "conv1", "Deconvolution", [np.ones((4, 4, 3, 3)), np.ones(4)]),
        (1, "conv1", "Convolution", [W1, B1, B1]),
    ],
)
@pytest.mark.parametrize("how", ["V1", "now"])
def test_what_caffe_has_trained_and_we_do_not_have_is_lost(tmp_path, at, name, kind, numbers, how):
    layers = [*LAYERS[:at], ("odd", kind, name, name, numbers), *LAYERS[at:]]
    made = found(tmp_path, files.caffemodel(layers, how))
    check(made.layers)
    assert [told.partition(":")[0] for told in made.lost] == ["odd"]


def test_caffe_mean_image(tmp_path):
    image = RNG.uniform(0, 255, (3, 4, 5)).astype(np.float32)
    (tmp_path / "mean").write_bytes(b"".join(files.blob(image, "V1").pieces))
    np.testing.assert_array_equal(read.mean_image(tmp_path / "mean"), image.transpose(1, 2, 0))
    (tmp_path / "mean").write_bytes(b"".join(files.blob(image[:2], "V1").pieces))
    with pytest.raises(WeightsError, match="mean: no mean image of Caffe: holds 2x4x5 numbers"):
        read.mean_image(tmp_path / "mean")


def test_caffe_says_what_does_not_fit(tmp_path):
    layers = [("conv1", "Convolution", "data", "conv1", [W1[0]])]
    with pytest.raises(WeightsError, match="layer conv1: 3x3x3 weights cannot be those of a Conv"):
        found(tmp_path, files.caffemodel(layers))
    layers = [("conv1", "Convolution", "data", "conv1", [np.full_like(W1, np.nan)])]
    with pytest.raises(WeightsError, match="layer conv1: a blob is not finite"):
        found(tmp_path, files.caffemodel(layers))


def test_wire_passes_over_groups():
    """Field 3 begins a group with a varint, a text and a group in it; field 1 is behind it."""
    data = bytes([3 << 3 | 3, 8, 5, 18, 2, 65, 66, 4 << 3 | 3, 4 << 3 | 4, 3 << 3 | 4, 8, 7])
    assert [*wire.fields(memoryview(data))] == [(1, 7)]
    assert wire.varints(memoryview(bytes([5, 172, 2]))) == [5, 300]  # as Google's page has it
    assert wire.Message((1, 150)).pieces == [b"\x08\x96\x01"]  # and this


# ---------------------------------------------------------------- PyTorch, safetensors


def test_a_state_dict(tmp_path):
    arrays = {"conv1.weight": W1, "conv1.bias": B1, "fc2.weight": W2, "fc2.bias": B2}
    made = found(tmp_path, files.state_dict(arrays))
    check(made.layers)
    assert not made.lost and not made.notes


@pytest.mark.parametrize(
    "within",
    [
        lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"state": {0: {}}}},
        lambda state: {"net": state, "rng": {"cpu": state["conv1.bias"]}},
        lambda state: {"ema": {"x.weight": state["conv1.bias"]}, "model": state},
        lambda state: {"ema": state, "model": {"depth": 3}},
        lambda state: {"model": {"x.weight": state["conv1.bias"]}, "state_dict": state},
        lambda state: {**state, "ema": {"x.weight": state["conv1.bias"]}},
        lambda state: {"checkpoint": {"state_dict": state}, "epoch": 3},
        lambda state: {"state_dict": {"model": state}},
        lambda state: {"last": state, "best": state},
    ],
)
def test_a_state_dict_in_a_dict(tmp_path, within):
    arrays = {"conv1.weight": W1, "conv1.bias": B1, "fc2.weight": W2, "fc2.bias": B2}
    check(found(tmp_path, files.state_dict(arrays, within)).layers)


@pytest.mark.parametrize(
    "within,why",
    [
        (lambda state: {"G": state, "D": {**state}}, "holds 2 state dicts, G, D; save one by"),
        (lambda state: {"epoch": 3, "net": [state]}, "as features.0.weight, but epoch, net"),
        (lambda state: {"state_dict": {"W": state["a.weight"]}}, "as features.0.weight, but W"),
        (lambda state: {f"k{i}": i for i in range(9)}, "but k0, k1, k2, k3, k4, k5 and 3 more"),
        (lambda state: {}, "as features.0.weight, but nothing"),
    ],
)
def test_a_dict_without_one_state_dict(tmp_path, within, why):
    with pytest.raises(WeightsError, match=why):
        found(tmp_path, files.state_dict({"a.weight": W2}, within))


def test_what_of_a_state_dict_is_lost(tmp_path):
    norm = {f"bn0.{part}": B1 for part in ("weight", "bias", "running_mean", "running_var")}
    arrays = {"conv1.weight": W1, "conv1.bias": B1, "prelu1.weight": B1, "odd": B1}
    arrays |= {"fc2.weight": W2, "fc2.bias": B2}
    norm |= {name.replace("bn0", "bn2"): array for name, array in norm.items()}
    arrays = {name: arrays[name] for name in ("conv1.weight", "conv1.bias", "prelu1.weight", "odd")}
    arrays |= {name: norm[name] for name in norm if name.startswith("bn2")}
    arrays |= {"fc2.weight": W2, "fc2.bias": B2}
    arrays |= {f"bn3.{part}": np.ones(77, np.float32) for part in ("weight", "running_mean")}
    first = {name: norm[name] for name in norm if name.startswith("bn0")}
    made = found(tmp_path, files.state_dict(first | arrays))
    check(made.layers)
    assert made.lost == [
        "odd: is no weight or bias of a layer (a buffer, if nobody trained it)",
        "bn0: normalises what no layer made, which has no counterpart here",
        "prelu1: has weight of 4, which has no counterpart here",
        "bn2: normalises what has no counterpart here",
        "bn3: a batch normalisation behind fc2 is of another size",
    ]


def test_safetensors_there_and_back(tmp_path):
    arrays = {"conv1.weight": W1, "conv1.bias": B1, "fc2.weight": W2, "fc2.bias": B2}
    data = b"".join(safetensors.pieces(arrays, {}))
    check(found(tmp_path, data).layers)
    refused = 0
    for at in range(len(data)):  # its checksum finds what the format would not
        damaged = bytearray(data)
        damaged[at] ^= 4
        try:
            check(found(tmp_path, bytes(damaged)).layers)
        except WeightsError:
            refused += 1
    assert refused > 0.98 * len(data)  # not the name of the checksum, nor of unused text


@pytest.mark.parametrize(
    "change,why",
    [
        ({"dtype": "F8_E4M3"}, "is of F8_E4M3"),
        ({"dtype": ["F32"]}, "is of .'F32'., which is not read here"),
        ({"shape": [4, 3]}, "conv1.weight of 4x3 holds 108 numbers; the file is damaged"),
        ({"shape": [-4, 3, 3, -3]}, "conv1.weight of -4x3x3x-3 cannot be"),
        ({"shape": [4, 3, 3, 3.0]}, "conv1.weight of 4x3x3x3.0 cannot be"),
        ({"shape": [1 << 40, 1 << 40]}, "conv1.weight of 1099511627776x1099511627776 holds 108 nu"),
        ({"shape": [108] + [1] * 40}, "conv1.weight of 108x1x1x1x1x1x1x1x.. cannot be"),
        ({"shape": [0, 1 << 80], "data_offsets": [0, 0]}, "conv1.weight is empty"),
        ({"data_offsets": [0.0, 432.0]}, "does not lie where it should"),
        ({"data_offsets": [0, 430]}, "ends in the middle of a number"),
        ({"data_offsets": [4, 436]}, "does not lie where it should"),
        ({"data_offsets": [0, 1 << 40]}, "does not lie where it should"),
        ({"shape": "wide"}, "does not lie where it should"),
        ({"data_offsets": [0]}, "makes no sense"),
    ],
)
def test_safetensors_that_lie(tmp_path, change, why):
    entry = {"dtype": "F32", "shape": [4, 3, 3, 3], "data_offsets": [0, 432]} | change
    text = json.dumps({"conv1.weight": entry}).encode()
    numbers = W1.tobytes()[: 0 if entry["data_offsets"] == [0, 0] else None]
    with pytest.raises(WeightsError, match=why):
        found(tmp_path, len(text).to_bytes(8, "little") + text + numbers)


# ---------------------------------------------------------------- cuda-convnet


def layers_of_2012():
    """(channels rows columns, filters) and (inputs, outputs), in Fortran order as there."""
    conv = np.asfortranarray(W1.reshape(4, 27).T)
    return [
        {"name": "data", "type": "data"},
        {"name": "conv1", "type": "conv", "weights": [conv], "biases": B1.reshape(4, 1),
         "filterSize": [3], "padding": [-1]},
        {"name": "fc2", "type": "fc", "weights": [np.asfortranarray(W2.T)],
         "biases": B2.reshape(1, 5)},
    ]  # fmt: skip


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_cuda_convnet(tmp_path, zipped, named):
    layers = layers_of_2012()
    layers = {l["name"]: l for l in layers} if named else layers
    made = found(tmp_path, files.checkpoint_of_2012(layers, zipped=zipped))
    check(made.layers)
    assert (made.format, made.input.bgr) == ("cuda-convnet", False)


def test_cuda_convnet_in_a_folder(tmp_path):
    """Natural order: 10.1 is newer than 9.3."""
    old = layers_of_2012()[:2]
    (tmp_path / "9.3").write_bytes(files.checkpoint_of_2012(old))
    (tmp_path / "10.1").write_bytes(files.checkpoint_of_2012(layers_of_2012()))
    check(read.read(tmp_path).layers)


def test_cuda_convnet_of_layers_unknown_here(tmp_path):
    layers = [*layers_of_2012(), {"name": "loc", "type": "local", "weights": [W2]}]
    layers[1] = layers[1] | {"biases": np.arange(16.0).reshape(16, 1)}  # one for each place
    made = found(tmp_path, files.checkpoint_of_2012(layers))
    assert made.lost == ["loc: of type=local, which has no counterpart here"]
    layers[-1] = {"name": "odd", "type": "fc", "weights": [W1]}
    odd = found(tmp_path, files.checkpoint_of_2012(layers))
    assert odd.lost == ["odd: of type=fc, has weights that are no matrix of floats"]
    assert made.layers[0].bias[2].tolist() == [[8, 9], [10, 11]]  # map, row, column


# ---------------------------------------------------------------- what is refused


def payloads(mark) -> list:
    """Pickles that would write a file, or end the process, if anything of them were called."""
    write = f"open({str(mark)!r}, 'w').close()"
    gadgets = [
        (eval, write), (exec, write), (os.system, f"touch {mark}"),
        (subprocess.Popen, ["touch", str(mark)]), (builtins.open, str(mark), "w"),
        (os.remove, "/nonexistent/x"), (builtins.__import__, "antigravity"),
        (getattr, 1, "real"), (np.load, str(mark)), (pickle.loads, b"N."), (os._exit, 3),
        (subprocess.check_output, ["touch", str(mark)]), (compile, write, "x", "exec"),
    ]  # fmt: skip
    made = [pickle.dumps({"weight": files.Evil(*gadget)}, 2) for gadget in gadgets]
    made.append(b"cos\nsystem\n(S'touch %s'\ntR." % str(mark).encode())  # protocol 0
    made.append(b"(S'touch %s'\nios\nsystem\n." % str(mark).encode())
    made.append(b"\x80\x04\x95\x18\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93"
                b"\x8c\x02ls\x85R.")  # fmt: skip
    return made


KINDS = {
    "pickle": lambda data: data, "zip": files.torch_zip, "legacy": files.torch_legacy,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_code_in_a_pickle_is_not_run(tmp_path, kind):
    mark = tmp_path / "mark"
    for data in payloads(mark):
        with pytest.raises(WeightsError) as e:
            found(tmp_path, KINDS[kind](data))
        assert "nothing in it was run" in str(e.value) and "\n" not in str(e.value)
        assert not mark.exists()


def test_the_payloads_would_do_something(tmp_path):
    pickle.loads(payloads(tmp_path / "mark")[0])
    assert (tmp_path / "mark").exists()


STATE = {"conv1.weight": W1, "conv1.bias": B1, "fc2.weight": W2, "fc2.bias": B2}


def test_what_a_program_saves_beside_the_weights(tmp_path):
    """Its options, numbers of NumPy, paths: a note names them, and they are not read."""
    beside = {
        "args": argparse.Namespace(lr=0.1, out=Path("runs")), "best": np.float64(0.5),
        "seen": {1, 2}, "counts": collections.defaultdict(int, a=3), "dtype": np.ndarray,
        "when": datetime.datetime(2020, 1, 1), "queue": collections.deque([1, 2]),
    }  # fmt: skip
    made = found(tmp_path, files.state_dict(STATE, lambda state: {**beside, "model": state}))
    check(made.layers)
    assert not made.lost and len(made.notes) == 1
    assert re.fullmatch(
        r"what in it is of argparse\.Namespace, pathlib\S*, .* and \d more is not read; "
        r"the weights are those of its model",
        made.notes[0],
    )
    made = found(tmp_path, files.state_dict(STATE, lambda state: {**beside, **state}))
    check(made.layers)
    for word in ("model", "state_dict"):  # the options that the net was made with
        where = {word: argparse.Namespace(depth=8)}
        made = found(tmp_path, files.state_dict(STATE, lambda s, w=where: {**w, "best": s}))
        check(made.layers)
        assert made.notes[0].endswith("Namespace is not read; the weights are those of its best")


def test_code_beside_the_weights_is_not_run(tmp_path):
    mark = tmp_path / "mark"
    write = f"open({str(mark)!r}, 'w').close()"
    for evil in (
        files.Evil(eval, write), files.Evil(os.system, f"touch {mark}"), files.Evil(os._exit, 3),
        files.Evil(subprocess.Popen, ["touch", str(mark)]), files.Evil(getattr, 1, "real"),
    ):  # fmt: skip
        data = files.state_dict(STATE, lambda state, evil=evil: {"model": state, "x": evil})
        made = found(tmp_path, data)
        check(made.layers)
        assert made.notes[0].endswith(" is not read; the weights are those of its model")
        assert not mark.exists()


@pytest.mark.parametrize(
    "ops",
    [
        b"cno_such_module\nx\n.",  # the class itself
        b"cno_such_module\nx\n}b.",  # its state
        b"cno_such_module\nx\nN}X\x02\0\0\0ofK\x01s\x86b.",  # its attributes
        b"(cno_such_module\nx\nK\x01o.",
        b"(K\x01ino_such_module\nx\n.",
        b"cno_such_module\nx\n)}\x92.",  # arguments by name
        b"cno_such_module\nx\n)R)R.",  # what was made is called
        b"cno_such_module\nx\n)R(K\x01\x90.",  # added to, as a set
        b"cno_such_module\nx\n)R(K\x01e.",
        b"cno_such_module\nx\n)R(K\x01K\x02u.",
        b"\x82\x01.",  # a number that Python knows as a name
    ],
)
def test_what_stands_for_other_things_does_nothing(tmp_path, ops):
    for data in files.torch_zip(b"\x80\x04" + ops), files.torch_legacy(b"\x80\x04" + ops):
        with pytest.raises(WeightsError, match="nothing in it was run") as e:
            found(tmp_path, data)
        assert "\n" not in str(e.value)
    assert "no_such_module" not in sys.modules and Nothing.of == ""


def test_a_pickle_that_asks_for_too_many_things(tmp_path):
    ops = b"".join(b"cmodule\nx%d\n0" % i for i in range(2000))
    with pytest.raises(WeightsError, match="it asks for more than 1000 things that are no tensors"):
        found(tmp_path, files.torch_zip(b"\x80\x02" + ops + b"N."))


@pytest.mark.parametrize(
    "within,why",
    [
        (lambda state: collections.Counter("ab"), r"holds a thing of collections\.Counter, a"),
        (lambda state: {"args": {"a": 1}, "model": collections.Counter("ab")},
         r"has as model a thing of collections\.Counter, a whole net perhaps; save by itself what"),
        (lambda state: {"net": collections.Counter("ab")},
         r"but net, and what is of collections\.Counter; save by itself what torch\.save\("),
        (lambda state: {**state, "fc2.weight": collections.Counter("ab")},
         r"fc2\.weight is of collections\.Counter, no plain tensor; nothing in the file was run"),
    ],
)  # fmt: skip
def test_weights_that_are_of_other_things_are_refused(tmp_path, within, why):
    """torch.save(net) names the classes of the program that wrote it; what to do is said."""
    with pytest.raises(WeightsError, match=why):
        found(tmp_path, files.state_dict(STATE, within))


GOOD = {
    "caffe": files.caffemodel(LAYERS),
    "caffe V1": files.caffemodel(LAYERS, "V1"),
    "pth": files.state_dict({"conv1.weight": W1, "conv1.bias": B1}),
    "pth and options": files.state_dict(
        STATE, lambda state: {"args": argparse.Namespace(a=1), "model": state}
    ),
    "cuda-convnet": files.checkpoint_of_2012(layers_of_2012()),
    "cuda-convnet zip": files.checkpoint_of_2012(layers_of_2012(), zipped=True),
}


@pytest.mark.parametrize("kind", GOOD)
def test_damaged_files(tmp_path, kind):
    """Cut and changed bytes: a line that names the file, or a file that can be read, no more."""
    data, refused = GOOD[kind], 0
    for seed in range(250):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data)
        if seed % 2:
            del damaged[rng.integers(len(data)) :]
        else:
            for at in rng.integers(0, len(data), rng.integers(1, 8)):
                damaged[at] = rng.integers(256)
        try:
            assert found(tmp_path, bytes(damaged)).layers
        except CheckpointError as e:
            assert str(e).startswith(f"{tmp_path}") and "\n" not in str(e)
            refused += 1
    assert refused > 100


def bomb() -> bytes:
    """A zip file of 10 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(10_000_000))
    return file.getvalue()


@pytest.mark.parametrize(
    "data,why",
    [
        (b"", "is empty"),
        (bomb(), "is a zip file of 9,[0-9]+ bytes that would become 10,000,000"),
        (b"just text, no weights\n", "file: is of no known format; can be a run or checkpoint of "),
        (b"\x08\x07\x12\x07pytorch", "is of no known format"),  # so an .onnx begins
        (b"class,error\ncat,0.5\n", "is of no known format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "is of no known format"),
        (files.caffemodel(LAYERS)[:99], "read as a .caffemodel it ends too early; can be a run"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "can be a run or checkpoint of convnet, Caffe's"),
        (bytes(64), "can be a run or checkpoint"),
        (b"PK\x03\x04" + bytes(60), "is a damaged zip file, or one of a kind that is not read"),
        (
            b"\x80\x02K\x01K\x02",
            "of cuda-convnet: it is damaged or cut short; nothing in it was run",
        ),
        (pickle.dumps({"a": 1}, 2), "has no model_state with layers"),
        (files.torch_zip(pickle.dumps([1, 2], 2)), "holds a list, not a state dict"),
        (files.state_dict({"mean": B1}), "holds no weights of layers"),
    ],
)
def test_files_that_are_none(tmp_path, data, why):
    with pytest.raises(WeightsError, match=why):
        found(tmp_path, data)


def test_a_caffemodel_by_its_name(tmp_path):
    (tmp_path / "net.caffemodel").write_bytes(b"just text")
    with pytest.raises(WeightsError, match=r"read as a \.caffemodel it ends too early"):
        read.read(tmp_path / "net.caffemodel")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="nothing: cannot be read, no such file"):
        read.read(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        read.read(tmp_path)


def test_the_reader_of_data_sets_still_refuses(tmp_path):
    """convnet.unpickle serves both; stand-ins of one are not known to the other."""
    (tmp_path / "x").write_bytes(files.checkpoint_of_2012([]))
    with pytest.raises(Exception, match=r"asks for (copy_reg|options)"):
        load(tmp_path / "x")


FOUR = np.ones(4, np.float32)


def nested(leaf, wide: int, deep: int, join):
    """A thing that small pickles have in wide ** deep places."""
    for _ in range(deep):
        leaf = join([leaf] * wide)
    return leaf


@pytest.mark.parametrize(
    "content,why",
    [
        (nested({"a": 1}, 400, 4, lambda inner: {f"k{i}": one for i, one in enumerate(inner)}),
         "holds no weights of layers"),
        ({"model_state": {"layers": [{"name": nested([], 2, 60, list), "weights": [1]}]}},
         "list: of type=None, has weights that are no matrix"),
    ],
)  # fmt: skip
def test_a_small_pickle_of_endless_content(tmp_path, content, why):
    """Dicts and lists in many places are looked at once; this would take hours, and all memory."""
    data = pickle.dumps(content, 2)
    with pytest.raises(WeightsError, match=why):
        found(tmp_path, data if "model_state" in content else files.torch_zip(data))


@pytest.mark.parametrize(
    "told,why",
    [
        ((0, (100, 100), (0, 0)), "a.weight looks beyond its numbers"),  # millions with one
        ((0, (1 << 62, 4), (0, 1)), "a.weight looks beyond its numbers"),
        ((1, (2, 2), (2, 1)), "a.weight looks beyond its numbers"),
        ((1 << 70, (1, 1), (1, 1)), "a.weight looks beyond its numbers"),
        ((0, (2, 2), (2,)), "a.weight looks beyond its numbers"),
        ((0, (0, 1 << 70), (1, 1)), "a.weight is empty"),
        ((-1, (2, 2), (2, 1)), "a.weight is no tensor"),
        ((0, (2, -2), (2, 1)), "a.weight is no tensor"),
        ((0, (2.0, 2), (2, 1)), "a.weight is no tensor"),
        ((0, (2, 2) + (1,) * 40, (2, 1) + (1,) * 40), "a.weight is no tensor"),
        ((0, 4, 1), "a.weight is no tensor"),
    ],
)
def test_a_state_dict_that_lies(tmp_path, told, why):
    with pytest.raises(WeightsError, match=f"file: {why}"):
        found(tmp_path, files.state_dict({"a.weight": (FOUR, *told)}))


def test_steps_that_no_number_needs(tmp_path):
    """A side of 1 may have any step, and tensors may share their numbers."""
    given = {"a.weight": (FOUR, 0, (1, 4), (1 << 70, 1)), "b.weight": (FOUR, 1, (3, 1), (1, 9))}
    layers = found(tmp_path, files.state_dict(given)).layers
    assert [layer.kernels[0].shape for layer in layers] == [(1, 4), (3, 1)]
    given = {f"{i}.weight": (FOUR, 0, (2, 2), (2, 1)) for i in range(101)}
    with pytest.raises(WeightsError, match="has tensors of 404 numbers that look at 4; it is dam"):
        found(tmp_path, files.state_dict(given))


@pytest.mark.parametrize("name", ["a.weight." + "9" * 5000, "².x.weight", "9" * 5000 + ".weight"])
def test_names_that_are_no_numbers(tmp_path, name):
    layers = found(tmp_path, files.state_dict({name: W2, "b.weight": W2})).layers
    assert layers[-1].name == "b"
    data = b"".join(safetensors.pieces({name: W2, "b.weight": W2}, {}))
    assert len(found(tmp_path, data).layers) == len(layers)


def lying(shape: list[int], numbers: bytes = W1.tobytes(), *more: tuple) -> bytes:
    """A .caffemodel of a convolution that says this shape, and more fields."""
    blob = wire.Message((7, wire.Message((1, shape))), (5, numbers))
    layer = wire.Message((1, "conv1"), (2, "Convolution"), (3, "data"), (4, "conv1"), (7, blob))
    for field in more:
        layer.add(*field)
    return b"".join(wire.Message((1, "net"), (100, layer)).pieces)


def normalised(*sizes: int) -> bytes:
    """A convolution of 4 filters and a BatchNorm of other sizes."""
    numbers = [np.ones(n) for n in sizes]
    return files.caffemodel([LAYERS[0], ("bn1", "BatchNorm", "conv1", "bn1", numbers)])


@pytest.mark.parametrize(
    "data,why",
    [
        (lying([4, 3, 3, 3]), ""),
        (lying([0, 1 << 62], b""), "layer conv1: a blob is empty"),
        (lying([], b""), "layer conv1: a blob of one holds 0 numbers"),
        (lying([1 << 62, 4]), "layer conv1: a blob of 4611686018427387904x4 holds 108 numbers"),
        (
            lying([-4, -27]),
            "layer conv1: a blob of 18446744073709551612x184467.* holds 108 numbers",
        ),
        (lying([108] + [1] * 40), "layer conv1: a blob of 108x1x1x1x1x1x1x1x.. cannot be"),
        (lying([108], W1.tobytes()[:-1]), "layer conv1: a blob ends in the middle of a number"),
        (lying([4, 3, 3, 3], W1.tobytes(), (139, 7)), "is no message, or a damaged one"),
        (lying([4, 3, 3, 3], W1.tobytes(), (117, 7)), "is no message, or a damaged one"),
        (lying([4, 3, 3, 3], W1.tobytes(), (139, wire.Message((3, 7)))), "conv1: eps is no float"),
        (normalised(4, 3, 1), "a batch normalisation behind conv1 is of another size"),
        (normalised(3, 4, 1), "a batch normalisation behind conv1 is of another size"),
    ],
)
def test_a_caffemodel_that_lies(tmp_path, data, why):
    if not why:
        assert found(tmp_path, data).layers[0].kernels[0].shape == (4, 3, 3, 3)
        return
    with pytest.raises(WeightsError, match=f"file: .*{why}") as e:
        found(tmp_path, data)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("side", [2, 0, -1, 1 << 40, 3.0, None])
def test_a_checkpoint_of_cuda_convnet_that_lies(tmp_path, side):
    layers = layers_of_2012()
    layers[1] |= {"filterSize": [side]}
    lost = found(tmp_path, files.checkpoint_of_2012(layers)).lost
    assert lost == [f"conv1: of type=conv, has 27 rows of weights for filterSize={side}"]


def packed() -> bytes:
    """A zip file whose list says that a storage, as it is packed, has 512 MB."""
    data = bytearray(files.state_dict({"a.weight": FOUR.reshape(2, 2)}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 24] = (512 << 20).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02Nr" + (10 << 20).to_bytes(4, "little") + b".",  # name it as number 10 million
        b"\x80\x02(K\x01p10000000\n.",
        b"\x80\x04\x8e" + (512 << 20).to_bytes(8, "little") + b"abc.",  # 512 MB of bytes
        packed(),
    ],
)
def test_what_a_file_says_takes_no_memory(tmp_path, data):
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="damaged"):
            found(tmp_path, data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("said", ["[[1, 1, 1], 0]", "[[NaN, 1, 1], 1]", "[[1, 1, 1], Infinity]"])
def test_images_that_cannot_be(tmp_path, said):
    data = b"".join(safetensors.pieces({"a.weight": W2}, {"convnet.input": said}))
    with pytest.raises(WeightsError, match="what it says of the images it takes makes no sense"):
        found(tmp_path, data)


def test_names_that_would_break_the_line(tmp_path):
    layers = [("conv\n1\x1b[31m", "Convolution", "data", "conv1", [W1[0]])]
    with pytest.raises(WeightsError) as e:
        found(tmp_path, files.caffemodel(layers))
    assert "\n" not in str(e.value) and "\x1b" not in str(e.value)
