"""What a measurement is about: a net, a batch of noise, a pass over it."""

from typing import NamedTuple

import numpy as np

from convnet.cli import UsageError
from convnet.device import check as check_device
from convnet.graph import Graph
from convnet.source import Source
from convnet.work import needed


class Job(NamedTuple):
    """What is measured: a net, a batch of noise, a pass over it."""

    layer_def: str
    layer_params: str | None = None
    overrides: tuple[str, ...] = ()
    classes: int | None = None  # for outputs=classes; None: 10
    size: tuple[int, int] | None = None  # rows and columns of the images; None: the cfg's
    batch: int = 32
    mode: str = "train"  # or infer
    upto: str | None = None  # the layer where an inference ends; None: the prediction
    threads: int = 1
    device: str = "cpu"
    seed: int = 0
    seconds: float = 0.5  # a round repeats short steps for so long

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU. Raises DeviceError where it is none at all."""
        return not check_device(self.device)[0]

    def graph(self) -> Graph:
        """The net without weights. Raises CfgError, UsageError."""
        source = Source.read(self.layer_def, self.layer_params, self.overrides)
        side, channels = source.image_size()
        side = side or (min(self.size) if self.size else None)
        images = {0: (side, side, channels) if side else None}
        graph = source.graph(images, source.class_count(self.classes))
        graph.check_no_windows()
        self.shapes(graph)
        return graph

    def wanted(self, graph: Graph) -> list[str]:
        """The layers whose output the pass is to give."""
        if self.mode == "train":
            return graph.costs
        try:
            last = graph.resolve(self.upto) if self.upto else prediction(graph)
        except ValueError as e:
            raise UsageError(f"--upto={self.upto}: {e}") from None
        if graph.feeds.get(1) in needed(graph, [last]):
            raise UsageError(f"--upto={self.upto}: needs labels, which no inference has")
        return [last]

    def shapes(self, graph: Graph) -> dict[str, tuple]:
        """(H, W, C) of the layers that run, at the size of the images."""
        order = needed(graph, self.wanted(graph))
        given = {name: graph.shapes[name] for name in graph.feeds.values() if name in order}
        if self.size:
            given[graph.feeds[0]] = (*self.size, graph.shapes[graph.feeds[0]][2])
        try:
            return graph.shapes_at(given, order)
        except ValueError as e:
            raise UsageError(f"--size={'x'.join(map(str, self.size or ()))}: {e}") from None

    def noise(self, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W, C), as a data provider gives them, and labels (N,)."""
        rng = np.random.default_rng(self.seed)
        shape = (self.batch, *self.shapes(graph)[graph.feeds[0]])
        classes = int(np.prod(graph.shapes[prediction(graph)]))
        images = rng.normal(0, 60, shape).astype(np.float32)
        return images, rng.integers(0, classes, self.batch).astype(np.int32)


def prediction(graph: Graph) -> str:
    """The layer that the first cost looks at."""
    return graph.by_name[graph.costs[0]].reads[1]
