"""Seconds for a photo's windows by SPP-net at one scale and at five, and by R-CNN.

    python benchmarks/detection.py
    python benchmarks/detection.py --data=VOCdevkit/JPEGImages --images=4 --svd=1024,256
    python benchmarks/detection.py --device=gpu

As on the poster: the same photos, windows, net and engine for all. A row is the median over rounds
of the mean over photos, in parts: resize (the photo, or crops of it), conv (to the last map), pool
(the pyramid), fc (to fc7), svm (scores of --svms classes), nms. `exact` computes each window,
`once` those that lie on the same cells once, which changes no bit; --svd= are `once` with low-rank
fc layers. Each way runs twice before the clock starts; R-CNN is timed once, over all windows,
in batches, and its fastest of --batches counts.

`bound` is R-CNN's multiply-adds over a row's, by direct arithmetic: how many times as fast it would
be if every multiply-add took the same time. The poster's 64x and 24x are from a GPU. On a CPU fc
takes most of the time at one scale, and Winograd's convolutions, which multiply a third as often,
help R-CNN most.

Windows are selective search's, or a grid's where OpenCV is missing, the first --windows of each
photo; photos are made up, unless --data is a folder of some.
"""

# convnet goes first: OpenBLAS reads what it sets at the moment when NumPy is loaded
from convnet import cli, machine, options  # isort: skip

import json
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from pictures import photo as made_up
from views import macs

from convnet.detect import lowrank, selective
from convnet.detect.grid import grid
from convnet.detect.head import detector
from convnet.detect.maps import on_device
from convnet.detect.model import Detector, Settings
from convnet.detect.sets import InMemory, no_objects, of_photos
from convnet.detect.svm import Svms
from convnet.detect.views import through_fc
from convnet.detect.windows import ONE, SCALES, resized
from convnet.net import Net
from convnet.source import Source
from convnet.summary import columns
from convnet.work import needed

DEFAULT = ("1024,256", "256,128")  # ranks of fc6 and fc7
POSTER = {"SPP, 1 scale, exact": "64", "SPP, 5 scales, exact": "24"}  # times as fast as R-CNN there
PARTS = ("resize", "conv", "pool", "fc", "svm", "nms")


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    options.add_net(parser)
    options.add_device(parser)
    options.add_job(parser)
    parser.add_argument("--data", metavar="DIR", help="a folder of photos (default: made up)")
    parser.add_argument("--images", type=options.positive, default=2, metavar="N")
    parser.add_argument("--windows", type=options.positive, default=2000, metavar="N")
    parser.add_argument("--svms", type=options.positive, default=20, metavar="N")
    parser.add_argument(
        "--svd", action="append", metavar="RANKS", help="of fc6 and fc7; may be given again"
    )
    parser.add_argument(
        "--batches", default="32,64,128", metavar="LIST", help="of R-CNN; the fastest counts"
    )
    parser.add_argument("--semantics", default="release", choices=("release", "paper"))
    parser.set_defaults(
        layer_def="layer_configs/spp_zf5_6321.cfg", classes=1000, size=(375, 500), rounds=3
    )
    return parser.parse_args()


class Clock:
    """Seconds of the parts of a row."""

    def __init__(self, device):
        self.device, self.seconds = device, defaultdict(float)

    @contextmanager
    def of(self, part: str):
        """Add what the block takes to a part."""
        self.device.synchronize()
        begin = time.perf_counter()
        yield
        self.device.synchronize()
        self.seconds[part] += time.perf_counter() - begin


def photos(args) -> list[InMemory]:
    """The photos, in memory."""
    if args.data:
        paths = sorted(p for p in Path(args.data).iterdir() if p.suffix.lower() in (".jpg", ".png"))
        pictures = [p.pixels() for p in of_photos(paths[: args.images], []).photos]
    else:
        rng = np.random.default_rng(0)
        pictures = [np.array(made_up(rng, *args.size)) for _ in range(args.images)]
    return [
        InMemory(f"photo {i}", Path(f"photo {i}"), x.shape[1], x.shape[0], *no_objects(), picture=x)
        for i, x in enumerate(pictures)
    ]


