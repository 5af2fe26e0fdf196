"""How long the passes of a net take, engines in turn, each in a process of its own.

    job = Job("layer_configs/spp_zf5.cfg", classes=1000, threads=2)
    with start("ours", job) as ours:
        ours("warm")
        rounds = [ours("round") for _ in range(5)]

What is measured in turn can be compared, also on a machine whose speed drifts.
"""

import contextlib
import gc
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from convnet import machine
from convnet.cli import UsageError
from convnet.engine import Clock, Setting, engine_class
from convnet.job import Job
from convnet.process import Process
from convnet.work import work

AGREE = 1e-3  # of the largest number: how far the outputs of two engines may be apart
SETTLE = 0.5  # seconds
STEPS = 3  # of a trial of a setting, and while memory is watched


class Worker:
    """An engine with its net and its batch."""

    def __init__(self, engine: str, job: Job, options: dict):
        from convnet.net import Net

        before = machine.resident()
        graph = job.graph()
        self.extra = 0 if engine == "ours" else machine.resident() - before  # our own code, there
        net, self.job = Net(graph, job.device if engine == "ours" else "cpu", job.seed), job
        upto = None if job.mode == "train" else job.wanted(graph)[0]
        self.engine = engine_class(engine)(net, job.threads, upto=upto, **options)
        images, self.labels = job.noise(graph)
        self.images = self.engine.own(images)

    def once(self) -> None:
        """One step."""
        if self.job.mode == "train":
            self.engine.train(self.images, self.labels)
        else:
            self.engine.infer(self.images)
        self.engine.wait()

    def warm(self) -> float:
        """Seconds of the first steps, in which kernels are compiled and memory is taken."""
        start = time.perf_counter()
        self.once()
        self.once()
        return time.perf_counter() - start

    def round(self) -> dict:
        """Seconds of a step, of its parts, and of [first layer, last layer, way]; means.

        Where layers are waited for one by one, which a GPU is not used to, `step` is another one.

        Unless --seconds=0 it begins with a pause and a step that do not count: the system has put
        away what the engine before let go, and caches, memory and threads are as in the middle of
        a training.
        """
        if self.job.seconds:
            time.sleep(SETTLE)
            self.once()
        alone = self._steps()[0] if self.job.on_gpu else None
        clock = Clock(self.engine.wait)
        self.engine.watch(clock)
        seconds, steps = self._steps()
        self.engine.watch(None)
        return {
            "step": alone or seconds,
            "watched": seconds,
            "steps": steps,
            "parts": {name: t / steps for name, t in clock.parts.items()},
            "layers": [[*key, t / steps] for key, t in clock.layers.items()],
        }

    def _steps(self) -> tuple[float, int]:
        """Seconds of a step, the mean of this many."""
        steps, start = 0, time.perf_counter()
        while not steps or time.perf_counter() - start < self.job.seconds:
            self.once()
            steps += 1
        return (time.perf_counter() - start) / steps, steps

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
        """The most bytes that this process has while it works; convnet's in others do not count.

        On a GPU those of its memory that the engine has taken.
        """
        self.once()
        gc.collect()
        machine.forget_peak()
        for _ in range(STEPS):
            self.once()
        return self.engine.held() or machine.peak() - self.extra

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


def start(engine: str, job: Job, setting: Setting | None = None) -> Process:
    """A Worker in a process of its own."""
    setting = setting or Setting()
    make = partial(Worker, engine, job, setting.options)
    return Process(engine, make, job.threads, setting.variables)


def best(engine: str, job: Job) -> tuple[Setting, dict[str, float]]:
    """The setting of an engine that is fastest here, and the seconds of a step with each."""
    settings, found = engine_class(engine).settings(job.device), {}
    for setting in settings if len(settings) > 1 else ():
        with start(engine, job, setting) as process:
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
            title = engine_class(name).title
            say(f"{title}: kernels are compiled, memory is taken")
            setting, trials = best(name, job)
            workers[name] = worker = stack.enter_context(start(name, job, setting))
            version, warm = worker("version"), worker("warm")
            found[name] = {"title": title, "version": version, "setting": setting,
                           "trials": trials, "warm": warm, "rounds": []}  # fmt: skip
            say(f"{version}: warmed up in {warm:.1f} s, which do not count below")
        if job.mode == "infer":
            agree(workers, found)
        for _ in range(rounds):
            for name, worker in workers.items():
                found[name]["rounds"].append(worker("round"))
            also()
        if "ours" in workers:
            found["ours"]["work"] = workers["ours"]("work")
    for name in engines:
        with start(name, job, found[name]["setting"]) as process:
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


def watched_seconds(engine: dict) -> float:
    """The same of the steps in which each layer was waited for; on a CPU the same steps."""
    return median(r["watched"] for r in engine["rounds"])


def part_seconds(engine: dict, part: str) -> float:
    """Of a part of the step besides the layers."""
    return median(r["parts"].get(part, 0.0) for r in engine["rounds"])


def rest_seconds(engine: dict) -> float:
    """What is neither in a layer nor in a part."""
    return median(
        r["watched"] - sum(r["parts"].values()) - sum(t for *_, t in r["layers"])
        for r in engine["rounds"]
    )


def layer_seconds(engine: dict, names: list[str]) -> tuple[float, float]:
    """Forward and backward of these layers together."""

    def of(r: dict, way: str) -> float:
        return sum(t for first, _, this, t in r["layers"] if this == way and first in names)

    return tuple(median(of(r, way) for r in engine["rounds"]) for way in ("fprop", "bprop"))
