"""Train one net with the plain and with the fast kernels; are the two loss curves the same?

    python benchmarks/curves.py
    python benchmarks/curves.py --data-path=cifar10/ --seeds=5 --json=curves.json

For each seed (first weights, order and views of the images, dropout) both devices, cpu and
cpu:plain, train on the same batches. The kernels add in another order, or multiply other numbers
(Winograd), so that the last bits differ, and in training such a difference grows. It must stay
below what a change of the seed does anyway. For each window of steps, and for the test error at
the end, the criterion is

    |mean over seeds of fast - plain| <= 2 sqrt((var fast + var plain) / seeds)

with the variances over the seeds: two standard errors of the difference between the means of two
sets of runs with other seeds each. Exit status 1 if the criterion is not met.

With few seeds this is a coarse sieve: it says that training does not care which kernels run. What
the kernels compute is held much closer, step by step, in tests/test_variants.py.
"""

# convnet goes first: OpenBLAS reads what it sets at the moment when NumPy is loaded
from convnet import Net, cli, options  # isort: skip

import json
import sys
from pathlib import Path

import numpy as np

from convnet.engine import Ours
from convnet.machine import commit, threads
from convnet.providers import DataOptions, provider_class
from convnet.source import Source

DEVICES = "cpu", "cpu:plain"


def arguments(argv: list[str] | None = None):
    """The command line."""
    parser = options.parser(__doc__)
    whole = options.positive
    options.add_net(parser)
    parser.set_defaults(layer_def="layer_configs/cifar10.cfg")
    parser.add_argument("--data-path", type=options.text, metavar="DIR",
                        help="as in tools/train.py (default: the built-in digits)")  # fmt: skip
    parser.add_argument("--steps", type=whole, default=300, metavar="N", help="(default: 300)")
    parser.add_argument("--minibatch", type=whole, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--seeds", type=whole, default=3, metavar="N",
                        help="runs of each device (default: 3)")  # fmt: skip
    parser.add_argument("--windows", type=whole, default=6, metavar="N",
                        help="parts of the curve that are averaged (default: 6)")  # fmt: skip
    parser.add_argument("--threads", type=whole, default=threads(), metavar="N")
    parser.add_argument("--json", metavar="FILE", help="write the loss of every step")
    args = parser.parse_args(argv)
    if args.seeds < 2:
        parser.error("--seeds=1: needs 2 or more, or there is no spread to compare with")
    if args.steps < args.windows:
        parser.error(f"--steps={args.steps}: less than the {args.windows} windows")
    return args


def train(args, seed: int, devices=DEVICES) -> dict[str, dict]:
    """{device: {"loss": of each step, "error": of the test at the end}}, on the same batches."""
    batches_there = args.data_path and any(Path(args.data_path).glob("data_batch_1*"))
    kind = "digits" if not args.data_path else "cifar" if batches_there else "images"
    source = Source.read(args.layer_def, args.layer_params, tuple(args.set))
    size, channels = source.image_size()
    with provider_class(kind)(args.data_path, size, channels, DataOptions(seed=seed)) as data:
        graph = source.graph({0: (data.size, data.size, data.channels)}, len(data.classes))
        engines = [Ours(Net(graph, name, seed), args.threads) for name in devices]
        losses = [
            [engine.train(batch.images, batch.labels, step / args.steps) for engine in engines]
            for step, batch in enumerate(first_batches(data, args.minibatch, args.steps))
        ]
        errors = test(engines, data, args.minibatch)
    return {
        name: {"loss": list(curve), "error": float(error)}
        for name, curve, error in zip(devices, zip(*losses), errors)
    }


def first_batches(data, minibatch: int, count: int):
    """So many training batches, of as many epochs as that takes."""
    epoch = 0
    while count > 0:
        epoch += 1
        for batch in data.batches("train", minibatch, epoch):
            if count > 0:
                yield batch
            count -= 1


def test(engines: list, data, minibatch: int) -> np.ndarray:
    """For each engine the share of the test images that it takes for another class."""
    wrong, cases = np.zeros(len(engines)), 0
    for batch in data.batches("test", minibatch):
        wrong += [(e.infer(batch.images).argmax(1) != batch.labels).sum() for e in engines]
        cases += len(batch.labels)
    return wrong / cases


def compare(fast: list, plain: list) -> dict[str, float]:
    """Of one number for each seed and device: means, spread, and whether the criterion is met."""
    gap = float(np.mean(fast) - np.mean(plain))
    spread = float(np.sqrt((np.var(fast, ddof=1) + np.var(plain, ddof=1)) / 2))
    limit = 2 * spread * np.sqrt(2 / len(plain))
    return {
        "plain": float(np.mean(plain)),
        "fast": float(np.mean(fast)),
        "gap": gap,
        "spread": spread,
        "limit": float(limit),
        "same": bool(abs(gap) <= limit),
    }


def table(runs: list[dict], windows: int) -> dict[str, dict]:
    """{what is compared: compare(...)}, window after window, then the test error."""
    fast, plain = (np.array([run[name]["loss"] for run in runs]) for name in DEVICES)
    found = {}
    for part in np.array_split(np.arange(fast.shape[1]), windows):
        name = f"steps {part[0] + 1}-{part[-1] + 1}"
        found[name] = compare(fast[:, part].mean(1), plain[:, part].mean(1))
    found["test error"] = compare(*([run[name]["error"] for run in runs] for name in DEVICES))
    return found


def tell(rows: dict[str, dict], seeds: int) -> bool:
    """Print the table and the verdict; whether the curves are the same."""
    print(f"{'':16}{'plain':>9}{'fast':>9}{'fast-plain':>12}{'sd of seeds':>13}{'at most':>9}")
    for name, row in rows.items():
        print(
            f"{name:16}{row['plain']:9.4f}{row['fast']:9.4f}{row['gap']:+12.4f}"
            f"{row['spread']:13.4f}{row['limit']:9.4f}{'' if row['same'] else '  differs'}"
        )
    differing = [name for name, row in rows.items() if not row["same"]]
    print(
        f"different: {', '.join(differing)} by more than two standard errors of {seeds} seeds"
        if differing
        else f"the same: every difference is within two standard errors of {seeds} seeds"
    )
    return not differing


def main() -> int:
    """Train, compare, write."""
    args, runs = arguments(), []
    for seed in range(args.seeds):
        runs.append(train(args, seed))
        ends = ", ".join(f"{name} {run['error']:.2%}" for name, run in runs[-1].items())
        print(f"seed {seed}: test error {ends}", file=sys.stderr)
    rows = table(runs, args.windows)
    data = args.data_path or "digits"
    print(f"{args.layer_def}, {data}, {args.steps} steps of {args.minibatch}; commit {commit()}")
    same = tell(rows, args.seeds)
    if args.json:
        figures = {"arguments": vars(args), "table": rows, "same": same, "runs": runs}
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if same else 1


if __name__ == "__main__":
    cli.run(main, "--minibatch")
