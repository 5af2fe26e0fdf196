"""The loop: batch, fprop, bprop, update; test, save; stop when asked or when numbers run away."""

import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convnet import checkpoint
from convnet.net import Net
from convnet.providers import Provider
from convnet.sgd import Sgd
from convnet.source import Source


class Diverged(Exception):
    """A cost or a gradient is NaN or infinite; says where it began."""


@dataclass
class Position:
    """How far a run is: the batches done of an epoch that counts from 1."""

    epoch: int = 1
    batch: int = 0


@dataclass
class Plan:
    """What to do: epochs in all, cases a batch, batches between tests (0: once an epoch)."""

    epochs: int
    minibatch: int = 128
    test_freq: int = 0
    keep: int = 2  # checkpoints that stay in the folder


class Run:
    """One run in one folder: its net, its data, where it is, what it has seen."""

    def __init__(self, folder: Path, source: Source, net: Net, provider: Provider, plan: Plan):
        self.folder, self.source, self.net = folder, source, net
        self.provider, self.plan = provider, plan
        self.sgd, self.at = Sgd(net), Position()
        self.batches = -(-len(provider.train) // plan.minibatch)
        self.asked_to_stop = 0  # number of the signal
        self.kinds = {name: list(net.by_name[name].values) for name in net.graph.costs}

    # ------------------------------------------------------------ train

    def train(self, report: "Report") -> None:
        """From where the run is to the end of its epochs. Raises Diverged, DataError."""
        with self._signals():
            for epoch in range(self.at.epoch, self.plan.epochs + 1):
                start = self.at.batch if epoch == self.at.epoch else 0
                self.at = Position(epoch, start)
                batches = self.provider.batches("train", self.plan.minibatch, epoch, start)
                for batch in batches:
                    began = time.perf_counter()
                    values = self._step(batch)
                    self.at.batch += 1
                    report.batch(values, len(batch.labels), time.perf_counter() - began)
                    last = self.at.batch == self.batches
                    freq = self.plan.test_freq
                    if self.asked_to_stop or last or (freq and self.net.step % freq == 0):
                        self._test_and_save(report, test=not self.asked_to_stop)
                    if self.asked_to_stop:
                        return

    def _step(self, batch) -> dict[str, np.ndarray]:
        """One update; the mean of every value of every cost, as it was before the update."""
        net, cases = self.net, len(batch.labels)
        given = net.feed(batch.images, batch.labels)
        outs, tape = net.fprop(given, net.graph.costs, train=True)
        values = {k: net.device.numpy(v).reshape(cases, -1).mean(0) for k, v in outs.items()}
        for name, row in values.items():
            if not math.isfinite(row[0]):
                raise self._diverged(f"{name} is {row[0]}", given)
        gradients = net.bprop(tape, net.cost_gradients(outs))
        if wrong := self.sgd.first_not_finite(gradients):
            raise self._diverged(f"the gradient of {wrong} is not finite", given)
        total = self.plan.epochs * self.batches
        self.sgd.update(gradients, cases, net.step / total)
        net.step += 1
        return values

    def _diverged(self, what: str, given: dict) -> Diverged:
        saved = checkpoint.newest(self.folder)
        return Diverged(
            f"epoch {self.at.epoch}, batch {self.at.batch + 1}: {what}; "
            f"{self.net.first_not_finite(given)}. Try a smaller epsW"
            + (f"; the last good checkpoint is {saved}" if saved else "")
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the run after the step at hand, the second at once."""

        def on_signal(number, frame):
            if self.asked_to_stop:
                raise KeyboardInterrupt
            self.asked_to_stop = number
            print("stopping after this batch; once more to stop at once", file=sys.stderr)

        kinds = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(kind, on_signal) for kind in kinds]
        try:
            yield
        finally:
            for kind, handler in zip(kinds, before):
                signal.signal(kind, handler)

    # ------------------------------------------------------------ test, save, restore

    def _test_and_save(self, report: "Report", test: bool = True) -> None:
        if test:
            report.test(self.test())
        report.saved(self.save())

    def test(self) -> dict[str, np.ndarray]:
        """The mean of every value of every cost over the test images, centre views."""
        sums: dict[str, np.ndarray] = {}
        cases = 0
        for batch in self.provider.batches("test", self.plan.minibatch, 0, train=False):
            outs, _ = self.net.fprop(
                self.net.feed(batch.images, batch.labels), self.net.graph.costs
            )
            for name, out in outs.items():
                row = self.net.device.numpy(out).reshape(len(batch.labels), -1).sum(0)
                sums[name] = sums.get(name, 0) + row
            cases += len(batch.labels)
        return {name: row / max(cases, 1) for name, row in sums.items()}

    def save(self) -> Path:
        """Write <epoch>.<batch>.h5 and let older ones go. Raises CheckpointError, Diverged."""
        net, to_numpy = self.net, self.net.device.numpy
        arrays = {
            "weights": {k: to_numpy(w) for k, w in net.own_weights().items()},
            "momenta": {k: to_numpy(m) for k, m in self.sgd.momenta.items()},
            "data": {"mean": self.provider.mean, **self.provider.state()},
        }
        for name, w in arrays["weights"].items():
            if not np.isfinite(np.dot(w.ravel(), w.ravel())):
                raise Diverged(f"{name} is not finite; nothing saved. Try a smaller epsW")
        meta = {
            "source": self.source.to_dict(),
            "classes": self.provider.classes,
            "image": list(net.graph.shapes[net.graph.feeds[0]]),
            "resize_to": net.resize_to,
            "seed": net.seed,
            "step": net.step,
            "epoch": self.at.epoch,
            "batch": self.at.batch,
            "minibatch": self.plan.minibatch,
            "epochs": self.plan.epochs,
            "data": self.provider.describe(),
        }
        path = self.folder / f"{self.at.epoch}.{self.at.batch}.h5"
        checkpoint.save(path, checkpoint.Checkpoint(arrays, meta))
        checkpoint.prune(self.folder, self.plan.keep)
        return path

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from a checkpoint. Raises CheckpointError where it does not fit this run."""
        theirs = Source.from_dict(saved.meta["source"])
        if change := self.source.first_change(theirs):
            raise checkpoint.CheckpointError(
                f"--resume: the layer definition has changed: {change}; "
                "undo that, or start a new run"
            )
        if saved.meta["data"]["fingerprint"] != self.provider.fingerprint:
            raise checkpoint.CheckpointError(
                "--resume: the data is not what the run began with "
                f"({saved.meta['data']['summary']}, now {self.provider.describe()['summary']})"
            )
        self.net.restore(saved)
        for name, array in saved.arrays["momenta"].items():
            self.sgd.momenta[name][...] = self.net.device.array(array)
        self.provider.restore(saved.arrays["data"])
        self.at = Position(saved.meta["epoch"], saved.meta["batch"])
        if self.at.batch >= self.batches:
            self.at = Position(self.at.epoch + 1, 0)


class Report:
    """Tells a person (bar or lines) and a program (metrics.jsonl) how a run goes."""

    def __init__(self, run: Run):
        self.run = run
        self.path = run.folder / "metrics.jsonl"
        self.last_test: dict[str, np.ndarray] = {}
        self.first_test: dict[str, np.ndarray] = {}
        self._forget_the_future()
        self.file = self.path.open("a", encoding="utf-8")
        self.bar = self._bar() if sys.stderr.isatty() else None

    def _forget_the_future(self) -> None:
        """After a resume: drop the lines of batches that will be trained again."""
        if self.path.exists():
            rows = [line for line in self.path.read_text("utf-8").splitlines() if line.strip()]
            kept = [row for row in rows if json.loads(row)["step"] <= self.run.net.step]
            self.path.write_text("".join(row + "\n" for row in kept), "utf-8")

    def _bar(self):
        from tqdm import tqdm

        run = self.run
        total = run.plan.epochs * len(run.provider.train)
        done = run.net.step * run.plan.minibatch
        return tqdm(total=total, initial=min(done, total), unit="img", smoothing=0.1)

    def batch(self, values: dict[str, np.ndarray], cases: int, seconds: float) -> None:
        """One batch is trained."""
        self._write({"images_per_s": round(cases / seconds, 2), **self._flat(values)})
        text = self._text(values)
        if self.bar is not None:
            self.bar.update(cases)
            self.bar.set_description(f"epoch {self.run.at.epoch}/{self.run.plan.epochs}", False)
            self.bar.set_postfix_str(text)
            return
        done = 100 * self.run.net.step / (self.run.plan.epochs * self.run.batches)
        at = self.run.at
        self.say(f"{at.epoch}.{at.batch} ({done:.2f}%)... {text} ({seconds:.3f} sec)")

    def test(self, values: dict[str, np.ndarray]) -> None:
        """The test images were run."""
        self.first_test = self.first_test or values
        self.last_test = values
        self._write({"test": self._flat(values)})
        self.say(f"test output after {self.run.at.epoch}.{self.run.at.batch}: {self._text(values)}")

    def saved(self, path: Path) -> None:
        """A checkpoint was written."""
        self.say(f"saved {path}")

    def say(self, line: str) -> None:
        """A line above the bar, or just a line."""
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """The run is over."""
        self.file.close()
        if self.bar is not None:
            self.bar.close()

    def _text(self, values: dict[str, np.ndarray]) -> str:
        return "  ".join(
            f"{cost}:  " + ", ".join(f"{v:f}" for v in row) for cost, row in values.items()
        )

    def _flat(self, values: dict[str, np.ndarray]) -> dict[str, float]:
        """{"logprob": ..., "logprob.error": ...}: the cost by its name, the rest behind a dot."""
        flat = {}
        for cost, row in values.items():
            for i, (kind, v) in enumerate(zip(self.run.kinds[cost], row)):
                flat[f"{cost}.{kind}" if i else cost] = float(v)
        return flat

    def _write(self, row: dict) -> None:
        at = self.run.at
        row = {"step": self.run.net.step, "epoch": at.epoch, "batch": at.batch, **row}
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
