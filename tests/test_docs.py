"""Every command of the pages on jobs, in their order, on few images and nets with few filters."""

import re
import shlex
import shutil

import numpy as np
import pytest

from convnet import Net
from convnet.foreign import own, safetensors
from tests.tooling import ROOT, call, photos

# pages whose commands are run elsewhere: features.md, imagenet.md, detection.md by their own tests;
# kernels.md, performance.md and results.md show what benchmarks print
JOBS = ("images", "pyramid", "views", "cfg", "nets", "pictures")
PAGES = ("README.md", *(f"docs/{job}.md" for job in JOBS))
RUNS = ("spp_zf5_001", "a_001", "a_002", "a_003", "spp_small_001", "spp_small_002")


def commands(page):
    """(tool, arguments) of the indented lines that call a tool; those of detect.py and what
    downloads have tests of their own."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    lines = re.findall(r"^    (?:\.venv/bin/)?python tools/(\w+)\.py *([^#\n]*)", text, re.M)
    return [(tool, shlex.split(line)) for tool, line in lines
            if tool != "detect" and "--download" not in line]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images in three classes, and all nets with a few filters of their own."""
    folder = tmp_path_factory.mktemp("docs")
    photos(folder / "my_images", each=4)
    (folder / "imagenet").symlink_to("my_images")
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
    views = re.search(r"(?:^    .*\n)*^    256 .*full.*\n", page, re.M)
    (folder / "views.txt").write_text(re.sub(r"^    ", "", views[0], flags=re.M))
    return folder


@pytest.fixture
def runs(place, monkeypatch):
    """There, with runs of the names that the pages use."""
    monkeypatch.chdir(place)
    made = place / "made"
    for net in ("spp_zf5", "spp_small"):
        if not (made / net).exists():
            argv = (f"--layer-def=layer_configs/{net}.cfg", "--data-path=my_images/", "--epochs=1")
            assert call("train", *argv, "--workers=0", f"--save-path={made / net}").code == 0
    shutil.rmtree(place / "runs", ignore_errors=True)
    for name in RUNS:
        net = "spp_small" if name.startswith("spp_small") else "spp_zf5"
        shutil.copytree(made / net, place / "runs" / name)
    return place


@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page, runs):
    found = commands(page)
    assert found, "a page on a job has commands"
    for tool, words in found:
        pytest.importorskip("matplotlib" if tool == "show" else "numpy")
        if "--tensorboard" in words:
            pytest.importorskip("tensorboardX")
        words = [word for word in words if not word.startswith(("--device=", "--epochs="))]
        if tool == "train":
            words += ["--epochs=2", "--workers=0"]
            if not any(word.startswith("--data-path=") for word in words):
                words += ["--data-path=my_images/"]  # instead of 1,797 digits
        result = call(tool, *words)
        assert result.code == 0, f"{tool}.py {words}\n{result.err}"


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
