"""The table of a net: layer, type, output shape, weights, multiply-adds, memory."""

import math

from convnet.cfg import nearest
from convnet.cli import UsageError
from convnet.graph import Graph, layer_class, types
from convnet.layer import REQUIRED
from convnet.schedule import Schedule

FLOAT = 4  # bytes


def weights_of(graph: Graph, name: str) -> int:
    """How many weights a layer has of its own (those it shares count at their source)."""
    asked = graph.asked(graph.by_name[name])
    sources = getattr(graph.by_name[name], "weightSource", None) or []
    own = (w for k, w in asked.items() if k == "b" or not (sources + [""] * 99)[int(k[1:])])
    return sum(math.prod(w.shape) for w in own)


def macs_of(graph: Graph, name: str) -> int:
    """Multiply-adds of one forward pass of a layer over one image."""
    layer = graph.by_name[name]
    return layer.macs(*[graph.shapes[read] for read in layer.reads]) if layer.inputs else 0


def totals(graph: Graph) -> dict[str, int]:
    """Sums over the net: weights; macs and activations (numbers) of one image."""
    names = [l.name for l in graph.layers]
    return {
        "weights": sum(weights_of(graph, name) for name in names),
        "macs": sum(macs_of(graph, name) for name in names),
        "activations": sum(math.prod(graph.shapes[name]) for name in names),
    }


def memory(graph: Graph, minibatch: int) -> int:
    """Bytes that training takes at most: weights, momenta, gradients; activations both ways."""
    sums = totals(graph)
    largest = max(math.prod(shape) for shape in graph.shapes.values())
    return FLOAT * (3 * sums["weights"] + minibatch * (sums["activations"] + 2 * largest))


def table(graph: Graph, minibatch: int = 0) -> str:
    """The table as text; with a minibatch, also the memory that training takes."""
    rows = [("layer", "type", "inputs", "output", "weights", "multiply-adds")]
    for l in graph.layers:
        rows.append(
            (
                l.name,
                l.type,
                ",".join(l.inputs or ()),
                "{}x{}x{}".format(*graph.shapes[l.name]),
                f"{weights_of(graph, l.name):,}" if l.weights(*_ins(graph, l)) else "",
                f"{macs_of(graph, l.name):,}" if macs_of(graph, l.name) else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(w) if i > 3 else cell.ljust(w) for i, (cell, w) in cells).rstrip()
        for cells in (list(enumerate(zip(row, widths))) for row in rows)
    ]
    lines.insert(1, "-" * len(max(lines, key=len)))
    sums = totals(graph)
    text = (
        f"{sums['weights'] / 1e6:.2f} M weights, {sums['macs'] / 1e9:.2f} G multiply-adds an image"
    )
    if minibatch:
        text += f", about {memory(graph, minibatch) / 2**30:.1f} GiB to train {minibatch} at a time"
    return "\n".join([*lines, lines[1], text])


def _ins(graph: Graph, layer) -> list:
    return [graph.shapes[name] for name in layer.reads] if layer.inputs else [None]


def keys_of(word: str) -> str:
    """Every key of a layer type ('all': of every type) with its default and meaning, as text."""
    known = types()
    if word != "all" and word not in known:
        raise UsageError(f"--keys={word}: no such type{nearest(word, known)}")
    blocks = []
    for name in known if word == "all" else [word]:
        lines = [f"type={name}"]
        for k in layer_class(name).keys().values():
            default = "required" if k.default is REQUIRED else _shown(k.default)
            file = ", params" if k.rate else ""
            lines.append(f"  {k.name:12} {k.doc} ({default}{file})")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _shown(default) -> str:
    if isinstance(default, Schedule):
        default = default.base
    if callable(default) or default in (None, ""):
        return "optional"
    return f"default {default}"
