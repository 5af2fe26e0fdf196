"""Low-rank fc layers: fc6 becomes two layers, fc6_low of fewer outputs and fc6 behind it.

    [fc6_low]               added before fc6: reads what that has read
    type=fc
    outputs=1024            the rank

A truncated SVD of the weights W alone (Fast R-CNN, section 3.1) keeps what is large in W. What is
kept here is what is large in the outputs, of windows as the detector sees them: y = x W + b is
replaced by its projection on the first principal components V of y about its mean m,

    y ~ (y - m) V V' + m = (x W V) V' + (b - m) V V' + m

which of all layers of that rank has the least squared error over those windows ("Accelerating Very
Deep Convolutional Networks", Zhang, Zou, He, Sun 2015, section 3.1).
"""

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from convnet.cli import UsageError
from convnet.detect.head import box_layer, fc_layers, fresh_net, last_fc
from convnet.net import Net
from convnet.source import Source


def ranks_of(text: str) -> tuple[int, ...]:
    """--svd= as numbers. UsageError."""
    words = text.split(",") if text else []
    if not all(w.strip().isdecimal() and int(w) for w in words):
        raise UsageError(f"--svd={text}: must be ranks of the fc layers, as in 1024,256")
    return tuple(map(int, words))


def lowered_layers(net: Net, below: list[str], ranks: tuple[int, ...]) -> dict[str, int]:
    """The fc layers above `below`, but for the last, and the rank of each. UsageError."""
    last = {last_fc(net.graph, net.output), box_layer(net)}
    names = [n for n in fc_layers(net, below) if n not in last and net.by_name[n].positional]
    told = f"--svd={','.join(map(str, ranks))}"
    if len(ranks) > len(names):
        raise UsageError(f"{told}: the net has {len(names)} fc layers below its last: {names}")
    for name, rank in zip(names, ranks):
        inputs, outputs = sum(W.shape[0] for W in matrices(net, name)), net.by_name[name].outputs
        if rank * (inputs + outputs) >= inputs * outputs:
            raise UsageError(
                f"{told}: [{name}] has {inputs} inputs and {outputs} outputs; a rank of {rank} "
                f"saves nothing, one below {inputs * outputs // (inputs + outputs)} does"
            )
    return dict(zip(names, ranks))


def matrices(net: Net, name: str) -> list[np.ndarray]:
    """The weights of an fc layer, one (numbers, outputs) for each of its inputs."""
    mine, numpy = net.weights[name], net.device.numpy
    return [numpy(mine[f"W{i}"]) for i in range(len(net.by_name[name].reads))]


class Outputs:
    """Mean and covariance of what an fc layer gives, before its neuron."""

    def __init__(self, net: Net, name: str):
        self.W = np.concatenate(matrices(net, name))
        self.bias = net.device.numpy(net.weights[name]["b"]).astype(np.float64)
        size, self.count = len(self.bias), 0
        self.sum, self.gram = np.zeros(size), np.zeros((size, size))

    def see(self, rows: np.ndarray) -> None:
        """Inputs (n, numbers) of the layer."""
        y = rows @ self.W
        self.count += len(y)
        self.sum += y.sum(0, dtype=np.float64)
        self.gram += y.T @ y

    def factors(self, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """(W V, V', bias, share of the variance that is kept)."""
        from scipy.linalg import eigh

        size, mean = len(self.bias), self.sum / self.count
        covariance = self.gram / self.count - np.outer(mean, mean)
        values, V = eigh(covariance, subset_by_index=[size - rank, size - 1])
        bias = mean + self.bias - V @ (V.T @ mean)  # mean is without the bias
        kept = float(values.sum() / max(np.trace(covariance), np.finfo(float).tiny))
        return (self.W @ V).astype(np.float32), V.T.astype(np.float32), bias, kept


def lowered(
    source: Source, net: Net, layers: dict[str, int], rows: Iterable[dict[str, np.ndarray]]
) -> tuple[Source, Net, dict[str, float]]:
    """The cfg and the net with those layers at their ranks, and the share of variance of each.

    rows: {layer: its inputs (n, numbers), those of several one behind the other}, time and again.
    """
    seen = {name: Outputs(net, name) for name in layers}
    for part in rows:
        for name, one in seen.items():
            one.see(part[name])
    made = _written(source, net, layers)
    found = fresh_net(made, net, len(net.classes))
    weights = {n: net.device.numpy(w) for n, w in net.own_weights().items()}
    kept = {}
    for name, rank in layers.items():
        first, second, bias, kept[name] = seen[name].factors(rank)
        sizes = [len(W) for W in matrices(net, name)]
        for i, part in enumerate(np.split(first, np.cumsum(sizes)[:-1])):
            weights.pop(f"{name}/W{i}")
            weights[f"{name}_low/W{i}"] = part
        weights[f"{name}_low/b"] = np.zeros(rank, np.float32)
        weights[f"{name}/W0"], weights[f"{name}/b"] = second, bias.astype(np.float32)
    found.set_weights(weights)
    found.classes = net.classes
    return made, found, kept


def _written(source: Source, net: Net, layers: dict[str, int]) -> Source:
    """The cfg with a section before each of the layers."""
    text, sets = source.text, []
    for name, rank in layers.items():
        layer = net.by_name[name]
        if f"{name}_low" in net.graph.alias:
            raise UsageError(f"--svd: the net has a layer [{name}_low] already")
        section = (
            f"[{name}_low]\ntype=fc\ninputs={','.join(layer.inputs)}\noutputs={rank}\n"
            "neuron=ident\nepsW=0\nepsB=0\n\n"
        )
        text = re.sub(rf"^\[{re.escape(name)}\]", f"{section}[{name}]", text, flags=re.M)
        sets.append(f"{name}.inputs={name}_low")
        # a list has a value for each input, of which there is but one now
        sets += [f"{name}.{key}={value.split(',')[0]}" for key, value in layer.section.items()
                 if key in ("initW", "epsW", "momW", "wc") and "," in value]  # fmt: skip
    return replace(source, text=text, overrides=(*source.overrides, *sets))
