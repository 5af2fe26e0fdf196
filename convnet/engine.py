"""What runs a net so that its time can be taken: `Ours` here, others in benchmarks/engines.py.

That folder of a checkout is looked into when another engine is asked for, and not before.
"""

import contextlib
import importlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from convnet import machine
from convnet.cli import UsageError


class Setting(NamedTuple):
    """One way to run an engine: its name, options for the engine, variables of its process."""

    name: str = ""
    options: dict = {}
    variables: dict = {}


class Clock:
    """Seconds by (first layer, last layer, way), and by the name of another part of a step."""

    def __init__(self, wait=lambda: None):
        self.wait, self.layers, self.parts = wait, defaultdict(float), defaultdict(float)

    def now(self) -> float:
        """Seconds, once everything asked for is done."""
        self.wait()
        return time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, first: str, last: str, way: str) -> Iterator[None]:
        """What Net.watch takes."""
        start = time.perf_counter()
        yield
        self.layers[first, last, way] += self.now() - start

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time of its own, without that of layers inside."""
        start, before = time.perf_counter(), sum(self.layers.values())
        yield
        inside = sum(self.layers.values()) - before
        self.parts[name] += self.now() - start - inside


class Ours:
    """convnet: a batch as tools/train.py trains on it, or as Net.predict runs it."""

    title, needs = "convnet", ""  # needs: a module of somebody else

    def __init__(self, net, threads: int, upto: str | None = None):
        import numba

        numba.set_num_threads(threads)
        self.net, self.upto = net, upto or net.output
        self.version, self.wait = net.device.version, net.device.synchronize
        self.held = net.device.held
        self.watch(None)

    @staticmethod
    def settings(device: str) -> tuple[Setting, ...]:
        """The ways to run it on a device, of which the fastest is to be taken."""
        return (Setting(),)

    @cached_property
    def sgd(self):
        """The update and its momenta, which no inference has."""
        from convnet.sgd import Sgd

        return Sgd(self.net)

    def watch(self, clock: Clock | None) -> None:
        """Take the times of the layers from now on, or of none."""
        self.net.watch, self.clock = clock, clock or Clock()

    def own(self, images: np.ndarray) -> np.ndarray:
        """The images where and how this engine likes them to come from."""
        mine = self.net.device.host_empty(images.shape, images.dtype)
        mine[...] = images
        return mine

    def train(self, images, labels, progress: float = 0.0) -> float:
        """One step: forward, backward, update; the mean loss."""
        net = self.net
        with self.clock.part("feed"):
            given = net.feed(images, labels)
        outs, tape = net.fprop(given, net.graph.costs, train=True)
        loss = float(net.device.numpy(outs[net.graph.costs[0]])[..., 0].mean())
        gradients = net.bprop(tape, net.cost_gradients(outs), lazy=True)
        with self.clock.part("update"):
            if wrong := self.sgd.first_not_finite(gradients):
                raise UsageError(f"the gradient of {wrong} is not finite; try a smaller epsW")
            self.sgd.update(gradients, len(images), progress)
        net.step += 1
        return loss

    def infer(self, images) -> np.ndarray:
        """The output (N, numbers) of the layer `upto`."""
        with self.clock.part("feed"):
            given = self.net.feed(images)
        out = self.net.fprop(given, [self.upto])[0][self.upto]
        return self.net.device.numpy(out).reshape(len(images), -1)


def engine_class(name: str) -> Any:
    """The engine of that name; those that are not ours are in benchmarks/ of a checkout."""
    if name == "ours":
        return Ours
    home = machine.HOME / "benchmarks"
    if not (home / "engines.py").is_file():
        raise UsageError(f"no other engine than convnet's: {home} is not there; use a checkout")
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    return importlib.import_module("engines").ENGINES[name]
