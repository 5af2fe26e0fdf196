"""The same net in PyTorch: built from a convnet Net, layer by layer, its weights copied.

    torch_net = TorchNet(net)
    outs = torch_net({"data": x, "labels": t}, ["logprob"], train=True)
    outs["logprob"].mean().backward()

One function for each type=, in OPS, written as a user of PyTorch would write it with what PyTorch
has; where its rules differ (sides rounded up, windows that begin outside), by padding first.
Tensors are (N, C, H, W); "channels last" in memory unless asked otherwise, which is faster.
"""

import contextlib
from collections import Counter

import torch
import torch.nn.functional as F

from convnet import Net
from convnet.layer import Layer

FORMATS = {"channels_last": torch.channels_last, "nchw": torch.contiguous_format}


class TorchNet(torch.nn.Module):
    """`own` is {"layer/name": parameter} of all weights, shared ones once."""

    def __init__(
        self, net: Net, dtype=torch.float32, layout: str = "channels_last", device: str = "cpu"
    ):
        super().__init__()
        self.graph, self.layout, self.device = net.graph, FORMATS[layout], torch.device(device)
        for l in self.graph.layers:
            if l.type not in OPS:
                raise ValueError(f"[{l.name}] type={l.type}: not known here; has {sorted(OPS)}")
        self.own, self.weights = {}, {l.name: {} for l in self.graph.layers}
        for l in self.graph.layers:
            for name, rates in self.graph.asked(l).items():
                owner = "{}/{}".format(*net.shared.get((l.name, name), (l.name, name)))
                if owner not in self.own:
                    value = theirs(l, name, torch.tensor(net.weights[l.name][name], dtype=dtype))
                    value = value.contiguous(memory_format=self._format(value)).to(self.device)
                    learns = rates.eps.base > 0  # the owner stands above those that share
                    self.own[owner] = torch.nn.Parameter(value, requires_grad=learns)
                self.weights[l.name][name] = self.own[owner]
        for owner, parameter in self.own.items():
            self.register_parameter(owner.replace(".", "_"), parameter)
        self.watch = None  # what times the layers: engines.Marks
        self.over = {l.name for l in self.graph.layers if self._may_overwrite(l)}

    def _format(self, value: torch.Tensor):
        return self.layout if value.ndim == 4 else torch.contiguous_format

    def _may_overwrite(self, l: Layer) -> bool:
        """A relu may take the place of what it reads if nothing else needs that."""
        readers = [other for other in self.graph.layers if l.reads and l.reads[0] in other.reads]
        after = l.reads and self.graph.by_name[l.reads[0]].type in ("conv", "fc")
        return bool(after and l.type == "neuron" and len(readers) == 1)

    def tensor(self, x) -> torch.Tensor:
        """An array (N, H, W, C) as a tensor (N, C, H, W); not copied where the layout allows it."""
        x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=self.layout)
        return x.to(self.device, non_blocking=True)

    def forward(self, given: dict, want: list, train: bool = False, masks: dict | None = None):
        """The outputs (N, C, H, W) of the layers in `want`; a cost gives its column 0, (N,).

        given: tensors by layer. masks: {layer: what its dropout multiplies with}; None: PyTorch's.
        """
        order = self._order(given, want)
        acts, uses = dict(given), Counter(name for l in order for name in reads(l))
        uses.update(want)
        for l in order:
            xs = [acts[name] for name in reads(l)] if l.name not in given else [acts[l.name]]
            options = {}
            if l.type in ("dropout", "dropout2"):
                options = {"train": train, "mask": None if masks is None else masks[l.name]}
            elif l.name in self.over:
                options = {"over": l.reads[0] not in [*want, *given]}
            with self.watch.forward(l.name) if self.watch else contextlib.nullcontext():
                acts[l.name] = OPS[l.type](l, self.weights[l.name], *xs, **options)
            if self.watch:
                self.watch.made(l.name, acts[l.name])
            del xs
            for name in reads(l):
                uses[name] -= 1
                if not uses[name]:
                    del acts[name]
        return {name: acts[name] for name in want}

    def _order(self, given: dict, want: list) -> list[Layer]:
        """The layers to run: those that `want` needs; a data layer still scales what is given."""
        needed, order = set(want), []
        for l in reversed(self.graph.layers):
            if l.name in needed and (l.name not in given or not l.inputs):
                order.append(l)
                needed.update(reads(l))
        return order[::-1]

    def gradients(self) -> dict:
        """{(layer, name): array} as convnet's bprop gives them."""
        grads = {owner: p.grad for owner, p in self.own.items() if p.grad is not None}
        return {tuple(owner.split("/")): self._back(owner, g) for owner, g in grads.items()}

    def arrays(self) -> dict:
        """{"layer/name": array}, the weights as convnet's own_weights gives them."""
        return {owner: self._back(owner, p.detach()) for owner, p in self.own.items()}

    def _back(self, owner: str, value: torch.Tensor):
        layer, name = owner.split("/")
        return ours(self.graph.by_name[layer], name, value).numpy()


