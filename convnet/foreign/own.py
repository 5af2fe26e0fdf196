"""A net of ours as weights for another: a checkpoint as found.Found."""

import numpy as np

from convnet.checkpoint import Checkpoint
from convnet.foreign.found import Found, Input
from convnet.foreign.layout import to_found, weighty
from convnet.graph import Graph
from convnet.source import Source


def read(path: str, saved: Checkpoint) -> Found:
    """The layers of a loaded checkpoint. ValueError, KeyError, TypeError if it is of no net."""
    source, classes = Source.from_dict(saved.meta["source"]), saved.meta["classes"]
    graph = source.graph({0: tuple(saved.meta["image"])}, len(classes))
    return of(path, graph, saved.arrays["weights"], saved.arrays["data"]["mean"])


def of(path: str, graph: Graph, weights: dict[str, np.ndarray], mean: np.ndarray) -> Found:
    """The same of a graph and its own weights, {"layer/name": array}; mean: (H, W, C)."""
    layers = []
    for l in weighty(graph):
        asked = graph.asked(l)
        owners = {name: graph.shared.get((l.name, name), (l.name, name)) for name in asked}
        arrays = {name: weights["/".join(owner)] for name, owner in owners.items()}
        wrong = next((n for n, w in asked.items() if arrays[n].shape != w.shape), None)
        if wrong:
            raise ValueError(f"the weights {l.name}/{wrong} do not fit its cfg")
        layers.append(to_found(graph, l, arrays))
    scale = graph.by_name[graph.feeds[0]].scale
    return Found(path, "convnet", layers, Input(False, mean, 1 / scale), True)
