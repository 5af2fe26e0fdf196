"""Training at several sizes (SPP-net, section 2.3): what trains each batch, and at which side.

Several networks that share all weights, one for each layer definition; or one network whose
pyramid takes maps of any size, at the sides of --sizes. They take turns by epochs or by batches.
The view of a smaller side is the one of the first network, resized. Tests are at the imgSize of
the first.
"""

import copy
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from convnet.cfg import CfgError, Note
from convnet.cli import UsageError
from convnet.graph import Graph, dims
from convnet.layer import Layer, split
from convnet.net import Net

SWITCHES = ("epoch", "batch")


class Turn(NamedTuple):
    """What trains a batch: a network, and the side of its images."""

    net: Net
    size: int


class Turns:
    """The network and the side of every batch; the same for the same seed, wherever one begins.

    graphs: of the networks beside `net`, which is the first. sizes: text of --sizes, '' for none.
    Raises CfgError where networks cannot share weights, UsageError for sides that cannot be.
    """

    def __init__(self, net: Net, graphs: list[Graph] = (), sizes: str = "", switch: str = "epoch"):
        if graphs and sizes:
            raise UsageError(f"--sizes={sizes}: goes with one layer definition; with several, each "
                             "says its imgSize")  # fmt: skip
        self.by_batch, self.drawn = switch == "batch", ":" in sizes
        self.seed, self.notes = net.seed, []
        sides = _sides(sizes) if sizes else [net.graph.size]
        if sizes:
            self.notes = list(_check_sides(net.graph, sides, sizes))
        self.turns = [Turn(net, side) for side in sides]
        for graph in graphs:
            check_shared(net.graph, graph)
            self.turns.append(Turn(_twin(net, graph), graph.size))

    @property
    def sizes(self) -> list[int]:
        """The sides in turn."""
        return [turn.size for turn in self.turns]

    def __call__(self, epoch: int, batch: int, batches: int) -> Turn:
        """What trains a batch, counted from 0, of an epoch, counted from 1."""
        n = (epoch - 1) * batches + batch if self.by_batch else epoch - 1
        if self.drawn:
            n = np.random.default_rng([self.seed, n]).integers(len(self.turns))
        turn = self.turns[n % len(self.turns)]
        turn.net.step = self.turns[0].net.step
        return turn

    def __str__(self) -> str:
        """As in 'sizes 224, 180 in turn, a new one each epoch'."""
        each = "batch" if self.by_batch else "epoch"
        if self.drawn:
            return f"size drawn from {self.sizes[0]} to {self.sizes[-1]} for each {each}"
        return f"sizes {', '.join(map(str, self.sizes))} in turn, a new one each {each}"


def _twin(net: Net, graph: Graph) -> Net:
    """A network of another graph with the weights, the device and the seed of this one."""
    twin = copy.copy(net)
    twin.graph, twin.layers, twin.by_name = graph, graph.layers, graph.by_name
    twin.__dict__.pop("learns", None)
    return twin


def _sides(text: str) -> list[int]:
    """The sides of 224,180 in their order, or of 180:224, every one between."""
    found = re.fullmatch(r"(\d{1,5}):(\d{1,5})|\d{1,5}(,\d{1,5})*", text.replace(" ", ""))
    if found and found[1]:
        sides = list(range(int(found[1]), int(found[2]) + 1))
    else:
        sides = [int(side) for side in text.split(",")] if found else []
    if not sides or min(sides) < 1:
        raise UsageError(f"--sizes={text}: must be sides as in 224,180, or from:to as in 180:224")
    return sides


