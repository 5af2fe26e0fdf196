"""The tools as a user meets them: help, mistakes in one line each, tests, predictions."""

import ast
import csv
import errno
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from convnet import checkpoint, cli, given, runfolder
from convnet.net import Net
from convnet.providers import DataOptions
from convnet.providers.images import Images
from tests.tooling import ROOT, TINY, call, environment, metrics, photos, spawn, tiny

TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
QUICK = ("--minibatch=512", "--epochs=1")
SMALL = ROOT / "layer_configs" / "spp_small.cfg"


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("cfg"))


@pytest.fixture(scope="module")
def run(cfg, tmp_path_factory):
    """A run on the digits."""
    folder = tmp_path_factory.mktemp("run")
    assert call("train", f"--layer-def={cfg}", *QUICK, f"--save-path={folder}").code == 0
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("pictures") / "photos")


@pytest.fixture(scope="module")
def photo_run(cfg, pictures, tmp_path_factory):
    """A run on photographs, JPEG and PNG, with a worker process."""
    folder = tmp_path_factory.mktemp("photo_run")
    argv = (f"--layer-def={cfg}", f"--data-path={pictures}", f"--save-path={folder}")
    result = call("train", *argv, "--minibatch=8", "--epochs=3", "--workers=1")
    assert (result.code, result.err) == (0, "")
    assert "images: 21 images to train on, 6 to test on, 3 classes" in result.out
    return folder


def fails(code, pattern, tool, *argv):
    """One line on stderr, of this form, and this exit code."""
    result = call(tool, *argv)
    assert result.code == code and result.err.count("\n") == 1, result
    assert re.search(pattern, result.err), result.err


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("tool", TOOLS)
def test_help_loads_nothing_slow(tool):
    """Neither NumPy nor Numba: help is there at once."""
    code = (
        "import runpy, sys\nsys.argv[1:] = ['--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'numpy', 'numba', 'PIL', 'sklearn'} & set(sys.modules)"
    )
    path = str(ROOT / "tools" / f"{tool}.py")
    argv = [sys.executable, "-W", "error", "-c", f"import sys\nsys.argv[0] = {path!r}\n{code}"]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {tool}.py")


