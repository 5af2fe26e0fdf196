"""What the layers of a net have to do at least with a batch, and which kernels do it."""

import math
from typing import NamedTuple

from convnet.graph import FLOAT, Graph
from convnet.layer import Layer, Variant


class Work(NamedTuple):
    """Of the layers that one kernel or one pair of passes runs, forward and backward.

    flops: additions and multiplications of the direct arithmetic. done: of the way that is chosen,
    which for Winograd are fewer. bytes: of the arrays that must be read and written at least.
    """

    layers: list[str]
    flops: tuple[int, int]
    done: tuple[int, int]
    bytes: tuple[int, int]
    variant: str
    why: str


def needed(graph: Graph, want: list[str]) -> set[str]:
    """The layers that must run for the layers in `want`."""
    found = set(want)
    for l in reversed(graph.layers):
        found |= {*l.reads} if l.name in found else set()
    return found


def chain(graph: Graph, first: str, last: str) -> list[str]:
    """The layers from the first to the last, each the only reader of the one before."""
    names = [last]
    while names[-1] != first:
        names.append(graph.by_name[names[-1]].reads[0])
    return names[::-1]


def work(net, shapes: dict[str, tuple], cases: int, first: str, last: str) -> Work:
    """Of the layers first..last of a net on this many images; shapes: (H, W, C) by layer."""
    graph, names = net.graph, chain(net.graph, first, last)
    l, learns = graph.by_name[first], net.learns[first]
    ins = [shapes[read] for read in l.reads] or [shapes[first]]
    then = graph.by_name[last] if last != first else None
    variant = _variant(net, l, [(cases, *shape) for shape in ins], then)
    macs = cases * sum(_macs(graph, graph.by_name[name], shapes) for name in names)
    done = macs if variant.macs is None else variant.macs
    inputs = {i for i in learns if isinstance(i, int)}
    gradients = bool(inputs) + (len(inputs) < len(learns))  # of the input, of the weights
    numbers = _numbers(graph, l, ins, shapes[last], cases, inputs, len(inputs) < len(learns))
    return Work(
        names,
        (2 * macs, 2 * macs * gradients),
        (2 * done, 2 * done * gradients),
        (FLOAT * numbers[0], FLOAT * numbers[1]),
        variant.name,
        variant.why,
    )


def _variant(net, l: Layer, ins: list[tuple], then: Layer | None) -> Variant:
    """The kernels of a layer, as Net.fprop chooses them."""
    if net.device.fast:
        return l.variant(*ins, then=then)
    return Variant("plain", f"the only one for {net.device.name}")


def _macs(graph: Graph, l: Layer, shapes: dict) -> int:
    return l.macs(*[shapes[read] for read in l.reads]) if l.inputs else 0


def _numbers(graph, l, ins, out, cases, inputs, weights_learn) -> tuple[int, int]:
    """Numbers read and written, forward and backward.

    Forward: the inputs, the weights, the output. Backward: the gradients of the output and of the
    inputs; the weights for the inputs' and the inputs for the weights', which are written as well.
    """
    weights = sum(math.prod(w.shape) for w in graph.asked(l).values())
    xs, y = [cases * math.prod(x) for x in ins], cases * math.prod(out)
    back = sum(xs[i] for i in inputs) + (weights if inputs else 0)
    back += sum(xs) + weights if weights_learn else 0
    return sum(xs) + weights + y, back + y if inputs or weights_learn else 0
