"""How long the passes of a net take, measured in processes of their own, one at a time.

    job = Job("layer_configs/spp_zf5.cfg", classes=1000, threads=2)
    with Process.of("ours", job) as ours:
        ours("warm")
        rounds = [ours("round") for _ in range(5)]

While one process works the others wait in a read, so that no pool of threads spins beside it; what
is measured in turn can be compared, also on a machine whose speed drifts. An engine is what runs
the net: `Ours` here, others in benchmarks/engines.py of a checkout, which is loaded when it is
asked for.
"""

import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from convnet import machine
from convnet.cli import UsageError
from convnet.device import DeviceError
from convnet.graph import Graph
from convnet.source import Source
from convnet.work import needed, work

THREADS = "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
AGREE = 1e-3  # of the largest number: how far the outputs of two engines may be apart
STEPS = 3  # of a trial of a setting, and while memory is watched


class Setting(NamedTuple):
    """One way to run an engine: its name, options for the engine, variables of its process."""

    name: str = ""
    options: dict = {}
    variables: dict = {}


class Job(NamedTuple):
    """What is measured: a net, a batch of noise, a pass over it."""

    layer_def: str
    layer_params: str | None = None
    overrides: tuple[str, ...] = ()
    classes: int | None = None  # for outputs=classes; None: 10
    size: tuple[int, int] | None = None  # rows and columns of the images; None: the cfg's
    batch: int = 32
    mode: str = "train"  # or infer
    upto: str | None = None  # the layer where an inference ends; None: the prediction
    threads: int = 1
    device: str = "cpu"
    seed: int = 0
    seconds: float = 0.5  # a round repeats short steps for so long

    def graph(self) -> Graph:
        """The net without weights. Raises CfgError, UsageError."""
        source = Source.read(self.layer_def, self.layer_params, self.overrides)
        side, channels = source.image_size()
        side = side or (min(self.size) if self.size else None)
        classes = self.classes or (10 if "classes" in source.text else None)
        graph = source.graph({0: (side, side, channels) if side else None}, classes)
        self.shapes(graph)
        return graph

    def wanted(self, graph: Graph) -> list[str]:
        """The layers whose output the pass is to give."""
        if self.mode == "train":
            return graph.costs
        try:
            last = graph.resolve(self.upto) if self.upto else prediction(graph)
        except ValueError as e:
            raise UsageError(f"--upto={self.upto}: {e}") from None
        if graph.feeds.get(1) in needed(graph, [last]):
            raise UsageError(f"--upto={self.upto}: needs labels, which no inference has")
        return [last]

    def shapes(self, graph: Graph) -> dict[str, tuple]:
        """(H, W, C) of the layers that run, at the size of the images."""
        order = needed(graph, self.wanted(graph))
        given = {name: graph.shapes[name] for name in graph.feeds.values() if name in order}
        if self.size:
            given[graph.feeds[0]] = (*self.size, graph.shapes[graph.feeds[0]][2])
        try:
            return graph.shapes_at(given, order)
        except ValueError as e:
            raise UsageError(f"--size={'x'.join(map(str, self.size or ()))}: {e}") from None

    def noise(self, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W, C), as a data provider gives them, and labels (N,)."""
        rng = np.random.default_rng(self.seed)
        shape = (self.batch, *self.shapes(graph)[graph.feeds[0]])
        classes = int(np.prod(graph.shapes[prediction(graph)]))
        images = rng.normal(0, 60, shape).astype(np.float32)
        return images, rng.integers(0, classes, self.batch).astype(np.int32)


def prediction(graph: Graph) -> str:
    """The layer that the first cost looks at."""
    return graph.by_name[graph.costs[0]].reads[1]


class Clock:
    """Seconds by (first layer, last layer, way), and by the name of another part of a step."""

    def __init__(self, wait=lambda: None):
        self.wait, self.layers, self.parts = wait, defaultdict(float), defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, first: str, last: str, way: str) -> Iterator[None]:
        """What Net.watch takes."""
        start = time.perf_counter()
        yield
        self.wait()
        self.layers[first, last, way] += time.perf_counter() - start

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time of its own, without that of layers inside."""
        start, before = time.perf_counter(), sum(self.layers.values())
        yield
        self.wait()
        inside = sum(self.layers.values()) - before
        self.parts[name] += time.perf_counter() - start - inside