@pytest.mark.parametrize("tool", TOOLS)
def test_every_option_has_a_help_text(tool, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # a narrow terminal breaks the lines elsewhere
    result = call(tool, "--help")
    assert result.code == 0
    text = ast.parse((ROOT / "tools" / f"{tool}.py").read_text())
    assert ast.get_docstring(text) in result.out
    commands = re.findall(r"\n    (\w+) ", result.out.partition("\npositional arguments:")[2])
    helps = [result.out, *(call(tool, command, "--help").out for command in commands)]
    options = [re.split(r"\n  (?=-)", text.partition("\noptions:")[2])[1:] for text in helps]
    assert all(len(some) > 1 for some in options)
    for option in itertools.chain.from_iterable(options):
        words = re.sub(r"^\S+( [A-Z|a-z.=<>{},]+)?(, --\S+( \S+)?)?", "", option).split()
        assert len(words) > 2, option


@pytest.mark.parametrize("tool", TOOLS)
def test_version(tool):
    assert re.fullmatch(r"convnet \d+\.\d+\.\d+\n", call(tool, "--version").out)


# ---------------------------------------------------------------- mistakes in options


@pytest.mark.parametrize(
    ("tool", "argv", "text"),
    [
        ("train", ["--epoch=3"], "--epoch=3; did you mean '--epochs'?"),
        ("test", ["--multi-view"], "--multi-view; did you mean '--multiview'?"),
        ("check", ["--gard"], "--gard; did you mean '--grad'?"),
        ("train", ["--minibatch=0"], "--mini: must be a whole number of 1 or more, not '0'"),
        ("train", ["--epochs=abc"], "--epochs: must be a whole number of 1 or more, not 'abc'"),
        ("train", ["--epochs=²"], "--epochs: must be a whole number of 1 or more, not '²'"),
        (
            "train",
            ["--workers=1000"],
            "--workers: must be a whole number from 0 to 256, not '1000'",
        ),
        ("train", ["--seed=-1"], "--seed: must be a whole number of 0 or more, not '-1'"),
        ("check", ["--seed=x"], "--seed: must be a whole number of 0 or more, not 'x'"),
        ("train", ["--test-freq=-2"], "--test-freq: must be a whole number of 0 or more"),
        ("train", ["--epochs=1e3"], "must be a whole number from 1 to 999999999, in digits, not"),
        ("train", ["--color-noise=nan"], "--color-noise: must be a number of 0 or more, not 'nan'"),
        ("train", ["--test-fraction=1"], "--test-fraction: must be a number between 0 and 1"),
        ("train", ["--mirror=maybe"], "--mirror: must be yes or no, not 'maybe'"),
        ("train", [], "--layer-def=FILE.cfg is needed (or --resume=RUN to go on with a run)"),
        ("check", [], "--layer-def=FILE.cfg is needed (or --keys)"),
        ("check", [f"--layer-def={SMALL}", "--size=20"], "imgSize=48: --size=20 is for a cfg that"),
        ("check", ["--keys=pol"], "--keys=pol: no such type; did you mean 'pool'?"),
    ],
)
def test_options(tool, argv, text):
    fails(2, re.escape(text), tool, *argv)


@pytest.mark.parametrize(
    ("code", "argv", "text"),
    [
        (2, ["--set=conv1.filter=3"], r"\[conv1\] filter=3: .*did you mean 'filters'"),
        (2, ["--set=conv2.filters=3"], r"no section \[conv2\]; did you mean 'conv1'"),
        (2, ["--set=filters=3"], "must be section.key=value"),
        (2, ["--layer-params=none.cfg"], r"^none\.cfg: no such file"),
        (3, ["--data-provider=digts"], "no data provider 'digts'; did you mean 'digits'"),
        (3, ["--data-path=nowhere"], "^nowhere: no such folder"),
        (6, ["--device=foo"], "^--device=foo: must be cpu, cpu:plain, gpu, gpu:<number> or "),
        (6, ["--device=gpu:x"], "^--device=gpu:x: must be cpu, cpu:plain, gpu, gpu:<number> or "),
    ],
)
def test_options_of_train(cfg, tmp_path, code, argv, text):
    fails(code, text, "train", f"--layer-def={cfg}", f"--save-path={tmp_path / 'run'}", *argv)
    assert not runfolder.newest(tmp_path / "run")


def test_gpu_without_cupy(cfg, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    fails(6, r"CuPy is not installed; pip install 'convnet\[gpu13\]'", "train",
          f"--layer-def={cfg}", "--device=gpu")  # fmt: skip


def test_in_a_process_of_its_own(tmp_path):
    result = spawn("train", "--layer-def=nope.cfg", cwd=tmp_path)
    assert result == (2, "", "nope.cfg: no such file or directory\n")


# ---------------------------------------------------------------- mistakes in the cfg


@pytest.mark.parametrize("number", ["EACCES", "ENOSPC", "ELOOP"])
def test_what_the_system_refuses(number, capsys):
    """A line, whatever was done; other errors of the kind are ours, and show where."""
    number = getattr(errno, number)
    text = os.strerror(number)
    for argv, told in (
        ((number, text, "a b"), f"a b: {text.lower()}\n"),
        ((number, text), f"{text.lower()}\n"),
    ):
        with pytest.raises(SystemExit, match=r"^2$"):
            cli.run(mock.Mock(side_effect=OSError(*argv)))
        assert capsys.readouterr().err == told
    with pytest.raises(FileNotFoundError):
        cli.run(mock.Mock(side_effect=OSError(errno.ENOENT, "none", "x")))
    for number in errno.EMFILE, errno.ENFILE:  # we may have left files open
        with pytest.raises(OSError, match="too many"):
            cli.run(mock.Mock(side_effect=OSError(number, "too many", "x")))


def test_links_that_go_round(tmp_path):
    for name in ("data", "x.cfg"):
        (tmp_path / name).symlink_to(tmp_path / name)
    fails(2, "x.cfg: ", "show", "graph", tmp_path / "x.cfg")
    fails(2, "x.cfg: ", "train", f"--layer-def={tmp_path / 'x.cfg'}")
    assert call("train", f"--layer-def={SMALL}", f"--data-path={tmp_path / 'data'}").code in (2, 3)


def test_names_that_stdout_cannot_write(tmp_path):
    cfg = tmp_path / os.fsdecode(b"\xff.cfg")
    cfg.write_text(TINY)
    strict = environment() | {"PYTHONIOENCODING": "utf-8:strict"}
    argv = [sys.executable, ROOT / "tools/show.py", "graph", cfg]
    for name, told in (("x.svg", b"x.svg"), (os.fsdecode(b"\xfe.svg"), b"\\udcfe.svg")):
        out = f"--out={tmp_path / name}"
        done = subprocess.run([*argv, out], capture_output=True, env=strict)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.endswith(b"/" + told + b"\n")


def test_a_missing_cfg_with_its_neighbour(cfg):
    fails(2, "tiny2.cfg: no such file or directory; did you mean 'tiny.cfg'", "check",
          f"--layer-def={cfg.with_name('tiny2.cfg')}")  # fmt: skip


def test_mistakes_one_a_line(tmp_path):
    text = TINY.replace("filterSize", "filtersize2").replace("type=pool", "type=poll")
    path = tiny(tmp_path, text.replace("inputs=spp", "inputs=sp"))
    result = call("train", f"--layer-def={path}")
    assert result.code == 2 and "Traceback" not in result.err
    assert all(line.startswith(f"{path}:") for line in result.err.splitlines())
    assert "filtersize2=3: type=conv has no such key; did you mean 'filterSize'?" in result.err


@pytest.mark.parametrize("outputs", [7, 12])
def test_outputs_that_do_not_match_the_data(tmp_path, outputs):
    path = tiny(tmp_path, TINY.replace("outputs=classes", f"outputs={outputs}"))
    fails(2, r"tiny\.cfg:\d+: .*10", "train", f"--layer-def={path}")


def test_no_cost(tmp_path):
    text = re.sub(r"\[labels\][^[]*", "", TINY).partition("[logprob]")[0]
    path = tiny(tmp_path, text)
    fails(
        2,
        r"\[probs\] is unused: no layer reads it, and only a cost may be the last",
        "train",
        f"--layer-def={path}",
    )


# ---------------------------------------------------------------- mistakes in the data


def test_folders_that_are_no_data(cfg, tmp_path):
    def of(make):
        data = Path(tempfile.mkdtemp(dir=tmp_path)) / "data"
        make(data)
        return ("train", f"--layer-def={cfg}", f"--data-path={data}")

    fails(3, "no folder of images in it$", *of(lambda d: d.mkdir()))
    fails(3, "empty: no image in it", *of(lambda d: (d / "empty").mkdir(parents=True)))
    fails(3, "only one class, ant; it takes two", *of(lambda d: photos(d, classes=["ant"], each=2)))
    fails(3, "a file, not a folder", *of(lambda d: d.write_text("")))
    fails(3, "class bee has one image", *of(_lonely))
    result = call(*of(_all_bad))
    assert result.code == 3 and "bad image left out: ant/1.png: " in result.err
    assert result.err.endswith("data: no image of class ant can be read\n")


def _lonely(folder):
    photos(folder, classes=["ant", "bee"], each=2)
    (folder / "bee" / "0.jpg").unlink()


def _all_bad(folder):
    for path in photos(folder, each=2).glob("*/*.*"):
        path.write_bytes(path.read_bytes()[:90])


@pytest.fixture
def damaged(tmp_path):
    data = photos(tmp_path / "photos", each=5)
    path = data / "bee" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return data


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named_and_skipped(cfg, tmp_path, damaged, workers):
    argv = (f"--layer-def={cfg}", f"--data-path={damaged}", f"--workers={workers}", *QUICK)
    result = call("train", *argv, f"--save-path={tmp_path / 'run'}")
    assert result.code == 0
    assert re.fullmatch(r"bad image left out: bee/2\.jpg: .*\n", result.err)


def test_a_truncated_image_stops_the_run_if_it_is_to(cfg, tmp_path, damaged):
    fails(3, r"^bee/2\.jpg: ", "train", f"--layer-def={cfg}", f"--data-path={damaged}", *QUICK,
          "--on-bad-image=stop", "--workers=0", f"--save-path={tmp_path / 'run'}")  # fmt: skip


def test_a_test_set_that_cannot_be_read(cfg, tmp_path):
    """What is trained is saved all the same."""
    photos(tmp_path / "photos" / "train", each=3)
    for path in photos(tmp_path / "photos" / "test", each=1).rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:90])
    result = call("train", f"--layer-def={cfg}", f"--data-path={tmp_path / 'photos'}", *QUICK,
                  "--workers=0", f"--save-path={tmp_path / 'run'}")  # fmt: skip
    assert result.code == 3
    assert result.err.splitlines()[-1].endswith("photos: no image of test can be read")
    assert runfolder.newest(tmp_path / "run").name == "1.1.h5"


