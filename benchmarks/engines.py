"""The same net twice behind one interface, convnet's own and PyTorch's, for the benchmarks.

    engine = ENGINES["torch"](net, threads=2)
    loss = engine.train(images, labels, progress)      # one step: forward, backward, update
    probs = engine.infer(images)

images (N, H, W, C) float32 minus their mean, labels (N,). Dropout is on in training; each engine
draws its own masks. Importing this file imports neither engine.
"""

import os

import numpy as np


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class Ours:
    """What tools/train.py does with a batch, on the CPU."""

    def __init__(self, net, threads: int):
        import numba

        from convnet.sgd import Sgd

        numba.set_num_threads(threads)
        self.net, self.sgd = net, Sgd(net)
        self.version = f"NumPy {np.__version__}, Numba {numba.__version__}"

    def train(self, images, labels, progress: float = 0.0) -> float:
        net = self.net
        outs, tape = net.fprop(net.feed(images, labels), net.graph.costs, train=True)
        loss = float(outs[net.graph.costs[0]][..., 0].mean())
        gradients = net.bprop(tape, net.cost_gradients(outs), lazy=True)
        if wrong := self.sgd.first_not_finite(gradients):
            raise ArithmeticError(f"the gradient of {wrong} is not finite")
        self.sgd.update(gradients, len(images), progress)
        net.step += 1
        return loss

    def infer(self, images) -> np.ndarray:
        out = self.net.fprop(self.net.feed(images), [self.net.output])[0][self.net.output]
        return out.reshape(len(images), -1)


class Torch:
    """PyTorch on the CPU, channels_last unless asked otherwise.

    update: "exact", cuda-convnet's with its schedules, or "fused", torch.optim.SGD's fastest, which
    is the same while the rates are constant.
    """

    def __init__(self, net, threads: int, layout: str = "channels_last", update: str = "exact"):
        import torch
        import torch_net

        torch.set_num_threads(threads)
        torch.manual_seed(net.seed)
        self.torch, self.version = torch, f"PyTorch {torch.__version__}"
        self.net, self.output = torch_net.TorchNet(net, layout=layout), net.output
        self.feeds, self.cost = net.graph.feeds, net.graph.costs[0]
        self.sgd = torch_net.Sgd(self.net) if update == "exact" else self._fused(net)

    def _fused(self, net):
        groups = []
        for owner, parameter in self.net.own.items():
            layer, name = owner.split("/")
            rates = net.graph.asked(net.by_name[layer])[name]
            groups.append({"params": [parameter], "lr": rates.eps(0), "momentum": rates.mom,
                           "weight_decay": rates.wc})  # fmt: skip
        return self.torch.optim.SGD(groups, lr=0.0, fused=True)

    def train(self, images, labels, progress: float = 0.0) -> float:
        labels = np.asarray(labels, np.int32).reshape(-1, 1, 1, 1)
        given = {self.feeds[0]: images, self.feeds[1]: labels}
        given = {name: self.net.tensor(x) for name, x in given.items()}
        losses = self.net(given, [self.cost], train=True)[self.cost]
        if isinstance(self.sgd, self.torch.optim.SGD):
            self.sgd.zero_grad()
            losses.mean().backward()
            self.sgd.step()
        else:
            losses.sum().backward()
            self.sgd.update(len(images), progress)
        return float(losses.detach().mean())

    def infer(self, images) -> np.ndarray:
        with self.torch.inference_mode():
            out = self.net({self.feeds[0]: self.net.tensor(images)}, [self.output])[self.output]
        return out.flatten(1).numpy()


ENGINES = {"ours": Ours, "torch": Torch}
