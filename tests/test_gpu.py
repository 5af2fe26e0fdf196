"""The same on a GPU as on the CPU: every layer, whole nets, the tools. Skipped where no GPU is."""

import re

import numba
import numpy as np
import pytest

from convnet import Net, gradcheck
from convnet.detect.model import Detector
from convnet.detect.opened import open_set
from convnet.detect.views import through_fc
from convnet.device import DeviceError, device
from convnet.engine import Ours
from convnet.kernel import LIMIT
from tests import contract, cuda
from tests.detect import tiny as pasted
from tests.test_contract import CASES
from tests.tooling import metrics, spawn, tiny

pytestmark = pytest.mark.gpu
CHOOSE = re.compile("pool=max|eltmax|concat|dropout")  # they add nothing up


@pytest.fixture(scope="module")
def gpu():
    """A GPU that lends memory full of NaN."""
    try:
        found = device("gpu")
    except DeviceError as e:
        pytest.skip(str(e))
    lend = found.empty

    def poisoned(shape, dtype=np.float32):
        array = lend(shape, dtype)
        array.fill(np.nan if np.dtype(dtype).kind == "f" else 99)
        return array

    found.empty = poisoned
    return found


@pytest.mark.parametrize("name,line", CASES)
def test_layers_give_the_same(gpu, name, line):
    """float64 to 1e-12 of the largest number, the order of sums; float32 to 1e-4, as on the CPU."""
    case = contract.build(name, line)
    wanted = contract.everything(case, np.float64)
    for dtype, most in ((np.float64, 1e-12), (np.float32, 1e-4)):
        got = contract.everything(case, dtype, gpu)
        assert set(got) == set(wanted)
        for of, exact in wanted.items():
            assert got[of].dtype == dtype
            if CHOOSE.search(f"{name} {line}") and of in ("y", "y in a test"):
                same = contract.everything(case, dtype)[of]
                np.testing.assert_array_equal(got[of], same, str(of))
            gap = abs(got[of] - exact).max() / abs(exact).max()
            assert gap <= most, f"{of}: {gap:.1e} from the CPU in {np.dtype(dtype)}"


def test_as_many_numbers_as_an_int_can_count(gpu):
    """The last of LIMIT numbers are reached, and nothing behind them is."""
    relu = cuda.kernels()["relu"]
    free = gpu.xp.cuda.runtime.memGetInfo()[0]
    if free < 2.2 * 4 * LIMIT:
        pytest.skip(f"{free / 2**30:.0f} GiB of memory are not enough")
    x = gpu.xp.full(LIMIT, -1, np.float32)
    x[-3:] = gpu.xp.asarray([5, -6, 7], np.float32)
    y = gpu.empty(x.shape)
    relu[LIMIT](x, y)
    assert gpu.numpy(y[-3:]).tolist() == [5, 0, 7] and not gpu.xp.isnan(y).any()
    del x, y
    gpu.trim()


NETS = ("cifar10", "cifar10_spp", "spp_small", "zf5", "spp_zf5", "spp_zf5_6321", "spp_overfeat7")


@pytest.mark.parametrize("name", NETS)
def test_nets_give_the_same_gradients(gpu, name):
    """In float64, where no tie of a pool falls to the other side; 1e-9 over all layers."""
    found = {}
    for where in ("cpu:plain", "gpu"):
        net = Net.from_cfg(f"layer_configs/{name}.cfg", classes=10, device=where, seed=1)
        gradcheck._to_float64(net)
        rng = np.random.default_rng(0)
        images = rng.normal(0, 60, (2, *net.graph.shapes[net.graph.feeds[0]]))
        outs, tape = net.fprop(net.feed(images, np.array([3, 8])), net.graph.costs, train=True)
        dw = net.bprop(tape, net.cost_gradients(outs))
        found[where] = {k: net.device.numpy(v) for k, v in (outs | dw).items()}
    assert set(found["gpu"]) == set(found["cpu:plain"])
    for of, exact in found["cpu:plain"].items():
        gap = abs(found["gpu"][of] - exact).max() / abs(exact).max()
        assert gap <= 1e-9, f"{of}: {gap:.1e}"


def train_some(where: str, steps: int = 20) -> tuple[list, dict]:
    """Losses of some steps of a small net, and its weights."""
    net = Net.from_cfg("layer_configs/spp_small.cfg", classes=10, device=where, seed=1)
    rng, engine, losses = np.random.default_rng(0), Ours(net, numba.get_num_threads()), []
    for _ in range(steps):
        labels = rng.integers(0, 10, 32)
        images = rng.normal(0, 30, (32, *net.graph.shapes[net.graph.feeds[0]]))
        images += 10 * labels[:, None, None, None]
        losses.append(engine.train(images.astype(np.float32), labels))
    return losses, {k: net.device.numpy(v) for k, v in net.own_weights().items()}