# ---------------------------------------------------------------- folders and checkpoints


def test_a_folder_that_holds_a_run(cfg, run):
    fails(5, f"--save-path={run} holds a run already: --resume={run} goes on with it", "train",
          f"--layer-def={cfg}", f"--save-path={run}")  # fmt: skip


def test_two_runs_in_one_folder(cfg, tmp_path):
    with runfolder.run_lock(tmp_path):
        fails(5, r"process \d+ runs in this folder; end it or choose another folder", "train",
              f"--layer-def={cfg}", f"--save-path={tmp_path}")  # fmt: skip


def test_a_folder_that_cannot_be_made(cfg):
    fails(5, "cannot be made, not a directory", "train", f"--layer-def={cfg}",
          f"--save-path={cfg}/run")  # fmt: skip


def test_folders_have_numbers(cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        result = call("train", f"--layer-def={cfg}", *QUICK)
        assert f"everything goes to runs/tiny_{number:03d}/" in result.out
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["tiny_001", "tiny_002"]
    assert call("test").out.startswith("runs/tiny_002/1.3.h5: 360 test images")


@pytest.mark.parametrize("tool", ["train", "test"])
def test_what_is_no_checkpoint(tool, tmp_path, cfg):
    where = "--resume=" if tool == "train" else ""
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    (tmp_path / "empty").mkdir()
    checkpoint.save(tmp_path / "other.h5", checkpoint.Checkpoint({"weights": {}}, {"a": 1}))
    fails(5, r"x\.h5: .*an HDF5 file, but no checkpoint", tool, f"{where}{tmp_path / 'x.h5'}")
    fails(5, "tiny.cfg: .*text, no checkpoint", tool, f"{where}{cfg}")
    fails(5, "no checkpoint in this folder", tool, f"{where}{tmp_path / 'empty'}")
    (tmp_path / "empty" / "metrics.jsonl").touch()
    fails(5, "folder; tools/show.py curves has what it told$", tool, f"{where}{tmp_path / 'empty'}")
    fails(5, "no such file or folder; train a net first", tool, f"{where}{tmp_path / 'none'}")
    fails(5, r"other\.h5: .*not of a run", tool, f"{where}{tmp_path / 'other.h5'}")


def test_a_fraction_of_data_that_has_a_test_set(cfg, tmp_path):
    """Refused, but not of a run that was begun with it when nobody refused it."""
    for split, each in (("train", 9), ("test", 2)):
        photos(tmp_path / "data" / split, each=each)
    argv = (f"--layer-def={cfg}", f"--data-path={tmp_path / 'data'}", "--workers=0", *QUICK)
    run = tmp_path / "run"
    assert call("train", *argv, f"--save-path={run}").code == 0
    saved, path, _ = runfolder.find(run)
    saved.meta["data"]["options"]["test_fraction"] = 0.3
    checkpoint.save(path, saved)
    assert not any("--test-fraction" in word for word in given.words_of(saved.meta))
    assert call("train", f"--resume={run}", "--epochs=2").code == 0
    assert call("test", run).code == 0
    own = r"^--test-fraction=0.6: \S+ has images to test with of its own; leave the option away$"
    fails(2, own, "train", f"--resume={run}", "--epochs=3", "--test-fraction=0.6")
    fails(2, own, "test", run, "--test-fraction=0.6")


def test_resume_names_what_has_changed(run, tmp_path):
    changed = tiny(tmp_path, TINY.replace("filters=6", "filters=7"))
    argv = (f"--resume={run}", "--epochs=2")
    grey = photos(tmp_path / "photos", classes="0123456789", each=2)
    fails(5, r"the layer definition has changed: \[conv1\] filters=7, in the checkpoint 6; undo",
          "train", *argv, f"--layer-def={changed}")  # fmt: skip
    fails(5, r"\[conv1\] filters=9, in the checkpoint 6", "train", *argv, "--set=conv1.filters=9")
    fails(2, r"outputs", "train", *argv, "--set=fc2.outputs=11")
    fails(5, "these are not the images that the run began with", "train", *argv,
          f"--data-path={grey}")  # fmt: skip
    fails(5, r"\[data\] channels=1, in the checkpoint \(none\)", "train", *argv,
          "--set=data.channels=1")  # fmt: skip
    fails(5, "the run has the seed 0", "train", *argv, "--seed=1")
    fails(2, "--save-path=x: --resume goes on in the run's folder", "train", *argv,
          "--save-path=x")  # fmt: skip


def test_resume_with_a_cfg_edited_since(tmp_path):
    """The run keeps what it had, says so, and takes new rates when asked to."""
    cfg, folder = tiny(tmp_path), tmp_path / "run"
    call("train", f"--layer-def={cfg}", *QUICK, f"--save-path={folder}")
    rates = cfg.with_name("tiny-params.cfg")
    rates.write_text(rates.read_text().replace("momW=0.9", "momW=0.5"))
    result = call("train", f"--resume={folder}", "--epochs=2")
    assert result.code == 0
    assert result.err == (
        f"note: {rates} has changed since; the run keeps what it had "
        f"(--layer-params={rates} to take it)\n"
    )
    result = call("train", f"--resume={folder}", "--epochs=3", f"--layer-params={rates}")
    assert (result.code, result.err) == (0, "")
    text = runfolder.find(folder)[0].meta["source"]["params_text"]
    assert "momW=0.5" in text


# ---------------------------------------------------------------- training and testing


def test_what_train_prints(cfg, tmp_path):
    folder = tmp_path / "run"
    result = call("train", f"--layer-def={cfg}", *QUICK, f"--save-path={folder}")
    lines = result.out.splitlines()
    assert result.err == "" and lines[0].split() == [
        "layer", "type", "inputs", "output", "weights", "multiply-adds", "MiB"
    ]  # fmt: skip
    at = lines.index("digits: 1,437 images to train on, 360 to test on, 10 classes")
    assert lines[at + 1 : at + 3] == [
        "1 epoch of 3 batches of 512, on cpu, seed 0",
        f"everything goes to {folder}/",
    ]
    number = r"\d+\.\d{6}"
    batch = rf"1\.2 \(66\.67%\)\.\.\. logprob:  {number}, {number} \(\d+\.\d{{3}} sec\)"
    assert any(re.fullmatch(batch, line) for line in lines)
    assert any(re.match(rf"test output after 1\.3: logprob:  {number}, ", line) for line in lines)
    assert f"saved {folder}/1.3.h5" in lines
    assert f"  {cli.command('test', folder, '--multiview')}" in lines
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 3]
    assert set(rows[0]) == {
        "step",
        "epoch",
        "batch",
        "batches",
        "progress",
        "size",
        "images",
        "logprob",
        "logprob.error",
    }
    assert set(rows[3]["test"]) == {"logprob", "logprob.error"}


