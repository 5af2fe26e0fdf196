"""Which layer of a file goes into which of ours, and the table that says so.

By name, where the file has a layer called as one of ours; else, as with PyTorch's features.0, by
order: the first with weights into the first. --map=ours=theirs,... says it by hand, and the rest
is matched as without it. What does not fit stays as it is. What the file's net expects of its
pictures is brought into the layers that read them: ours give red, green, blue, less the mean, times
the scale of the data layer.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from convnet import layer as layers
from convnet.cfg import nearest
from convnet.foreign.found import Found, Input, WeightsError
from convnet.foreign.layout import pieces, to_ours, weighty
from convnet.graph import Graph, dims
from convnet.net import Net


class Row(NamedTuple):
    """A layer of ours: what it is given, {"W0": array, ...}; or why nothing."""

    layer: str
    source: str
    arrays: dict[str, np.ndarray]
    said: str


class Match(NamedTuple):
    """What goes where. how: by name, order or --map; unused: layers of the file nobody took."""

    how: str
    rows: list[Row]
    unused: list[str]

    @property
    def filled(self) -> list[Row]:
        """The layers that are given something."""
        return [row for row in self.rows if row.arrays]

    @property
    def left(self) -> list[Row]:
        """The layers that are not."""
        return [row for row in self.rows if not row.arrays]

    def table(self) -> str:
        """One line a layer."""
        wide = max(len(row.layer) for row in self.rows)
        far = max(len(row.source) for row in self.rows)
        lines = [f"{row.layer:{wide}}  {row.source:{far}}  {row.said}" for row in self.rows]
        if self.unused:
            lines.append("not used: " + ", ".join(self.unused))
        return "\n".join(lines)


def match(graph: Graph, found: Found, by_hand: Mapping[str, str] | None = None) -> Match:
    """What of a file goes into which layer. WeightsError where nothing fits, or a name is none."""
    how, pairs = _pairs(graph, found, by_hand or {})
    there, rows = {layer.name: layer for layer in found.layers}, []
    factor = _factor(graph, found)
    for l in weighty(graph):
        source = pairs.get(l.name, "")
        if not source:
            rows.append(Row(l.name, "-", {}, "as initialised: the file has none for it"))
            continue
        try:
            arrays = to_ours(graph, l, there[source])
            said = _said(graph, l, there[source].kernels[0], arrays)
            if factor is not None:
                said += _for_input(graph, l, found.input.bgr, factor, arrays)
            own = {k: a for k, a in arrays.items() if (l.name, k) not in graph.shared}
            rows.append(Row(l.name, source, own, said))
        except ValueError as e:
            rows.append(Row(l.name, source, {}, f"as initialised: {e}"))
    taken = {row.source for row in rows if row.arrays}
    made = Match(how, rows, [name for name in there if name not in taken])
    if not made.filled:
        why = f"; [{rows[0].layer}] {rows[0].said.partition(': ')[2]}" if rows else ""
        raise WeightsError(f"{found.path}: the weights of another net, none fits{why}")
    return made


def put(net: Net, made: Match) -> None:
    """Copy what was matched into the weights of a net."""
    for row in made.filled:
        for name, array in row.arrays.items():
            net.weights[row.layer][name][...] = net.device.array(array)


def _pairs(graph: Graph, found: Found, by_hand: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """How they were found, and {ours: theirs}."""
    ours, theirs = [l.name for l in weighty(graph)], [layer.name for layer in found.layers]
    for mine, other in by_hand.items():
        for word, names, where in (mine, ours, "the net"), (other, theirs, found.path):
            if word not in names:
                near = nearest(word, names)
                raise WeightsError(
                    f"--map={mine}={other}: {where} has no layer {word!r} with weights{near}"
                )
    said = "by --map, the rest " if by_hand else ""
    ours = [name for name in ours if name not in by_hand]
    if named := {name: name for name in ours if name in theirs}:
        return f"{said}by name", named | by_hand
    taken = {*by_hand.values()}
    rest = zip(ours, [name for name in theirs if name not in taken])
    return f"{said}by order", dict(rest) | by_hand


def _said(graph: Graph, l: layers.Layer, W: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    """The weights there and here, and how they were turned."""
    here = " + ".join(dims(a.shape) for name, a in arrays.items() if name != "b")
    if arrays["W0"].ndim == 4:
        turned = "out,in,y,x -> y,x,in,out"
    elif all(H == width == 1 for name in l.reads for H, width, _ in pieces(graph, name)):
        turned = "out,in -> in,out"
    else:
        turned = "out,(c,y,x) -> (y,x,c),out"
    return f"{dims(W.shape)} -> {here}  {turned}"


def _factor(graph: Graph, found: Found) -> np.ndarray | None:
    """What the weights over each channel of the images are multiplied with; None: nothing changes.

    Red, green, blue is their order here. WeightsError where no weights read the images.
    """
    data, given = graph.by_name[graph.feeds[0]], found.input
    channels = graph.shapes[data.name][2]
    std = np.atleast_1d(np.asarray(given.std, np.float64))
    if len(std) not in (1, channels):
        raise WeightsError(f"{found.path}: std is {len(std)} numbers for {channels} channels")
    factor = np.broadcast_to(1 / (std[::-1] if given.bgr else std) / data.scale, channels)
    if not given.bgr and np.allclose(factor, 1, rtol=1e-6):
        return None
    between = [l.name for l in graph.layers if data.name in l.reads and not graph.asked(l)]
    if between:
        raise WeightsError(
            f"{found.path}: its net takes other pixels than ours, and [{between[0]}] reads these "
            "without weights that could make up for it"
        )
    return factor


def _for_input(graph: Graph, l: layers.Layer, bgr: bool, factor: np.ndarray, arrays: dict) -> str:
    """Bring what the file's net expects of pictures into weights that read them; in words."""
    said = ""
    for i, name in enumerate(l.reads):
        if name != graph.feeds[0]:
            continue
        W = arrays[f"W{i}"]
        flat = W if W.ndim == 4 else W.reshape(*graph.shapes[name], -1)
        if flat.shape[2] != len(factor):
            raise ValueError("reads the images in groups of channels, which is not supported")
        flat = flat[:, :, ::-1] if bgr else flat
        flat = flat * factor.astype(np.float32).reshape(-1, 1)
        arrays[f"W{i}"] = np.ascontiguousarray(flat.reshape(W.shape))
        numbers = dict.fromkeys(f"{f:.4g}" for f in factor)
        said = f"{', BGR -> RGB' if bgr else ''}, times {', '.join(numbers)}"
    return said


def mean_of(given: Input, shape: tuple[int, int, int]) -> np.ndarray:
    """The mean (H, W, C) that our net is to subtract. ValueError where it does not fit."""
    mean = np.atleast_1d(np.asarray(given.mean, np.float32))
    if mean.shape[-1] not in (1, shape[2]):
        raise ValueError(f"the mean has {mean.shape[-1]} channels, the images have {shape[2]}")
    mean = mean[..., ::-1] if given.bgr else mean
    if mean.ndim == 3 and mean.shape[:2] != shape[:2]:  # Caffe cuts it as it cuts the image
        y, x = ((a - b) // 2 for a, b in zip(mean.shape, shape[:2]))
        if min(y, x) < 0:
            raise ValueError(f"the mean image is {dims(mean.shape)}, less than {dims(shape)}")
        mean = mean[y : y + shape[0], x : x + shape[1]]
    return np.ascontiguousarray(np.broadcast_to(mean, shape))
