"""Other engines behind the interface of convnet.engine.Ours, for the benchmarks.

    engine = ENGINES["torch"](net, threads=2)
    loss = engine.train(images, labels, progress)      # one step: forward, backward, update
    probs = engine.infer(images)

images (N, H, W, C) float32 minus their mean, labels (N,). Dropout is on in training; each engine
draws its own masks. Importing this file imports no engine. `settings` gives the ways to run one on
a device of which the fastest is to be taken. Nothing keeps the net: its memory is free again.
"""

import contextlib
import math

import numpy as np

from convnet.cli import UsageError
from convnet.device import check as check_device
from convnet.engine import Clock, Ours, Setting
from convnet.foreign import onnx

LAYOUTS = {"channels_last": "channels last", "nchw": "NCHW"}


class Torch:
    """PyTorch, channels_last unless asked otherwise.

    device: "cpu" or as PyTorch calls it, "cuda:0". update: "exact", cuda-convnet's with its
    schedules, or "fused", torch.optim.SGD's fastest, which is the same while the rates are
    constant. tf32: whether products on a GPU may round what they multiply to 10 bits, as PyTorch's
    convolutions do unless told otherwise.
    """

    title, needs = "PyTorch", "torch"
    tf32 = False

    def __init__(
        self,
        net,
        threads: int,
        layout: str = "channels_last",
        update: str = "exact",
        device: str = "cpu",
        upto: str | None = None,
    ):
        import torch
        import torch_net

        torch.set_num_threads(threads)
        torch.manual_seed(net.seed)
        self.torch, self.version = torch, f"PyTorch {torch.__version__}"
        if device != "cpu" and not torch.cuda.is_available():
            raise UsageError(f"{self.title}: finds no GPU")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        self.on_gpu = device != "cpu"
        try:
            self.net = torch_net.TorchNet(net, layout=layout, device=device)
            self.output = upto or net.output
        except ValueError as e:
            raise UsageError(f"{self.title}: {e}") from None
        self.feeds, self.cost = net.graph.feeds, net.graph.costs[0]
        self.sgd = torch_net.Sgd(self.net) if update == "exact" else self._fused(net)
        self.planes = layout == "nchw"
        self.watch(None)

    @staticmethod
    def settings(device: str) -> tuple[Setting, ...]:
        """Both layouts; on a CPU each with and without huge pages."""
        cpu, index, _ = check_device(device)
        pages = [("", {}), (" and huge pages", {"THP_MEM_ALLOC_ENABLE": "1"})]
        options = {"update": "fused", "device": "cpu" if cpu else f"cuda:{index or 0}"}
        return tuple(
            Setting(name + more, {**options, "layout": layout}, variables)
            for layout, name in LAYOUTS.items()
            for more, variables in pages[: 2 if cpu else 1]
        )

    def wait(self) -> None:
        """Until everything asked for is computed."""
        if self.on_gpu:
            self.torch.cuda.synchronize()

    def held(self) -> int:
        """Bytes of a GPU's memory that it has taken at most."""
        return self.torch.cuda.max_memory_reserved() if self.on_gpu else 0

    def _fused(self, net):
        groups = []
        for owner, parameter in self.net.own.items():
            layer, name = owner.split("/")
            rates = net.graph.asked(net.by_name[layer])[name]
            groups.append({"params": [parameter], "lr": rates.eps(0), "momentum": rates.mom,
                           "weight_decay": rates.wc})  # fmt: skip
        return self.torch.optim.SGD(groups, lr=0.0, fused=True)

    def watch(self, clock: Clock | None) -> None:
        """Take the times of the layers from now on, or of none."""
        self.clock = clock or Clock()
        self.net.watch = Marks(clock) if clock else None

    def own(self, images: np.ndarray) -> np.ndarray:
        """The images in the order in memory that this layout likes; pinned for a GPU."""
        images = in_planes(images) if self.planes else images
        if not self.on_gpu:
            return images
        rows = images.transpose(0, 3, 1, 2) if self.planes else images  # as they lie in memory
        pinned = self.torch.from_numpy(rows).pin_memory().numpy()
        return pinned.transpose(0, 2, 3, 1) if self.planes else pinned

    def train(self, images, labels, progress: float = 0.0) -> float:
        """One step: forward, backward, update; the mean loss."""
        with self.clock.part("feed"):
            labels = np.asarray(labels, np.int32).reshape(-1, 1, 1, 1)
            given = {self.feeds[0]: images, self.feeds[1]: labels}
            given = {name: self.net.tensor(x) for name, x in given.items()}
        losses = self.net(given, [self.cost], train=True)[self.cost]
        fused = isinstance(self.sgd, self.torch.optim.SGD)
        loss = losses.mean() if fused else losses.sum()
        with self.net.watch.backward() if self.net.watch else contextlib.nullcontext():
            loss.backward()
        with self.clock.part("update"):
            if fused:
                self.sgd.step()
                self.sgd.zero_grad()
            else:
                self.sgd.update(len(images), progress)
        return float(losses.detach().mean())

    def infer(self, images) -> np.ndarray:
        """The output (N, numbers) of the last layer, in convnet's order."""
        with self.torch.inference_mode():
            with self.clock.part("feed"):
                given = {self.feeds[0]: self.net.tensor(images)}
            out = self.net(given, [self.output])[self.output]
        return out.permute(0, 2, 3, 1).flatten(1).cpu().numpy()


