"""What every layer is. A file in layers/ fills in this page and nothing else.

`Layer` is one section of the cfg. Its keys are class attributes made with `key` (what the net is)
and `rate` (what may change between runs; read from the params file, or from the net's own cfg):
the attribute is the key, so `grep sizeX` finds the layer. A layer says

    shape(*ins)             (H, W, C) of the inputs -> (H, W, C) of the output; no arrays
    weights(*ins)           {"W0": Weight(...), "b": Weight(...)}; {} for most
    fprop(run, w, *xs)      arrays (N, H, W, C) in -> (array out, bprop)
    bprop(dy, wants)        gradient of the output -> ([dx, ...], {"W0": dW, ...})
    onnx(g, w, *xs)         the same as nodes of ONNX, for export; no types that only train need it
    examples                lines that the contract test runs: shapes of the inputs, then keys

Laws. (1) Never write on an input, nor on dy. (2) Assign dx, never add; None where nothing flows.
(3) dW is the gradient of the loss summed over the cases, an array or, where run.fast, a Lazy one
that is computed when it is needed. (4) Compute in the dtype of the input.
(5) One output. (6) Keep alive only what bprop needs. (7) Store nothing on self: one layer runs at
many image sizes at once. The docstring states the tie, border and rounding rules.
"""

import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from convnet import init
from convnet.cfg import Note, Section, Value, nearest
from convnet.schedule import schedule

REQUIRED = object()
LARGEST = 1e15  # what a number of a cfg may be at most


class key:
    """One key of a layer type: how to read it, what it means, what it may be.

    `per_input` keys are comma lists with one item for each input; a single item serves all.
    """

    rate = False

    def __init__(
        self,
        read: Callable[[str], Any],
        doc: str,
        default: Any = REQUIRED,
        min: float | None = None,
        max: float | None = None,
        per_input: bool = False,
    ):
        self.read, self.doc, self.default = read, doc, default
        self.min, self.max, self.per_input = min, max, per_input

    def __set_name__(self, cls: type, name: str):
        self.name = name

    def parse(self, value: Value, inputs: int, words: dict[str, int]) -> Any:
        """The value read and checked; ValueError("why") where it is none. inputs: 0, not known."""
        if not self.per_input:
            return self._one(value, words)
        items = split(value)
        if len(items) == 1:
            items *= max(inputs, 1)
        if inputs and len(items) != inputs:
            want = f"1 or {inputs} items, one for each input" if inputs > 1 else "1 item"
            raise ValueError(f"must have {want}; has {len(items)}")
        return [self._one(item, words) for item in items]

    def _one(self, text: str, words: dict[str, int]) -> Any:
        if self.read is int and text.lower() in words:
            return words[text.lower()]
        try:
            got = self.read(text)
        except ValueError as e:
            raise ValueError(self._why_not(text, e, words)) from None
        if isinstance(got, float) and not abs(got) <= LARGEST:
            raise ValueError(f"must be a finite number of at most {LARGEST:g}")
        if isinstance(got, int) and not abs(got) <= LARGEST:
            raise ValueError(f"must be at most {LARGEST:g}")
        if self.min is not None and got < self.min:
            raise ValueError(f"must be {self.min} or more")
        if self.max is not None and got > self.max:
            raise ValueError(f"must be {self.max} or less")
        return got

    def _why_not(self, text: str, error: ValueError, words: Iterable[str]) -> str:
        kinds = {int: "a whole number", float: "a number"}
        why = f"must be {kinds[self.read]}" if self.read in kinds else str(error)
        if not text:
            return f"is empty; {why}" if self.read in kinds else why
        if "#" in text:
            return f"{why}; a '#' inside a value starts no comment, ' ;' does"
        if self.read is int and text.lower() == "classes":
            return f"{why}; the number of classes is not known here (--classes=, or classes=)"
        if self.read is int:
            why += nearest(text, words)
        if "%(" in text:
            return f"{why}; %(key)s is not replaced, write the value"
        return why


class rate(key):
    """A key of the params file: may change from run to run, and when a run is resumed."""

    rate = True


def one_of(*choices: str) -> Callable[[str], str]:
    """Reads one of these words."""

    def read(text: str) -> str:
        if text not in choices:
            empty = "" if text else "is empty; "
            raise ValueError(f"{empty}must be one of {', '.join(choices)}{nearest(text, choices)}")
        return str(text)

    read.choices = choices
    return read


def flag(text: str) -> bool:
    """Reads 1/yes/true/on or 0/no/false/off, in any case."""
    if text.lower() in ("1", "yes", "true", "on"):
        return True
    if text.lower() in ("0", "no", "false", "off"):
        return False
    raise ValueError("must be 1, yes, true, on or 0, no, false, off")


