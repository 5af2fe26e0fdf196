"""A classifier's cfg becomes a detector's: windows for the pyramid, one class more, a box cost.

    [windows]                    added: which windows of the map to pool
    type=data
    dataIdx=2

    spp.inputs=conv5,windows     set, as if by --set; so are the outputs of the last fc layer
    fc8.outputs=classes          (the classes and, first, the background), and the rates

The result is an ordinary cfg, kept in the model, that one may print, edit and train with.
"""

from dataclasses import replace

import numpy as np

from convnet.cli import UsageError
from convnet.graph import Graph
from convnet.layer import WeightLayer
from convnet.multiview import trunk_of
from convnet.net import Net
from convnet.source import Source
from convnet.work import needed

HEADS = ("softmax", "softmax+bbox")
WORDS = {2: "windows", 3: "targets"}  # how the added data layers are called


def detector(
    source: Source, net: Net, classes: list[str], head: str = "softmax", windows: bool = True
) -> tuple[Source, Net]:
    """The detector of a trained classifier: its cfg, and a net with all its weights but the last.

    classes: without the background, which is number 0 of the new net. head: one of HEADS. windows:
    whether its pyramid is to pool windows of maps (not for R-CNN). A cfg that has what it needs
    already keeps it. UsageError where the net cannot be one.
    """
    graph, count = net.graph, len(classes) + 1
    last, texts, sets = last_fc(graph, net.output), [], []
    if windows and 2 not in graph.feeds:
        name = _free(graph, WORDS[2])
        texts.append(f"[{name}]\ntype=data\ndataIdx=2\n")
        sets += [f"{p}.inputs={_inputs(graph, p)},{name}" for p in pools(net)]
    sets += [f"{last}.outputs=classes", f"{last}.initW=0.01"]
    after, fresh = "", [last]
    if head == "softmax+bbox" and 3 not in graph.feeds:
        name, boxes, cost = (_free(graph, n) for n in (WORDS[3], "boxes", "boxcost"))
        texts.append(f"[{name}]\ntype=data\ndataIdx=3\n")
        after = (
            f"\n[{boxes}]\ntype=fc\ninputs={_inputs(graph, last)}\noutputs={4 * count}\n"
            f"initW=0.001\n\n[{cost}]\ntype=cost.boxes\n"
            f"inputs={_labels(graph)},{name},{boxes}\n"
        )
        fresh.append(boxes)
    text = "\n".join([*texts, source.text]) + after
    made = replace(source, text=text, overrides=(*source.overrides, *sets))
    found = fresh_net(made, net, count)
    have, old = found.own_weights(), net.own_weights()
    kept = {n: w for n, w in old.items() if n.split("/")[0] not in fresh}
    for name, w in kept.items():
        have[name][...] = w
    found.classes = ["background", *classes]
    return made, found


def fresh_net(source: Source, like: Net, classes: int) -> Net:
    """The net of a cfg with first weights; size, device, mean and seed are those of another."""
    graph = source.graph({0: like.graph.shapes[like.graph.feeds[0]]}, classes)
    made = Net(graph, like.device.name, like.seed)
    made.mean, made.mirror, made.resize_to = like.mean, like.mirror, like.resize_to
    return made


def with_rates(source: Source, net: Net, rates: dict[str, str], layers: list[str]) -> Source:
    """The cfg with these rates in some layers, all others frozen."""
    sets = []
    for l in net.layers:
        if isinstance(l, WeightLayer):
            mine = rates if l.name in layers else {"epsW": "0", "epsB": "0"}
            sets += [f"{l.name}.{key}={value}" for key, value in mine.items()]
    kept = [s for s in source.overrides if s.partition("=")[0] not in
            {s.partition("=")[0] for s in sets}]  # fmt: skip
    return replace(source, overrides=(*kept, *sets))


def pools(net: Net) -> list[str]:
    """The layers of the net's pyramid. UsageError where it has none."""
    if trunk_of(net) is None:
        raise UsageError(
            "this net has no pyramid (type=spp, or pools of one map read together) to pool windows "
            "of a map with; --method=rcnn takes any net"
        )
    wanted = needed(net.graph, [net.output])
    return [l.name for l in net.layers if l.bins() and l.name in wanted]


def last_fc(graph: Graph, output: str) -> str:
    """The fc layer below the softmax. UsageError where there is none."""
    name = graph.by_name[output].reads[0]
    if not isinstance(graph.by_name[name], WeightLayer):
        raise UsageError(f"the softmax [{output}] must read an fc layer, not [{name}]")
    return name


def feature_layer(net: Net) -> str:
    """What the last fc layer reads, fc7 in most nets: the features of SVMs."""
    return net.by_name[last_fc(net.graph, net.output)].reads[0]


def fc_layers(net: Net, below: list[str]) -> list[str]:
    """The layers with weights above these."""
    above = needed(net.graph, net.graph.costs)
    under = {n for name in below for n in needed(net.graph, [name])}
    return [
        l.name
        for l in net.layers
        if isinstance(l, WeightLayer) and l.name in above and l.name not in under
    ]


def _inputs(graph: Graph, name: str) -> str:
    """What the cfg says a layer reads."""
    return ",".join(graph.by_name[name].inputs)


def _labels(graph: Graph) -> str:
    """The labels; UsageError where the net has none."""
    if 1 not in graph.feeds:
        raise UsageError("this net has no labels (type=data dataIdx=1): it cannot be trained")
    return graph.feeds[1]


def _free(graph: Graph, word: str) -> str:
    """The word, or with a number behind it where a layer is called so."""
    names = [word, *(f"{word}{i}" for i in range(2, 99))]
    return next(name for name in names if name not in graph.alias)


def box_layer(net: Net) -> str | None:
    """The layer that gives four numbers of each class, where there is one."""
    found = [l.reads[2] for l in net.layers if l.name in net.graph.costs and 3 in net.graph.feeds
             and net.graph.feeds[3] in l.reads]  # fmt: skip
    return found[0] if found else None


def background(labels: np.ndarray) -> np.ndarray:
    """Labels of a set, from 0 and -1 for none, as the net counts them: background 0."""
    return (labels + 1).astype(np.int32)