def reads(l: Layer) -> list[str]:
    """The layers that a layer reads here: the cost wants labels and logits, not the softmax."""
    return [l.reads[i] for i in USED.get(l.type, range(len(l.reads)))]


def theirs(l: Layer, name: str, w: torch.Tensor) -> torch.Tensor:
    """Weights of convnet, (F, F, in, out) or (in, out), in PyTorch's order."""
    if name == "b":
        return w
    return w.permute(3, 2, 0, 1) if l.type == "conv" else w.T


def ours(l: Layer, name: str, w: torch.Tensor) -> torch.Tensor:
    """The way back."""
    if name == "b":
        return w
    return w.permute(2, 3, 1, 0) if l.type == "conv" else w.T


def rows(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, numbers) in convnet's order: row, column, channel."""
    return x.permute(0, 2, 3, 1).flatten(1)


def reach(x: torch.Tensor, start: int, windows: tuple, size: int, stride: int, value: float):
    """The map from pixel `start` to the end of the last window, `value` where there is no pixel."""
    H, W = x.shape[2:]
    ends = [start + (n - 1) * stride + size for n in windows]
    edges = (-start, ends[1] - W, -start, ends[0] - H)
    return F.pad(x, edges, value=value) if any(edges) else x


# ---------------------------------------------------------------- one for each type


def data(l, w, x):
    return x * l.scale if l.dataIdx == 0 and l.scale != 1 else x


