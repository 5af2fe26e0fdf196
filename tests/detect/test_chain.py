"""tools/detect.py as a user meets it: all steps on pasted photos, again, killed, in shards."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from convnet.detect import commands, learning, passes
from convnet.detect.job import Job
from convnet.detect.model import Detector
from convnet.detect.results import read
from tests import tooling
from tests.detect import tiny
from tests.tooling import call, command, environment

QUICK = ("--scales=48", "--proposals=grid", "--iterations=200")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a kit of photos, a trained classifier `base`, and a tested job `work`."""
    folder = tmp_path_factory.mktemp("detect")
    tiny.devkit(folder / "kit", trainval=40, test=20)
    done = call("detect", "crops", f"--voc={folder / 'kit'}", f"--out={folder / 'crops'}")
    assert done.code == 0 and "square: 32" in done.out
    done = call("train", f"--layer-def={tooling.tiny(folder)}", f"--data-path={folder / 'crops'}",
                "--epochs=10", "--minibatch=16", f"--save-path={folder / 'base'}")  # fmt: skip
    assert done.code == 0, done.err
    done = train(folder, "work")
    assert done.code == 0, done.err
    (folder / "said").write_text(done.out)
    return folder


def train(folder, work, *more, step="train"):
    """A step of a job in <folder>/<work>."""
    return call("detect", step, f"--voc={folder / 'kit'}", f"--net={folder / 'base'}",
                f"--work={folder / work}", *QUICK, *more)  # fmt: skip


def mean_of(out: str) -> float:
    """The mean of the (last) table."""
    return float([line for line in out.splitlines() if line.startswith("mean ")][-1].split()[1])


def copied(made, folder, *names):
    """Another work folder with some of the files of the first."""
    folder.mkdir(exist_ok=True)
    for name in names:
        path = made / "work" / name
        if path.is_dir():
            shutil.copytree(path, folder / name)
        else:
            shutil.copy(path, folder / name)
    return folder


def test_pasted_objects_are_found(made):
    said = (made / "said").read_text()
    assert mean_of(said) > 70  # chance is below 1
    assert "trainval: 40 photos with 1991 proposals each" in said
    assert "recall at an overlap of" in said
    photos = Job(made / "work", {}).photos("test")
    found = read(made / "work/results-test", photos, "test")
    assert sum(len(f.boxes) for f in found) > 50
    for name in ("precision-recall.png", "errors.png"):
        with Image.open(made / "work/results-test" / name) as picture:
            picture.verify()


def test_a_second_time_nothing_is_made(made):
    before = {p: p.stat().st_mtime_ns for p in (made / "work").glob("*.h5")}
    done = call("detect", "train", f"--work={made / 'work'}")
    assert done.code == 0
    assert done.out.count("is there already") == 3
    assert mean_of(done.out) == mean_of((made / "said").read_text())
    assert {p: p.stat().st_mtime_ns for p in (made / "work").glob("*.h5")} == before


def test_a_changed_option_makes_its_step_and_those_behind_it_anew(made, tmp_path):
    work = copied(made, tmp_path / "w", "job.json", "proposals-grid", "maps", "finetuned.h5",
                  "svm.h5", "det.h5")  # fmt: skip
    done = call("detect", "test", f"--work={work}", "--no-bbox")
    assert done.code == 0
    assert done.out.count("is there already") == 2
    assert "made with another bbox; it is made anew" in done.err
    assert Detector.load(work / "det.h5").regressors is None


STOPS = {  # the pass that is stopped: its step, photos of passes before, bytes of memory
    "objects": ("svm", 0, None), "mining-0": ("svm", 40, None), "mining-1": ("svm", 80, 1),
    "boxes-0": ("bbox", 0, None), "boxes-1": ("bbox", 40, 1),
}  # fmt: skip


