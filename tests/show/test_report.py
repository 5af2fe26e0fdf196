"""The page of a run: whole in itself, escaped, and shown by a real browser without complaint."""

import json
import re
import shlex
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from unittest import mock

import numpy as np
import pytest

from convnet import given, runfolder
from convnet.providers import DataError
from convnet.show import report
from tests.tooling import call, photos, tiny

pytest.importorskip("matplotlib")
EVIL = "<script>document.title='x'<b>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), "")
VOID = {"meta", "link", "img", "br"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a run whose classes, files and cfg are named to do harm."""
    folder = tmp_path_factory.mktemp("report")
    data = photos(folder / "photos", ("ant", EVIL, "c&amp;d"), each=12)
    for path in (data / "ant").iterdir():
        path.rename(path.with_name(f"<img src=x onerror=alert(1)>{path.name}"))
    text = tiny(folder).read_text() + "\n# </pre><script>alert(2)</script>\n"
    (folder / "tiny.cfg").write_text(text)
    argv = (f"--layer-def={folder / 'tiny.cfg'}", f"--data-path={data}", "--workers=0")
    options = "--minibatch=8 --epochs=2 --set=DEFAULT.epsW=0.0001 --crop=centre --mirror=no"
    options += " --color-noise=0 --test-fraction=0.25 --test-freq=3"
    assert call("train", *argv, *options.split(), f"--save-path={folder / 'run'}").code == 0
    result = call("show", "report", folder / "run")
    assert (result.code, result.out) == (0, f"{folder / 'run' / 'report.html'}\n"), result.err
    assert result.err == ""
    return folder / "run" / "report.html"


class Reader(HTMLParser):
    """Tags, their attributes, text; fails where tags do not close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *item) for item in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *item) for item in attributes]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_nothing_comes_from_elsewhere(page):
    text = page.read_text()
    assert not re.search(r"https?:|@import|file:", text)
    read = Reader(text)
    assert "script" not in read.tags and "iframe" not in read.tags
    for tag, name, value in read.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "data", "action"):
            assert value.startswith(("data:image/png;base64,", "#")) or value == "data:,", value
    for reference in re.findall(r"url\(([^)]*)\)", text):
        assert reference.startswith("#"), reference


def test_ids_are_there_once(page):
    read = Reader(page.read_text())
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(ids) == len({*ids}) > 50
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', page.read_text())
    assert used and {*used} <= {*ids}


def test_what_is_on_it(page):
    words = "\n".join(Reader(page.read_text()).text)
    meta = runfolder.find(page.parent)[0].meta
    told = [
        *(EVIL, "c&amp;d", "<img src=x onerror=alert(1)>", "# </pre><script>alert(2)</script>"),
        *("levels=3,2,1", "DEFAULT.epsW=0.0001", "wc=0.001", "16x16x3", "2 of 2, 8 batches of 8"),
        *(f"python tools/train.py --resume={page.parent}", meta["source"]["name"]),
    ]
    for word in told:
        assert word in words, word
    rows = (page.parent / "metrics.jsonl").read_text().splitlines()
    tests = [json.loads(row)["test"] for row in rows if "test" in row]
    assert f"test error {100 * tests[-1]['logprob.error']:.2f} %" in words
    table = call("check", f"--layer-def={meta['source']['name']}", "--classes=3").out
    assert table.splitlines()[4].split()[4:6] == ["168", "41,472"]
    assert "168" in words and "41,472" in words


def test_the_commands_begin_the_same_run(page):
    """What the page says to type is what the run was begun with; a shell reads it as it is."""
    begun = re.search(r"python tools/train\.py --layer-def=.*", unescape(page.read_text()))[0]
    words = shlex.split(begun)
    meta = runfolder.find(page.parent)[0].meta
    assert words[:2] == ["python", "tools/train.py"] and "--minibatch=8" in words
    assert {"--epochs=2", "--seed=0", "--set=DEFAULT.epsW=0.0001", "--color-noise=0.0",
            "--crop=centre", "--mirror=no", "--test-fraction=0.25", "--test-freq=3",
            f"--data-path={meta['data']['path']}"} <= {*words}  # fmt: skip
    assert " '--set" not in begun, "nothing to quote there"
    again = page.parent.parent / "again it's"
    assert call("train", *words[2:], f"--save-path={again}", "--workers=0").code == 0
    both = [runfolder.find(folder)[0] for folder in (page.parent, again)]
    assert given.words_of(both[0].meta) == given.words_of(both[1].meta)
    for name, array in both[0].arrays["weights"].items():
        np.testing.assert_array_equal(array, both[1].arrays["weights"][name])
    assert call("show", "report", again).code == 0
    quoted = unescape((again / "report.html").read_text())
    assert shlex.join([f"--resume={again}"]) in quoted


