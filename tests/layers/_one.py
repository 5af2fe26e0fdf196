"""One layer by itself: build it from a line of keys, run it, differentiate it."""

import importlib
import inspect

import numpy as np

from convnet.cfg import parse
from convnet.device import device
from convnet.layer import Layer, Run

CPU = device("cpu")


def run(train=True, seed=1):
    """A pass on the CPU."""
    return Run(CPU, train, seed)


def load(name: str):
    """The class of a type, as net.py finds it."""
    module = importlib.import_module(f"layers.{name}")
    (cls,) = [
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, Layer) and c.__module__ == module.__name__
    ]
    cls.type = name
    return cls


def build(type: str, *keys: str, inputs="in0", words=None):
    """A layer with these keys; `notes` says what is wrong with them."""
    rows = "\n".join(["[it]", f"type={type}", f"inputs={inputs}", *keys])
    return load(type)(parse(rows)["it"], words or {})


def wrong(type: str, *keys: str, inputs="in0") -> str:
    """What the one note of a layer with these keys says."""
    (note,) = build(type, *keys, inputs=inputs).notes
    return note.text


def numeric(f, x, eps=1e-5):
    """The gradient of the number f(x) by central differences."""
    g = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += eps
        down[i] -= eps
        g[i] = (f(up) - f(down)) / (2 * eps)
    return g
