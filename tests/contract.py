"""Builds the cases of the contract test from the `examples` of the layers, and checks one.

A line of examples is words: `HxWxC` is an input of that shape, `HxWxC+` one of positive numbers,
`labels5` an int32 input (N, 1, 1, 1) of numbers 0..4 (and the cfg word `classes` is 5),
`windows7x6` one (N, 1, 1, 5) of windows in N maps of 7x6 cells, `key=value` goes into the section.
The cfg's `inputs` are as many as there are arrays, unless the class has `example_inputs`, for
layers that `link` the rest.

Numbers are distinct, also in magnitude, and none is 0, so that no example sits on a tie or a kink.
"""

import importlib
import inspect
import re
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np

import layers
from convnet.cfg import parse
from convnet.device import Cpu
from convnet.layer import CostLayer, Layer, Run

N = 3
HOME = Path(layers.__file__).parent


class Poisoned(Cpu):
    """A CPU that lends memory full of NaN: what a kernel forgets to write is seen."""

    def __init__(self):
        super().__init__()
        self.lent: list[weakref.ref] = []

    def empty(self, shape, dtype=np.float32):
        dtype = np.dtype(dtype)
        array = np.full(shape, np.nan if dtype.kind == "f" else 99, dtype)
        self.lent.append(weakref.ref(array))
        return array

    def alive(self) -> list[np.ndarray]:
        """The arrays that somebody still holds."""
        return [array for array in (ref() for ref in self.lent) if array is not None]


class Case(NamedTuple):
    """One line of examples: a layer as net.py would build it, and the shapes of its inputs."""

    layer: Layer
    shapes: list[tuple]
    words: list[str]

    def arrays(self, dtype, n: int = N, seed: int = 0) -> tuple[list, dict]:
        """Inputs, read-only, and weights."""
        rng = np.random.default_rng(seed)
        words = enumerate(zip(self.words, self.shapes))
        xs = [fill(rng, word, (n, *shape), dtype, i) for i, (word, shape) in words]
        asked = self.layer.weights(*self.shapes)
        return xs, {k: rng.standard_normal(v.shape).astype(dtype) for k, v in asked.items()}

    def dy(self, shape: tuple, dtype, seed: int = 1) -> np.ndarray:
        """A gradient of the output; for a cost as net.py gives it: coeff in column 0, else 0."""
        if isinstance(self.layer, CostLayer):
            dy = np.zeros(shape, dtype)
            dy[..., 0] = self.layer.coeff
        else:
            dy = np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(dtype)
        return frozen(dy)


def frozen(a: np.ndarray) -> np.ndarray:
    a.flags.writeable = False
    return a


def fill(rng, word: str, shape: tuple, dtype, i: int = 0) -> np.ndarray:
    """Input i as the word of an example says; no two numbers of any inputs are equal, none is 0."""
    size = int(np.prod(shape))
    if word.startswith("labels"):
        return frozen(rng.permutation(size).astype(np.int32).reshape(shape) % int(word[6:]))
    if word.startswith("windows"):
        return windows(rng, shape[0], *map(int, word[7:].split("x")))
    even = (rng.permutation(size) + 0.31 + i / 16) / size
    values = 0.2 + even if word.endswith("+") else 4 * even - 2
    return frozen(values.reshape(shape).astype(dtype))


