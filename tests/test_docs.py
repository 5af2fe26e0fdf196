"""Every command of every page, in their order, on few images and nets with few filters."""

import configparser
import importlib
import re
import shlex
import shutil
import subprocess
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnet import Net, machine
from convnet.detect import proposals
from convnet.foreign import own, safetensors
from tests.detect import tiny
from tests.tooling import ROOT, call, commands, photos

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]
RUNS = ("spp_zf5_001", "a_001", "a_002", "a_003", "spp_small_001", "spp_small_002",
        "spp_zf5_half_001")  # fmt: skip
BY_OTHERS = {  # (page, the scripts of it that another test runs, in this file)
    ("docs/features.md", "tools/"): "tests/test_features.py",
    ("docs/imagenet.md", "tools/"): "tests/test_ilsvrc.py",
    ("docs/results.md", "benchmarks/kill9.py"): "tests/test_train.py",
}
CODE_BY_OTHERS = {"docs/features.md": "tests/test_features.py",
                  "docs/deploy.md": "tests/peers/test_onnx.py"}  # fmt: skip
NOT_RUN = {
    r"python -m pip install -e \.\[": "downloads; that there is such an extra is looked up",
    r"python tools/make_data.py --download=": "downloads; tests/test_download.py has a server",
    r"tensorboard --logdir=": "not ours, not installed; tests/test_results.py reads the files",
    r"python benchmarks/(gpu.py|step.py --device=gpu)|pytest tests/test_gpu.py": "a GPU",
    r"make (test|peer)$": "runs all tests, this one too",
    r"python docs/make_api.py$": "writes into the tree; its page is compared below",
}
QUICK = {  # said after what a page says; the last word counts
    "tools/train": "--epochs=2 --workers=0",
    "tools/detect train": "--iterations=5",
    "tools/bench": "--batch=2 --rounds=1 --seconds=0 --threads=1",
    "benchmarks/all": "--list",
    "benchmarks/accuracy": "--batch=1",
    "benchmarks/cifar10": "--epochs=1 --threads=1 --layer-def=layer_configs/cifar10.cfg",
    "benchmarks/classification": "--epochs=1 --seeds=2",
    "benchmarks/curves": "--steps=2 --windows=1 --minibatch=4 --seeds=2 --threads=1",
    "benchmarks/data": "--files=40 --rounds=1 --records=2000 --workers=0",
    "benchmarks/decode": "--images=4 --batch=2 --rounds=1",
    "benchmarks/detection": "--images=1 --windows=40 --rounds=1 --batches=8 --size=60x80 --svd=6,3",
    "benchmarks/start": "--batch=2 --step",
    "benchmarks/step": "--batch=2 --rounds=1 --seconds=0 --threads=1",
    "benchmarks/transfer": "--epochs=1 --per-class=1",
    "benchmarks/views": "--images=1 --rounds=1 --size=256x300",
}


def needs_pytorch(words: list[str]) -> bool:
    """Whether it is run by tests/peers/test_docs.py."""
    return {"benchmarks/step.py", "benchmarks/cifar10.py", "--compare=torch"} & {*words} != set()


