"""The update of cuda-convnet: momentum, learning rate, weight decay times the learning rate.

    inc <- mom * inc - eps * (g / N + wc * W)
    W   <- W + inc

g is the gradient of the loss summed over the N cases of the batch (spec: cuda-convnet 5.5).
"""

from typing import Any

import numpy as np

from convnet.graph import Graph
from convnet.kernel import kernel, prange
from convnet.net import Net

CHUNK = 1 << 14


def rates_at(graph: Graph, progress: float) -> dict[str, float]:
    """The learning rates at this progress (0..1): {"epsW": rate, "epsB": rate}.

    Where layers differ there is one for each array, as in "epsW conv1/W0".
    """
    found: dict[str, dict[str, float]] = {"epsW": {}, "epsB": {}}
    for l in graph.layers:
        for name, weight in graph.asked(l).items():
            if (l.name, name) not in graph.shared:
                key = "epsB" if name == "b" else "epsW"
                found[key][f"{l.name}/{name}"] = float(weight.eps(progress))
    rates: dict[str, float] = {}
    for key, each in found.items():
        alike = len(set(each.values())) == 1
        rates |= {key: max(each.values())} if alike else {f"{key} {n}": v for n, v in each.items()}
    return rates


class Sgd:
    """Momenta of a net, {"layer/name": array}, and the step that changes its weights."""

    def __init__(self, net: Net):
        self.net = net
        self.momenta = {
            k: net.device.xp.zeros(w.shape, w.dtype) for k, w in net.own_weights().items()
        }

    def update(
        self,
        gradients: dict[tuple[str, str], Any],
        cases: int,
        progress: float,
        net: Net | None = None,
    ) -> None:
        """One step, at this progress (0..1) of the run for the schedules.

        gradients: as Net.bprop gives them, lazy or not. net: which has made them, if it is another
        one with the same weights; the rates are its own.
        """
        net = net or self.net
        for (layer, name), g in gradients.items():
            rates = net.graph.asked(net.by_name[layer])[name]
            w, inc = net.weights[layer][name], self.momenta[f"{layer}/{name}"]
            eps = float(rates.eps(progress))
            args = (float(rates.mom), eps, float(rates.wc), 1.0 / cases)
            if not hasattr(g, "shape"):
                with net.watched(layer, layer, "bprop"):  # here the product is made
                    g.update(w, inc, *args)
                continue
            sgd_step[w.size](w.reshape(-1), inc.reshape(-1), g.reshape(-1), *args)

    def first_not_finite(self, gradients: dict[tuple[str, str], Any]) -> str:
        """The name of the first array with a NaN or an infinity in it, or ''."""
        if not gradients:  # every layer is frozen
            return ""
        xp, finite = self.net.device.xp, []
        for g in gradients.values():
            flat = g.reshape(-1) if hasattr(g, "shape") else None
            finite.append(g.finite() if flat is None else xp.isfinite(xp.dot(flat, flat)))
        answers = self.net.device.numpy(xp.stack(finite))  # all at once: a GPU is waited for
        return next(("/".join(k) for k, good in zip(gradients, answers) if not good), "")


@kernel(
    cuda=r"""
__global__ void sgd_step(int n, T* w, T* inc, const T* g, T mom, T eps, T wc, T share) {
    FOR(i, n) {
        inc[i] = mom * inc[i] - eps * (g[i] * share + wc * w[i]);
        w[i] += inc[i];
    }
}"""
)
def sgd_step(w, inc, g, mom, eps, wc, share):
    """Thread i owns weight i and its momentum."""
    n, size = np.uintp(w.size), np.uintp(CHUNK)  # unsigned, or LLVM makes no vectors of it
    for chunk in prange((w.size + CHUNK - 1) // CHUNK):
        for i in range(np.uintp(chunk) * size, min(n, np.uintp(chunk + 1) * size)):
            step = mom * inc[i] - eps * (g[i] * share + wc * w[i])
            inc[i] = step
            w[i] += step