def test_training_is_the_same_and_repeats(gpu):
    """Twice the same bits; next to the CPU 20 steps of float32 stay within 1e-3 of the loss."""
    first, weights = train_some("gpu")
    again, same = train_some("gpu")
    assert first == again
    for name, values in weights.items():
        np.testing.assert_array_equal(same[name], values, name)
    np.testing.assert_allclose(first, train_some("cpu:plain")[0], rtol=1e-3)
    assert first[-1] < 0.9 * first[0], "it learns"


def test_tools(gpu, tmp_path):
    """Train, then test with views: every figure of the CPU's run, within what float32 leaves."""
    cfg, rows = tiny(tmp_path), {}
    for where in ("cpu:plain", "gpu"):
        run = tmp_path / where.partition(":")[0]
        args = f"--layer-def={cfg}", f"--save-path={run}", f"--device={where}", "--epochs=1"
        done = spawn("train", *args)
        assert done.code == 0, done.err
        rows[where] = metrics(run)
        test = spawn("test", run, "--multiview", f"--device={where}")
        assert test.code == 0, test.err
    assert len(rows["gpu"]) == len(rows["cpu:plain"]) > 0
    for got, wanted in zip(rows["gpu"], rows["cpu:plain"]):
        assert got.keys() == wanted.keys()
        for key, figure in wanted.items():  # a number, or numbers by name
            assert got[key] == pytest.approx(figure, rel=0.02, abs=0.01), key


WAYS = (
    ("--scales=24,48", "--svd=8"),
    ("--method=rcnn",),
    ("--finetune=all", "--head=softmax+bbox", "--no-svm", "--no-bbox"),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[0])
def test_detection(gpu, tmp_path, way):
    """All steps; then every window's scores and boxes as the CPU makes them of the same file."""
    pasted.devkit(tmp_path / "kit", trainval=12, test=4)
    kit, base, work = (f"{tmp_path / name}" for name in ("kit", "base", "work"))
    assert spawn("detect", "crops", f"--voc={kit}", f"--out={tmp_path / 'crops'}").code == 0
    done = spawn("train", f"--layer-def={tiny(tmp_path)}", f"--data-path={tmp_path / 'crops'}",
                 "--epochs=2", "--minibatch=16", f"--save-path={base}")  # fmt: skip
    assert done.code == 0, done.err
    done = spawn("detect", "train", f"--voc={kit}", f"--net={base}", f"--work={work}",
                 "--scales=48", "--proposals=grid", "--iterations=40", *way,
                 f"--device={gpu.name}")  # fmt: skip
    assert done.code == 0, done.err
    outs = {}
    photo = open_set(kit, "test").photos[0]
    boxes = pasted.windows(photo)
    for where in ("cpu:plain", gpu.name):
        model = Detector.load(tmp_path / "work/det.h5", where)
        seen = model.view()(photo, boxes)
        outs[where] = through_fc(model.net, seen.parts, [model.layer, model.net.output])
        outs[where]["scores"] = model.scores(outs[where])[seen.of]
        assert len(model.detect(photo.pixels(), boxes).boxes)
    for name, wanted in outs["cpu:plain"].items():
        gap = abs(outs[gpu.name][name] - wanted).max() / abs(wanted).max()
        assert gap <= 1e-4, f"{name}: {gap:.1e}"


def test_bench(gpu, tmp_path):
    out = tmp_path / "bench.json"
    done = spawn("bench", f"--layer-def={tiny(tmp_path)}", "--device=gpu", "--batch=4",
                 "--rounds=2", f"--json={out}")  # fmt: skip
    assert done.code == 0, done.err
    assert "CuPy" in done.out and "conv1" in done.out and out.is_file()


def test_too_little_memory_is_one_line(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("CUPY_GPU_MEMORY_LIMIT", "100000")
    done = spawn("train", f"--layer-def={tiny(tmp_path)}", "--device=gpu",
                 f"--save-path={tmp_path / 'run'}")  # fmt: skip
    assert done.code == 6 and done.err.strip().count("\n") == 0, done.err
    assert "memory" in done.err and "Traceback" not in done.err


def test_no_such_gpu_is_one_line(gpu, tmp_path):
    done = spawn("train", f"--layer-def={tiny(tmp_path)}", "--device=gpu:77")
    assert done.code == 6 and re.fullmatch(
        r"--device=gpu:77: this machine has gpu:0 .*\n", done.err
    )
