"""tools/bench.py on a tiny net: what it prints, writes and refuses; the figures mean nothing."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from convnet import Net, bench, engine, machine
from convnet.cli import UsageError
from convnet.engine import Clock
from convnet.job import Job
from convnet.layer import Variant
from convnet.process import Process
from convnet.work import chain, work
from tests.tooling import ROOT, TINY, call, tiny

FAST = TINY.replace("filters=6", "filters=8")  # enough for kernels that take the relu as well
RNORM = """
[rnorm1]
type=rnorm
inputs=conv1
size=3

[pool1]
type=pool
pool=max
inputs=rnorm1
sizeX=3
stride=2

"""
# the system lets nobody write there, and tells only root that it might
NO_PROC = "cannot be written" if os.access("/proc", os.W_OK) else "the folder /proc cannot be"
QUICK = ("--batch=3", "--rounds=2", "--seconds=0")


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("cfg"), FAST)


@pytest.fixture(scope="module")
def trained(cfg, tmp_path_factory):
    """What is printed, and the JSON."""
    out = tmp_path_factory.mktemp("out") / "bench.json"
    result = call("bench", f"--layer-def={cfg}", *QUICK, f"--json={out}")
    assert (result.code, result.err) == (0, "")
    return result.out, json.loads(out.read_text())


def test_every_layer_is_in_the_table(cfg, trained):
    lines = trained[0].splitlines()
    table = lines[lines.index("") + 3 :]
    names = [l.name for l in Job(str(cfg)).graph().layers]
    assert [line.split()[0] for line in table[: len(names)]] == names
    at = names.index("conv1")
    assert table[at + 1].split() == ["conv1_neuron", "with", "conv1"]
    kernels = Job(str(cfg)).graph().by_name["conv1"].variant((3, 16, 16, 3))
    assert table[at].endswith(f"{kernels.name}: {kernels.why}")
    assert re.search(r"^update +\d", trained[0], re.M) and "images/s" in table[-1]
    assert lines[2] == "convnet: kernels are compiled, memory is taken"
    assert re.fullmatch(r"NumPy .*: warmed up in \d+\.\d s, which do not count below", lines[3])


def test_json_holds_every_round(trained):
    figures = trained[1]
    ours = figures["engines"]["ours"]
    assert len(ours["rounds"]) == 2 and ours["peak"] > 1 << 20 and ours["warm"] > 0
    for r in ours["rounds"]:
        inside = sum(t for *_, t in r["layers"]) + sum(r["parts"].values())
        assert 0 < inside <= r["step"] and {"feed", "update"} == {*r["parts"]}
    ways = {(first, way) for first, _, way, _ in r["layers"]}
    assert {("fc1", "fprop"), ("fc1", "bprop"), ("conv1", "bprop")} < ways
    assert figures["arguments"]["batch"] == 3 and figures["machine"]["cores"] == machine.cores()
    assert figures["command"] and figures["date"] and ours["version"].startswith("NumPy")


def test_inference_up_to_a_layer_at_another_size(cfg):
    result = call("bench", f"--layer-def={cfg}", *QUICK, "--mode=infer", "--upto=conv1",
                  "--size=13x21", "--device=cpu:plain", "--threads=1")  # fmt: skip
    assert (result.code, result.err) == (0, "")
    assert "inference up to conv1_neuron, batch 3 of 13x21x3, cpu:plain, 1 thread\n" in result.out
    assert "conv1_neuron " in result.out and "spp" not in result.out and "update" not in result.out
    assert "plain: the only one for cpu:plain" in result.out


def test_size_of_a_cfg_that_has_none(tmp_path):
    path = tiny(tmp_path, TINY.replace("imgSize=16\n", ""))
    assert Job(str(path), size=(20, 24)).graph().shapes["data"] == (20, 20, 3)
    result = call("bench", f"--layer-def={path}")
    assert result.code == 2 and "needs imgSize=" in result.err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--upto=conv1"], "--upto=conv1: goes with --mode=infer"),
        (["--mode=infer", "--upto=conv2"], "no layer 'conv2'; did you mean 'conv1'"),
        (["--mode=infer", "--upto=logprob"], "--upto=logprob: needs labels"),
        (["--threads=4096"], "--threads=4096: this process may use "),
        (["--size=3x"], "--size: must be a side or rows x columns, not '3x'"),
        (["--size=axb"], "--size: must be a side or rows x columns, not 'axb'"),
        (["--rounds=0"], "--rounds: must be a whole number of 1 or more"),
        (["--size=2"], r"--size=2x2: [conv1] filterSize=3"),
        (["--json=none/x.json"], "--json=none/x.json: there is no folder none"),
        (["--json=/dev/full/x.json"], "--json=/dev/full/x.json: there is no folder /dev/full"),
        (["--json=/proc/x.json"], f"--json=/proc/x.json: {NO_PROC}"),
        (["--compare=caffe"], "--compare: invalid choice"),
    ],
)
def test_mistakes_are_one_line(cfg, argv, text):
    if argv == ["--size=2"]:
        argv = ["--size=2", "--set=conv1.padding=0"]
    result = call("bench", f"--layer-def={cfg}", *argv)
    assert result.code == 2 and result.err.count("\n") == 1, result
    assert text in result.err and "Traceback" not in result.err


def test_mistakes_that_other_processes_find(cfg):
    result = call("bench", f"--layer-def={cfg}", *QUICK, "--device=foo")
    assert (result.code, result.out) == (6, "") and result.err.count("\n") == 1
    result = call("bench", *QUICK)
    assert (result.code, result.err) == (2, "--layer-def=FILE.cfg is needed\n")


def test_compare_without_torch(cfg, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = call("bench", f"--layer-def={cfg}", "--compare=torch")
    assert result.code == 2 and result.err.count("\n") == 1
    assert "`make peer`" in result.err and ".venv-peer/bin/python" in result.err
    monkeypatch.setattr(machine, "HOME", tmp_path)
    result = call("bench", f"--layer-def={cfg}", "--compare=torch")
    assert result.code == 2 and f"{tmp_path}/benchmarks is not there" in result.err


def test_a_process_that_dies_is_told(cfg):
    with bench.start("ours", job(cfg)) as ours:
        ours.process.kill()
        with pytest.raises(UsageError, match="the process of ours ended with -9: killed"):
            ours("warm")


class Mask:
    """What a process hears from its first moment on."""

    def deaf(self):
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_process_does_not_hear_ctrl_c_while_it_starts():
    with Process("mask", Mask, 1, {}) as mask:
        assert mask("deaf")


def job(cfg, **more):
    return Job(str(cfg), batch=3, seconds=0.0, **more)


def test_an_engine_computes_what_the_net_does(cfg):
    asked = job(cfg, mode="infer", threads=1)
    net = Net.from_cfg(cfg, classes=10)
    with bench.start("ours", asked) as ours:
        found = ours("output")
    images, _ = asked.noise(net.graph)
    assert abs(found - net.run({"data": images}, "probs").reshape(3, -1)).max() < 1e-6


def test_engines_that_do_not_agree_are_told():
    good, bad = [[0.0, 2.0]], [[0.0, 2.01]]
    workers = {k: (lambda method, v=v: np.array(v)) for k, v in {"a": good, "b": bad}.items()}
    with pytest.raises(UsageError, match=r"B gives another output; 0\.005 off"):
        bench.agree(workers, {"a": {"title": "A"}, "b": {"title": "B"}})


# ---------------------------------------------------------------- arithmetic and bytes


def test_work_of_a_convolution(cfg, monkeypatch):
    net, asked = Net.from_cfg(cfg, classes=10), job(cfg)
    shapes = asked.shapes(net.graph)
    assert chain(net.graph, "conv1", "conv1_neuron") == ["conv1", "conv1_neuron"]
    monkeypatch.setattr(
        net.by_name["conv1"], "variant", lambda *ins, then: Variant("half", "", 999)
    )
    found = work(net, shapes, 3, "conv1", "conv1_neuron")
    macs = 3 * 16 * 16 * 8 * 27
    assert found.flops == (2 * macs, 2 * macs), "the images need no gradient"
    assert found.done == (2 * 999, 2 * 999)
    x, w, y = 3 * 16 * 16 * 3, 27 * 8 + 8, 3 * 16 * 16 * 8
    assert found.bytes == (4 * (x + w + y), 4 * (y + x + w))


def test_work_of_fc_and_spp(cfg):
    net = Net.from_cfg(cfg, classes=10)
    shapes = job(cfg).shapes(net.graph)
    found = work(net, shapes, 3, "fc1", "fc1")
    x, w, y = 3 * 14 * 8, 14 * 8 * 20 + 20, 3 * 20
    assert found.flops == found.done == (2 * 3 * 112 * 20, 4 * 3 * 112 * 20)
    assert found.bytes == (4 * (x + w + y), 4 * (y + x + w + x + w))
    found = work(net, shapes, 3, "spp", "spp")
    assert found.flops == (0, 0) and found.bytes[1] == 4 * 3 * (14 * 8 + 16 * 16 * 8)


@pytest.mark.parametrize(
    ("image", "kind", "macs"),
    [
        # tiles, points^2 and panels of 32 channels and 32 filters
        ((13, 13, 64), "winograd F(4,3)", 4 * 4 * 36 * 64 * 64),
        ((13, 13, 64), "winograd F(6,3)", 3 * 3 * 64 * 64 * 64),
        ((13, 13, 64), "direct", 13 * 13 * 9 * 64 * 64),
    ],
)
def test_what_a_variant_multiplies(image, kind, macs, tmp_path):
    text = TINY.replace("imgSize=16", "imgSize=13\nchannels=64").replace("filters=6", "filters=64")
    conv = Job(str(tiny(tmp_path, text))).graph().by_name["conv1"]
    ways = {way.name: way.multiplies for way in conv.ways(image)}
    assert ways[kind] == macs
    chosen = conv.variant((5, *image))
    assert chosen.macs == 5 * ways[chosen.name]


def test_the_pool_that_rnorm_does_as_well(tmp_path):
    text = TINY.replace("[spp]\ntype=spp\ninputs=conv1", RNORM + "[spp]\ntype=spp\ninputs=pool1")
    net = Net(Job(str(tiny(tmp_path, text))).graph())
    shapes = net.graph.shapes
    assert work(net, shapes, 2, "rnorm1", "pool1").variant == "with pool"
    assert work(net, shapes, 2, "rnorm1", "rnorm1").variant == "plain"


def test_clock():
    clock, now = Clock(), iter(range(100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.time, "perf_counter", lambda: float(next(now)))
        with clock.part("update"), clock("fc", "fc", "bprop"):
            pass
    assert clock.layers == {("fc", "fc", "bprop"): 1.0} and clock.parts == {"update": 2.0}


# ---------------------------------------------------------------- the table of docs/performance.md


@pytest.fixture
def everything(monkeypatch, tmp_path):
    """benchmarks/all.py with one part, and how to call it."""
    path = ROOT / "benchmarks" / "all.py"
    found = importlib.util.spec_from_file_location("everything", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    script, page, results = (tmp_path / name for name in ("part.py", "page.md", "results.json"))
    figures = {"first": {"ready": 1.5, "trained": 61.23}, "second": {"ready": 1, "trained": 1.7}}
    script.write_text(
        "import sys, pathlib\n"
        f"pathlib.Path(sys.argv[-1].split('=')[1]).write_text({json.dumps(figures)!r})\n"
    )
    page.write_text("before\n{}\nold\n{}\nafter\n".format(*module.MARKS))
    monkeypatch.setitem(module.PARTS, "start", str(script))

    def call_it(*argv):
        argv = ["all.py", f"--page={page}", f"--results={results}", *argv]
        monkeypatch.setattr(sys, "argv", argv)
        return module.main()

    return module, call_it, script, page, results


def test_all_measures_keeps_and_tells(everything):
    _, call_it, script, page, results = everything
    results.write_text('{"another processor": {}}')
    assert call_it("--only=start") == 0
    text, cpu = page.read_text(), machine.describe()["cpu"]
    assert "another processor" in text and cpu in text, "a table for each"
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert re.search(r"the first start ever.* 61\.2 s +missed +ready after 1\.5 s", text)
    assert re.search(r"start: \d{4}-\d\d-\d\d, commit ", text) and f"$ python {script}" in text
    assert json.loads(results.read_text())[cpu]["start"]["rows"]["a later start"]["figure"] == 1.7
    script.write_text("import sys\nsys.exit(3)\n")
    assert call_it("--only=start") == 1 and page.read_text() == text, "what was known is kept"
    assert call_it("--only=none") == 0 and page.read_text() == text
    with pytest.raises(UsageError, match="--only=strat: must be none, or of train32, "):
        call_it("--only=strat")
    page.write_text("no marks")
    with pytest.raises(UsageError, match="has no lines"):
        call_it("--only=none")


def test_the_faster_of_the_others_counts(everything):
    def engine(title, seconds, peak):
        rounds = [{"step": s} for s in (seconds, 9 * seconds, 0.9 * seconds)]
        return {"title": title, "setting": "", "rounds": rounds, "peak": peak}

    engines = {"ours": engine("convnet", 0.5, 2e6), "torch": engine("PyTorch", 2.0, 8e6),
               "onnx": engine("ONNX Runtime", 1.0, 1e6)}  # fmt: skip
    bound = {"direct": 0.25, "done": 0.1}
    figures = {"cases": [{"engines": engines, "bound": bound, "sgemm": 100e9}]}
    module = everything[0]
    assert module.speed(figures) == (2.0, "500.0 ms", "ONNX Runtime 1000.0 ms")
    assert module.memory(figures) == (0.25, "2 MB", "8 MB")
    assert module.share("direct")(figures).figure == 50
    assert module.decode({"ours": 30.2, "peer": 10.1, "ratio": 3.0}).ours == "30 views/s"


def test_rows_belong_to_parts(everything):
    module = everything[0]
    assert {row.part for row in module.TABLE} == {*module.PARTS}
    text = (ROOT / "docs" / "performance.md").read_text()
    assert all(mark in text for mark in module.MARKS)


def test_decode_runs(tmp_path):
    """benchmarks/decode.py, also where PyTorch is not installed."""
    out = tmp_path / "decode.json"
    argv = ["--images=4", "--batch=2", "--rounds=1", f"--json={out}"]
    code = [sys.executable, str(ROOT / "benchmarks" / "decode.py"), *argv]
    done = subprocess.run(code, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert min(figures["ours"], figures["peer"]) > 0
    assert figures["ratio"] == figures["ours"] / figures["peer"]