def test_test_agrees_with_train(run):
    """The same loss and error as the last line of the run, and the table adds up."""
    result = call("test", run)
    last = metrics(run)[-1]["test"]
    assert f"loss {last['logprob']:.4f}, top-1 error {100 * last['logprob.error']:.2f} %" in (
        result.out
    )
    rows = re.findall(r"^(\d) +(\d+) +([\d.]+)%", result.out, re.M)
    assert [name for name, _, _ in rows] == list("0123456789")
    wrong = sum(int(n) * float(error) for _, n, error in rows) / 36_000
    assert sum(int(n) for _, n, _ in rows) == 360
    assert wrong == pytest.approx(last["logprob.error"], abs=1e-3)
    assert "top-5 error" in result.out


def test_photos_with_and_without_workers(cfg, pictures, photo_run, tmp_path):
    argv = (f"--layer-def={cfg}", f"--data-path={pictures}", f"--save-path={tmp_path}")
    result = call("train", *argv, "--minibatch=8", "--epochs=3", "--workers=0")
    assert result.code == 0 and "--data-path" not in result.out
    assert metrics(tmp_path) == metrics(photo_run)


@pytest.mark.parametrize("multiview", [False, True])
def test_predictions(photo_run, pictures, tmp_path, multiview):
    """Rows in the order of the test set; each adds up to 1; what Net.predict gives."""
    target = tmp_path / "out.csv"
    more = ["--multiview", "--views-of=images"] if multiview else []
    result = call("test", photo_run, f"--predictions={target}", "--minibatch=4", *more)
    assert result.code == 0 and result.out.endswith(f"predictions are in {target}\n")
    assert (("10 views" if multiview else "1 view") in result.out) and "top-5" not in result.out
    with target.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["image", "label", "prediction", "ant", "bee", "cat"]
    net = Net.from_checkpoint(photo_run)
    with Images(str(pictures), 16, 3, DataOptions()) as data:
        assert [row[0] for row in rows] == list(data.test.keys)
        assert [row[1] for row in rows] == [data.classes[i] for i in data.test.labels]
        images = data.images("test", range(data.test.size))
    probs = net.predict(images, view="ten" if multiview else "centre")
    given = np.array([[float(p) for p in row[3:]] for row in rows])
    np.testing.assert_allclose(given, probs, rtol=1e-5)
    np.testing.assert_allclose(given.sum(1), 1, atol=1e-5)
    assert [row[2] for row in rows] == [data.classes[i] for i in given.argmax(1)]
    loss = -np.log(probs[np.arange(6), data.test.labels]).mean()
    assert f"loss {loss:.4f}" in result.out