def windows(rng, n: int, H: int, W: int) -> np.ndarray:
    """n windows in n maps; the first two share a map, the last is all of one."""
    rows = np.zeros((n, 1, 1, 5), np.int32)
    for row, image in zip(rows[:, 0, 0], np.sort(np.arange(n) // 2)):
        sides = [np.sort(rng.choice(side + 1, 2, replace=False)) for side in (H, W)]
        row[:] = image, sides[0][0], sides[1][0], sides[0][1], sides[1][1]
    rows[-1, 0, 0, 1:] = 0, 0, H, W
    return frozen(rows)


def types() -> list[str]:
    """Every type=: the files of layers/, a folder is a dot, a leading underscore is no type."""
    paths = (path.relative_to(HOME).with_suffix("").parts for path in HOME.rglob("*.py"))
    return sorted(".".join(p) for p in paths if not any(part.startswith("_") for part in p))


def layer_class(name: str) -> type[Layer]:
    """The one Layer of a file in layers/."""
    module = importlib.import_module(f"layers.{name}")
    found = [
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, Layer) and c.__module__ == module.__name__
    ]
    assert len(found) == 1, f"layers.{name} must define one Layer, defines {found}"
    found[0].type = name
    return found[0]


def build(name: str, line: str) -> Case:
    """The case of one line of examples."""
    cls = layer_class(name)
    words = [word for word in line.split() if "=" not in word]
    shapes = [shape_of(w) for w in words]
    count = getattr(cls, "example_inputs", len(words))
    rows = ["[it]", f"type={name}", *(word for word in line.split() if "=" in word)]
    keys = cls.keys()
    if "inputs" in keys:
        rows.append("inputs=" + ",".join(f"in{i}" for i in range(count)))
    classes = [int(w[6:]) for w in words if w.startswith("labels")]
    layer = cls(parse("\n".join(rows))["it"], {"classes": classes[0] if classes else 5})
    assert not layer.notes, "\n".join(map(str, layer.notes))
    return Case(layer, shapes, words)


def shape_of(word: str) -> tuple:
    if word.startswith(("labels", "windows")):
        return (1, 1, 1) if word.startswith("labels") else (1, 1, 5)
    assert re.fullmatch(r"\d+x\d+x\d+\+?", word), f"neither HxWxC nor key=value: {word}"
    return tuple(map(int, word.rstrip("+").split("x")))


def lines(name: str) -> list[str]:
    return [line.strip() for line in layer_class(name).examples.split("\n") if line.strip()]


def run(train: bool = True, device=None) -> Run:
    """A pass on the poisoned CPU or another device; one seed, so that dropout repeats itself."""
    return Run(device or Poisoned(), train, seed=7)


def everything(case: Case, dtype, device=None) -> dict:
    """Output and gradients in training, output in a test; NumPy arrays from any device."""
    device = device or Poisoned()
    xs, w = case.arrays(dtype)
    xs, w = [device.array(x) for x in xs], {k: device.array(v) for k, v in w.items()}
    y, bprop = case.layer.fprop(run(device=device), w, *xs)
    dxs, dws = bprop(device.array(case.dy(y.shape, y.dtype)), {*range(len(xs)), *w})
    test = case.layer.fprop(run(False, device), w, *xs)[0]
    found = {"y": y, "y in a test": test, **dict(enumerate(dxs)), **dws}
    return {k: device.numpy(v) for k, v in found.items() if v is not None}


def make(name: str, **keys) -> Layer:
    """A layer of this type over one input, for the tests of known answers."""
    rows = ["[it]", f"type={name}", "inputs=in0", *(f"{k}={v}" for k, v in keys.items())]
    layer = layer_class(name)(parse("\n".join(rows))["it"], {"classes": 5})
    assert not layer.notes, "\n".join(map(str, layer.notes))
    return layer


def forward(layer: Layer, x: np.ndarray, dy: np.ndarray | None = None, train: bool = True):
    """The output, and the gradient dx where dy is given, of a layer with one input, no weights."""
    assert layer.shape(x.shape[1:]) is not None
    y, bprop = layer.fprop(run(train), {}, frozen(x.copy()))
    assert y.shape == (len(x), *layer.shape(x.shape[1:]))
    return y if dy is None else (y, bprop(frozen(dy.copy()), {0})[0][0])


def gradients(case: Case, xs: list, w: dict, wants: set, train: bool = True) -> dict:
    """{0: dx0, ..., "W0": dW0, ...} of one fprop and bprop; what is None is left out."""
    y, bprop = case.layer.fprop(run(train), w, *xs)
    dxs, dws = bprop(case.dy(y.shape, y.dtype), wants)
    found = dict(enumerate(dxs)) | dws
    return {k: v for k, v in found.items() if v is not None}


def numeric(case: Case, xs: list, w: dict, name, eps: float = 1e-5) -> np.ndarray:
    """The gradient for input `name` or weight `name` by central differences."""
    moved = (xs[name] if isinstance(name, int) else w[name]).copy()
    xs = [moved if name == i else x for i, x in enumerate(xs)]
    w = {k: moved if name == k else v for k, v in w.items()}
    g = np.zeros(moved.shape)
    dy = None

    def at(i, value):
        moved.flags.writeable = True
        moved[i] = value
        moved.flags.writeable = name not in range(len(xs))
        return case.layer.fprop(run(), w, *xs)[0].copy()

    for i in np.ndindex(moved.shape):
        was = moved[i]
        up, down = at(i, was + eps), at(i, was - eps)
        at(i, was)
        dy = case.dy(up.shape, up.dtype) if dy is None else dy
        g[i] = ((up - down) * dy).sum() / (2 * eps)
    return g
