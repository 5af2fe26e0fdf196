"""How many bits the ways to compute a convolution lose: each against the plain one in float64.

    python benchmarks/accuracy.py
    python benchmarks/accuracy.py --layer-def=layer_configs/vgg16.cfg --batch=1

For each conv layer of a net, on random inputs, with its first weights: the largest error of the
output, of the gradient of the input and of that of the weights, each as a share of the largest
number of the exact result. The first line of a layer is the plain way in float32; the way that
the layer chooses has a star.
"""

# convnet goes first: OpenBLAS reads what it sets at the moment when NumPy is loaded
from convnet import cli, options  # isort: skip

import numpy as np

from convnet.device import Cpu
from convnet.layer import Run, Variant
from convnet.source import Source


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    options.add_net(parser)
    parser.set_defaults(layer_def="layer_configs/spp_zf5.cfg")
    parser.add_argument("--batch", type=options.positive, default=2, metavar="N",
                        help="images (default: 2)")  # fmt: skip
    parser.add_argument("--seed", type=options.natural, default=0, metavar="N", help="(default: 0)")
    return parser.parse_args()


def passes(layer, name: str, x, w: dict, dy) -> list:
    """Output and gradients of x and of the weights by the way of this name."""
    layer.variant = lambda *shapes: Variant(name, "asked for")
    y, bprop = layer.fprop(Run(Cpu(), train=True, seed=0, fast=True), w, x)
    (dx,), dw = bprop(dy, {0, "W0"})
    del layer.variant
    return [y.copy(), dx, dw["W0"]]


def errors(layer, image: tuple, asked: dict, batch: int, seed: int) -> dict[str, list[float]]:
    """{name of a way: its errors}."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *image))
    w = {k: weight.init(rng, weight.shape).astype(float) for k, weight in asked.items()}
    dy = rng.standard_normal((batch, *layer.shape(image)))
    x, dy, *ws = (a.astype(np.float32) for a in (x, dy, *w.values()))
    exact = passes(layer, "plain", x.astype(float), dict(zip(w, (a.astype(float) for a in ws))),
                   dy.astype(float))  # fmt: skip
    found = {}
    for name in ("plain", *(way.name for way in layer.ways(image))):
        got = passes(layer, name, x, dict(zip(w, ws)), dy)
        found[name] = [float(abs(a - b).max() / abs(b).max()) for a, b in zip(got, exact)]
    return found


def main() -> None:
    """Measure and print."""
    args = arguments()
    source = Source.read(args.layer_def, args.layer_params, tuple(args.set))
    graph = source.graph({}, 1000)
    print(f"{'layer':10}{'way':18}{'output':>10}{'input':>10}{'weights':>10}")
    for l in graph.layers:
        image = graph.shapes[l.reads[0]] if l.type == "conv" else ()
        chosen = l.variant((args.batch, *image)).name if image else "plain"
        if chosen == "plain":
            continue
        for name, row in errors(l, image, graph.asked(l), args.batch, args.seed).items():
            star = "*" if name == chosen else ""
            print(f"{l.name:10}{name + star:18}{''.join(f'{e:10.1e}' for e in row)}", flush=True)


if __name__ == "__main__":
    cli.run(main)
