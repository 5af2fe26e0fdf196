"""Train the same net with convnet and with PyTorch on the same batches; compare the test errors.

    python benchmarks/cifar10.py --data cifar10/ --epochs 30 --out cifar10.json
    python benchmarks/cifar10.py --data cifar10/ --epochs 1 --limit 640

Both begin with the same weights and see the same images in the same order with the same crops,
mirrors and colours; rates, schedules and the update are the same, dropout has the same rule but
other masks. --data is what tools/train.py takes as --data-path: a folder with train/<class>/ and
test/<class>/, or CIFAR's batches. One engine runs after the other, each in a process of its own.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import sys
import time
from pathlib import Path

from engines import ENGINES

from convnet.machine import threads

BOTH = "ours", "torch"


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--layer-def", default="layer_configs/cifar10_spp.cfg", metavar="FILE.cfg")
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="(default: 30)")
    parser.add_argument("--minibatch", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--engine", choices=[*BOTH, "both"], default="both")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    parser.add_argument("--threads", type=int, default=threads(), metavar="N")
    parser.add_argument("--limit", type=int, metavar="N",
                        help="images of an epoch and of a test, to try things out")  # fmt: skip
    parser.add_argument("--out", metavar="FILE.json", help="write all figures")
    return parser.parse_args()


class Course:
    """One engine's training from the first weights to the last epoch."""

    def __init__(self, engine: str, args):
        from convnet import Net
        from convnet.providers import DataOptions, provider_class
        from convnet.source import Source

        self.args = args
        kind = "cifar" if any(Path(args.data).glob("data_batch_1*")) else "images"
        feed = Source.read(args.layer_def).image_size()
        self.provider = provider_class(kind)(args.data, *feed, DataOptions(seed=args.seed))
        classes = len(self.provider.classes)
        net = Net.from_cfg(args.layer_def, classes=classes, seed=args.seed)
        self.engine = ENGINES[engine](net, args.threads)
        self.batches = {split: self.provider.batch_count(split, args.minibatch)
                        for split in ("train", "test")}  # fmt: skip
        self.used = {split: min(n, math.ceil(args.limit / args.minibatch)) if args.limit else n
                     for split, n in self.batches.items()}  # fmt: skip

    def batches_of(self, split: str, epoch: int = 0):
        """The batches of an epoch; with --limit some of them, evenly spaced."""
        found = self.provider.batches(split, self.args.minibatch, epoch)
        every = self.batches[split] // self.used[split]
        return itertools.islice(found, 0, every * self.used[split], every)

    def epoch(self, epoch: int) -> dict:
        """Train for an epoch, then test."""
        began, busy, losses, cases = time.perf_counter(), 0.0, 0.0, 0
        for i, batch in enumerate(self.batches_of("train", epoch)):
            progress = (epoch - 1 + i / self.used["train"]) / self.args.epochs
            start = time.perf_counter()
            loss = self.engine.train(batch.images, batch.labels, progress)
            busy += time.perf_counter() - start
            losses, cases = losses + loss * len(batch.labels), cases + len(batch.labels)
        seconds = time.perf_counter() - began
        return {
            "epoch": epoch,
            "loss": losses / cases,
            "error": self.test(),
            "seconds": seconds,
            "engine_seconds": busy,
        }

    def test(self) -> float:
        """The share of the test images, centre views, that are taken for another class."""
        wrong = cases = 0
        for batch in self.batches_of("test"):
            probs = self.engine.infer(batch.images)
            wrong += int((probs.argmax(1) != batch.labels).sum())
            cases += len(batch.labels)
        return wrong / cases


def train(engine: str, args, pipe) -> None:
    """In a process of its own: the version, then a row for each epoch, then None."""
    course = Course(engine, args)
    with course.provider:
        pipe.send(course.engine.version)
        for epoch in range(1, args.epochs + 1):
            pipe.send(course.epoch(epoch))
    pipe.send(None)


def follow(engine: str, args) -> dict:
    """Train with one engine and tell of every epoch."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=train, args=(engine, args, theirs))
    process.start()
    theirs.close()
    found = {"version": pipe.recv(), "epochs": []}
    print(f"{engine}: {found['version']}, {args.threads} threads")
    while row := pipe.recv():
        found["epochs"].append(row)
        print(
            f"{engine:6} epoch {row['epoch']:3}  loss {row['loss']:.4f}  test error "
            f"{100 * row['error']:6.2f} %  {row['seconds']:7.1f} s, {row['engine_seconds']:7.1f} s "
            "of it in the engine",
            flush=True,
        )
    process.join()
    return found


def main() -> None:
    """Train with each engine, compare, write."""
    args = arguments()
    runs = {name: follow(name, args) for name in BOTH if args.engine in (name, "both")}
    if len(runs) == 2:
        last = {name: run["epochs"][-1] for name, run in runs.items()}
        seconds = {name: sum(row["seconds"] for row in run["epochs"]) for name, run in runs.items()}
        print(
            f"test error {100 * last['ours']['error']:.2f} % here, "
            f"{100 * last['torch']['error']:.2f} % with PyTorch; convnet is "
            f"{seconds['torch'] / seconds['ours']:.2f} times as fast"
        )
    if args.out:
        figures = {"arguments": vars(args), "command": ["python", *sys.argv], "runs": runs}
        Path(args.out).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
