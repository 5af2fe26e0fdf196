"""The loop: batch, fprop, bprop, update; test, save; stop when asked or when numbers run away."""

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnet import checkpoint, runfolder
from convnet.net import Net
from convnet.providers import Batch, DataError, Provider
from convnet.report import Report
from convnet.sgd import Sgd
from convnet.sizes import Turn, Turns
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
    """What to do: epochs in all, cases a batch, batches between tests (0: once an epoch).

    sizes, switch: sides to train at in turn, '' for the net's own, and when (convnet/sizes.py).
    """

    epochs: int
    minibatch: int = 128
    test_freq: int = 0
    keep: int = 2  # checkpoints that stay in the folder
    sizes: str = ""
    switch: str = "epoch"
    tensorboard: bool = False  # whether event files are written
    init_from: str = ""  # the file that the weights began with


class Run:
    """One run in one folder: its net, its data, where it is, what it has seen.

    others: the texts of the networks beside `net` that share its weights; turns: what trains when.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        net: Net,
        provider: Provider,
        plan: Plan,
        turns: Turns | None = None,
        others: Sequence[Source] = (),
    ):
        self.folder, self.source, self.net = folder, source, net
        self.turns, self.others = turns or Turns(net), others
        self.provider, self.plan = provider, plan
        net.classes, net.mirror = provider.classes, provider.mirrors
        net.resize_to = provider.fit
        self.sgd, self.at = Sgd(net), Position()
        self.batches = provider.batch_count("train", plan.minibatch)
        self.asked_to_stop = 0  # number of the signal
        self.test_due = False  # at this place, but not done yet
        self.saved = 0  # net.step of the newest checkpoint
        self.earlier: list[dict] = []  # what resumes set otherwise: as it was, until which step
        self.kinds = {name: list(net.by_name[name].values) for name in net.graph.costs}

    @property
    def progress(self) -> float:
        """The share of all batches that is done, 0 to 1."""
        done = (self.at.epoch - 1) * self.batches + self.at.batch
        return done / (self.plan.epochs * self.batches)

    # ------------------------------------------------------------ train

    def train(self, report: Report) -> None:
        """From where the run is to the end of its epochs. Raises Diverged, DataError."""
        with self._signals(), np.errstate(over="ignore", invalid="ignore"):  # told as Diverged
            try:
                self._test_if_due(report)
                while not (self.done or self.asked_to_stop):
                    self._epoch(report)
            except DataError:  # what is trained is good all the same
                if self.net.step > self.saved:
                    report.saved(self.save())
                raise

    @property
    def done(self) -> bool:
        """Whether all epochs are trained."""
        return self.progress >= 1

    def _epoch(self, report: Report) -> None:
        """The rest of an epoch, or as much of it as there is time for."""
        if self.at.batch >= self.batches:
            self.at = Position(self.at.epoch + 1)
        freq, began = self.plan.test_freq, time.perf_counter()
        epoch, before = self.at.epoch, None
        for batch in self._batches("train", epoch, self.at.batch, self._size):
            turn = self._turn(batch.number)
            if not self.turns.by_batch and len(self.turns.turns) > 1 and turn.size != before:
                report.say(f"epoch {epoch} at {turn.size}x{turn.size}")
                self.net.device.trim()  # memory of the other size
                before = turn.size
            values = self._step(batch)
            self.at.batch = batch.number + 1
            report.batch(values, len(batch.labels), time.perf_counter() - began, turn.size)
            self.test_due = bool(freq) and self.net.step % freq == 0
            if self.at.batch < self.batches and (self.test_due or self.asked_to_stop):
                self._test_and_save(report)
                if self.asked_to_stop:
                    return
            began = time.perf_counter()
        self.at.batch, self.test_due = self.batches, True
        self._test_and_save(report)

    def _turn(self, number: int) -> Turn:
        """What trains a batch of this epoch."""
        return self.turns(self.at.epoch, number, self.batches)

    def _size(self, number: int) -> int:
        return self._turn(number).size

    def _batches(
        self, split: str, epoch: int = 0, start: int = 0, size: Callable | None = None
    ) -> Iterator[Batch]:
        empty = self.net.device.host_empty
        mini = self.plan.minibatch
        return self.provider.batches(split, mini, epoch, start, size=size, empty=empty)

    def _step(self, batch: Batch) -> dict[str, np.ndarray]:
        """One update; the mean of every value of every cost, as it was before the update."""
        net, cases = self._turn(batch.number).net, len(batch.labels)
        given = net.feed(batch.images, batch.labels)
        outs, tape = net.fprop(given, net.graph.costs, train=True)
        values = {k: net.device.numpy(v).reshape(cases, -1).mean(0) for k, v in outs.items()}
        for name, row in values.items():
            if not math.isfinite(row[0]):
                raise self._diverged(f"{name} is {row[0]}", given)
        gradients = net.bprop(tape, net.cost_gradients(outs), lazy=True)
        if wrong := self.sgd.first_not_finite(gradients):
            raise self._diverged(f"the gradient of {wrong} is not finite", given)
        self.sgd.update(gradients, cases, self.progress, net)
        self.net.step += 1
        return values

    def _diverged(self, what: str, given: dict) -> Diverged:
        saved = runfolder.newest(self.folder)
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
                raise SystemExit(128 + number)
            self.asked_to_stop = number
            # not print(): the signal may have come in the middle of one
            os.write(2, b"\nstopping after this batch; once more to stop at once\n")

        kinds = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(kind, on_signal) for kind in kinds]
        try:
            yield
        finally:
            for kind, handler in zip(kinds, before):
                signal.signal(kind, handler)

    # ------------------------------------------------------------ test, save, restore

    def _test_and_save(self, report: Report) -> None:
        self._test_if_due(report)
        report.saved(self.save())

    def _test_if_due(self, report: Report) -> None:
        """A test that is cut short by a signal stays due, for the run that goes on from here."""
        if self.test_due and (values := self.test()):
            report.test(values)
            self.test_due = False

    def test(self) -> dict[str, np.ndarray]:
        """The mean of every value of every cost over the test images, centre views.

        Empty if the run was asked to stop before the last of them.
        """
        sums: dict[str, np.ndarray] = {}
        cases = 0
        for batch in self._batches("test"):
            if self.asked_to_stop:
                return {}
            outs, _ = self.net.fprop(
                self.net.feed(batch.images, batch.labels), self.net.graph.costs
            )
            for name, out in outs.items():
                row = self.net.device.numpy(out).reshape(len(batch.labels), -1).sum(0)
                sums[name] = sums.get(name, 0) + row
            cases += len(batch.labels)
        return {name: row / cases for name, row in sums.items()}

    def save(self) -> Path:
        """Write <epoch>.<batch>.h5 and let older ones go. Raises CheckpointError, Diverged."""
        net, to_numpy = self.net, self.net.device.numpy
        arrays = {
            "weights": {k: to_numpy(w) for k, w in net.own_weights().items()},
            "momenta": {k: to_numpy(m) for k, m in self.sgd.momenta.items()},
            "data": {"mean": self.provider.mean, **self._colours()},
        }
        for name, w in arrays["weights"].items():
            if not np.isfinite(np.dot(w.ravel(), w.ravel())):
                raise Diverged(f"{name} is not finite; nothing saved. Try a smaller epsW")
        meta = {
            **self._settings(),
            "earlier": self.earlier,
            "classes": self.provider.classes,
            "image": list(net.graph.shapes[net.graph.feeds[0]]),
            "resize_to": net.resize_to,
            "mirrors": net.mirror,
            "seed": net.seed,
            "step": net.step,
            "epoch": self.at.epoch,
            "batch": self.at.batch,
            "batches": self.batches,
            "test_due": self.test_due,
        }
        path = self.folder / runfolder.name(self.at.epoch, self.at.batch)
        checkpoint.save(path, checkpoint.Checkpoint(arrays, meta))
        self.saved = net.step
        runfolder.prune(self.folder, self.plan.keep)
        return path

    def _settings(self) -> dict:
        """What a resume may set otherwise, or that says so."""
        return {
            "source": self.source.to_dict(),
            "others": [other.to_dict() for other in self.others],
            **asdict(self.plan),
            "data": data_meta(self.provider),
        }

    def _colours(self) -> dict[str, np.ndarray]:
        """How colours vary in the training images, where they have colours."""
        if self.net.graph.shapes[self.net.graph.feeds[0]][2] != 3:
            return {}
        deviations, directions = self.provider.pca
        return {"pca_deviations": deviations, "pca_directions": directions}

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from a checkpoint. Raises CheckpointError where it does not fit this run."""
        meta = saved.meta
        before = [Source.from_dict(d) for d in (meta["source"], *meta.get("others", []))]
        now = [self.source, *self.others]
        if len(now) != len(before):
            raise checkpoint.CheckpointError(
                f"--resume: the run has {len(before)} layer definitions, not {len(now)}"
            )
        if change := next(filter(None, map(Source.first_change, now, before)), ""):
            raise checkpoint.CheckpointError(
                f"--resume: the layer definition has changed: {change}; "
                "undo that, or start a new run"
            )
        if meta["data"]["fingerprint"] != self.provider.fingerprint:
            raise checkpoint.CheckpointError(
                "--resume: these are not the images that the run began with "
                f"({meta['data']['train']:,} then, {self.provider.train.size:,} now, "
                "or others of the same number)"
            )
        if meta["seed"] != self.net.seed:
            raise checkpoint.CheckpointError(
                f"--resume: the run has the seed {meta['seed']}; another one begins a new run"
            )
        if meta["minibatch"] != self.plan.minibatch and meta["batch"] < meta["batches"]:
            raise checkpoint.CheckpointError(
                f"--resume: the run is in the middle of an epoch of batches of "
                f"{meta['minibatch']}; --minibatch={self.plan.minibatch} can begin with an epoch"
            )
        zeros = not meta["step"] and self.sgd.momenta  # of an imported net
        momenta = saved.arrays["momenta"] or zeros
        theirs = {name: array.shape for name, array in momenta.items()}
        if theirs != {name: inc.shape for name, inc in self.sgd.momenta.items()}:
            raise checkpoint.CheckpointError("--resume: the momenta are of another net")
        try:
            self.net.restore(saved)
        except ValueError as e:
            raise checkpoint.CheckpointError(f"--resume: {e}") from None
        for name, array in momenta.items():
            self.sgd.momenta[name][...] = self.net.device.array(array)
        data = saved.arrays["data"]
        self.provider.mean = data["mean"]
        if "pca_deviations" in data:
            self.provider.pca = data["pca_deviations"], data["pca_directions"]
        self.test_due, self.saved = meta["test_due"], meta["step"]
        self.at = Position(meta["epoch"], meta["batch"])
        if meta["batch"] >= meta["batches"]:
            self.at.batch = self.batches  # an end of an epoch, also with batches of another size
        self.earlier = meta.get("earlier", [])
        now = self._settings()
        then = {k: meta[k] for k in now if _told(meta.get(k, now[k])) != _told(now[k])}
        if self.saved and then:
            self.earlier.append({"step": self.saved, **then})


def _told(setting: Any) -> Any:
    """A setting as a checkpoint tells it; without the workers, which change nothing."""
    told = json.loads(json.dumps(setting))
    if isinstance(told, dict) and "options" in told:  # the data
        told["options"]["workers"] = None
        told.pop("divided", None)
    return told


def data_meta(provider: Provider) -> dict:
    """What a checkpoint tells of the data, enough to open it again."""
    return {
        "provider": provider.name,
        "path": provider.path,
        "options": asdict(provider.options),
        "fingerprint": provider.fingerprint,
        "train": provider.train.size,
        "test": provider.test.size,
        "divided": provider.divided,
    }
