"""Training steps and passes of inference of one net: convnet, PyTorch and ONNX Runtime in turn.

    python benchmarks/step.py
    python benchmarks/step.py --mode=infer --batch=1,32 --engine=ours,torch,onnx
    python benchmarks/step.py --mode=infer --batch=1 --upto=conv5 --size=688x917 --engine=ours,onnx
    python benchmarks/step.py --layer-def=layer_configs/cifar10.cfg --classes=10 --batch=128
    python benchmarks/step.py --device=gpu --mode=train --engine=ours,torch,torch-tf32

Each engine has a process of its own; while one is timed the others wait for their turn in a read.
The median over all turns counts; before them the engines warm up, those that have settings choose
the fastest, and in inference their outputs must agree. The peak of memory is that of one more
process for each, which does nothing else.

Two bounds, both at the rate of a product of 4096 x 4096 matrices in the same rounds, with NumPy or,
on a GPU, CuPy:
`direct`, the time of the multiply-adds of a direct convolution and of fc, which an algorithm that
multiplies less may beat, and `done`, that of those which convnet's kernels really do.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from convnet import bench, benchtable, cli, options
from convnet.bench import step_seconds
from convnet.device import device as device_named
from convnet.engine import engine_class
from convnet.job import Job
from convnet.process import Process
from convnet.summary import columns

SIDE = 4096  # of the matrices whose product is the measure


def arguments():
    """The command line."""
    parser = options.parser(__doc__)
    options.add_net(parser)
    options.add_device(parser)
    options.add_job(parser)
    parser.add_argument("--mode", type=words(str, "train", "infer"), default=["train", "infer"],
                        metavar="WORDS", help="train, infer, or both (default)")  # fmt: skip
    parser.add_argument("--batch", type=words(options.positive), default=[32], metavar="N,N",
                        help="images; several sizes with commas (default: 32)")  # fmt: skip
    parser.add_argument("--engine", type=words(str, "ours", "torch", "torch-tf32", "onnx"),
                        default=["ours", "torch"], metavar="WORDS",
                        help="ours, torch, on a GPU torch-tf32 and, for inference, onnx "
                        "(default: ours,torch)")  # fmt: skip
    parser.set_defaults(layer_def="layer_configs/spp_zf5.cfg", classes=1000)
    return parser.parse_args()


def words(read: Callable, *known: str) -> Callable[[str], list]:
    """Reads a list with commas."""

    def several(text: str) -> list:
        found = [read(word) for word in text.split(",")]
        if known and not {*found} <= {*known}:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}, not {text!r}")
        return found

    return several


class Product:
    """A matrix product with NumPy or CuPy, in a process of its own."""

    def __init__(self, device: str):
        self.device = device_named(device)
        self.a = self.device.array(np.random.default_rng(0).random((SIDE, SIDE), np.float32))
        self.out = self.device.empty(self.a.shape)
        self.seconds()

    def seconds(self) -> float:
        """Of one product."""
        start = time.perf_counter()
        self.device.xp.matmul(self.a, self.a, out=self.out)
        self.device.synchronize()
        return time.perf_counter() - start


def case(job: Job, engines: list[str], rounds: int) -> dict:
    """All figures of one job."""
    products: list[float] = []
    with Process("the product", partial(Product, job.device), job.threads, {}) as product:
        found = bench.measure(
            engines, job, rounds, benchtable.say, lambda: products.append(product("seconds"))
        )
    sgemm = 2 * SIDE**3 / median(products)
    work = found.get("ours", {}).get("work", [])
    train = job.mode == "train"
    flops = {kind: sum(w[kind][0] + train * w[kind][1] for w in work) for kind in ("flops", "done")}
    return {
        "mode": job.mode,
        "batch": job.batch,
        "engines": found,
        "sgemm": sgemm,
        "bound": {"direct": flops["flops"] / sgemm, "done": flops["done"] / sgemm},
    }


def tell(found: dict) -> None:
    """A table of one job."""
    cases, bound = found["batch"], found["bound"]
    print(f"sgemm {found['sgemm'] / 1e9:.0f} GFLOP/s")
    rows = [["", "ms", "images/s", "of direct", "of done", "peak MB"]]
    for name, engine in found["engines"].items():
        t = step_seconds(engine)
        done = f"{bound['done'] / t:.0%}" if name == "ours" else ""
        direct = f"{bound['direct'] / t:.0%}" if bound["direct"] else ""
        peak = f"{engine['peak'] / 1e6:.0f}"
        rows.append([engine["title"], f"{1e3 * t:.1f}", f"{cases / t:.1f}", direct, done, peak])
    print("\n".join(columns(rows, [0])))
    for name, engine in found["engines"].items():
        if engine["trials"]:
            trials = ", ".join(f"{k} {1e3 * t:.0f} ms" for k, t in engine["trials"].items())
            print(f"{engine['title']} with {engine['setting']}, the fastest of {trials}")
        if name != "ours" and (ours := found["engines"].get("ours")):
            ratio = step_seconds(engine) / step_seconds(ours)
            memory = ours["peak"] / engine["peak"]
            off = f", outputs {engine['off']:.0e} apart" if "off" in engine else ""
            print(f"convnet is {ratio:.2f} times as fast as {engine['title']} "
                  f"with {memory:.2f} of the memory{off}")  # fmt: skip
    print()


def main() -> None:
    """Measure, tell, write."""
    args = arguments()
    if args.upto and "train" in args.mode:
        raise cli.UsageError(f"--upto={args.upto}: goes with --mode=infer")
    benchtable.check_engines(args.engine, "--engine")
    jobs = [
        benchtable.job_of(args, mode, batch, args.device)
        for mode in args.mode
        for batch in args.batch
    ]
    cases = []
    print(benchtable.where_line())
    for job in jobs:
        print(benchtable.job_line(job, job.graph()))
        engines = [name for name in args.engine if hasattr(engine_class(name), job.mode)]
        cases.append(case(job, engines, args.rounds))
        tell(cases[-1])
    if args.json:
        benchtable.write(args.json, vars(args), cases=cases)


if __name__ == "__main__":
    cli.run(main)