def test_what_a_resume_set_otherwise(page, tmp_path):
    """The command alone would not give such a run; what a resume only repeats is not told."""
    folder = tmp_path / "run"
    shutil.copytree(page.parent, folder)
    step = runfolder.find(folder)[0].meta["step"]
    rates = tmp_path / "rates.cfg"
    low, high = "--set=fc2.epsW=0.0002", "--set=fc2.epsW=0.0003"
    for n, more in enumerate((
        ("--epochs=3", "--test-freq=0", low),
        ("--epochs=3", "--workers=1"),  # nothing to do, nothing to tell
        ("--epochs=4", f"--layer-params={rates}", high),
        ("--epochs=5", f"--layer-params={rates}", low),
    )):  # fmt: skip
        rates.write_text(f"[conv1]\nepsW=0.0000{5 + n}\n")
        assert call("train", f"--resume={folder}", *more).code == 0
    meta = runfolder.find(folder)[0].meta
    batches = meta["batches"]
    assert given.changes_of(meta) == [
        f"after {step} batches with --epochs=3, {low}, without --test-freq=3",
        f"after {step + batches} batches with --layer-params={rates}, --epochs=4, {high}, "
        f"the rates in {rates}",
        f"after {step + 2 * batches} batches with --epochs=5, {low}, the rates in {rates}",
    ]
    assert {*meta["earlier"][0]} == {"epochs", "source", "step", "test_freq"}, "no more is kept"
    assert given.changes_of(runfolder.find(page.parent)[0].meta) == []
    assert call("show", "report", folder).code == 0
    assert f"It went on after {step} batches with --epochs=3, {low}, without" in (
        unescape((folder / "report.html").read_text())
    )


def test_the_commands_where_the_data_cannot_be_looked_at(page, monkeypatch):
    meta = runfolder.find(page.parent)[0].meta
    monkeypatch.setattr(given, "name_for", mock.Mock(side_effect=DataError("no right to it")))
    assert "--data-provider=images" in given.words_of(meta)


def test_changes_of_what_is_set():
    words = ["--epochs=1", "--set=a.b=1", "--keep=3"]
    assert given._changed(words, ["--epochs=2", "--set=a.b=1"]) == [
        "--epochs=2",
        "without --keep=3",
    ]
    again = [*words, "--set=a.b=2", "--set=a.b=1"]
    assert given._changed(words, again) == ["--set=a.b=2", "--set=a.b=1"]
    assert given._changed(again, ["--epochs=1", "--set=a.c=1", "--keep=3"]) == [
        "--set=a.c=1", "without --set=a.b=1", "without --set=a.b=2", "without --set=a.b=1",
    ]  # fmt: skip


def test_a_checkpoint_before_the_last(page, tmp_path):
    """The page of an older checkpoint has that one's error, curves and images."""
    rows = [json.loads(row) for row in (page.parent / "metrics.jsonl").read_text().splitlines()]
    tests = {row["step"]: row["test"]["logprob.error"] for row in rows if "test" in row}
    old = runfolder.checkpoints(page.parent)[0]
    saved = runfolder.find(old)[0]
    assert saved.meta["step"] < max(tests)
    out = tmp_path / "old.html"
    assert call("show", "report", old, f"--out={out}").code == 0
    words = "\n".join(Reader(out.read_text()).text)
    error = 100 * tests[saved.meta["step"]]
    assert f"test error {error:.2f} %" in words
    assert f"{error:.1f} % of 9 images are taken for another class" in words
    assert f"of {round(error * 9 / 100)}, drawn at random." in words


def test_the_commands_of_an_imported_run(page, tmp_path):
    """They begin with the file that it began with; so do those of a run that goes on with it."""
    cfg, data = page.parent.parent / "tiny.cfg", page.parent.parent / "photos"
    weights = runfolder.newest(page.parent)
    argv = (f"--layer-def={cfg}", f"--data-path={data}", f"--out={tmp_path / 'run/0.0.h5'}")
    (tmp_path / "run").mkdir()
    assert call("import", weights, *argv).code == 0
    assert f"--init-from={weights}" in given.words_of(runfolder.find(tmp_path / "run")[0].meta)
    more = ("--epochs=1", "--tensorboard", "--workers=0")
    pytest.importorskip("tensorboardX")
    assert call("train", f"--resume={tmp_path / 'run'}", *more).code == 0
    words = given.words_of(runfolder.find(tmp_path / "run")[0].meta)
    assert {f"--init-from={weights}", "--tensorboard", "--epochs=1"} <= {*words}