def names(text: str) -> list[str]:
    """Reads a comma list of layer names."""
    items = split(text)
    if items == [""]:
        raise ValueError("is empty; must be the name of a layer above, or several with commas")
    if not all(items):
        raise ValueError("has an empty name in its list; is there a comma too many?")
    return items


def numbers(text: str) -> list[int]:
    """Reads a comma list of whole numbers."""
    try:
        return [int(item) for item in split(text)]
    except ValueError:
        raise ValueError("must be whole numbers with commas between") from None


def split(text: str) -> list[str]:
    """The items of a comma list; commas between brackets do not count."""
    return [item.strip() for item in re.split(r",(?![^\[]*\])", text)]


class Weight(NamedTuple):
    """A weight array as a layer asks for it: its shape and how to fill it at the start.

    init(rng, shape) -> float array; eps, mom, wc are the rates of the update (convnet/sgd.py).
    """

    shape: tuple[int, ...]
    init: Callable[[np.random.Generator, tuple], np.ndarray]
    eps: Callable[[float], float]
    mom: float
    wc: float


class Lazy(Protocol):
    """A gradient of weights that is not computed yet; the one step that needs it may compute it."""

    def array(self) -> Any:
        """The gradient, with the shape of the weights."""

    def finite(self) -> bool:
        """False where a number of it may be infinite or NaN."""

    def update(self, w, inc, mom: float, eps: float, wc: float, share: float) -> None:
        """The step of convnet/sgd.py on the weights w and their momenta inc."""


class Run(NamedTuple):
    """What a layer may know of the pass that it takes part in."""

    device: Any  # where its arrays live; device.xp is numpy or cupy
    train: bool  # dropout and the like do nothing in a test
    seed: int  # for this layer at this step: a counter-based generator starts from it
    fast: bool = False  # whether variants of kernels that are not the plain ones may be chosen
    then: Any = None  # the next layer, if this one said in `takes` that it does its work as well

    @property
    def xp(self):
        """numpy or cupy."""
        return self.device.xp

    def empty(self, shape: tuple, dtype=np.float32):
        """An array of undefined contents from the device's arena."""
        return self.device.empty(shape, dtype)


class Variant(NamedTuple):
    """A way to compute a layer: the name of its kernels, and why they are chosen for a shape."""

    name: str
    why: str
    macs: int | None = None  # multiply-adds forward for all cases, if they are not Layer.macs