class Ours:
    """convnet: a batch as tools/train.py trains on it, or as Net.predict runs it."""

    title, needs, settings = "convnet", "", (Setting(),)  # needs: a module of somebody else

    def __init__(self, net, threads: int, upto: str | None = None):
        import numba

        numba.set_num_threads(threads)
        self.net, self.upto = net, upto or net.output
        self.version = f"NumPy {np.__version__}, Numba {numba.__version__}"
        self.watch(None)

    @cached_property
    def sgd(self):
        """The update and its momenta, which no inference has."""
        from convnet.sgd import Sgd

        return Sgd(self.net)

    def watch(self, clock: Clock | None) -> None:
        """Take the times of the layers from now on, or of none."""
        self.net.watch, self.clock = clock, clock or Clock()

    def own(self, images: np.ndarray) -> np.ndarray:
        """The images in the order in memory that this engine likes."""
        return images

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


# ---------------------------------------------------------------- in a process of its own


class Worker:
    """An engine with its net and its batch."""

    def __init__(self, engine: str, job: Job, options: dict):
        from convnet.net import Net

        before = machine.resident()
        graph = job.graph()
        self.extra = 0 if engine == "ours" else machine.resident() - before  # our own code, there
        net, self.job = Net(graph, job.device, job.seed), job
        upto = None if job.mode == "train" else job.wanted(graph)[0]
        self.engine = engine_class(engine)(net, job.threads, upto=upto, **options)
        images, self.labels = job.noise(graph)
        self.images = self.engine.own(images)
        self.wait = net.device.synchronize

    def once(self) -> None:
        """One step."""
        if self.job.mode == "train":
            self.engine.train(self.images, self.labels)
        else:
            self.engine.infer(self.images)
        self.wait()

    def warm(self) -> float:
        """Seconds of the first steps, in which kernels are compiled and memory is taken."""
        start = time.perf_counter()
        self.once()
        self.once()
        return time.perf_counter() - start

    def round(self) -> dict:
        """Seconds of a step, of its parts, and of [first layer, last layer, way]; means."""
        clock, steps, start = Clock(self.wait), 0, time.perf_counter()
        self.engine.watch(clock)
        while not steps or time.perf_counter() - start < self.job.seconds:
            self.once()
            steps += 1
        seconds = (time.perf_counter() - start) / steps
        self.engine.watch(None)
        return {
            "step": seconds,
            "steps": steps,
            "parts": {name: t / steps for name, t in clock.parts.items()},
            "layers": [[*key, t / steps] for key, t in clock.layers.items()],
        }

    def trial(self) -> float:
        """Seconds of a step, the median of a few."""
        self.once()
        found = []
        for _ in range(STEPS):
            start = time.perf_counter()
            self.once()
            found.append(time.perf_counter() - start)
        return median(found)

    def peak(self) -> int:
        """The most bytes that this process has while it works; convnet's in others do not count."""
        self.once()
        gc.collect()
        machine.forget_peak()
        for _ in range(STEPS):
            self.once()
        return machine.peak() - self.extra

    def output(self) -> np.ndarray:
        """What an inference gives."""
        return np.array(self.engine.infer(self.images))

    def work(self) -> list[dict]:
        """What the layers of a step have to do."""
        clock, net = Clock(), self.engine.net
        self.engine.watch(clock)
        self.once()
        self.engine.watch(None)
        runs = dict.fromkeys((first, last) for first, last, way in clock.layers if way == "fprop")
        shapes = self.job.shapes(net.graph)
        return [work(net, shapes, self.job.batch, *run)._asdict() for run in runs]

    def version(self) -> str:
        """Of what computes."""
        return self.engine.version


