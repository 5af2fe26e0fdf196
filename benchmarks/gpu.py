"""Where the time of a training step goes on a GPU: every kernel, and the products of cuBLAS.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --layer-def=layer_configs/vgg16.cfg --batch=64

Times are the GPU's own, by events around each launch. GB/s count every array of a launch once, as
the kernel must read or write it; GFLOP/s of products are two for each multiply-add. The last two
lines are what this GPU can do: a copy of 1 GiB, bytes read and written, and a product of
8192 x 8192 matrices. `in the step` is the time of the launches together, `the step` that of the
clock without events; where it is longer the GPU waits for Python.
"""

import argparse
import time
from collections import defaultdict
from statistics import median

import numpy as np

from convnet import benchtable, cli, machine, options
from convnet.engine import Ours
from convnet.job import Job
from convnet.kernel import Kernel
from convnet.net import Net
from convnet.summary import columns

SIDE = 8192  # of the matrices whose product is the measure


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = options.parser(__doc__)
    options.add_net(parser)
    options.add_device(parser)
    parser.add_argument("--classes", type=options.positive, default=1000, metavar="N",
                        help="what outputs=classes stands for (default: 1000)")  # fmt: skip
    parser.add_argument("--rounds", type=options.positive, default=5, metavar="N",
                        help="steps that count (default: 5)")  # fmt: skip
    parser.add_argument("--batch", type=options.positive, default=128, metavar="N",
                        help="images in the batch (default: 128)")  # fmt: skip
    parser.set_defaults(layer_def="layer_configs/spp_zf5.cfg", device="gpu")
    return parser.parse_args()


class Watch:
    """Records events around the launches of kernels and the products of matrices."""

    def __init__(self, xp):
        self.xp, self.found = xp, []

    def __enter__(self):
        self.launch, self.matmul = Kernel.launch, self.xp.matmul

        def launch(kernel, n, args):
            size = sum(a.nbytes for a in args if hasattr(a, "nbytes"))
            self._timed(kernel.name, size, 0, lambda: self.launch(kernel, n, args))

        def matmul(a, b, out=None):
            flops = 2 * a.size * b.shape[-1]
            size = a.nbytes + b.nbytes + flops // 2 // a.shape[-1] * a.itemsize
            return self._timed("product", size, flops, lambda: self.matmul(a, b, out=out))

        Kernel.launch, self.xp.matmul = launch, matmul
        return self

    def __exit__(self, *error):
        Kernel.launch, self.xp.matmul = self.launch, self.matmul

    def _timed(self, name, size, flops, work):
        start, end = self.xp.cuda.Event(), self.xp.cuda.Event()
        start.record()
        result = work()
        end.record()
        self.found.append((name, size, flops, start, end))
        return result

    def table(self, steps: int) -> str:
        """Times of a step by name, the longest first."""
        sums = defaultdict(lambda: [0, 0.0, 0, 0])
        for name, size, flops, start, end in self.found:
            row, ms = sums[name], self.xp.cuda.get_elapsed_time(start, end)
            for i, more in enumerate((1, ms, size, flops)):
                row[i] += more
        total = sum(row[1] for row in sums.values())
        rows = [["kernel", "launches", "ms", "share", "GB/s", "GFLOP/s"]]
        for name, (count, ms, size, flops) in sorted(sums.items(), key=lambda item: -item[1][1]):
            rate = f"{flops / ms / 1e6:.0f}" if flops else ""
            rows.append([name, f"{count / steps:.0f}", f"{ms / steps:.3f}", f"{ms / total:.1%}",
                         f"{size / ms / 1e6:.0f}", rate])  # fmt: skip
        rows.append(["in the step", "", f"{total / steps:.3f}", "", "", ""])
        return "\n".join(columns(rows, [0]))


def ceilings(device) -> str:
    """What the GPU can do."""
    xp = device.xp

    def seconds(work) -> float:
        found = []
        for _ in range(8):
            device.synchronize()
            start = time.perf_counter()
            work()
            device.synchronize()
            found.append(time.perf_counter() - start)
        return median(found[2:])

    a, b = xp.ones(1 << 28, np.float32), xp.empty(1 << 28, np.float32)
    copy = 2 * a.nbytes / seconds(lambda: xp.copyto(b, a))
    a = xp.random.standard_normal((SIDE, SIDE), dtype=np.float32)
    b = xp.empty_like(a)
    product = 2 * SIDE**3 / seconds(lambda: xp.matmul(a, a, out=b))
    return f"copy {copy / 1e9:.0f} GB/s\nproduct {product / 1e9:.0f} GFLOP/s"


def main() -> None:
    """Measure and tell."""
    args = arguments()
    net = args.layer_def, args.layer_params, tuple(args.set), args.classes
    job = Job(*net, batch=args.batch, threads=machine.threads(), device=args.device)
    if not job.on_gpu:
        raise cli.UsageError(f"--device={args.device}: must be a GPU")
    graph = job.graph()
    engine = Ours(Net(graph, job.device, job.seed), job.threads)
    images, labels = job.noise(graph)
    images = engine.own(images)
    print(benchtable.job_line(job, graph))
    print(engine.version)
    steps = args.rounds
    for _ in range(2):
        engine.train(images, labels)
    engine.wait()
    start = time.perf_counter()
    for _ in range(steps):
        engine.train(images, labels)
    engine.wait()
    step = (time.perf_counter() - start) / steps
    with Watch(engine.net.device.xp) as watch:
        for _ in range(steps):
            engine.train(images, labels)
        engine.wait()
    print(watch.table(steps))
    print(f"the step {1e3 * step:.2f} ms, {args.batch / step:.0f} images/s")
    print(ceilings(engine.net.device))


if __name__ == "__main__":
    cli.run(main)
