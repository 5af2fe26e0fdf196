"""Fine-tuning on windows of photos: the fc layers over frozen maps, or the whole net.

fc    windows of some photos are pooled and wait in memory; batches of 32 that show objects and 96
      that do not are drawn of them (SPP-net, section 4.2), so that no map is made twice
all   each batch is windows of two photos, whose gradients go through the pyramid into the
      convolutions (Fast R-CNN, section 2.3)
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convnet import checkpoint
from convnet.checkpoint import Checkpoint
from convnet.detect.head import fc_layers, fresh_net, with_rates
from convnet.detect.sampling import Draws, Recipe
from convnet.net import Net
from convnet.sgd import Sgd
from convnet.source import Source
from convnet.train import Diverged

HELD = 256 << 20  # bytes of pooled windows that wait
PHOTOS = 2  # of a batch that trains the whole net


class Step(NamedTuple):
    """How a batch went: the mean of each cost's first column, and wrong answers in it."""

    costs: list[float]
    error: float


def schedule(recipe: Recipe, iterations: int) -> tuple[str, Callable[[int], float]]:
    """The rates of a recipe as a cfg spells them, and the progress at which iteration i has its.

    Of other lengths than the recipe's, the stages keep their shares.
    """
    rates, lengths = zip(*recipe.stages)
    ends = np.cumsum(lengths) / sum(lengths) * iterations
    text = f"dexp[base={rates[0]:g};tgtFactor={rates[0] / rates[-1]:g};numSteps={len(rates)}]"

    def progress(i: int) -> float:
        return (min(int(np.searchsorted(ends, i, "right")), len(rates) - 1) + 0.5) / len(rates)

    return text, progress


def prepared(
    source: Source,
    net: Net,
    below: list[str],
    kind: str,
    recipe: Recipe,
    iterations: int,
    changes: Sequence[str] = (),
) -> tuple[Source, Net]:
    """The detector with the rates of a recipe: in the fc layers, or in all layers with weights.

    changes: of its cfg, section.key=value; the last word on rates.
    """
    text = schedule(recipe, iterations)[0]
    factor = text.replace(f"base={recipe.stages[0][0]:g}", f"base={2 * recipe.stages[0][0]:g}")
    rates = {"epsW": text, "epsB": factor, "momW": "0.9", "momB": "0.9", "wc": "0.0005"}
    layers = fc_layers(net, below) if kind == "fc" else [l.name for l in net.layers]
    source = with_rates(source, net, rates, layers)
    source = replace(source, overrides=(*source.overrides, *changes))
    made = fresh_net(source, net, len(net.classes))
    made.set_weights({n: net.device.numpy(w) for n, w in net.own_weights().items()})
    made.classes = net.classes
    return source, made