def test_ten_views_are_the_average_of_ten(photo_run):
    net = Net.from_checkpoint(photo_run)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    ten = list(net._views(image, "ten"))
    each = np.concatenate([net.predict(view[None], view="asis") for view in ten])
    assert len(ten) == 10
    np.testing.assert_allclose(net.predict([image], view="ten")[0], each.mean(0), rtol=1e-5)


def test_predictions_that_cannot_be_written(run, tmp_path):
    missing = tmp_path / "none" / "out.csv"
    fails(2, f"--predictions={missing}: there is no folder {missing.parent}", "test", run,
          f"--predictions={missing}")  # fmt: skip
    fails(2, "is a folder; name a file", "test", run, f"--predictions={tmp_path}")
    fails(2, "/dev/null: is no regular file", "test", run, "--predictions=/dev/null")


def test_predictions_take_the_place_of_no_checkpoint(run, tmp_path):
    """Nor of a file beside them; a link to the file to write stays one."""
    newest = max(run.glob("*.h5"))
    before = newest.read_bytes()
    for tested in newest, run:
        fails(2, "is a checkpoint; name another file", "test", tested, f"--predictions={newest}")
    fails(2, "is a checkpoint; name another file", "features", run, "--layer=fc1",
          f"--out={newest}")  # fmt: skip
    assert newest.read_bytes() == before
    (tmp_path / "out.csv.tmp").write_text("mine")
    (tmp_path / "link.csv").symlink_to("out.csv")
    assert call("test", run, f"--predictions={tmp_path}/link.csv").code == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "out.csv").read_text().startswith("image,label")
    assert (tmp_path / "out.csv.tmp").read_text() == "mine"