def windows(args, photo) -> np.ndarray:
    """The boxes of a photo."""
    try:
        selective.check()
        found = selective.selective(photo.picture)
    except cli.UsageError:
        found = grid(photo.width, photo.height)
    return found[: args.windows].astype(np.float32)


def model_of(args, scales, method="spp") -> Detector:
    """A detector of first weights."""
    source = Source.read(args.layer_def, args.layer_params, tuple(args.set or ()))
    size, channels = source.image_size()
    shape = (size or 224, size or 224, channels or 3)
    net = Net(source.graph({0: shape}, args.classes), args.device, args.seed)
    net.mean = np.full(net.graph.shapes[net.graph.feeds[0]], 128, np.float32)
    net.classes = [str(i) for i in range(args.classes)]
    names = [f"class {i}" for i in range(args.svms)]
    source, net = detector(source, net, names, windows=method == "spp")
    settings = Settings(method, args.semantics, scales, 128.0)
    return Detector(source, net, settings, names)


def spp(model: Detector, once: bool, photo, boxes: np.ndarray, clock: Clock) -> np.ndarray:
    """(N, numbers) features of the boxes."""
    view = model.view()
    trunk, net, maps = view.trunk, model.net, []
    pixels = photo.pixels()
    for scale in model.settings.scales:
        with clock.of("resize"):
            x = trunk.image(pixels, *resized(photo.height, photo.width, scale))
        with clock.of("conv"):
            maps.append(net.fprop({trunk.source: x}, [trunk.layer])[0][trunk.layer][0])
    with clock.of("pool"):
        found = view.windows(photo, boxes, [m.shape[:2] for m in maps], once=once)
        parts = view.pooled(maps, found)
    with clock.of("fc"):
        rows = through_fc(net, parts, [model.layer])[model.layer]
    return rows[found.of]


def rcnn(model: Detector, batch: int, photo, boxes: np.ndarray, clock: Clock) -> np.ndarray:
    """(N, numbers) features of the boxes."""
    view, net, rows = model.view(), model.net, []
    pixels, below = on_device(net, photo.pixels()), view.layers
    tops = sorted({name for n in below for name in net.by_name[n].reads})
    for i in range(0, len(boxes), batch):
        with clock.of("resize"):
            x = view.crops(pixels, boxes[i : i + batch])
        with clock.of("conv"):
            maps = net.fprop({net.graph.feeds[0]: x}, tops)[0]
        with clock.of("pool"):
            parts = net.fprop({n: maps[n] for n in tops}, below)[0]
        with clock.of("fc"):
            rows.append(through_fc(net, {n: parts[n] for n in below}, [model.layer])[model.layer])
    return np.concatenate(rows)


def answered(model: Detector, svms: Svms, rows: np.ndarray, boxes: np.ndarray, clock: Clock):
    """Scores and what is left of them; so many pass the floor as in a trained detector, a tenth."""
    with clock.of("svm"):
        scores = svms.scores(rows)
    scores += -1.5 - np.quantile(scores, 0.9, 0)
    with clock.of("nms"):
        model.but(svms=svms).kept(boxes, scores)


def multiply_adds(model: Detector, photo, count: int) -> int:
    """Of the net for a photo with so many windows, by direct arithmetic."""
    graph, source = model.net.graph, model.net.graph.feeds[0]
    view = model.view()
    above = needed(graph, [model.layer]) - needed(graph, view.layers)
    shapes = graph.shapes
    fc = sum(l.macs(*[shapes[name] for name in l.reads]) for l in graph.layers if l.name in above)
    if model.settings.method == "rcnn":
        return count * (fc + macs(graph, graph.size, graph.size, view.layers, source))
    sizes = [resized(photo.height, photo.width, scale) for scale in model.settings.scales]
    return count * fc + sum(macs(graph, *size, [view.trunk.layer], source) for size in sizes)


def lowered(model: Detector, ranks: str, seen: list) -> Detector:
    """With low-rank fc layers, as these windows of photos have them."""
    net = model.net
    chosen = lowrank.lowered_layers(net, model.view().layers, lowrank.ranks_of(ranks))
    wanted = list(dict.fromkeys(n for name in chosen for n in net.by_name[name].reads))

    def inputs():
        for photo, boxes in seen:
            outs = through_fc(net, model.view()(photo, boxes).parts, wanted)
            yield {name: np.concatenate([outs[n] for n in net.by_name[name].reads], 1)
                   for name in chosen}  # fmt: skip

    source, low, _ = lowrank.lowered(model.source, net, chosen, inputs())
    return model.but(source=source, net=low)


