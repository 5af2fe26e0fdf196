"""Many views of an image: pooled from feature maps, or cut from the image, and by PyTorch.

    python benchmarks/views.py
    python benchmarks/views.py --layer-def=layer_configs/spp_overfeat7.cfg --views=96+2

Images of noise, a net with its first weights. Each way runs in turn on the same images, from whole
images to probabilities; the median of the rounds counts. `bound` is the ratio of the multiply-adds
of both ways, which is all that can be won where views are large in their image: at the scale 560
twelve views cover little more than one pass over it. PyTorch, where it is there, sees the same cut
views, 32 at a time, channels last; cutting and resizing them is counted for it too.
"""

import time
from collections import defaultdict
from functools import partial
from statistics import median

import numpy as np

from convnet import cli, machine, multiview, options, views
from convnet.engine import engine_class
from convnet.graph import Graph
from convnet.multiview import Multiview, View
from convnet.net import Net
from convnet.source import Source
from convnet.summary import columns
from convnet.work import needed


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    options.add_net(parser)
    options.add_device(parser)
    options.add_job(parser)
    parser.add_argument("--images", type=options.positive, default=2, metavar="N")
    parser.add_argument("--views", default="10,96,96+2", metavar="WORDS", help="plans, with commas")
    parser.set_defaults(layer_def="layer_configs/spp_zf5.cfg", classes=1000, size=(375, 500))
    return parser.parse_args()


def macs(graph: Graph, h: int, w: int, upto: list[str], given: str) -> int:
    """Multiply-adds from a map, or the image, of this size to some layers."""
    shapes = graph.shapes_at(
        {given: (h, w, graph.shapes[given][2])}, needed_after(graph, upto, given)
    )
    return sum(
        l.macs(*[shapes[name] for name in l.reads])
        for l in graph.layers
        if l.name in shapes and l.name != given and l.inputs and all(n in shapes for n in l.reads)
    )


def needed_after(graph: Graph, upto: list[str], given: str) -> set[str]:
    """The layers needed for `upto` that are not needed for `given`."""
    return needed(graph, upto) - needed(graph, [given]) | {given}


def bound(net: Net, look: Multiview, found: list[View]) -> float:
    """Multiply-adds of all views cut from the image, over those of views pooled from maps."""
    graph, out, size = net.graph, [net.output], net.graph.size
    passes = {(v.rows, v.columns, v.flip) for v in found}
    own = graph.shapes[look.cut_at]
    head = macs(graph, *own[:2], out, look.cut_at)
    maps = sum(macs(graph, h, w, [look.cut_at], look.source) for h, w, _ in passes)
    return len(found) * macs(graph, size, size, out, look.source) / (maps + len(found) * head)


def cuts(net: Net, look: Multiview, images: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    """All views of S x S of all images as PyTorch is given them, and whose they are."""
    made, whose = [], []
    for i, image in enumerate(images):
        by_size = defaultdict(list)
        for v in look.views(image):
            by_size[v.rows, v.columns].append(v)
        for (rows, columns_), found in by_size.items():
            whole = views.resize(image, rows, columns_)
            for v in found:
                piece = whole[v.top : v.bottom, v.left : v.right]
                made.append(piece[:, ::-1] if v.flip else piece)
                whose.append(i)
    return views.to_net(made, net.mean_image), whose


def main() -> int:
    """Build, check that all ways agree as far as they must, time, print."""
    args = arguments()
    source = Source.read(args.layer_def, args.layer_params, tuple(args.set))
    graph = source.graph({}, args.classes)
    net, rng = Net(graph, args.device, args.seed), np.random.default_rng(args.seed)
    noise = [rng.integers(0, 256, (6, 8, 3), np.uint8) for _ in range(args.images)]
    images = [views.resize(small, *args.size) for small in noise]
    threads = args.threads or machine.threads()
    try:
        torch = engine_class("torch")(net, threads)
    except ImportError:
        torch = None
    rows = [
        ["views", "of maps ms", "of images ms", "times as fast", "bound", "PyTorch ms", "times"]
    ]
    for name in args.views.split(","):
        plan = multiview.plan(name)
        maps, cut = (Multiview(net, plan, of=of) for of in ("maps", "images"))
        whole = [v for v in maps.views(images[0]) if v.whole]

        def by_torch(look=cut, several=images):
            x, whose = cuts(net, look, several)
            probs = np.concatenate([torch.infer(x[i : i + 32]) for i in range(0, len(x), 32)])
            return np.array([probs[np.equal(whose, n)].mean(0) for n in range(len(several))])

        ways = {"maps": partial(maps.predict, images), "images": partial(cut.predict, images)}
        if torch and not whole:
            ways["torch"] = by_torch
        made = {way: run() for way, run in ways.items()}
        if "torch" in made:
            np.testing.assert_allclose(made["torch"], made["images"], atol=1e-5)
        times = defaultdict(list)
        for _ in range(args.rounds):
            for way, run in ways.items():
                start = time.perf_counter()
                run()
                times[way].append(1e3 * (time.perf_counter() - start) / args.images)
        at = {way: median(seconds) for way, seconds in times.items()}
        most = bound(net, maps, [v for v in maps.views(images[0]) if not v.whole])
        rows.append(
            [name, f"{at['maps']:.1f}", f"{at['images']:.1f}", f"{at['images'] / at['maps']:.2f}",
             f"{most:.2f}", f"{at['torch']:.1f}" if "torch" in at else "",
             f"{at['torch'] / at['maps']:.2f}" if "torch" in at else ""]
        )  # fmt: skip
    h, w = args.size
    print(f"{args.layer_def}, image of {w}x{h}, {args.images} of them, {threads} threads, "
          f"{args.device}; commit {machine.commit()}")  # fmt: skip
    print("\n".join(columns(rows, left=[0])))
    return 0


if __name__ == "__main__":
    cli.run(main)
