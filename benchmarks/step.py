"""One training step and one pass of inference, convnet's and PyTorch's in turn, on the CPU.

    python benchmarks/step.py
    python benchmarks/step.py --layer-def layer_configs/cifar10_spp.cfg --batch 64 --rounds 9
    python benchmarks/step.py --engine ours --layers

Each engine has a process of its own; while one is timed the other waits for its turn in a read, so
that no pool of threads disturbs the other. A turn is a step, or as many as fit into --seconds. The
median over all turns counts; the first turn only warms up. The peak of memory is that of one more
process for each engine and each job, which does nothing else.

The bound is what a matrix product of 4096 x 4096 float32 reaches with NumPy in the same run: a
direct convolution computes as many products, forward, for the gradient of the input (where a layer
below learns) and for that of the weights.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from engines import ENGINES, cores

SIDE = 4096  # of the matrices whose product is the measure
JOBS = "train", "infer"
NAMES = {"ours": "convnet", "torch": "PyTorch"}


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layer-def", default="layer_configs/spp_zf5.cfg", metavar="FILE.cfg")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="images (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S",
                        help="repeat short steps for so long in a turn (default: 1)")  # fmt: skip
    parser.add_argument("--classes", type=int, default=1000, metavar="N", help="(default: 1000)")
    parser.add_argument("--threads", type=int, default=cores(), metavar="N",
                        help="for each engine (default: all cores)")  # fmt: skip
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    parser.add_argument("--layout", choices=["channels_last", "nchw"], default="channels_last",
                        help="of PyTorch's tensors")  # fmt: skip
    parser.add_argument("--layers", action="store_true", help="also each layer of convnet")
    parser.add_argument("--json", metavar="FILE", help="write all figures, each turn too")
    return parser.parse_args()


# ---------------------------------------------------------------- in a process of its own


class Worker:
    """An engine with its batch."""

    def __init__(self, engine: str, args):
        from convnet import Net

        self.args = args
        self.net = Net.from_cfg(args.layer_def, classes=args.classes)
        options = {"layout": args.layout, "update": "fused"} if engine == "torch" else {}
        self.engine = ENGINES[engine](self.net, args.threads, **options)
        rng = np.random.default_rng(0)
        shape = (args.batch, *self.net.graph.shapes[self.net.graph.feeds[0]])
        self.images = rng.normal(0, 60, shape).astype(np.float32)
        self.labels = rng.integers(0, args.classes, args.batch)

    def once(self, job: str) -> None:
        """One step."""
        if job == "train":
            self.engine.train(self.images, self.labels)
        else:
            self.engine.infer(self.images)

    def turn(self, job: str) -> list[float]:
        """Seconds of each step of one turn."""
        found, began = [], time.perf_counter()
        while not found or time.perf_counter() - began < self.args.seconds:
            start = time.perf_counter()
            self.once(job)
            found.append(time.perf_counter() - start)
        return found

    def product(self, _) -> list[float]:
        """Seconds of a matrix product with NumPy."""
        a = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
        out = np.empty_like(a)
        start = time.perf_counter()
        np.matmul(a, a, out=out)
        return [time.perf_counter() - start]

    def peak(self, job: str) -> float:
        """Megabytes that this process has taken at most, after three steps."""
        for _ in range(3):
            self.once(job)
        unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    def layers(self, _) -> dict:
        """Seconds of a training step, and of fprop and bprop of each layer in the same steps."""
        steps, times = [], {}
        plain = {l.name: l.fprop for l in self.net.layers}
        for l in self.net.layers:
            times[l.name] = [], []
            l.fprop = timed(l.fprop, *times[l.name])
        for _ in range(self.args.rounds + 1):
            start = time.perf_counter()
            self.once("train")
            steps.append(time.perf_counter() - start)
        for l in self.net.layers:
            l.fprop = plain[l.name]
        found = {k: [median(t[1:]) if t[1:] else 0.0 for t in both] for k, both in times.items()}
        return {"step": median(steps[1:]), "layers": found}

    def flops(self, _) -> dict:
        """{layer: (operations of a direct forward pass, of backward)} over the batch."""
        from convnet import summary

        found = {}
        for l in self.net.layers:
            macs = 2 * self.args.batch * summary.macs_of(self.net.graph, l)
            learns = self.net.learns[l.name]
            back = any(isinstance(w, int) for w in learns) + any(isinstance(w, str) for w in learns)
            found[l.name] = macs, macs * back
        return found

    def version(self, _) -> str:
        """Of what computes."""
        return self.engine.version


def timed(fprop, forward: list, backward: list):
    """An fprop that notes how long it and its bprop take."""

    def both(*args):
        start = time.perf_counter()
        y, bprop = fprop(*args)
        forward.append(time.perf_counter() - start)

        def back(*args):
            start = time.perf_counter()
            found = bprop(*args)
            backward.append(time.perf_counter() - start)
            return found

        return y, back

    return both


def serve(engine: str, args, pipe) -> None:
    """Answer (method, argument) of a Worker until None comes."""
    worker = Worker(engine, args)
    while (asked := pipe.recv()) is not None:
        pipe.send(getattr(worker, asked[0])(asked[1]))


class Process:
    """A Worker in a fresh process; a call waits for the answer."""

    def __init__(self, engine: str, args):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(engine, args, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self, method: str, argument=None):
        self.pipe.send((method, argument))
        return self.pipe.recv()

    def close(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self.process.join()


# ---------------------------------------------------------------- measure and tell


def measure(args) -> dict:
    """All figures; seconds and megabytes."""
    engines = list(ENGINES) if args.engine == "both" else [args.engine]
    workers = {name: Process(name, args) for name in engines}
    first = next(iter(workers.values()))
    seconds = {job: {name: [] for name in engines} for job in JOBS}
    products = []
    for i in range(args.rounds + 1):
        for job in JOBS:
            for name, worker in workers.items():
                found = worker("turn", job)
                if i:
                    seconds[job][name].append(median(found))
        products += first("product") if i else []
        print(f"round {i}/{args.rounds}", file=sys.stderr)
    figures = {
        "machine": machine(),
        "command": " ".join(["python", *sys.argv]),
        "versions": {name: worker("version") for name, worker in workers.items()},
        "seconds": seconds,
        "flops": first("flops"),
        "sgemm": 2 * SIDE**3 / median(products),
        "layers": workers["ours"]("layers") if args.layers and "ours" in workers else {},
    }
    for worker in workers.values():
        worker.close()
    figures["peak_mb"] = {job: {name: peak(name, args, job) for name in engines} for job in JOBS}
    return figures


def peak(engine: str, args, job: str) -> float:
    """Megabytes of a process of its own."""
    worker = Process(engine, args)
    found = worker("peak", job)
    worker.close()
    return found


def machine() -> dict:
    """What the figures depend on, besides the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((l.split(":")[1].strip() for l in lines if l.startswith("model name")), "")
    flags = next((l.split() for l in lines if l.startswith("flags")), [])
    vector = next((f for f in ("avx512f", "avx2", "avx") if f in flags), "")
    return {
        "cpu": f"{model or platform.processor() or platform.machine()} {vector}".strip(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
    }


def commit() -> str:
    """Of the code that ran; + if it had changes."""
    home = Path(__file__).parent

    def git(*words):
        return subprocess.run(["git", *words], cwd=home, capture_output=True, text=True).stdout

    return git("rev-parse", "--short=10", "HEAD").strip() + (
        "+" if git("status", "--porcelain", "--untracked-files=no").strip() else ""
    )


def bound(figures: dict, job: str) -> float:
    """Seconds that the products of a direct convolution take at the rate of a matrix product."""
    both = [f + (b if job == "train" else 0) for f, b in figures["flops"].values()]
    return sum(both) / figures["sgemm"]


def tell(args, figures: dict) -> None:
    """The tables."""
    where = figures["machine"]
    print(f"{where['cpu']}, {where['cores']} cores, {where['system']}, Python {where['python']}")
    versions = ", ".join(figures["versions"].values())
    print(f"{versions}; {args.threads} threads each; commit {where['commit']}")
    print(figures["command"])
    rate = figures["sgemm"] / 1e9
    print(f"{args.layer_def}, batch {args.batch}, {args.rounds} rounds; sgemm {rate:.0f} GFLOP/s\n")
    print(f"{'':10}{'':10}{'ms':>9}{'images/s':>10}{'of bound':>10}{'peak MB':>9}")
    for job, found in figures["seconds"].items():
        for name, seconds in found.items():
            t = median(seconds)
            print(
                f"{job:10}{NAMES[name]:10}{1e3 * t:9.1f}{args.batch / t:10.1f}"
                f"{bound(figures, job) / t:10.0%}{figures['peak_mb'][job][name]:9.0f}"
            )
        if len(found) == 2:
            ratio = median(found["torch"]) / median(found["ours"])
            memory = figures["peak_mb"][job]["ours"] / figures["peak_mb"][job]["torch"]
            print(f"{'':10}convnet is {ratio:.2f} times as fast with {memory:.2f} of the memory")
    if figures["layers"]:
        tell_layers(figures)


def tell_layers(figures: dict) -> None:
    """Milliseconds and GFLOP/s of each layer in training."""
    step = rest = figures["layers"]["step"]
    print(f"\n{1e3 * step:.1f} ms for a step of convnet while its layers are timed")
    print(f"{'layer':16}{'fprop ms':>9}{'bprop ms':>9}{'GFLOP/s':>9}{'GFLOP/s':>9}{'of step':>9}")
    for name, times in figures["layers"]["layers"].items():
        rest -= sum(times)
        rates = [f"{f / t / 1e9:9.0f}" if f and t else f"{'':9}"
                 for f, t in zip(figures["flops"][name], times)]  # fmt: skip
        print(f"{name:16}{1e3 * times[0]:9.1f}{1e3 * times[1]:9.1f}{''.join(rates)}"
              f"{sum(times) / step:9.1%}")  # fmt: skip
    print(f"{'update, rest':16}{1e3 * rest:9.1f}{'':27}{rest / step:9.1%}")


def main() -> None:
    """Measure, tell, write."""
    args = arguments()
    figures = measure(args)
    tell(args, figures)
    if args.json:
        Path(args.json).write_text(
            json.dumps({"arguments": vars(args), **figures}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