def ways(args, seen: list) -> dict:
    """{what it is: (detector, what makes features of a photo's boxes)}."""
    crops = model_of(args, (), "rcnn")
    found = {
        f"R-CNN, crops by {n}": (crops, partial(rcnn, crops, int(n)))
        for n in args.batches.split(",")
    }
    for name, scales in ("1 scale", ONE), ("5 scales", SCALES[args.semantics]):
        exact = model_of(args, scales)
        found[f"SPP, {name}, exact"] = exact, partial(spp, exact, False)
        found[f"SPP, {name}, once"] = exact, partial(spp, exact, True)
        for ranks in args.svd or DEFAULT:
            low = lowered(exact, ranks, seen)
            found[f"SPP, {name}, rank {ranks}"] = low, partial(spp, low, True)
    return found


def random_svms(args, model: Detector) -> Svms:
    """Of as many numbers as the features have."""
    width = int(np.prod(model.net.graph.shapes[model.layer]))
    W = np.random.default_rng(args.seed).normal(size=(width, args.svms)).astype(np.float32)
    return Svms(W, np.zeros(args.svms, np.float32), 1.0)


def main() -> int:
    """Build, check that `once` changes no bit, time, print."""
    args = arguments()
    seen = [(photo, windows(args, photo)) for photo in photos(args)]
    made, times = ways(args, seen), defaultdict(lambda: defaultdict(list))
    svms = random_svms(args, next(iter(made.values()))[0])
    for name, (model, features) in made.items():
        slow = name.startswith("R-CNN")
        few = seen[:1] if not slow else [(seen[0][0], seen[0][1][:256])]
        for turn, some in enumerate([few, few, *[seen] * (1 if slow else args.rounds)]):
            clock = Clock(model.net.device)
            for photo, boxes in some:
                last = features(photo, boxes, clock)
                answered(model, svms, last, boxes, clock)
            for part in PARTS if turn > 1 else ():  # kernels are compiled, memory is taken
                times[name][part].append(clock.seconds[part] / len(seen))
        if name.endswith("exact"):
            exact = last
        elif name.endswith("once"):
            np.testing.assert_array_equal(last, exact)
        model.net.device.trim()
    tell(args, seen, made, times)
    return 0


def tell(args, seen, made, times) -> None:
    """Print the rows, and write them where --json says."""
    at = {name: {part: median(t) for part, t in parts.items()} for name, parts in times.items()}
    slow = [name for name in at if name.startswith("R-CNN")]
    base = min(slow, key=lambda name: sum(at[name].values()))
    count = np.mean([len(boxes) for _, boxes in seen])
    photo = seen[0][0]
    most = multiply_adds(made[base][0], photo, count)
    rows = [["seconds a photo", *PARTS, "total", "times as fast", "in conv", "bound", "poster"]]
    for name, parts in at.items():
        if name in slow and name != base:
            continue
        total = sum(parts.values())
        rows.append(
            [name, *(f"{parts[part]:.3f}" for part in PARTS), f"{total:.3f}",
             f"{sum(at[base].values()) / total:.1f}", f"{at[base]['conv'] / parts['conv']:.1f}",
             f"{most / multiply_adds(made[name][0], photo, count):.1f}", POSTER.get(name, "")]
        )  # fmt: skip
    threads = args.threads or machine.threads()
    print(f"{machine.describe()['cpu']}, {threads} threads, {args.device}; "
          f"commit {machine.commit()}")  # fmt: skip
    print(f"{args.layer_def}, {len(seen)} photos, the first {photo.width}x{photo.height}, "
          f"{count:.0f} windows each")  # fmt: skip
    print("\n".join(columns(rows, left=[0])))
    if args.json:
        figures = {"rows": {n: dict(t) for n, t in times.items()}, "windows": count,
                   "machine": machine.describe(), "commit": machine.commit()}  # fmt: skip
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    cli.run(main)
