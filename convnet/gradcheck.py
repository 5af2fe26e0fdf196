"""Gradients of a whole net against finite differences, in float64.

Along a random direction d of each weight array the slope of the loss must be the scalar product
of d and the gradient: (L(W + e d) - L(W - e d)) / 2e = <dL/dW, d>.
"""

from dataclasses import dataclass

import numpy as np

from convnet.net import Net

STEP = 1e-6


@dataclass
class Gap:
    """What was found for one array: its name, both slopes and their relative difference."""

    name: str
    analytic: float
    numeric: float

    @property
    def error(self) -> float:
        """|analytic - numeric| / the larger of both; 1 where both are zero (nothing was tested)."""
        scale = max(abs(self.analytic), abs(self.numeric))
        return abs(self.analytic - self.numeric) / scale if scale else 1.0


def check(net: Net, images: np.ndarray, labels: np.ndarray, directions: int = 2) -> list[Gap]:
    """The gap of every weight array of the net (which becomes a float64 net) on this batch.

    images: float (N, H, W, C), mean subtracted; labels: (N,). The largest gap of `directions`
    random directions is given. Dropout is active, with the same mask in every pass.
    """
    _to_float64(net)
    given = net.feed(images.astype(np.float64), labels)
    rng = np.random.default_rng(net.seed)
    outs, tape = net.fprop(given, net.graph.costs, train=True)
    gradients = net.bprop(tape, net.cost_gradients(outs))
    gaps = []
    for (layer, name), g in gradients.items():
        w = net.weights[layer][name]
        found = []
        for _ in range(directions):
            d = rng.standard_normal(w.shape)
            d /= np.sqrt(np.mean(d * d)) * max(1.0, np.sqrt(w.size))
            slope = float(np.vdot(net.device.numpy(g), d))
            found.append(Gap(f"{layer}/{name}", slope, _slope(net, given, w, d)))
        gaps.append(max(found, key=lambda gap: gap.error))
    return gaps


def _to_float64(net: Net) -> None:
    for (layer, name), w in [
        ((layer, name), w) for layer, ws in net.weights.items() for name, w in ws.items()
    ]:
        if (layer, name) not in net.shared:
            net.weights[layer][name] = w.astype(np.float64)
    for (layer, name), (source, index) in net.shared.items():
        net.weights[layer][name] = net.weights[source][index]


def _slope(net: Net, given: dict, w, direction: np.ndarray) -> float:
    was, d = w.copy(), net.device.array(direction)
    losses = []
    for sign in (STEP, -STEP):
        w[...] = was + sign * d
        outs, _ = net.fprop(given, net.graph.costs, train=True)
        losses.append(
            sum(float(outs[c][..., 0].sum()) * net.by_name[c].coeff for c in net.graph.costs)
        )
    w[...] = was
    return (losses[0] - losses[1]) / (2 * STEP)