def test_other_classes_in_test(photo_run, tmp_path):
    data = photos(tmp_path / "photos", classes=("ant", "bee", "dog"), each=2)
    fails(2, "was trained on the classes ant, bee, cat; the data has ant, bee, dog", "test",
          photo_run, f"--data-path={data}")  # fmt: skip


def test_names_that_are_no_text(cfg, tmp_path):
    """A folder and a file whose names are not UTF-8, or hold a newline."""
    data = photos(tmp_path / "photos", classes=("a\nb", "c\udcff", "=1+1"), each=4)
    argv = (f"--layer-def={cfg}", f"--data-path={data}", *QUICK, "--workers=0")
    assert call("train", *argv, f"--save-path={tmp_path / 'run'}").code == 0
    result = call("test", tmp_path / "run", f"--predictions={tmp_path / 'out.csv'}")
    assert result.code == 0
    result.out.encode()
    rows = (tmp_path / "out.csv").read_bytes()
    assert b"c\xff" in rows and b'"a\nb"' in rows


def test_check(cfg):
    result = call("check", f"--layer-def={cfg}", "--set=data.channels=1", "--grad")
    assert result.code == 0 and result.err == ""
    assert re.search(r"conv +data +16x16x6 +60 +13,824", result.out)
    assert result.out.endswith("\n6 of 6 arrays pass\n")


