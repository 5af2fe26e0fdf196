"""Weights that PyTorch has written: the nets that they go into give what PyTorch does."""

import argparse
import collections

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make peer")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from convnet import Net  # noqa: E402
from convnet.foreign import begin, read  # noqa: E402
from convnet.foreign.found import WeightsError  # noqa: E402
from convnet.foreign.match import mean_of  # noqa: E402
from tests.test_layer_configs import source  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's


class Features(nn.Module):
    """As torchvision's AlexNet and VGG are: features.0.weight ... classifier.6.bias."""

    def __init__(self, features: list, classifier: list):
        super().__init__()
        self.features, self.classifier = nn.Sequential(*features), nn.Sequential(*classifier)

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


def alexnet() -> Features:
    def conv(*how):
        return [nn.Conv2d(*how), nn.ReLU()]

    features = [*conv(3, 64, 11, 4, 2), nn.MaxPool2d(3, 2), *conv(64, 192, 5, 1, 2)]
    features += [nn.MaxPool2d(3, 2), *conv(192, 384, 3, 1, 1), *conv(384, 256, 3, 1, 1)]
    features += [*conv(256, 256, 3, 1, 1), nn.MaxPool2d(3, 2)]
    return Features(features, head(256 * 36))


def head(numbers: int) -> list:
    return [
        nn.Dropout(), nn.Linear(numbers, 128), nn.ReLU(),
        nn.Dropout(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    ]  # fmt: skip


def vgg16(norm: bool = False) -> Features:
    features, C = [], 3
    for K in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if K:
            features += [nn.Conv2d(C, K, 3, 1, 1), *[nn.BatchNorm2d(K)] * norm, nn.ReLU()]
        else:
            features += [nn.MaxPool2d(2, 2)]
        C = K or C
    return Features(features, head(512 * 49))


class Grouped(nn.Module):
    """layer_configs/alexnet.cfg, its layers by their names: groups, LRN, windows that overhang."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, 4)
        self.conv2 = nn.Conv2d(96, 256, 5, 1, 2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, 1, 1)
        self.conv4 = nn.Conv2d(384, 384, 3, 1, 1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, 1, 1, groups=2)
        self.fc6, self.fc7 = nn.Linear(256 * 36, 128), nn.Linear(128, 64)
        self.fc8 = nn.Linear(64, 10)
        self.norm, self.pool = nn.LocalResponseNorm(5, 0.5, 0.75, 2.0), nn.MaxPool2d(3, 2)

    def forward(self, x):
        x = functional.relu(self.conv1(functional.pad(x, (0, 3, 0, 3))))
        x = self.pool(self.norm(x))
        x = self.pool(self.norm(functional.relu(self.conv2(x))))
        for conv in self.conv3, self.conv4, self.conv5:
            x = functional.relu(conv(x))
        x = torch.flatten(self.pool(x), 1)
        return self.fc8(functional.relu(self.fc7(functional.relu(self.fc6(x)))))


def lively(model: nn.Module) -> nn.Module:
    """Weights of a variance that keeps the numbers going, biases and statistics that matter."""
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


SMALL = ("fc6.outputs=128", "fc7.outputs=64")
STRONG = ("rnorm1.scale=0.5", "rnorm2.scale=0.5")  # as trained, 0.0001, it is next to nothing
LEGACY = {"_use_new_zipfile_serialization": False}
NETS = {
    "alexnet": (alexnet, lambda: source("alexnet_torchvision", *SMALL), {}),
    "vgg16": (vgg16, lambda: source("vgg16", *SMALL), {}),
    "vgg16_bn": (lambda: vgg16(True), lambda: source("vgg16", *SMALL), {}),
    "grouped": (Grouped, lambda: source("alexnet", *SMALL, *STRONG), {}),
    "legacy": (Grouped, lambda: source("alexnet", *SMALL, *STRONG), LEGACY),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_torchs(name, tmp_path, capsys):
    make, cfg, how = NETS[name]
    model = lively(make())
    torch.save(model.state_dict(), tmp_path / "net.pth", **how)
    check(model, Net(cfg().graph({}, 10), seed=5), tmp_path / "net.pth")
    assert " 0 left as initialised" in capsys.readouterr().out


def test_safetensors_of_its_own_package(tmp_path):
    """It sorts the names, 10 before 2."""
    library = pytest.importorskip("safetensors.torch", reason="needs safetensors: make peer")
    model = lively(vgg16())
    library.save_file(model.state_dict(), tmp_path / "net.safetensors")
    net = Net(source("vgg16", *SMALL).graph({}, 10), seed=5)
    check(model, net, tmp_path / "net.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("new", [True, False])
def test_types_of_numbers_and_views(dtype, new, tmp_path):
    """A state dict in a dict, tensors that are views of one storage, names of DataParallel."""
    whole = torch.randn(40, dtype=torch.float32).to(dtype)
    state = {"module.a.weight": whole[4:28].view(4, 6).T, "module.a.bias": whole[1:7]}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "net.pth",
               _use_new_zipfile_serialization=new)  # fmt: skip
    (layer,) = read.read(tmp_path / "net.pth").layers
    assert layer.name == "a"
    np.testing.assert_array_equal(layer.kernels[0], state["module.a.weight"].float().numpy())
    np.testing.assert_array_equal(layer.bias, state["module.a.bias"].float().numpy())


@pytest.mark.parametrize("new", [True, False])
def test_a_checkpoint_of_a_training(new, tmp_path):
    """As torchvision's references save it: options and the state of the optimizer beside."""
    model = Grouped()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(1, 3, 224, 224)).sum().backward()
    optimizer.step()
    whole = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3,
        "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "device": torch.device("cpu"),
        "loss": collections.defaultdict(list, train=[1.0]),
    }  # fmt: skip
    torch.save(whole, tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    made = read.read(tmp_path / "net.pth")
    names = [f"conv{i}" for i in range(1, 6)] + ["fc6", "fc7", "fc8"]
    assert [l.name for l in made.layers] == names
    np.testing.assert_array_equal(made.layers[0].kernels[0], model.conv1.weight.detach().numpy())
    assert len(made.notes) == 1 and "argparse.Namespace" in made.notes[0] and not made.lost
    among = {**model.state_dict(), "dtype": torch.float32, "size": torch.Size([3, 224, 224])}
    torch.save(among, tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    assert [l.name for l in read.read(tmp_path / "net.pth").layers] == names
    torch.save(model, tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(
        WeightsError, match=r"Grouped, a whole net perhaps; save by itself what tor"
    ):
        read.read(tmp_path / "net.pth")


def check(model: nn.Module, net: Net, path) -> None:
    """Both give the same probabilities and the same scores for noise."""
    found = read.read(path)
    begin.fill(net, found)
    net.mean = mean_of(found.input, net.mean_image.shape)
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]
    with torch.inference_mode():
        theirs = model(x / torch.tensor(STD)[:, None, None])
    scores = net.features(images, net.by_name[net.output].reads[0], view="asis").reshape(2, -1)
    assert abs(theirs.numpy()).max() > 0.1
    assert abs(scores - theirs.numpy()).max() < 1e-4 * abs(theirs.numpy()).max()
    np.testing.assert_allclose(
        net.predict(images, view="asis"), theirs.softmax(1).numpy(), rtol=1e-3, atol=1e-6
    )
