"""The weights of a layer as pictures: what each of its filters looks for."""

from pathlib import Path

import numpy as np

from convnet import given, tiles
from convnet.cli import UsageError
from convnet.net import Net
from convnet.show import opened, style
from convnet.tiles import balanced, columns_for, mosaic

FILTERS, CHANNELS = 32, 24  # of a layer above the first, where the command line says nothing


def filters(args) -> Path:
    """tools/show.py filters"""
    run = given.opened(args.run, "cpu")
    net = run.net
    name = opened.layer(net, args.layer) if args.layer else tiles.first_layer(net)
    if name is None:
        raise UsageError("no layer with weights reads the images; --layer=NAME names another")
    out = opened.target(args, run.path.parent, f"filters-{_source(net, name)}.png", style.KINDS)
    style.write(out, *picture(net, name, args.input, args.filters, args.channels))
    return out


def _source(net: Net, name: str) -> str:
    """The layer with the weights that a user means: conv1 of its neuron conv1_neuron."""
    l = net.by_name[name]
    return l.reads[0] if not net.weights[name] and l.type == "neuron" else name


def kernels(net: Net, name: str, number: int = 0) -> np.ndarray:
    """As convnet/tiles.py gives them; UsageError where these are no filters."""
    l = net.by_name[_source(net, name)]
    if f"W{number}" not in net.weights[l.name]:
        having = [l.name for l in net.layers if "W0" in net.weights[l.name]]
        which = (
            f"has no weights over an input {number}" if net.weights[l.name] else "has no weights"
        )
        raise UsageError(f"--layer={l.name}: {which}; {', '.join(having)} have some")
    shape = net.graph.shapes[l.reads[number]]
    if shape[:2] == (1, 1) and net.weights[l.name][f"W{number}"].ndim == 2:
        raise UsageError(f"--layer={l.name}: reads {shape[2]} numbers, no maps or images")
    return tiles.kernels(net, l.name, number)


def picture(net: Net, name: str, number: int = 0, most=None, channels=None):
    """(paint, size in inches): filters over colours in colour, others a row of grey channels."""
    found = kernels(net, name, number)
    count, h, w, C = found.shape
    name = _source(net, name)
    if C in (1, 3) and channels is None:
        shown = found[: most or count]
        made, columns, gap = balanced(shown), columns_for(len(shown)), (1, 1)
        title = f"{name}: {_some(len(shown), count, 'filter')}, {h}x{w} pixels"
    else:
        shown = found[: most or FILTERS, :, :, : channels or CHANNELS]
        columns, gap = shown.shape[3], (3, 1)
        made = np.moveaxis(balanced(shown), 3, 1).reshape(-1, h, w, 1)
        title = (f"{name}: a row for each of {_some(len(shown), count, 'filter')}, "
                 f"{_some(columns, C, 'channel')} of {h}x{w} pixels")  # fmt: skip
    zoom = style.zoom_for(max(h, w), columns)
    step = max(2, w * zoom // 24)
    made = mosaic(made, columns, zoom, (gap[0] * step, gap[1] * step))
    return style.framed(made, title, "each filter scaled for itself; a weight of 0 is mid-grey")


def _some(shown: int, count: int, word: str) -> str:
    """As in '16 of 64 filters'."""
    return f"{shown} of {count} {word}s" if shown < count else f"{count} {word}{'s' * (count > 1)}"