def test_the_error_is_that_of_the_checkpoint():
    tests = [{"step": step, "test": {"logprob.error": step / 100}} for step in (3, 6, 9)]
    assert report._error(tests, {"step": 6}) == "test error 6.00 %"
    assert report._error(tests, {"step": 7}) == ""


def test_a_run_whose_data_has_moved(page, tmp_path):
    moved = page.parent.parent / "elsewhere"
    (page.parent.parent / "photos").rename(moved)
    try:
        result = call("show", "report", page.parent, f"--out={tmp_path / 'a.html'}")
        assert result.code == 0
        assert (
            result.err.endswith("; the page has no test images\n") and result.err.count("\n") == 1
        )
        words = "\n".join(Reader((tmp_path / "a.html").read_text()).text)
        assert "no such folder" in words and "The net" in words
    finally:
        moved.rename(page.parent.parent / "photos")


def test_a_checkpoint_alone(page, tmp_path):
    alone = shutil.copy(runfolder.newest(page.parent), tmp_path)
    (tmp_path / "other").mkdir()  # whose curves are not this one's
    shutil.copy(page.parent / "metrics.jsonl", tmp_path / "other")
    result = call("show", "report", alone)
    assert result.code == 0 and result.err.count("\n") == 1
    assert "no metrics.jsonl there" in result.err
    assert Reader((tmp_path / "report.html").read_text()).tags.count("svg") == 5


def test_names_stay_as_they_are():
    """Ids and ink are changed in the tags of a picture, not in what is written in it."""
    from convnet.show import style

    names = ["#222428", 'x id="q"', 'href="#a"', "url(#b)", ' xmlns="u"', "<b id='1'>"]

    def paint(figure):
        figure.subplots().set_yticks(range(len(names)), names)

    read = Reader(style.inline(paint, (4, 3), "one"))
    assert {*names} <= {text.strip("\n") for text in read.text}
    assert "currentColor" in str(read.attributes)
    assert style.inline(paint, (4, 3), "one") == style.inline(paint, (4, 3), "one")


# ---------------------------------------------------------------- in a browser

WIDE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(e =>
  !e.closest(".wide") && !e.closest("pre") && e.getBoundingClientRect().right > 361);
const broken = [...document.images].filter(i => !i.complete || !i.naturalWidth);
const sizes = [...document.querySelectorAll("svg")].filter(s => !s.closest("details"))
  .map(s => s.getBoundingClientRect().height > 100);
document.title = "found " + JSON.stringify({wide: wide.map(e => e.outerHTML.slice(0, 90)),
  broken: broken.length, sizes, images: document.images.length,
  scripts: document.scripts.length});
</script>"""


def chromium(*argv, home):
    """Run a browser without a screen or a network: (what it prints, what it complains of)."""
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={home}"]  # fmt: skip
    done = subprocess.run([CHROMIUM, *words, *argv], capture_output=True, text=True, timeout=90)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.mark.skipif(not CHROMIUM, reason="no chromium or google-chrome on this machine")
def test_in_a_browser(page, tmp_path):
    """At the width of a phone nothing sticks out, pictures are there, no word of ours ran."""
    text = page.read_text().replace("<head>", "<head><style>html { width: 360px }</style>")
    (tmp_path / "phone.html").write_text(text.replace("</body>", WIDE + "</body>"))
    made, console = chromium("--dump-dom", (tmp_path / "phone.html").as_uri(), home=tmp_path / "a")
    assert not console
    title = re.search(r"<title>found (\{.*\})</title>", made)
    assert title, made[:500]
    found = json.loads(unescape(title[1]))
    assert found["wide"] == [] and found["broken"] == 0 and found["scripts"] == 1
    assert found["images"] >= 8 and len(found["sizes"]) == 5 and all(found["sizes"])


@pytest.mark.skipif(not CHROMIUM, reason="no chromium or google-chrome on this machine")
def test_light_and_dark(page, tmp_path):
    """The page follows the system, ink and paper."""
    from PIL import Image

    shots = []
    for scheme in (1, 0):  # light, dark
        shot = tmp_path / f"{scheme}.png"
        chromium(f"--screenshot={shot}", "--window-size=900,1200", "--hide-scrollbars",
                 f"--blink-settings=preferredColorScheme={scheme}", page.as_uri(),
                 home=tmp_path / f"home{scheme}")  # fmt: skip
        shots.append(np.asarray(Image.open(shot).convert("L")))
    light, dark = (np.median(shot) for shot in shots)
    assert light > 240 and dark < 50
    assert (shots[0] < 100).mean() > 0.005 and (shots[1] > 180).mean() > 0.005
