"""A net: layers and weights; fprop down the list, bprop up it, predictions for users.

net = Net.from_cfg("layer_configs/spp_zf5.cfg", classes=10)
net.load("runs/spp_zf5_001")
probs = net.predict(images)              # (N, classes)
conv5 = net.features(images, "conv5")    # (N, 13, 13, 256)
"""

import contextlib
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convnet import runfolder, views
from convnet.checkpoint import Checkpoint
from convnet.device import device as device_named
from convnet.graph import Graph
from convnet.layer import Layer, Run
from convnet.look import Look
from convnet.source import Source


class Net:
    """`graph` (what is read from the cfg), `weights` {layer: {name: array}}, `mean`, `classes`.

    device: 'cpu', 'cpu:plain' (plain kernels only) or 'gpu:0'. seed: of the first weights and of
    dropout.
    """

    def __init__(self, graph: Graph, device: str = "cpu", seed: int = 0):
        self.graph, self.seed, self.device = graph, seed, device_named(device)
        self.layers, self.by_name = graph.layers, graph.by_name
        self.classes = [str(i) for i in range(graph.words.get("classes", 0))]
        self.mean: np.ndarray | None = None  # (H, W, C), subtracted from images
        self.resize_to = views.default_fit(graph.size)  # shorter side before the centre is cut
        self.mirror = True  # whether the mirror image of an object is of the same class
        self.step = 0  # batches trained so far; dropout draws from (seed, step)
        self.watch: Callable | None = None  # (first layer, last layer, way) -> context around it
        self._init_weights()

    @classmethod
    def from_cfg(
        cls,
        path: str | Path,
        params: str | Path | None = None,
        overrides: Iterable[str] = (),
        *,
        classes: int | None = None,
        size: int | None = None,
        channels: int | None = None,
        device: str = "cpu",
        seed: int = 0,
    ) -> "Net":
        """The net of a layer definition, its weights at their first values.

        classes: number of classes, for outputs=classes. size, channels: of the images, where the
        cfg leaves imgSize open. Raises CfgError, DeviceError.
        """
        source = Source.read(path, params, tuple(overrides))
        feeds = {0: (size, size, channels) if size or channels else None}
        return cls(source.graph(feeds, classes), device, seed)

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "cpu") -> "Net":
        """The net that a checkpoint holds, cfg and all. Raises CheckpointError, DeviceError."""
        saved, _, _ = runfolder.find(path)
        return cls.from_saved(saved, device)

    @classmethod
    def from_saved(cls, saved: Checkpoint, device: str = "cpu") -> "Net":
        """The net of a loaded checkpoint."""
        source = Source.from_dict(saved.meta["source"])
        classes = saved.meta["classes"]
        net = cls(source.graph({0: tuple(saved.meta["image"])}, len(classes)), device)
        net.restore(saved)
        return net

    def load(self, path: str | Path) -> None:
        """Take the weights of a checkpoint (file, or folder of a run: its newest).

        Raises CheckpointError; ValueError if the weights are of another net.
        """
        self.restore(runfolder.find(path)[0])

    def restore(self, saved: Checkpoint) -> None:
        """Take weights, mean and class names of a checkpoint. ValueError if they do not fit."""
        meta, mean = saved.meta, saved.arrays["data"]["mean"]
        channels = self.graph.shapes[self.graph.feeds[0]][2]
        if mean.ndim != 3 or mean.shape[2] != channels or not np.isfinite(mean).all():
            raise ValueError(f"the mean image is {mean.shape}, the net takes {channels} channels")
        self.set_weights(saved.arrays["weights"])
        self.mean, self.mirror = mean, meta["mirrors"]
        self.classes, self.step, self.seed = list(meta["classes"]), meta["step"], meta["seed"]
        self.resize_to = round(meta["resize_to"] * self.graph.size / mean.shape[0])

    # ---------------------------------------------------------------- weights

    def _init_weights(self) -> None:
        """First values, from a generator for each array, so that the order does not matter."""
        self.weights: dict[str, dict[str, Any]] = {}
        self.shared = self.graph.shared
        for l in self.layers:
            self.weights[l.name] = {}
            for name, weight in self.graph.asked(l).items():
                if (l.name, name) in self.shared:
                    layer, source = self.shared[l.name, name]
                    self.weights[l.name][name] = self.weights[layer][source]
                    continue
                rng = np.random.default_rng([self.seed, zlib.crc32(f"{l.name}/{name}".encode())])
                values = np.asarray(weight.init(rng, weight.shape), np.float32)
                self.weights[l.name][name] = self.device.array(values)

    def own_weights(self) -> dict[str, Any]:
        """The weights as {"layer/name": array}, shared ones once."""
        return {
            f"{layer}/{name}": array
            for layer, arrays in self.weights.items()
            for name, array in arrays.items()
            if (layer, name) not in self.shared
        }

    def set_weights(self, arrays: dict[str, np.ndarray]) -> None:
        """Copy arrays into the weights of the same names. ValueError if they do not all fit."""
        own = self.own_weights()
        for name, got in arrays.items():
            if not np.isfinite(np.dot(got.ravel(), got.ravel())):
                raise ValueError(f"the weights {name} are not finite")
        for name in {**own, **arrays}:
            have, got = own.get(name), arrays.get(name)
            if have is None or got is None or have.shape != got.shape:
                mine = "none" if have is None else "x".join(map(str, have.shape))
                theirs = "none" if got is None else "x".join(map(str, got.shape))
                raise ValueError(
                    f"these weights are of another net: {name} is {theirs} there, {mine} here"
                )
        for name, got in arrays.items():
            own[name][...] = self.device.array(got.astype(own[name].dtype, copy=False))

    # ---------------------------------------------------------------- run

    @cached_property
    def learns(self) -> dict[str, set]:
        """For each layer what bprop must give: numbers of inputs, names of weights.

        Shared weights learn at the rates of the layer that owns them.
        """
        wants: dict[str, set] = {}
        eps = {(l.name, k): w.eps for l in self.layers for k, w in self.graph.asked(l).items()}
        for l in self.layers:
            wants[l.name] = {i for i, name in enumerate(l.reads) if wants[name]}
            for name in self.weights[l.name]:
                if eps[self.shared.get((l.name, name), (l.name, name))].base > 0:
                    wants[l.name].add(name)
        return wants

    def fprop(
        self,
        given: dict[str, Any],
        want: Iterable[str],
        train: bool = False,
    ) -> tuple[dict[str, Any], list]:
        """Run from the arrays of the `given` layers to the layers in `want`.

        Returns their arrays by name and, in training, the tape that bprop takes back.
        """
        want, given = set(want), {name: self._taken(name, x) for name, x in given.items()}
        order = self._order(given, want)
        shapes = {name: tuple(x.shape[1:]) for name, x in given.items()}
        self.graph.shapes_at(shapes, [l.name for l in order])
        uses = Counter(name for l in order for name in l.reads)
        after = {l.reads[0]: l for l in order if [uses[name] for name in l.reads] == [1]}
        fast = self.device.fast and all(x.dtype != np.float64 for x in given.values())
        acts, tape, out = dict(given), [], {}
        for l in order:
            if l.name in acts and l.name not in given:
                continue  # the layer before has done its work
            xs = [acts[name] for name in l.reads] if l.name not in given else [acts[l.name]]
            then = after.get(l.name) if fast and not {l.name} & {*want, *given} else None
            if then and not l.takes(then, *[x.shape for x in xs]):
                then = None
            seed = zlib.crc32(f"{self.seed}/{self.step}/{l.name}".encode())
            run = Run(self.device, train, seed, fast, then)
            made = then.name if then else l.name
            with self.watched(l.name, made, "fprop"):
                acts[made], bprop = l.fprop(run, self.weights[l.name], *xs)
            del xs
            if train:
                tape.append((l, made, bprop))
            del bprop
            if made in want:
                out[made] = acts[made]
            for name in l.reads:
                uses[name] -= 1
                if not uses[name]:
                    del acts[name]
        return out, tape

    def _taken(self, name: str, x):
        """An array for a layer as kernels take it: C-contiguous, and of floats but for labels."""
        feeds = self.graph.feeds
        floats = x.dtype in (np.float32, np.float64)  # as this machine stores them
        whole = [feeds.get(1), feeds.get(2)]  # labels and windows
        if not floats and name not in whole:
            raise ValueError(f"layer {name!r} takes float32 or float64 numbers, not {x.dtype}")
        if not len(x):
            raise ValueError(f"layer {name!r} is given no case")
        return self.device.array(x)

    def watched(self, first: str, last: str, way: str):
        """What times a pass through the layers first..last, if anybody watches."""
        return self.watch(first, last, way) if self.watch else contextlib.nullcontext()

    def _order(self, given: dict[str, Any], want: set[str]) -> list[Layer]:
        """The layers to run, in order: what `want` needs and `given` does not provide."""
        needed, order = set(want), []
        for l in reversed(self.layers):
            start = l.name in given
            if l.name in needed and not (start and l.inputs):
                order.append(l)
                if not l.inputs and not start:
                    raise ValueError(f"layer {l.name!r} needs data, none is given")
                needed.update(l.reads)
        return order[::-1]

    def bprop(
        self, tape: list, grads: dict[str, Any], lazy: bool = False
    ) -> dict[tuple[str, str], Any]:
        """Gradients of the layers in `grads` -> {(layer, weight): gradient}, shared ones added.

        The tape is used up: what a layer kept is let go as soon as it has been used. lazy: whether
        a gradient may be a convnet.layer.Lazy, for Sgd.update; otherwise all are arrays.
        """
        dw: dict[tuple[str, str], Any] = {}
        while tape:
            l, made, bprop = tape.pop()
            dy = grads.pop(made, None)
            if dy is None or not self.learns[l.name]:
                continue
            with self.watched(l.name, made, "bprop"):
                dxs, dws = bprop(dy, self.learns[l.name])
            del bprop, dy
            for name, dx in zip(l.reads, dxs):
                if dx is not None:
                    grads[name] = self._sum(grads[name], dx) if name in grads else dx
            for name, dW in dws.items():
                owner = self.shared.get((l.name, name), (l.name, name))
                if not lazy or owner in self.shared.values():
                    dW = dW if hasattr(dW, "shape") else dW.array()
                dw[owner] = self._sum(dw[owner], dW) if owner in dw else dW
        return dw

    def _sum(self, a, b):
        return self.device.xp.add(a, b, out=self.device.empty(a.shape, a.dtype))

    def cost_gradients(self, outs: dict[str, Any]) -> dict[str, Any]:
        """What bprop starts from: coeff in the first column of every cost."""
        grads = {}
        for name in self.graph.costs:
            grads[name] = self.device.xp.zeros_like(outs[name])
            grads[name][..., 0] = self.by_name[name].coeff
        return grads

    def first_not_finite(self, given: dict[str, Any]) -> str:
        """Where NaN or infinity begins in the training pass over this batch, in words."""
        xp = self.device.xp
        for name, w in self.own_weights().items():
            if not xp.isfinite(w).all():
                return f"weights {name} are not finite"
        if not all(xp.isfinite(x).all() for x in given.values()):
            return "the images are not finite"
        acts, _ = self.fprop(given, [l.name for l in self.layers], train=True)
        for l in self.layers:
            if not xp.isfinite(acts[l.name]).all():
                return f"it begins in the output of [{l.name}]"
        return "every layer's output is finite"

    def feed(self, images: np.ndarray, labels: np.ndarray | None = None) -> dict[str, Any]:
        """The arrays (N, H, W, C) and (N,) of a batch as fprop takes them."""
        feeds = self.graph.feeds
        given = {feeds[0]: self.device.array(images)}
        if labels is not None and 1 in feeds:
            labels = np.asarray(labels, np.int32).reshape(-1, 1, 1, 1)
            given[feeds[1]] = self.device.array(labels)
        return given

    # ---------------------------------------------------------------- for users

    def predict(self, images, view: str = "centre", batch: int = 32) -> np.ndarray:
        """Probabilities (N, classes) of uint8 images: (N, H, W, C), or a list of any sizes.

        view: 'centre' cuts the centre as in training, 'ten' averages the centre, the corners and
        their mirror images (five views of what has no mirror image, such as digits), 'full' takes
        the whole image at its own shape (nets with a pyramid), 'warp' squeezes it into the net's,
        'asis' takes the pixels as they are; more on them in convnet/look.py. Raises ValueError for
        images that are none, or of a size that the net cannot take.
        """
        rows = [p.reshape(-1) for p in self._each(images, [self.output], view, batch)]
        classes = len(rows[0]) if rows else int(np.prod(self.graph.shapes[self.output]))
        return np.reshape(rows, (len(images), -1, classes) if rows else (0, 1, classes)).mean(1)

    def features(
        self, images, layer: str, view: str = "centre", batch: int = 32, scale: int | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """The output of a layer for uint8 images: (N, H, W, C), or a list where shapes differ.

        `conv1` is what comes out of its neuron, `conv1:pre` what goes in, `spp` the pyramid, also
        where it is written as pools. Views as in predict, where each of several has a row of its
        own; scale: the shorter side of the image then, instead of the one of the training.
        """
        rows = list(self._each(images, self.graph.parts(layer), view, batch, scale))
        return np.stack(rows) if len({row.shape for row in rows}) == 1 else rows

    def run(self, values: dict[str, np.ndarray], upto: str, batch: int | None = None) -> np.ndarray:
        """From the outputs of named layers, (N, H, W, C) each, to the output of another.

        A data layer's value is an image minus its mean, before the layer's own scale. batch: cases
        at a time. Raises ValueError.
        """
        given = {self.graph.resolve(name): np.asarray(x) for name, x in values.items()}
        counts = {len(x) if x.ndim == 4 else 0 for x in given.values()}
        if len(counts) != 1 or counts == {0} or (batch or 1) < 1:
            shapes = {name: np.shape(x) for name, x in values.items()}
            raise ValueError(f"needs arrays (N, H, W, C) with one N, in batches of >= 1: {shapes}")
        name, n = self.graph.resolve(upto), counts.pop()
        if name in given:
            return given[name]
        parts = [slice(i, i + (batch or n)) for i in range(0, n, batch or n)]
        return np.concatenate(
            [self._forward({k: x[part] for k, x in given.items()}, [[name]])[0] for part in parts]
        )

    def show(self, cuts: Sequence[np.ndarray], layers: Iterable[list[str]]) -> list[np.ndarray]:
        """What several layers, each as `Graph.parts` gives it, make of uint8 views of one size."""
        return self._forward({self.graph.feeds[0]: views.to_net(cuts, self.mean_image)}, layers)

    def shape_of(self, parts: list[str], h: int, w: int) -> tuple[int, int, int]:
        """(H, W, C) of what `show` gives for such a layer and views of h x w. ValueError."""
        source = self.graph.feeds[0]
        order = self._order({source: None}, {*parts})
        image = (h, w, self.graph.shapes[source][2])
        found = self.graph.shapes_at({source: image}, [l.name for l in order])
        if len(parts) == 1:
            return found[parts[0]]
        return 1, 1, sum(math.prod(found[name]) for name in parts)

    def _forward(
        self, given: dict[str, np.ndarray], layers: Iterable[list[str]]
    ) -> list[np.ndarray]:
        """One pass from NumPy arrays to NumPy arrays; labels are int32, all else float32."""
        whole = [self.graph.feeds.get(1), self.graph.feeds.get(2)]
        kinds = {k: np.int32 if k in whole else np.float32 for k in given}
        on_device = {k: self.device.array(x.astype(kinds[k], copy=False)) for k, x in given.items()}
        layers = list(layers)
        outs = self.fprop(on_device, {name for parts in layers for name in parts})[0]
        made = [[self.device.numpy(outs[name]) for name in parts] for parts in layers]
        return [one[0].copy() if len(one) == 1 else _joined(one) for one in made]

    @property
    def output(self) -> str:
        """The layer whose output is the prediction: what the first cost looks at."""
        return self.by_name[self.graph.costs[0]].reads[1]

    def _each(
        self, images, upto: list[str], view: str, batch: int, scale: int | None = None
    ) -> Iterator[np.ndarray]:
        """The output of `upto` for each view of each image; equal sizes run together."""
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise ValueError(f"images must be (N, H, W, C) or a list of them, not {images.shape}")
        waiting: list[np.ndarray] = []
        sizes = set()

        def flush():
            sizes.add(waiting[0].shape)
            made = self.show(waiting, [upto])[0]
            waiting.clear()
            return made

        for image in images:
            for cut in self._views(image, view, scale):
                if waiting and (waiting[0].shape != cut.shape or len(waiting) >= batch):
                    yield from flush()
                waiting.append(cut)
        if waiting:
            yield from flush()
        if len(sizes) > 1:
            self.device.trim()  # memory for sizes that may not come again

    @property
    def mean_image(self) -> np.ndarray:
        """The mean image; zeros for a net that has seen no data."""
        if self.mean is None:
            return np.zeros(self.graph.shapes[self.graph.feeds[0]], np.float32)
        return self.mean

    def look(self, view: str, scale: int | None = None) -> Look:
        """What makes views of an image for this net."""
        return Look(view, self.graph.size, self.resize_to, scale, self.mirror)

    def _views(
        self, image: np.ndarray, view: str, scale: int | None = None
    ) -> Sequence[np.ndarray]:
        """What the net is to see of one image, uint8 (h, w, C) each."""
        image = np.asarray(image)
        image = image[..., None] if image.ndim == 2 else image
        channels = self.graph.shapes[self.graph.feeds[0]][2]
        usable = image.ndim == 3 and image.shape[2] in (1, channels) and image.size
        if image.dtype != np.uint8 or not usable:
            raise ValueError(
                f"an image must be uint8 (H, W, {channels}), not {image.dtype} {image.shape}"
            )
        return self.look(view, scale)(image)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """Outputs one behind the other, each as row, column, channel: (N, 1, 1, all numbers)."""
    return np.concatenate([x.reshape(len(x), 1, 1, -1) for x in arrays], axis=3)