@pytest.mark.parametrize("kept", STOPS)
def test_a_stopped_pass_goes_on(made, tmp_path, monkeypatch, kept):
    """Stopped after 25 photos of a pass, with all classes in memory or a class at a time."""
    step, before, memory = STOPS[kept]
    names = ("job.json", "proposals-grid", "maps", "finetuned.h5", "svm.h5", "det.h5")
    work = copied(made, tmp_path / "w", *names[: 4 if step == "svm" else 5])
    monkeypatch.setattr(passes, "EVERY", 0)
    monkeypatch.setattr(passes, "TIMES", 0)
    monkeypatch.setattr(learning, "memory_of_computer", lambda: memory)
    photo, seen = passes.Pass.photo, []

    def stopped(self):
        photo(self)
        seen.append(self.path.stem)
        if seen.count(kept) == 25 and len(seen) == first:
            raise KeyboardInterrupt

    monkeypatch.setattr(passes.Pass, "photo", stopped)
    for first in (before + 25, 0):
        with contextlib.suppress(KeyboardInterrupt):
            commands.run({"command": step, "work": work})
        assert first == 0 or (work / f"{kept}.h5").exists()
    assert seen.count(kept) == 40
    one, other = (Detector.load(w / {"svm": "svm.h5", "bbox": "det.h5"}[step])
                  for w in (made / "work", work))  # fmt: skip
    if memory is None:
        assert one.fingerprint == other.fingerprint
    np.testing.assert_allclose(other.svms.W, one.svms.W, atol=1e-5 * abs(one.svms.W).max())
    assert not [*work.glob("*-?.h5"), *work.glob("objects*")]


def test_another_nms_tests_again_and_learns_nothing(made, tmp_path):
    work = copied(made, tmp_path / "w", "job.json", "proposals-grid", "maps", "finetuned.h5",
                  "svm.h5", "det.h5")  # fmt: skip
    done = call("detect", "test", f"--work={work}", "--nms=0.7")
    assert done.code == 0 and done.out.count("is there already") == 3
    assert mean_of(done.out) != mean_of((made / "said").read_text())
    one, other = (Detector.load(w / "det.h5") for w in (made / "work", work))
    assert other.settings.nms == 0.7 and (other.thresholds != one.thresholds).any()
    photo = Job(work, {}).photos("test").photos[0]
    boxes = tiny.windows(photo)
    assert len(other.detect(photo.pixels(), boxes).boxes) > len(
        one.detect(photo.pixels(), boxes).boxes
    )


def test_steps_one_by_one_are_the_whole(made, tmp_path):
    work = tmp_path / "w"
    for step in ("prepare", "features", "finetune", "svm", "bbox", "test"):
        done = train(tmp_path, work, f"--voc={made / 'kit'}", f"--net={made / 'base'}", step=step)
        assert done.code == 0, done.err
    assert mean_of(done.out) == mean_of((made / "said").read_text())
    one, other = (Detector.load(w / "det.h5") for w in (made / "work", work))
    assert one.fingerprint == other.fingerprint
    np.testing.assert_array_equal(one.thresholds, other.thresholds)


def test_shards_are_the_whole(made, tmp_path):
    work = copied(made, tmp_path / "w", "job.json", "finetuned.h5", "svm.h5", "det.h5")
    for step in ("prepare", "features"):
        for part in ("2/3", "1/3", "3/3"):
            done = call("detect", step, f"--work={work}", f"--shard={part}")
            assert done.code == 0, done.err
    assert "40 of 40 photos have their maps" in done.out
    for left, part in (13, "1/3"), (7, "3/3"), (0, "2/3"):
        done = call("detect", "test", f"--work={work}", f"--shard={part}")
        assert done.code == 0, done.err
        assert (f"{left} photos are to be tested yet" in done.out) == (left > 0)
    assert mean_of(done.out) == mean_of((made / "said").read_text())
    done = call("detect", "svm", f"--work={work}", "--shard=1/2")
    assert done.code == 2 and done.err.count("\n") == 1 and "--shard=" in done.err