def conv(l, w, *xs):
    H, W = l.shape(*[(*x.shape[2:], x.shape[1]) for x in xs])[:2]
    bias, y = w["b"] if w["b"].ndim == 1 else None, None
    for i, x in enumerate(xs):
        size, stride, pad, groups = l.filterSize[i], l.stride[i], l.padding[i], l.groups[i]
        if [1 + (side + 2 * pad - size) // stride for side in x.shape[2:]] != [H, W]:
            x, pad = reach(x, -pad, (H, W), size, stride, 0.0), 0
        part = F.conv2d(x, w[f"W{i}"], bias if i == 0 else None, stride, pad, groups=groups)
        y = part if y is None else y + part
    return y if bias is not None else y + w["b"].permute(2, 0, 1)


def pool(l, w, x):
    image = (*x.shape[2:], x.shape[1])
    if l.level and image[:2] != l.trained_on[:2]:
        return bins(x, l.level, l.pool)
    if l.pool == "maxabs":
        return largest(windows_max, l, x)
    return (windows_max if l.pool == "max" else windows_avg)(l, x)


def covers(l) -> bool:
    """Whether PyTorch's own ceil_mode gives the windows of this pool."""
    return l.start == l.end == l.outputsX == 0


def windows_max(l, x):
    if covers(l):
        return F.max_pool2d(x, l.sizeX, l.stride, ceil_mode=True)
    windows = l.shape((*x.shape[2:], x.shape[1]))[:2]
    x = reach(x, l.start, windows, l.sizeX, l.stride, -torch.inf)
    return F.max_pool2d(x, l.sizeX, l.stride)


def windows_avg(l, x):
    if covers(l) and not l.sum:
        return F.avg_pool2d(x, l.sizeX, l.stride, ceil_mode=True, count_include_pad=False)
    windows = l.shape((*x.shape[2:], x.shape[1]))[:2]
    inside = reach(torch.ones_like(x[:1, :1]), l.start, windows, l.sizeX, l.stride, 0.0)
    x = reach(x, l.start, windows, l.sizeX, l.stride, 0.0)
    total, pixels = (F.avg_pool2d(m, l.sizeX, l.stride, divisor_override=1) for m in (x, inside))
    return total if l.sum else total / pixels


def largest(pooled, l, x):
    """pool=maxabs by two max pools: of x and of -x; +a before -a."""
    high, low = pooled(l, x), pooled(l, -x)
    return torch.where(high >= low, high, -low)


def bins(x, level, keep):
    if keep == "maxabs":
        return largest(lambda n, m: F.adaptive_max_pool2d(m, n), level, x)
    return (F.adaptive_max_pool2d if keep == "max" else F.adaptive_avg_pool2d)(x, level)


def spp(l, w, x):
    return torch.cat([rows(bins(x, n, l.pool)) for n in l.levels], 1)[..., None, None]


def fc(l, w, *xs):
    y = F.linear(rows(xs[0]), w["W0"], w["b"])
    for i, x in enumerate(xs[1:], 1):
        y = torch.addmm(y, rows(x), w[f"W{i}"].T)
    return y.unsqueeze_(-1).unsqueeze_(-1)  # no view: a relu in place of a view costs a copy


def neuron(l, w, x, over=False):
    name, a, b = l.neuron
    if name == "relu" and over:
        return torch.relu_(x)
    return {
        "ident": lambda: x,
        "relu": lambda: torch.relu(x),
        "logistic": lambda: torch.sigmoid(x),
        "abs": lambda: x.abs(),
        "softrelu": lambda: torch.logaddexp(x, x.new_zeros(())),
        "square": lambda: x * x,
        "sqrt": lambda: x.sqrt(),
        "log": lambda: (a + x).log(),
        "tanh": lambda: a * torch.tanh(b * x),
        "brelu": lambda: x.clamp(0, a),
        "linear": lambda: a * x + b,
        "drelu": lambda: x - a * torch.tanh(x / a),
    }[name]()


def rnorm(l, w, x):
    """The border is cut, the divisor size^2 stays: zeros around the squares."""
    n, before = l.size, l.size // 2
    squares, pad = x * x, before
    if n % 2 == 0:
        squares, pad = F.pad(squares, (before, n - 1 - before) * 2), 0
    return x * (l.minDiv + l.scale * F.avg_pool2d(squares, n, 1, pad)).pow(-l.pow)


def cmrnorm(l, w, x):
    if not l.blocked:
        return F.local_response_norm(x, l.size, l.scale, l.pow, l.minDiv)
    N, C, H, W = x.shape
    squares = F.pad(x * x, (0, 0, 0, 0, 0, -C % l.size)).reshape(N, -1, l.size, H, W)
    total = squares.sum(2).repeat_interleave(l.size, 1)[:, :C]
    return x * (l.minDiv + l.scale / l.size * total).pow(-l.pow)


def dropout(l, w, x, train=False, mask=None):
    if not (train and l.enable):
        return x
    return F.dropout(x, 1 - l.keep) if mask is None else x * mask


def dropout2(l, w, x, train=False, mask=None):
    if not (train and l.enable):
        return x * l.keep
    return F.dropout(x, 1 - l.keep) * l.keep if mask is None else x * mask


def softmax(l, w, x):
    return x.flatten(1).softmax(1).reshape(x.shape)


def concat(l, w, *xs):
    if len({x.shape[2:] for x in xs}) == 1:
        return torch.cat(xs, 1)
    return torch.cat([rows(x) for x in xs], 1)[..., None, None]


def eltsum(l, w, *xs):
    return sum(c * x for c, x in zip(l.coeffs, xs))


def eltmax(l, w, *xs):
    y = xs[0]
    for x in xs[1:]:
        y = torch.maximum(y, x)
    return y


def logreg(l, w, labels, logits):
    return F.cross_entropy(rows(logits), labels.reshape(-1).long(), reduction="none")


OPS = {
    "data": data, "conv": conv, "pool": pool, "spp": spp, "fc": fc, "neuron": neuron,
    "rnorm": rnorm, "cmrnorm": cmrnorm, "dropout": dropout, "dropout2": dropout2,
    "softmax": softmax, "concat": concat, "eltsum": eltsum, "eltmax": eltmax,
    "cost.logreg": logreg,
}  # fmt: skip
USED = {"cost.logreg": (0, 2)}  # numbers of the inputs, where not all of them are needed


class Sgd:
    """cuda-convnet's update: inc = mom * inc - eps * (g / N + wc * W); W = W + inc.

    Written out: torch.optim.SGD multiplies its momentum with the rate of the day, which is the
    same only as long as the rate is constant.
    """

    def __init__(self, torch_net: TorchNet):
        self.net = torch_net
        self.rates, self.momenta = {}, {}
        for owner, p in torch_net.own.items():
            layer, name = owner.split("/")
            graph = torch_net.graph
            self.rates[owner] = graph.asked(graph.by_name[layer])[name]
            self.momenta[owner] = torch.zeros_like(p)

    @torch.no_grad()
    def update(self, cases: int, progress: float) -> None:
        """One step with the gradients of the loss summed over the cases; they are let go."""
        for owner, p in self.net.own.items():
            if p.grad is None:
                continue
            r, inc = self.rates[owner], self.momenta[owner]
            eps = r.eps(progress)
            inc.mul_(r.mom).add_(p, alpha=-eps * r.wc).add_(p.grad, alpha=-eps / cases)
            p.add_(inc)
            p.grad = None