class Layer:
    """One section of the net; see the module's docstring."""

    type: str  # the word after type=, set by graph.py
    reads: list[str]  # the layers whose outputs fprop takes, set by graph.py
    positional = False  # whether each weight belongs to a place of the input, as in fc
    splits = True  # whether neuron= becomes a layer of its own, of type=neuron
    ignored: tuple[str, ...] = ("gpu", "partialSum", "sumWidth")  # tuned 2012's kernels only
    examples = ""

    inputs = key(names, "the layers this one reads, in order")
    neuron = key(str, "the neuron applied to the output, as a layer of type=neuron", default="")
    channels = key(
        int, "channels of the input; known anyway, so checked", default=None, per_input=True, min=1
    )

    def __init__(self, section: Section, words: dict[str, int]):
        """Read every key of the section; `notes` collects what is wrong with them.

        words: words that stand for whole numbers, as in outputs=classes.
        """
        self.name, self.section, self.words = section.name, section, words
        self.notes: list[Note] = []
        self.unread: list[Value] = []  # keys in `ignored`
        keys = self.keys()
        spelt = {k.lower(): k for k in keys} | {"type": "type"}
        for word, value in section.items():
            if word in {i.lower() for i in self.ignored}:
                self.unread.append(value)
            elif word not in spelt and word not in section.inherited:
                known = nearest(value.key, spelt.values())
                self.notes.append(value.wrong(f"type={self.type} has no such key{known}"))
        for name, k in keys.items():
            self._read(name, k)

    def _read(self, name: str, k: key) -> None:
        inputs = 1 if name == "inputs" or self.inputs == () else len(self.inputs or ())
        value = self.section.get(name.lower())
        if value is None and k.default is REQUIRED:
            self.notes.append(self.section.wrong(f"needs {name}= ({k.doc})"))
        many = k.per_input and k.default is not None
        got = [k.default] * inputs if many else k.default
        if value is not None:
            try:
                got = k.parse(value, inputs, self.words)
            except ValueError as e:
                self.notes.append(value.wrong(str(e)))
        setattr(self, name, None if got is REQUIRED else got)

    @classmethod
    def keys(cls) -> dict[str, key]:
        """Every key of the type by name, the general ones first."""
        found = {n: k for c in reversed(cls.__mro__) for n, k in vars(c).items()}
        return {n: k for n, k in found.items() if isinstance(k, key)}

    def link(self, producers: list["Layer"]) -> list[str]:
        """More layers to read besides `inputs`, given the layers that make the inputs."""
        return []

    def pyramid(self, x: tuple) -> int:
        """n if this layer cuts a map of shape x into n x n bins as a pyramid does, else 0."""
        return 0

    def window(self, i: int) -> tuple[int, int, int] | None:
        """Side of the pixels of input i that one of the output sees, step, and where they begin.

        None if the output is no map of the input.
        """
        return 1, 1, 0

    def bins(self) -> list[int]:
        """The levels n of a pyramid, n x n bins each, that the layer makes of a map of any size."""
        return []

    def shape(self, *ins: tuple) -> tuple:
        """(H, W, C) of each input -> of the output. ValueError("why") where it cannot be."""
        raise NotImplementedError

    def weights(self, *ins: tuple) -> dict[str, Weight]:
        """The weights that the layer has over inputs of these shapes."""
        return {}

    def macs(self, *ins: tuple) -> int:
        """Multiply-adds of one forward pass over one image."""
        return 0

    def variant(self, *ins: tuple, then: "Layer | None" = None) -> Variant:
        """Which kernels run float32 inputs of shapes (N, H, W, C) on a CPU, and why these.

        then: the layer whose work is done in the same pass, one that `takes` has agreed to.
        """
        return Variant("plain", "the only one")

    def takes(self, after: "Layer", *ins: tuple) -> bool:
        """Whether fprop does the work of `after`, the only reader of the output, in the same pass.

        Asked for inputs of shapes (N, H, W, C) where run.fast; bprop then takes the gradient of
        the output of `after`, which has no weights.
        """
        return False

    def fprop(self, run: Run, w: dict, *xs) -> tuple[Any, Callable]:
        """Arrays (N, H, W, C) in -> (array out, bprop)."""
        raise NotImplementedError

    def onnx(self, g, w: dict[str, np.ndarray], *xs) -> Any:
        """Nodes of ONNX that do what fprop does in a test: values in -> value out.

        g: the Builder of convnet/foreign/onnx.py. ValueError("why") where there are none.
        """
        raise ValueError("has no form in ONNX")


class WeightLayer(Layer):
    """What layers with weights (conv, fc, ...) have in common: first values and rates."""

    initW = key(
        float,
        "standard deviation of the first weights; if it is left out, sqrt(2 / inputs of a unit)",
        default=None,
        min=0,
        per_input=True,
    )
    initB = key(float, "first value of the biases", default=0.0)
    initWFunc = key(
        init.read,
        "a function of convnet/init.py that fills the weights, as in init.xavier()",
        default=init.scaled,
    )
    weightSource = key(
        split,
        "share the weights of another layer: its name, or name[input]; "
        "one item for each input, empty for own weights",
        default=None,
    )

    epsW = rate(
        schedule,
        "learning rate of the weights, a number or a schedule",
        default=schedule("0.01"),
        per_input=True,
    )
    epsB = rate(schedule, "learning rate of the biases", default=schedule("0.01"))
    momW = rate(float, "momentum of the weights", default=0.9, min=0, max=1, per_input=True)
    momB = rate(float, "momentum of the biases", default=0.9, min=0, max=1)
    wc = rate(float, "weight decay", default=0.0, min=0, per_input=True)

    def weight(self, i: int, shape: tuple, fan_in: int) -> Weight:
        """The weights over input i, of which each unit sees fan_in numbers."""
        scale = self.initW[i] if self.initW else math.sqrt(2 / fan_in)
        fill = partial(self.initWFunc, fan_in=fan_in, scale=scale)
        return Weight(shape, fill, self.epsW[i], self.momW[i], self.wc[i])

    def bias(self, shape: tuple) -> Weight:
        """The biases; they do not decay."""
        fill = partial(init.constant, value=self.initB)
        return Weight(shape, fill, self.epsB, self.momB, 0.0)


class CostLayer(Layer):
    """What cost.* layers have in common. The output is (N, 1, 1, len(values)): one row a case.

    Column 0 is the cost; net.py asks bprop for the gradient with dy = coeff there and 0 elsewhere.
    """

    neuron = ""  # takes none
    values: tuple[str, ...] = ("cost",)  # what the columns are, in order

    coeff = rate(float, "what the gradient of this cost is multiplied with", default=1.0)