@pytest.mark.parametrize("step,watch,count", [("features", "maps", 12), ("test", "found-test*", 8)])
def test_a_killed_run_loses_one_photo(made, tmp_path, step, watch, count):
    names = ["job.json", "proposals-grid", *(["maps", "finetuned.h5", "svm.h5", "det.h5"]
                                             if step == "test" else [])]  # fmt: skip
    work = copied(made, tmp_path / "w", *names)
    process = subprocess.Popen(command("detect", step, f"--work={work}"), env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def there():
        return [p for p in work.glob(f"{watch}/*.h5") if not p.name.startswith(".")]

    end = time.monotonic() + 60
    while len(there()) < count and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {p: p.stat().st_mtime_ns for p in there()}
    assert len(before) >= count
    done = call("detect", step, f"--work={work}")
    assert done.code == 0, done.err
    assert {p: p.stat().st_mtime_ns for p in before} == before
    if step == "test":
        assert mean_of(done.out) == mean_of((made / "said").read_text())


KILLED = """
import os
import signal
import sys
from convnet import cli
from convnet.detect.finetune import Finetuning
from tools.detect import main

save = Finetuning.save

def killed(self):
    save(self)
    os.kill(os.getpid(), signal.SIGKILL)

Finetuning.save = killed
cli.run(main)
"""


def test_a_killed_fine_tuning_goes_on_to_the_same_weights(made, tmp_path):
    """Killed after its first save, whoever is quicker."""
    work = copied(made, tmp_path / "w", "job.json", "proposals-grid", "maps")
    argv = [sys.executable, "-c", KILLED, "finetune", f"--work={work}"]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (work / "finetuning.h5").exists() and not (work / "finetuned.h5").exists()
    done = call("detect", "finetune", f"--work={work}")
    assert "going on after batch" in done.out
    assert not (work / "finetuning.h5").exists()
    one, other = (Detector.load(w / "finetuned.h5") for w in (made / "work", work))
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    "more,least",
    [
        (("--head=softmax+bbox", "--no-svm", "--no-bbox", "--rate=0.02"), 40),
        (("--head=softmax+bbox", "--no-svm", "--no-bbox", "--finetune=all", "--rate=0.02"), 25),
        (("--finetune=none", "--semantics=paper", "--scales=40,56"), 50),
    ],
)
def test_other_detectors(made, tmp_path, more, least):
    done = train(made, tmp_path / "w", *more)
    assert done.code == 0, done.err
    assert mean_of(done.out) > least


def test_rcnn_with_boxes_from_a_file(made, tmp_path):
    photos = [*Job(made / "work", {}).photos("trainval").photos,
              *Job(made / "work", {}).photos("test").photos]  # fmt: skip
    (tmp_path / "boxes.json").write_text(
        json.dumps({p.name: tiny.windows(p).tolist() for p in photos})
    )
    done = train(made, tmp_path / "w", "--method=rcnn", "--iterations=100", "--per-class=12",
                 f"--proposals={tmp_path / 'boxes.json'}")  # fmt: skip
    assert done.code == 0, done.err
    assert "photos have their crops in" in done.out
    assert mean_of(done.out) > 60
    photo = made / "kit/JPEGImages/1_000.png"
    done = call("detect", "run", photo, f"--model={tmp_path / 'w/det.h5'}", f"--out={tmp_path}",
                "--proposals=grid", "--threshold=-1.5")  # fmt: skip
    assert done.code == 0 and "1_000.png: " in done.out


def test_low_rank(made, tmp_path):
    work = copied(made, tmp_path / "w", "job.json", "proposals-grid", "maps", "finetuned.h5",
                  "svm.h5", "det.h5")  # fmt: skip
    done = call("detect", "test", f"--work={work}", "--svd=12")
    assert done.code == 0, done.err
    assert "[fc1] of rank 12 keeps" in done.out
    last = [line for line in done.out.splitlines() if line.startswith("fc layers of rank 12: mAP")]
    assert len(last) == 1 and "exact:" in last[0]
    low = Detector.load(work / "det-svd-12.h5")
    assert "[fc1_low]" in low.source.text
    assert abs(mean_of(done.out) - mean_of((made / "said").read_text())) < 10
    for wrong, said in ("20", "a rank of 20 saves nothing"), ("5,5", "1 fc layers"), ("a", "ranks"):
        done = call("detect", "test", f"--work={work}", f"--svd={wrong}")
        assert done.code == 2 and done.err.count("\n") == 1 and said in done.err


