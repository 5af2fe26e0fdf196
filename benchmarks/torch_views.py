"""The two usual pipelines from a JPEG file to a float view of 224 x 224, for benchmarks/decode.py.

    steps = pipelines()
    batch = steps.stack([steps.rrc(opened(path)) for path in paths])      # or steps.resize256

They are torchvision's own transforms where it can be imported, else the calls of Pillow and torch
that its functions make, or NumPy's in place of torch's. All compute in one thread.
"""

import math

import numpy as np
from PIL import Image

S, FIT = 224, 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def opened(path: str) -> Image.Image:
    """torchvision.datasets.folder.pil_loader."""
    with open(path, "rb") as f:  # noqa: PTH123 (as there)
        return Image.open(f).convert("RGB")


class Torchvision:
    """Both pipelines of torchvision's own transforms."""

    def __init__(self):
        import torch
        import torchvision
        from torchvision import transforms as t

        torch.set_num_threads(1)
        last = [t.RandomHorizontalFlip(), t.ToTensor(), t.Normalize(MEAN, STD)]
        self.rrc = t.Compose([t.RandomResizedCrop(S), *last])
        self.resize256 = t.Compose([t.Resize(FIT), t.RandomCrop(S), *last])
        self.stack = torch.stack
        self.version = f"torchvision {torchvision.__version__}, torch {torch.__version__}"


class Torch:
    """Both pipelines with the calls that torchvision 0.2x makes for images of Pillow."""

    def __init__(self):
        import torch

        torch.set_num_threads(1)
        self.torch, self.stack = torch, torch.stack
        self.version = f"torchvision's calls, torch {torch.__version__}"

    def between(self, low: float, high: float) -> float:
        return self.torch.empty(1).uniform_(low, high).item()

    def below(self, n: int) -> int:
        return self.torch.randint(0, n, size=(1,)).item()

    def rrc(self, img: Image.Image):
        """RandomResizedCrop.get_params, F.resized_crop."""
        w, h = img.size
        for _ in range(10):
            area = h * w * self.between(0.08, 1.0)
            ratio = math.exp(self.between(math.log(3 / 4), math.log(4 / 3)))
            cw, ch = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < cw <= w and 0 < ch <= h:
                break
        else:
            cw = ch = min(h, w)
        y, x = self.below(h - ch + 1), self.below(w - cw + 1)
        img = img.crop((x, y, x + cw, y + ch))
        return self.last(img.resize((S, S), Image.Resampling.BILINEAR))

    def resize256(self, img: Image.Image):
        """F.resize with one number, RandomCrop.get_params, F.crop."""
        short, long = min(img.size), max(img.size)
        other = int(FIT * long / short)
        w, h = (other, FIT) if img.width > img.height else (FIT, other)
        img = img.resize((w, h), Image.Resampling.BILINEAR)
        y, x = self.below(h - S + 1), self.below(w - S + 1)
        return self.last(img.crop((x, y, x + S, y + S)))

    def last(self, img: Image.Image):
        """RandomHorizontalFlip, ToTensor, Normalize."""
        torch = self.torch
        if torch.rand(1) < 0.5:
            img = img.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        out = torch.from_numpy(np.array(img, np.uint8, copy=True)).view(S, S, 3)
        out = out.permute(2, 0, 1).contiguous().to(torch.float32).div(255).clone()
        mean, std = (torch.as_tensor(v, dtype=out.dtype) for v in (MEAN, STD))
        return out.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


class NumPy(Torch):
    """The same with NumPy, where torch is missing."""

    def __init__(self):
        self.rng, self.stack = np.random.default_rng(0), np.stack
        self.version = f"torchvision's calls, NumPy {np.__version__}"
        self.mean, self.std = (np.array(v, np.float32)[:, None, None] for v in (MEAN, STD))

    def between(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def below(self, n: int) -> int:
        return int(self.rng.integers(n))

    def last(self, img: Image.Image):
        if self.rng.random() < 0.5:
            img = img.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        out = np.asarray(img).transpose(2, 0, 1).astype(np.float32, order="C")
        out /= 255
        out -= self.mean
        out /= self.std
        return out


def pipelines():
    """The pipelines that can be had here."""
    for made in (Torchvision, Torch):
        try:
            return made()
        except (ImportError, RuntimeError):  # a torchvision of another torch raises the latter
            continue
    return NumPy()
