"""Functions that fill weights at the start, for initWFunc=init.<name>(<numbers>).

cuda-convnet called any Python function that a cfg named. Here the names are looked up in this
file only: a cfg is data and runs no code. Every function takes the generator and the shape, may
use fan_in (numbers that a unit sees) and scale (initW), and returns the array.
"""

import math
import re
from collections.abc import Callable
from functools import partial

import numpy as np

from convnet.cfg import nearest


def scaled(rng: np.random.Generator, shape: tuple, scale: float, **_) -> np.ndarray:
    """Normal with standard deviation initW; the function used where the cfg names none."""
    return scale * rng.standard_normal(shape, np.float32)


def he(rng: np.random.Generator, shape: tuple, fan_in: int, **_) -> np.ndarray:
    """Normal, variance 2 / fan-in (He et al. 2015): keeps the variance through relu layers."""
    return math.sqrt(2 / fan_in) * rng.standard_normal(shape)


def xavier(rng: np.random.Generator, shape: tuple, fan_in: int, **_) -> np.ndarray:
    """Uniform, variance 1 / fan-in (Glorot and Bengio 2010, as Caffe has it)."""
    edge = math.sqrt(3 / fan_in)
    return rng.uniform(-edge, edge, shape)


def uniform(rng: np.random.Generator, shape: tuple, edge: float, **_) -> np.ndarray:
    """Uniform between -edge and edge."""
    return rng.uniform(-edge, edge, shape)


def constant(rng: np.random.Generator, shape: tuple, value: float, **_) -> np.ndarray:
    """Every number the same."""
    return np.full(shape, value)


LARGEST = 1e9  # of the numbers in the brackets
FUNCTIONS = {
    "he": (he, []),
    "xavier": (xavier, []),
    "uniform": (uniform, ["edge"]),
    "constant": (constant, ["value"]),
}


def read(text: str) -> Callable[..., np.ndarray]:
    """The function of a text like init.uniform(0.1); ValueError("why") if there is none."""
    found = re.fullmatch(r"(?:init\.)?(\w+)\s*(?:\(([^()]*)\))?", text.strip())
    if not found or found[1] not in FUNCTIONS:
        near = nearest(found[1] if found else text, FUNCTIONS)
        forms = ", ".join(map(form, FUNCTIONS))
        raise ValueError(f"must be one of {forms}{near}")
    function, wanted = FUNCTIONS[found[1]]
    inside = (found[2] or "").strip()
    try:
        given = [float(n) for n in inside.split(",")] if inside else []
    except ValueError:
        raise ValueError(f"init.{found[1]} takes numbers in its brackets") from None
    if len(given) != len(wanted):
        raise ValueError(f"must be {form(found[1])}")
    if not all(abs(n) <= LARGEST for n in given):
        raise ValueError(f"the numbers of {form(found[1])} must be finite and at most {LARGEST:g}")
    if "edge" in wanted and given[0] < 0:
        raise ValueError("edge must be 0 or more in init.uniform(edge)")
    return partial(function, **dict(zip(wanted, given)))


def form(name: str) -> str:
    """How a function is written, as in init.uniform(edge)."""
    return f"init.{name}({', '.join(FUNCTIONS[name][1])})"