class TorchTf32(Torch):
    """PyTorch with TF32, on a GPU."""

    title, tf32 = "PyTorch with TF32", True

    @staticmethod
    def settings(device: str) -> tuple[Setting, ...]:
        """Those of PyTorch; a CPU has no TF32."""
        if check_device(device)[0]:
            raise UsageError(f"--device={device}: PyTorch with TF32 goes with --device=gpu")
        return Torch.settings(device)


class Marks:
    """When autograd begins with the backward pass of each layer: TorchNet's `watch`.

    A hook of a layer's output is called when the gradient of that is complete, just before the
    layer's own nodes run; autograd runs one node at a time, those made last first. From one hook to
    the next is the time of the layer whose hook was called first.
    """

    def __init__(self, clock: Clock):
        self.clock, self.times = clock, []

    def forward(self, layer: str):
        """A context around a layer's forward pass."""
        return self.clock(layer, layer, "fprop")

    def made(self, layer: str, y) -> None:
        """This is a layer's output."""
        if y.requires_grad:
            y.register_hook(lambda _: self.times.append((layer, self.clock.now())))

    @contextlib.contextmanager
    def backward(self):
        """Around the whole backward pass."""
        self.times.clear()
        yield
        ends = [*[at for _, at in self.times[1:]], self.clock.now()]
        for (layer, start), end in zip(self.times, ends):
            self.clock.layers[layer, layer, "bprop"] += end - start


def in_planes(images: np.ndarray) -> np.ndarray:
    """(N, H, W, C) as before, with the channels of an image one after the other in memory."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


class Onnx:
    """ONNX Runtime on the CPU; inference only. The file is written for the first batch's shape."""

    title, needs = "ONNX Runtime", "onnxruntime"

    def __init__(self, net, threads: int, upto: str | None = None):
        import onnxruntime

        self.runtime, self.version = onnxruntime, f"ONNX Runtime {onnxruntime.__version__}"
        self.net, self.threads, self.output = net, threads, upto or net.output

    @staticmethod
    def settings(device: str) -> tuple[Setting, ...]:
        """One, on a CPU."""
        if not check_device(device)[0]:
            raise UsageError(f"--device={device}: ONNX Runtime goes with --device=cpu here")
        return (Setting(),)

    def wait(self) -> None:
        """It answers when it is done."""

    def held(self) -> int:
        """Bytes of a memory of its own; a CPU has none."""
        return 0

    def watch(self, clock: Clock | None) -> None:
        """It does not tell the times of layers."""

    def own(self, images: np.ndarray) -> np.ndarray:
        """The images as ONNX has them, a channel after the other."""
        return in_planes(images)

    def infer(self, images) -> np.ndarray:
        """The output (N, numbers) of the last layer, in convnet's order."""
        if self.net:
            self._build(images.shape)
            self.net = None
        out = self.session.run(None, {"images": images.transpose(0, 3, 1, 2)})[0]
        return out.reshape(len(out), -1)[:, self.order]

    def _build(self, shape: tuple) -> None:
        g, image = onnx.Builder(), (shape[3], *shape[1:3])
        last = onnx.nodes(g, self.net, onnx.Value("images", shape[1:]), [self.output])[self.output]
        numbers = np.arange(math.prod(last.shape))  # of a map, as they come out
        turned = numbers.reshape(last.shape).transpose(2, 0, 1).reshape(-1)
        self.order = numbers if last.flat else np.argsort(turned)
        g.nodes.append(("Flatten", [last.name], "out", {"axis": 1}))
        model = onnx.pieces(g, {"images": (onnx.FLOAT, image)}, {"out": numbers.shape}, {})
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        self.session = self.runtime.InferenceSession(
            b"".join(model), options, providers=["CPUExecutionProvider"]
        )


ENGINES = {"ours": Ours, "torch": Torch, "torch-tf32": TorchTf32, "onnx": Onnx}
