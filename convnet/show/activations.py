"""What a layer makes of one image: its maps, channel by channel, beside the image."""

from pathlib import Path

import numpy as np

from convnet import given
from convnet.cli import UsageError
from convnet.net import Net
from convnet.show import opened, style
from convnet.tiles import columns_for, mosaic

CHANNELS = 96  # where the command line says nothing
INCHES = 8.5


def activations(args) -> Path:
    """tools/show.py activations"""
    run = given.opened(args.run, args.device)
    net = run.net
    if args.image.isdecimal() and not Path(args.image).exists():
        with opened.data(args, run) as provider:
            image, name = _numbered(provider, int(args.image), args.image)
    else:
        image, name = opened.image(net, args.image), Path(args.image).name
    layer = args.layer or opened.last_map(net)
    out = opened.target(args, run.path.parent, f"activations-{layer}.png", style.KINDS)
    view = net.look("centre")(image)[0]
    style.write(out, *made_of(net, view, layer, name, args.channels or CHANNELS))
    return out


def made_of(net: Net, view: np.ndarray, layer: str, name: str, most: int = CHANNELS):
    """The picture of what a layer makes of a view uint8 (H, W, C). UsageError."""
    maps = net.show([view], [[opened.map_layer(net, layer)]])[0][0]
    return picture(view, maps, layer, name, most)


def _numbered(provider, number: int, word: str) -> tuple[np.ndarray, str]:
    """A test image and its name, by its number. UsageError where there is none."""
    size = provider.test.size
    if number >= size:
        raise UsageError(f"{word}: no such file, and there are {size} test images, from 0")
    image = provider.images("test", [number])[0]
    if image is None:
        raise UsageError(f"{word}: this test image cannot be read")
    return image, str(provider.test.keys[number])


def picture(view: np.ndarray, maps: np.ndarray, layer: str, name: str, most: int):
    """(paint, size in inches): the view (H, W, C), and maps (h, w, channels) on one scale."""
    h, w, count = maps.shape
    shown = np.moveaxis(maps[..., :most], 2, 0)[..., None]
    columns = columns_for(len(shown), 1.4 * h / w)
    zoom = style.zoom_for(max(h, w), columns)
    step = max(2, w * zoom // 16)
    made = mosaic(shown, columns, zoom, (step, step))[..., 0]
    which = f"{len(shown)} of {count}" if len(shown) < count else f"{count}"
    high = (INCHES - 3.2) * made.shape[0] / made.shape[1]

    def paint(figure) -> None:
        import matplotlib

        left, right = figure.subplots(1, 2, width_ratios=[1, 3.2])
        style.image(left, view)
        left.set_title(style.short(name, 24), fontsize=9)
        colours = matplotlib.colormaps["viridis"].with_extremes(bad=(0, 0, 0, 0))
        drawn = right.imshow(np.ma.masked_invalid(made), cmap=colours, interpolation="nearest")
        right.set_axis_off()
        right.set_title(f"{layer}: {which} maps of {h}x{w}", fontsize=10)
        figure.colorbar(drawn, ax=right, shrink=0.7, aspect=30).outline.set_visible(False)

    return paint, (INCHES, max(2.4, high + 0.6))