def test_check_tells_of_a_wrong_gradient(cfg, monkeypatch):
    original = Net.bprop

    def bprop(self, *args):
        return {key: g * (1.01 if key[1] == "b" else 1) for key, g in original(self, *args).items()}

    monkeypatch.setattr(Net, "bprop", bprop)
    result = call("check", f"--layer-def={cfg}", "--grad")
    assert (
        result.code == 1 and "3 of 6 arrays pass; not ['fc2/b', 'fc1/b', 'conv1/b']" in result.out
    )


def test_grey_and_odd_images(cfg, tmp_path):
    data = photos(tmp_path / "photos", classes=("ant", "bee"), each=4)
    Image.new("L", (80, 75), 7).save(data / "ant" / "grey.png")
    Image.new("CMYK", (80, 75)).save(data / "bee" / "ink.jpg")
    Image.new("RGBA", (75, 80)).save(data / "bee" / "glass.png")
    result = call("train", f"--layer-def={cfg}", f"--data-path={data}", *QUICK, "--workers=0",
                  f"--save-path={tmp_path / 'run'}")  # fmt: skip
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize(
    "error,less,told",
    [
        (MemoryError(), "", "out of memory"),
        (MemoryError("4 GB"), "--size", "out of memory: 4 GB; a smaller --size takes less"),
    ],
)
def test_out_of_memory(capsys, error, less, told):
    """The reason where there is one, and an option that the tool has."""

    def main():
        raise error

    with pytest.raises(SystemExit, match="6"):
        cli.run(main, less)
    assert capsys.readouterr().err == f"{told}\n"


def test_the_option_that_takes_less_memory_is_one_of_the_tool():
    found = set()
    for path in [*(ROOT / "tools").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for option in re.findall(r'cli\.run\(main, "(.*)"\)', path.read_text()):
            assert f'"{option}"' in path.read_text().partition("cli.run(")[0]
            found.add(option)
    assert found == {"--minibatch", "--batch", "--size"}