def _check_sides(graph: Graph, sides: list[int], text: str) -> Iterator[str]:
    """UsageError if a net cannot run at a side; notes where windows would not be n x n.

    One note for each n of each layer, of the first side where it is so.
    """
    found: dict[tuple, list] = {}
    for side in sides:
        for name, a, n in _not_square(graph, side, text):
            found.setdefault((name, n), []).append((side, a))
    for (name, n), at in found.items():
        side, a = at[0]
        more = f" (and so at {len(at) - 1} more of the sizes)" if len(at) > 1 else ""
        made = f"{windows(a, n)}x{windows(a, n)}"
        yield (
            f"at {side}x{side} [{name}] reads {a}x{a}, where sliding windows would give {made}, "
            f"not {n}x{n}{more}: it has the bins of type=spp"
        )


def _not_square(graph: Graph, side: int, text: str) -> Iterator[tuple[str, int, int]]:
    """(layer, side of its map, n) of levels whose windows would not be n x n at a side."""
    first, _, channels = graph.shapes[graph.feeds[0]]
    if side > first:
        raise UsageError(
            f"--sizes={text}: {side} is more than the {first} of the net's imgSize, of which the "
            "smaller sizes are made"
        )
    given = {name: graph.shapes[name] for name in graph.feeds.values()}
    try:
        shapes = graph.shapes_at({**given, graph.feeds[0]: (side, side, channels)})
    except ValueError as e:
        raise UsageError(f"--sizes={text}: at {side}x{side}: {e}") from None
    for l in graph.layers:
        a = shapes[l.reads[0]][0] if l.reads else 0
        yield from ((l.name, a, n) for n in l.bins() if windows(a, n) != n)


def windows(a: int, n: int) -> int:
    """How many windows the paper's rule, ceil(a/n) every floor(a/n), gives for n bins of a."""
    size, stride = -(-a // n), max(a // n, 1)
    return math.ceil((a - size) / stride) + 1


def check_shared(first: Graph, other: Graph) -> None:
    """CfgError where a network cannot share all weights with the first, layer by layer."""
    notes = []
    theirs = {l.name: first.asked(l) for l in first.layers}
    for l in other.layers:
        asked, there = other.asked(l), theirs.pop(l.name, None)
        if there is None and asked:
            notes.append(l.section.wrong("has weights, but is not in the first network"))
        if l.name in first.by_name:
            notes += _other_meaning(first.by_name[l.name], l)
        for name, weight in asked.items() if there is not None else ():
            if name not in there or there[name].shape != weight.shape:
                before = dims(there[name].shape) if name in there else "none"
                why = f"its weights {name} are {dims(weight.shape)}, in the first network {before}"
                notes.append(l.section.wrong(why + _why(first, other, l)))
    for name, asked in theirs.items():
        if asked:
            where = other.layers[0].section.where._replace(line=0)
            notes.append(Note(where, f"no layer [{name}], which the first network has weights for"))
    if first.shared != other.shared and not notes:
        notes.append(other.layers[0].section.wrong("weightSource is not as in the first network"))
    if first.shapes[first.feeds[0]][2] != other.shapes[other.feeds[0]][2] and not notes:
        notes.append(other.layers[0].section.wrong("takes other channels than the first network"))
    if notes:
        raise CfgError(notes)


SAME = ("type", "inputs", "neuron", "pool", "levels")  # what gives shared weights their meaning


def _other_meaning(first: Layer, other: Layer) -> list[Note]:
    """A note for each key that would have the same weights mean something else."""
    pairs = [(key, first.section.get(key, ""), other.section.get(key, "")) for key in SAME]
    return [
        other.section.wrong(f"{key}={now or '(none)'}, in the first network {then or '(none)'}")
        for key, then, now in pairs
        if split(then) != split(now)
    ]


def _why(first: Graph, other: Graph, l) -> str:
    """The level of the pyramid that has another number of bins at the other size, if any."""
    for name in l.reads:
        now, then = other.shapes[name][:2], first.shapes.get(name, (0, 0))[:2]
        if now != then and name in first.by_name and first.by_name[name].bins():
            return f"; [{name}] gives {dims(now)} bins, there {dims(then)} (docs/pyramid.md)"
    return "; networks of one run share all weights"