def quick(words: list[str]) -> tuple[str, str, list[str]]:
    """Room, name and arguments of a command, on this processor and in seconds."""
    ours = re.match(r"(?:\S+/)?python (tools|benchmarks)/(\w+)\.py\b", " ".join(words))
    assert ours, f"nothing runs {' '.join(words)}"
    room, name = ours.groups()
    argv = [word for word in words[2:] if not word.startswith("--device=")]
    argv += QUICK.get(f"{room}/{name}", "").split()
    argv += QUICK.get(f"{room}/{name} {argv[0]}", "").split() if argv else []
    if name == "train" and not any(word.startswith("--data-path=") for word in argv):
        argv += ["--data-path=my_images/"]  # instead of 1,797 digits
    return room, name, argv


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images in three classes, and all nets with a few filters of their own."""
    folder = tmp_path_factory.mktemp("docs")
    photos(folder / "my_images", each=4)
    for name in ("imagenet", "ImageNet"):
        (folder / name).symlink_to("my_images")
    shutil.copy(folder / "my_images" / "ant" / "0.jpg", folder / "photo.jpg")
    shutil.copytree(ROOT / "layer_configs", folder / "layer_configs")
    for path in (folder / "layer_configs").glob("*.cfg"):
        text = re.sub(r"^filters=\d+", "filters=18", path.read_text(), flags=re.M)
        path.write_text(re.sub(r"^outputs=\d+", "outputs=8", text, flags=re.M))
    (folder / "data").mkdir()
    (folder / "data" / "imagenette2-320").symlink_to(folder / "my_images")  # as if downloaded
    net = Net.from_cfg(folder / "layer_configs" / "vgg16.cfg", classes=3)
    mean = np.zeros(net.graph.shapes[net.graph.feeds[0]], np.float32)
    vgg16 = safetensors.of(own.of("", net.graph, net.own_weights(), mean))
    (folder / "vgg16.pth").write_bytes(b"".join(map(bytes, vgg16)))  # told by its content
    page = (ROOT / "docs" / "views.md").read_text()
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    (folder / "my.cfg").symlink_to("layer_configs/spp_small.cfg")
    (folder / "my-params.cfg").symlink_to("layer_configs/spp_small-params.cfg")
    photos(folder / "photos", classes=("x",), suffixes=(".jpg",), side=240)
    photos(folder / "cifar10" / "train", classes="abcdefgh", each=2, side=32)
    photos(folder / "cifar10" / "test", classes="abcdefgh", each=2, side=32)
    voc = tiny.devkit(folder / "my_photos", trainval=5, test=1)
    shutil.copy(voc / "ImageSets/Main/trainval.txt", voc / "ImageSets/Main/train.txt")
    (folder / "BCCD").symlink_to("my_photos")
    (folder / "more_photos").symlink_to("my_images/bee")
    (folder / "list.txt").write_text("my_images/cat/0.jpg\n")
    views = re.search(r"(?:^    .*\n)*^    256 .*full.*\n", page, re.M)
    (folder / "views.txt").write_text(re.sub(r"^    ", "", views[0], flags=re.M))
    return folder


@pytest.fixture
def runs(place, monkeypatch):
    """There, with runs of the names that the pages use."""
    monkeypatch.chdir(place)
    made = place / "made"
    for net in ("spp_zf5", "spp_zf5_half", "spp_small"):
        if not (made / net).exists():
            argv = (f"--layer-def=layer_configs/{net}.cfg", "--data-path=my_images/", "--epochs=1")
            assert call("train", *argv, "--workers=0", f"--save-path={made / net}").code == 0
    shutil.rmtree(place / "runs", ignore_errors=True)
    for name in RUNS:
        net = name[:-4] if name.startswith("spp") else "spp_zf5"
        shutil.copytree(made / net, place / "runs" / name)
    return place


@pytest.fixture
def run(runs, monkeypatch):
    """Runs a command of a page there, in this process."""
    monkeypatch.setattr(machine, "HOME", runs)

    def here(name, *argv):
        return perform("tools", name, [*argv, *(["--workers=0"] if name == "train" else [])])

    def perform(room, name, argv):
        result = call(name, *argv, room=room)
        assert result.code == 0, f"{room}/{name}.py {argv}\n{result.out}{result.err}"
        return result.out

    def run_it(words):
        room, name, argv = quick(words)
        pytest.importorskip("matplotlib" if name == "show" else "numpy")
        pytest.importorskip("tensorboardX" if "--tensorboard" in argv else "numpy")
        pytest.importorskip("cv2" if name in ("detect", "detection") else "numpy")
        with monkeypatch.context() as m:
            m.syspath_prepend(ROOT / room)
            module = importlib.import_module(f"{room}.{name}")
            if hasattr(module, "tool"):
                m.setattr(module, "tool", here)  # a process for each would take a minute
            if name == "classification":  # tools want the main thread, for Ctrl-C
                m.setattr(module.Bench, "all", lambda _, jobs: [job() for job in jobs])
                some = ("no SPP", "SPP, no padding")
                m.setattr(module, "NETS", {net: module.NETS[net] for net in some})
                m.delitem(module.VIEWS, "96+2")
            m.setattr(proposals, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
            return perform(room, name, argv)

    return run_it


def todo(page: str | Path) -> list[list[str]]:
    """The commands of a page that are to be run here, those of make among them."""
    others = [words for at, script in BY_OTHERS if at == page for words in commands(page, script)]
    found = []
    for words in commands(page):
        if words in others or any(re.match(why, " ".join(words)) for why in NOT_RUN):
            continue
        made = made_by(words) if words[0] == "make" else [words]
        found += [words for words in made if words not in found]
    return found


def made_by(words: list[str]) -> list[list[str]]:
    """Our commands that make would run."""
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.replace("\\\n", "")
    lines = re.findall(r"^(\S*python (?:tools|benchmarks)/.*)$", said, re.M)
    assert lines, f"nothing runs {' '.join(words)}"
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page, run, place):
    for words in todo(page):
        if not needs_pytorch(words):
            run(words)
    if page not in CODE_BY_OTHERS:
        photo = np.asarray(Image.open(place / "photo.jpg"))
        text = (ROOT / page).read_text()
        for code in re.findall(r"^    (?:import|from) .*\n(?:(?:    .*)?\n)*", text, re.M):
            exec(textwrap.dedent(code), {"pixels": photo})


def test_other_tests_read_the_pages():
    for (page, script), path in BY_OTHERS.items():
        assert commands(page, script)
        assert f'commands("{page}", "{script}")' in (ROOT / path).read_text()
    for page, path in CODE_BY_OTHERS.items():
        assert f'"{Path(page).name}"' in (ROOT / path).read_text()


def test_what_is_not_run_is_there_and_named():
    shown = [" ".join(words) + " " for page in PAGES for words in commands(page)]
    for what in NOT_RUN:
        assert any(re.match(what, line.strip()) for line in shown), f"no page says {what}"
    extras = configparser.ConfigParser()
    extras.read(ROOT / "setup.cfg")
    for extra in re.findall(r"pip install -e \.\[(\w+)\]", "\n".join(shown)):
        assert extra in extras["options.extras_require"]


@pytest.mark.parametrize("text", [
    "    $ fly --high", "    pip install x", "```sh\npython -m convnet\n```", "see `make coffee`",
    "    python tools/train.py\n    python docs/x.py", "    A=1 python tools/train.py",
])  # fmt: skip
def test_what_nothing_runs_is_told(text, tmp_path):
    (tmp_path / "new.md").write_text(text + "\n")
    with pytest.raises(AssertionError, match=r"nothing runs|No rule to make target"):
        for words in todo(tmp_path / "new.md"):
            quick(words)


def test_the_api_page_is_what_the_docstrings_say(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import make_api

    assert (ROOT / "docs" / "api.md").read_text() == make_api.page(), "run python docs/make_api.py"


def test_the_api_page_follows_a_docstring(monkeypatch):
    """A change of a docstring or of an argument changes the page."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import make_api

    from convnet import Net

    before = make_api.page()
    monkeypatch.setattr(Net.predict, "__doc__", "Something else.")
    assert make_api.page() != before and "Something else." in make_api.page()
