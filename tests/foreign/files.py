"""Writes small files of weights as other programs would have."""

import collections
import io
import pickle
import sys
import types
import zipfile

import numpy as np

from convnet.foreign.wire import Message

KINDS = {"Convolution": (4, "conv"), "InnerProduct": (14, "innerproduct"), "ReLU": (18, "relu")}


def blob(array: np.ndarray, how: str = "now") -> Message:
    """A BlobProto: four numbers for its shape in the old layouts, then a list."""
    made = Message()
    if how == "now":
        made.add(7, Message((1, [*array.shape])))
    else:
        for i, n in enumerate((1,) * (4 - array.ndim) + array.shape):
            made.add(i + 1, n)
    if how == "V0":  # not packed: a tag in front of each number
        for number in array.ravel().tolist():
            made.add(5, float(number))
    elif array.dtype == np.float64:
        made.add(8, array.tobytes())
    elif array.dtype == np.float16:
        made.add(10, 2)
        made.add(12, array.tobytes())
    else:
        made.add(5, array.astype("<f4").tobytes())
    return made


def caffemodel(layers: list[tuple], how: str = "now", turned: bool = False) -> bytes:
    """(name, type, bottom, top, arrays) each, in the layout V0, V1 or now.

    turned: InnerProducts say that their weights are (in, out).
    """
    net = Message((1, "net"))
    for name, kind, bottom, top, arrays in layers:
        blobs = [blob(np.asarray(a), how) for a in arrays]
        number, word = KINDS.get(kind, (0, kind))
        if how == "now":
            layer = Message((1, name), (2, kind), (3, bottom), (4, top))
            layer.add(106, Message((1, 3)))  # convolution_param, which nobody reads
            if kind == "InnerProduct" and turned:
                layer.add(117, Message((6, 1)))
            for one in blobs:
                layer.add(7, one)
        elif how == "V1":
            layer = Message((2, bottom), (3, top), (4, name), (5, number))
            for one in blobs:
                layer.add(6, one)
        else:
            inner = Message((1, name), (2, word))
            for one in blobs:
                inner.add(50, one)
            layer = Message((1, inner), (2, bottom), (3, top))
        net.add(100 if how == "now" else 2, layer)
    return b"".join(net.pieces)


class Options:
    """Stands for the OptionsParser of cuda-convnet, which its checkpoints hold."""

    def __init__(self):
        self.options = {"epochs": 3}


def checkpoint_of_2012(layers, state: dict | None = None, zipped: bool = False) -> bytes:
    """What cuda-convnet saves: a pickle that names a class of its module `options`."""
    module = types.ModuleType("options")
    module.OptionsParser = type("OptionsParser", (Options,), {"__module__": "options"})
    sys.modules["options"] = module
    try:
        content = {"model_state": {"epoch": 7, "layers": layers, **(state or {})},
                   "op": module.OptionsParser()}  # fmt: skip
        data = pickle.dumps(content, 2)
    finally:
        del sys.modules["options"]
    if not zipped:
        return data
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", data)
    return file.getvalue()


class Evil:
    """Unpickling this calls a function."""

    def __init__(self, function, *given):
        self.function, self.given = function, given

    def __reduce__(self):
        return self.function, self.given


def torch_zip(pickled: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """A .pth of the newer kind around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/byteorder", "little")
        for key, data in (storages or {}).items():
            archive.writestr(f"net/data/{key}", data)
    return file.getvalue()


def torch_legacy(pickled: bytes) -> bytes:
    """A .pth of the older kind around a pickle, without storages."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(x, 2) for x in head) + pickled + pickle.dumps([], 2)


def state_dict(arrays: dict[str, np.ndarray | tuple], within=lambda tensors: tensors) -> bytes:
    """A .pth of the newer kind with float32 tensors, written without PyTorch.

    For an array may stand (array, first, sides, steps): what a tensor says of its numbers. Tensors
    of one array share its storage. within: what of the tensors, by name, is saved.
    """
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}

    def rebuild(*_):
        raise AssertionError("nobody calls this")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    modules["torch._utils"]._rebuild_tensor_v2 = rebuild
    kind = modules["torch"].FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    storages = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            if isinstance(thing, Storage):
                return "storage", kind, thing.key, "cpu", thing.count
            return None

    class Storage:
        def __init__(self, key, count):
            self.key, self.count = key, count

    class Tensor:
        def __init__(self, storage, *told):
            self.storage, self.told = storage, told

        def __reduce__(self):
            return rebuild, (self.storage, *self.told, False, collections.OrderedDict())

    tensors, keys = collections.OrderedDict(), {}
    for name, given in arrays.items():
        own, *told = given if isinstance(given, tuple) else (given,)
        key = keys.setdefault(id(own), str(len(keys)))
        array = np.ascontiguousarray(own, "<f4")
        storages[key] = array.tobytes()
        told = told or (0, array.shape, tuple(n // array.itemsize for n in array.strides))
        tensors[name] = Tensor(Storage(key, array.size), *told)
    file = io.BytesIO()
    sys.modules.update(modules)
    try:
        Pickler(file, 2).dump(within(tensors))
    finally:
        for name in modules:
            del sys.modules[name]
    return torch_zip(file.getvalue(), storages)
