"""The table of a net: layer, type, output shape, weights, multiply-adds, memory."""

import inspect
import math
import textwrap
from collections.abc import Iterable

from convnet.cfg import nearest
from convnet.cli import UsageError
from convnet.graph import FLOAT, Graph, bytes_of, dims
from convnet.layer import REQUIRED, Layer, key
from convnet.registry import layer_class, types
from convnet.schedule import Schedule


def macs_of(graph: Graph, layer: Layer) -> int:
    """Multiply-adds of one forward pass of a layer over one image."""
    return layer.macs(*[graph.shapes[read] for read in layer.reads]) if layer.inputs else 0


def memory_of(graph: Graph, layer: Layer, minibatch: int) -> int:
    """Bytes of a layer in training: weights, momenta, gradients; its output for the minibatch."""
    return FLOAT * (3 * graph.weights_of(layer) + minibatch * math.prod(graph.shapes[layer.name]))


def totals(graph: Graph) -> dict[str, int]:
    """Sums over the net: weights; macs and activations (numbers) of one image."""
    return {
        "weights": sum(graph.weights_of(l) for l in graph.layers),
        "macs": sum(macs_of(graph, l) for l in graph.layers),
        "activations": sum(math.prod(shape) for shape in graph.shapes.values()),
    }


def memory(graph: Graph, minibatch: int) -> int:
    """About the bytes that training takes: all layers, and two gradients of the largest output."""
    largest = max(math.prod(shape) for shape in graph.shapes.values())
    layers = sum(memory_of(graph, l, minibatch) for l in graph.layers)
    return layers + FLOAT * minibatch * 2 * largest


def table(graph: Graph, minibatch: int = 0) -> str:
    """The table as text; with a minibatch, also the memory that training takes."""
    table = rows(graph, minibatch)
    lines = columns(table, left=range(4))
    rule = "-" * len(lines[0])
    sums = totals(graph)
    text = f"{short(sums['weights'])} weights, {short(sums['macs'])} multiply-adds an image"
    if minibatch:
        text += f", about {bytes_of(memory(graph, minibatch))} to train {minibatch} at a time"
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], text])


def rows(graph: Graph, minibatch: int = 0) -> list[list[str]]:
    """The cells of the table: heads, a row for each layer, sums; MiB only with a minibatch."""
    rows = [["layer", "type", "inputs", "output", "weights", "multiply-adds", "MiB"]]
    for l in graph.layers:
        rows.append(
            [
                l.name,
                l.type,
                ",".join(l.inputs or ()),
                dims(graph.shapes[l.name]),
                _weights(graph, l),
                _number(macs_of(graph, l)),
                f"{memory_of(graph, l, minibatch) / 2**20:,.1f}",
            ]
        )
    sums = totals(graph)
    total = memory(graph, minibatch) / 2**20
    rows.append(["", "", "", "", _number(sums["weights"]), _number(sums["macs"]), f"{total:,.1f}"])
    return rows if minibatch else [row[:-1] for row in rows]


def columns(rows: list[list[str]], left: Iterable[int]) -> list[str]:
    """Lines, columns under each other: those of text to the left, numbers to the right."""
    widths, left = [max(map(len, column)) for column in zip(*rows)], {*left}
    sides = [str.ljust if i in left else str.rjust for i in range(len(widths))]
    return ["  ".join(f(c, w) for f, c, w in zip(sides, row, widths)).rstrip() for row in rows]


def _weights(graph: Graph, layer: Layer) -> str:
    """The number of a layer's own weights, and whose others it uses."""
    owners = {owner for (name, _), (owner, _) in graph.shared.items() if name == layer.name}
    own = _number(graph.weights_of(layer))
    return " + ".join([own, *(f"[{owner}]" for owner in sorted(owners - {layer.name}))])


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def short(count: int) -> str:
    """A count as 62.36 M."""
    for unit, power in ("G", 9), ("M", 6), ("k", 3):
        if count >= 10**power:
            return f"{count / 10**power:.2f} {unit}"
    return str(count)


def keys_of(word: str) -> str:
    """Every key of a layer type ('all': of every type) with its default and meaning, as text."""
    known = types()
    if word != "all" and word not in known:
        raise UsageError(f"--keys={word}: no such type{nearest(word, known)}")
    return "\n\n".join(_keys_of_one(name) for name in (known if word == "all" else [word]))


def _keys_of_one(word: str) -> str:
    """What a layer type is, its own keys, those of all layers, then the rates."""
    cls = layer_class(word)
    general = vars(Layer).values()
    keys = sorted(cls.keys().values(), key=lambda k: (k.rate, k in general))
    lines = [inspect.getmodule(cls).__doc__.split("\n")[0]]
    for k in keys:
        doc = k.doc + (f": {', '.join(k.read.choices)}" if hasattr(k.read, "choices") else "")
        lines += textwrap.wrap(
            doc + (" (rate)" if k.rate else ""),
            100,
            initial_indent=f"  {k.name:13} {_default(k):10} ",
            subsequent_indent=" " * 27,
        )
    return "\n".join(lines)


def _default(k: key) -> str:
    value = k.default.base if isinstance(k.default, Schedule) else k.default
    if value is REQUIRED:
        return "required"
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, int | float):
        return f"{value:g}"
    return value if isinstance(value, str) and value else "-"