class Finetuning:
    """A run: `view` gives what the fc layers see, `draws` which windows.

    path: where weights, momenta and position are kept, so that a killed run goes on.
    """

    def __init__(
        self,
        net: Net,
        view: Any,
        draws: Draws,
        kind: str,
        iterations: int,
        path: Path,
        made_from: dict,
    ):
        self.net, self.view, self.draws, self.kind = net, view, draws, kind
        self.iterations, self.path, self.made_from = iterations, path, made_from
        self.recipe, self.sgd = draws.recipe, Sgd(net)
        self.progress = schedule(self.recipe, iterations)[1]
        self.done = self.drawn = 0  # batches trained on; photos drawn

    def resume(self) -> bool:
        """Take up a run of the same settings where its file is; False where there is none."""
        if not self.path.exists():
            return False
        saved = checkpoint.load(self.path)
        if saved.meta.get("made_from") != self.made_from:
            return False
        self.net.set_weights(saved.arrays["weights"])
        for name, values in saved.arrays["momenta"].items():
            self.sgd.momenta[name][...] = self.net.device.array(values)
        self.done, self.drawn = saved.meta["done"], saved.meta["drawn"]
        self.net.step = self.done  # which numbers dropout draws
        return True

    def save(self) -> None:
        """Keep where the run is."""
        numpy = self.net.device.numpy
        arrays = {
            "weights": {n: numpy(w) for n, w in self.net.own_weights().items()},
            "momenta": {n: numpy(m) for n, m in self.sgd.momenta.items()},
        }
        meta = {"done": self.done, "drawn": self.drawn, "made_from": self.made_from}
        checkpoint.save(self.path, Checkpoint(arrays, meta))

    def run(self, report: Callable[[int, list[Step]], None]) -> None:
        """Train to the end; report(batches done, the steps since the last report)."""
        from tqdm import tqdm

        with tqdm(
            total=self.iterations, initial=self.done, unit="batch", disable=not sys.stderr.isatty()
        ) as bar:
            while self.done < self.iterations:
                count = min(self._round(), self.iterations - self.done)
                batches = self._pooled(count) if self.kind == "fc" else self._whole(count)
                steps = []
                for given, labels in batches:
                    with np.errstate(all="ignore"):  # what is not finite is told below
                        steps.append(self._step(given, labels))
                    self.done += 1
                    bar.update()
                report(self.done, steps)
                self.save()

    def _round(self) -> int:
        """Batches between two looks at the photos, or between two saves of the whole net's."""
        if self.kind == "all":
            return 50
        shapes = self.net.graph.shapes
        numbers = sum(math.prod(shapes[name]) for name in self.view.layers)
        return max(1, min(64, HELD // (4 * numbers * self.recipe.batch)))

    def _pooled(self, count: int):
        """Batches of windows of as many photos as it takes, shuffled."""
        objects, ground = self.recipe.objects, self.recipe.batch - self.recipe.objects
        rng = np.random.default_rng([self.draws.seed, 14, self.drawn])
        found, *told = zip(*self._windows(objects * count, ground * count))
        concatenate = self.net.device.xp.concatenate
        parts = {name: concatenate([one[name] for one in found]) for name in self.view.layers}
        labels, targets = map(np.concatenate, told)
        shows, rest = (rng.permutation(np.flatnonzero(k)) for k in (labels > 0, labels == 0))
        for i in range(count):
            at = np.concatenate([shows[i * objects :][:objects], rest[i * ground :][:ground]])
            given = {name: x[at] for name, x in parts.items()}
            yield [{**given, **self._told(labels[at], targets[at])}], labels[at]

    def _windows(self, objects: int, ground: int):
        """(pooled windows, labels, targets) photo by photo, so many of each kind in all."""
        for number, draw in enumerate(self.draws.since(self.drawn), self.drawn):
            self.drawn = number + 1
            every = np.arange(len(draw.labels))
            at = np.concatenate([every[: draw.objects][:objects], every[draw.objects :][:ground]])
            if len(at):
                labels = draw.labels[at]
                which = self.draws.scales(draw, number, len(self.view.scales))
                which = None if which is None else which[at]
                seen = self.view(draw.photo, draw.boxes[at], draw.mirror, which)
                objects -= np.count_nonzero(labels)
                ground -= np.count_nonzero(labels == 0)
                yield {n: x[seen.of] for n, x in seen.parts.items()}, labels, draw.targets[at]
            if not objects and not ground:
                return

    def _whole(self, count: int):
        """Batches of the windows of some photos, as the net's first layer takes them."""
        found = self.draws.since(self.drawn)
        for _ in range(count):
            given, labels = [], []
            while len(given) < PHOTOS:
                draw = next(found)
                number, self.drawn = self.drawn, self.drawn + 1
                if len(draw.labels):
                    rng = np.random.default_rng([self.draws.seed, 15, number])
                    images = self.view.images(draw.photo, draw.boxes, draw.mirror, rng)
                    given.append({**images, **self._told(draw.labels, draw.targets)})
                    labels.append(draw.labels)
            yield given, np.concatenate(labels)

    def _told(self, labels: np.ndarray, targets: np.ndarray) -> dict:
        """Labels and targets as the net takes them."""
        feeds, array = self.net.graph.feeds, self.net.device.array
        told = {feeds[1]: array(labels.reshape(-1, 1, 1, 1))}
        if 3 in feeds:
            told[feeds[3]] = array(targets.reshape(-1, 1, 1, 4))
        return told

    def _step(self, given: list[dict], labels: np.ndarray) -> Step:
        """One update from some passes, whose gradients are summed."""
        net, costs = self.net, self.net.graph.costs
        total: dict = {}
        sums, wrong = np.zeros(len(costs)), 0.0
        for one in given:
            outs, tape = net.fprop(one, costs, train=True)
            values = [net.device.numpy(outs[name]).reshape(-1, outs[name].shape[3])
                      for name in costs]  # fmt: skip
            sums += [v[:, 0].sum() for v in values]
            wrong += values[0][:, 1].sum()
            gradients = net.bprop(tape, net.cost_gradients(outs), lazy=len(given) == 1)
            for name, g in gradients.items():
                if name in total:
                    total[name] += g
                else:
                    total[name] = g
        if bad := self.sgd.first_not_finite(total):
            raise Diverged(
                f"batch {self.done + 1}: the gradient of {bad} is not finite; try a smaller --rate="
            )
        self.sgd.update(total, len(labels), self.progress(self.done))
        net.step += 1
        return Step((sums / len(labels)).tolist(), wrong / len(labels))


def scaled(recipe: Recipe, rate: float | None) -> Recipe:
    """The recipe with another first rate, the later ones in proportion."""
    if rate is None:
        return recipe
    factor = rate / recipe.stages[0][0]
    return replace(recipe, stages=tuple((r * factor, n) for r, n in recipe.stages))