def test_combine(made, tmp_path):
    other = train(made, tmp_path / "w", "--seed=1")
    assert other.code == 0
    for more in ([], ["--calibrate"]):
        done = call("detect", "combine", made / "work", tmp_path / "w", f"--out={tmp_path / 'c'}",
                    *more)  # fmt: skip
        assert done.code == 0, done.err
        best = max(mean_of(other.out), mean_of((made / "said").read_text()))
        assert mean_of(done.out) > best - 5
    done = call("detect", "combine", made / "work")
    assert done.code == 2 and "two jobs" in done.err
    done = call("detect", "combine", made / "work", tmp_path)
    assert done.code == 3 and "no det.h5" in done.err


def test_run(made, tmp_path):
    photo = made / "kit/JPEGImages/1_000.png"
    (tmp_path / "list.txt").write_text(f"{photo}\n\n")
    (tmp_path / "several").mkdir()
    shutil.copy(photo, tmp_path / "several")
    given = photo, tmp_path / "several", tmp_path / "list.txt"
    done = call("detect", "run", *given, f"--model={made / 'work/det.h5'}", f"--out={tmp_path}")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "detections.json").read_text())
    assert [row["picture"] for row in rows] == ["1_000.png", "1_000-2.png"]  # each photo once
    truth = {p.name: p for p in Job(made / "work", {}).photos("test").photos}["1_000"]
    best = rows[0]["detections"][0]
    assert best["label"] == tiny.CLASSES[truth.labels[0]]
    assert np.abs(np.array(best["box"]) - truth.boxes[0]).max() < 12
    assert 0 < best["probability"] < 1
    for name in ("1_000.png", "1_000-2.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (96, 72)
            assert (np.asarray(picture) != np.asarray(Image.open(photo))).any()


def test_run_goes_on_after_a_bad_photo_and_draws_over_none(made, tmp_path):
    shutil.copy(made / "kit/JPEGImages/1_000.png", tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"no picture")
    done = call("detect", "run", tmp_path, f"--model={made / 'work'}", f"--out={tmp_path / 'out'}")
    assert done.code == 3 and done.err.count("\n") == 2 and "1 of 2 photos" in done.err
    assert [p.name for p in sorted((tmp_path / "out").iterdir())] == ["b.png", "detections.json"]
    before = (tmp_path / "b.png").read_bytes()
    done = call("detect", "run", tmp_path, f"--model={made / 'work'}", f"--out={tmp_path}")
    assert (
        done.code == 2
        and "a.png would be drawn over" in done.err
        and (tmp_path / "b.png").read_bytes() == before
    )


def test_photos_that_have_changed_are_refused(made, tmp_path):
    """Other pixels under the same name: neither maps nor proposals nor detections are of them."""
    work, kit = copied(made, tmp_path / "w", "job.json", "proposals-grid", "maps"), tmp_path / "kit"
    shutil.copytree(made / "kit", kit)
    path = kit / "JPEGImages/0_000.png"
    with Image.open(path) as picture:
        turned = Image.fromarray(255 - np.asarray(picture))
    turned.save(path)
    for what in "proposals", "maps":
        done = call("detect", "finetune", f"--work={work}", f"--voc={kit}")
        assert done.code == 3 and f"{what} of another photo" in done.err, done.err
        assert json.loads((work / "job.json").read_text())["voc"] == str(made / "kit")
        shutil.rmtree(work / "proposals-grid", ignore_errors=True)
        assert call("detect", "prepare", f"--work={work}", f"--voc={kit}").code == 0
        before = work / "job.json"
        before.write_text((made / "work/job.json").read_text())


def test_a_finished_job_is_tested_without_its_classifier(made, tmp_path):
    names = ("proposals-grid", "maps", "finetuned.h5", "svm.h5", "det.h5")
    work = copied(made, tmp_path / "w", "job.json", *names)
    options = json.loads((work / "job.json").read_text()) | {"net": str(tmp_path / "gone")}
    (work / "job.json").write_text(json.dumps(options))
    done = call("detect", "test", f"--work={work}")
    assert done.code == 0, done.err
    assert mean_of(done.out) == mean_of((made / "said").read_text())


def test_another_layer_fine_tunes_nothing_anew(made, tmp_path):
    names = ("proposals-grid", "maps", "finetuned.h5", "svm.h5")
    work = copied(made, tmp_path / "w", "job.json", *names)
    done = call("detect", "svm", f"--work={work}", "--layer=spp")
    assert done.code == 0 and "finetuned.h5: is there already" in done.out
    assert "made with another layer" in done.err and Detector.load(work / "svm.h5").layer == "spp"


BAD = [
    (["run", "nowhere.jpg", "--model={work}/det.h5"], 3, "no such file"),
    (["run", "{folder}", "--model={work}/det.h5"], 3, "no photo in this folder"),
    (["run", "{kit}/JPEGImages", "--model={folder}/base"], 3, "base: no det.h5 there"),
    (["run", "x.txt", "--model={work}/det.h5"], 3, "x.txt: no such file"),
    (["train", "--work={folder}/new"], 2, "says where the photos are"),
    (["train", "--voc={kit}", "--work={folder}/new", "--proposals=grid", "--split=x"], 3,
     "no such split"),
    (["train", "--voc={kit}", "--work={folder}/new", "--proposals=grid"], 2, "--net="),
    (["train", "--voc={kit}", "--net={work}/det.h5", "--work={folder}/new", "--proposals=grid"], 5,
     "is a detector already"),
    (["prepare", "--voc={kit}", "--work={folder}/new", "--proposals=slow"], 2, "must be fast"),
    (["train", "--work={work}", "--scales=1.5"], 2, "--scales=1.5"),
    (["prepare", "--voc={kit}", "--work={folder}/new", "--shard=3/2"], 2, "I/N"),
    (["features", "--voc={kit}", "--work={work}", "--net={folder}/other"], 5, "no such"),
    (["features", "--work={work}", "--scales=40"], 3, "maps of another scales"),
    (["finetune", "--work={work}", "--layer=fc9", "--seed=5"], 2, "fc9"),
    (["finetune", "--work={work}", "--layer=conv1"], 2, "--layer=conv1: is below the windows"),
    (["finetune", "--work={work}", "--rate=0"], 2, "--rate=0"),
    (["test", "--work={work}", "--device=gpu:9"], 6, "--device=gpu:9"),
    (["test", "--work={work}", "--head=softmax+bbox", "--no-svm"], 2, "--no-bbox too"),
    (["combine", "{work}", "{work}"], 2, "different jobs"),
    (["prepare", "--coco={kit}/ImageSets/Main/test.txt", "--work={folder}/new"], 2, "{split}"),
    (["crops", "--voc={kit}", "--out={work}/job.json"], 2, "job.json"),
]  # fmt: skip


@pytest.mark.parametrize("argv,code,said", BAD, ids=[" ".join(b[0])[:40] for b in BAD])
def test_mistakes_are_one_line(made, tmp_path, monkeypatch, argv, code, said):
    monkeypatch.chdir(tmp_path)
    words = {"work": made / "work", "folder": made, "kit": made / "kit"}
    before = (made / "work/job.json").read_text()
    done = call("detect", *[a.format(**words) for a in argv])
    assert (made / "work/job.json").read_text() == before
    assert done.code == code, done.err
    assert said in done.err
    assert [line for line in done.err.splitlines() if not line.startswith("note: ")] == [
        done.err.splitlines()[-1]
    ]
    assert "Traceback" not in done.err


def test_help_is_quick(tmp_path):
    start = time.monotonic()
    for words in ((), ("train",), ("run",), ("combine",)):
        done = subprocess.run([sys.executable, tooling.ROOT / "tools/detect.py", *words, "--help"],
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert "usage:" in done.stdout
    assert time.monotonic() - start < 30