def serve(make: Callable[[], Any], pipe) -> None:
    """Answer the names of methods of what `make` makes, until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asks will stop us
    try:
        worker = make()
        pipe.send(None)
        while (asked := pipe.recv()) is not None:
            pipe.send(getattr(worker, asked)())
    except (DeviceError, UsageError, MemoryError) as e:
        pipe.send(e)


class Process:
    """A Worker in a fresh process with a number of threads; a call waits for the answer."""

    def __init__(self, name: str, make: Callable[[], Any], threads: int, variables: dict):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(make, theirs), daemon=True)
        with _variables({**dict.fromkeys(THREADS, str(threads)), **variables}):
            self.process.start()
        theirs.close()
        self._answer()

    @classmethod
    def of(cls, engine: str, job: Job, setting: Setting | None = None) -> "Process":
        """A Worker with this engine."""
        setting = setting or Setting()
        make = partial(Worker, engine, job, setting.options)
        return cls(engine, make, job.threads, setting.variables)

    def __call__(self, method: str) -> Any:
        return self._answer(method)

    def _answer(self, *asked: str) -> Any:
        try:
            for method in asked:
                self.pipe.send(method)
            found = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            why = "killed; too little memory?" if code == -signal.SIGKILL else "its error is above"
            raise UsageError(f"the process of {self.name} ended with {code}: {why}") from None
        if isinstance(found, Exception):
            raise found
        return found

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error) -> None:
        if self.process.is_alive() and not any(error):
            self.pipe.send(None)
        else:
            self.process.kill()
        self.process.join()


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """The environment with these variables, which a process that starts now takes over."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# ---------------------------------------------------------------- measure


def best(engine: str, job: Job) -> tuple[Setting, dict[str, float]]:
    """The setting of an engine that is fastest here, and the seconds of a step with each."""
    settings, found = engine_class(engine).settings, {}
    for setting in settings if len(settings) > 1 else ():
        with Process.of(engine, job, setting) as process:
            found[setting.name] = process("trial")
    return min(settings, key=lambda s: found.get(s.name, 0.0)), found


def measure(
    engines: list[str],
    job: Job,
    rounds: int,
    say: Callable[[str], None] = lambda text: None,
    also: Callable[[], None] = lambda: None,
) -> dict[str, dict]:
    """By engine: setting, version, seconds of the warm-up and of every round, peak of memory.

    say: what takes lines on what goes on. also: called once in every round.
    """
    found: dict[str, dict] = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in engines:
            setting, trials = best(name, job)
            workers[name] = worker = stack.enter_context(Process.of(name, job, setting))
            title, version, warm = engine_class(name).title, worker("version"), worker("warm")
            found[name] = {"title": title, "version": version, "setting": setting,
                           "trials": trials, "warm": warm, "rounds": []}  # fmt: skip
            say(f"{title} ({version}): compiled and warmed up in {warm:.1f} s, not counted below")
        if job.mode == "infer":
            agree(workers, found)
        for _ in range(rounds):
            for name, worker in workers.items():
                found[name]["rounds"].append(worker("round"))
            also()
        if "ours" in workers:
            found["ours"]["work"] = workers["ours"]("work")
    for name in engines:
        with Process.of(name, job, found[name]["setting"]) as process:
            found[name]["peak"] = process("peak")
        found[name]["setting"] = found[name]["setting"].name
    return found


def agree(workers: dict[str, Process], found: dict[str, dict]) -> None:
    """UsageError unless all engines give the same, which is noted in `found`."""
    outputs = {name: worker("output") for name, worker in workers.items()}
    first = next(iter(outputs.values()))
    for name, output in outputs.items():
        off = float(abs(output - first).max() / abs(first).max())
        if not off < AGREE:
            raise UsageError(f"{found[name]['title']} gives another output; {off:.1g} off")
        found[name]["off"] = off


def step_seconds(engine: dict) -> float:
    """The median of the rounds."""
    return median(r["step"] for r in engine["rounds"])


def part_seconds(engine: dict, part: str) -> float:
    """Of a part of the step besides the layers."""
    return median(r["parts"].get(part, 0.0) for r in engine["rounds"])


def rest_seconds(engine: dict) -> float:
    """What is neither in a layer nor in a part."""
    return median(
        r["step"] - sum(r["parts"].values()) - sum(t for *_, t in r["layers"])
        for r in engine["rounds"]
    )


def layer_seconds(engine: dict, names: list[str]) -> tuple[float, float]:
    """Forward and backward of these layers together."""

    def of(r: dict, way: str) -> float:
        return sum(t for first, _, this, t in r["layers"] if this == way and first in names)

    return tuple(median(of(r, way) for r in engine["rounds"]) for way in ("fprop", "bprop"))
