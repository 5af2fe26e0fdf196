"""tools/make_data.py, and the providers of what it makes and is made from: packed, tars."""

import errno
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from convnet import files as convnet_files
from convnet import packing, shards
from convnet.providers import DataError, DataOptions, name_for, packed, provider_class
from convnet.providers._pictures import Pictures, has_no_classes
from tests.test_ilsvrc import KIT, devkit, images
from tests.tooling import call, environment, later, photos, tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """27 photos of three classes; nobody writes on it."""
    return photos(tmp_path_factory.mktemp("source") / "photos")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet") / "imagenet"
    images(root)
    devkit(root / KIT)
    return root


def open_(path, size=32, **options):
    path = str(path)
    return provider_class(name_for(path))(path, size, 3, DataOptions(workers=0, **options))


def pack(source, out, *argv, code=0):
    result = call("make_data", source, f"--out={out}", "--workers=0", *argv)
    assert result.code == code, result
    assert "Traceback" not in result.err
    return result


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "packed"
    pack(source, out)
    return out


@pytest.fixture
def copy(made, tmp_path):
    """One to spoil."""
    return shutil.copytree(made, tmp_path / "packed")


def same(a, b, keys=True):
    """Two providers that give the same."""
    assert a.classes == b.classes
    for split in ("train", "test"):
        one, other = a.splits[split], b.splits[split]
        assert one.labels.tolist() == other.labels.tolist()
        assert one.labels.dtype == other.labels.dtype
        if keys:
            assert list(one.keys) == list(other.keys)
        for epoch in range(2):
            pairs = zip(a.batches(split, 5, epoch), b.batches(split, 5, epoch), strict=True)
            for x, y in pairs:
                assert np.array_equal(x.images, y.images)
                assert x.labels.tolist() == y.labels.tolist()
                assert x.indices.tolist() == y.indices.tolist()


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.*"))}


# ---------------------------------------------------------------- the set


def test_a_set_gives_what_the_folder_gives(source, made):
    assert name_for(str(made)) == "packed"
    with open_(source) as a, open_(made) as b:
        same(a, b)
        for x, y in zip(a.images("test", range(6)), b.images("test", range(6))):
            assert np.array_equal(x, y)
        seen = [list(p.seen([("train", 3), ("test", 1)], lambda x: [x])) for p in (a, b)]
        for (i, (x,)), (j, (y,)) in zip(*seen):
            assert i == j
            assert np.array_equal(x, y)
        assert b.test.keys[-1] == a.test.keys[-1]
        with pytest.raises(IndexError):
            b.test.keys[6]


def test_names_that_are_no_utf_8(source, tmp_path):
    """Of images and of a class, in the set as in the folder; also of one that cannot be read."""
    folder = shutil.copytree(source, tmp_path / "photos")
    odd = [folder / os.fsdecode(name) for name in (b"ant/\xe9.png", b"ant/\xe8.png", b"b\xff")]
    try:
        for new, old in zip(odd, ("ant/1.png", "ant/3.png", "bee")):
            (folder / old).rename(new)
    except OSError:
        pytest.skip("the file system has no such names")
    (odd[2] / "two\nlines.jpg").write_text("no image")
    literal = odd[0].with_name(r"\xe9.png")
    shutil.copy(odd[0].with_name("5.png"), literal)
    told = pack(folder, tmp_path / "packed")
    assert (
        told.err
        == r"bad image left out: 'b\udcff/two\nlines.jpg': no image of a known format" + "\n"
    )
    assert call("make_data", f"--check={tmp_path / 'packed'}", "--workers=0").code == 0
    given = tar(tmp_path / "photos.tar", folder)
    with open_(folder) as a, open_(tmp_path / "packed") as b, open_(given) as c:
        assert (b.classes, c.classes) == (a.classes, a.classes)
        for split in "train", "test":
            keys = [k for k in a.splits[split].keys if "\n" not in k]
            assert list(b.splits[split].keys) == keys
            assert list(c.splits[split].keys) == list(a.splits[split].keys)
        found = {*a.train.keys, *a.test.keys}
        assert {os.path.relpath(path, folder) for path in [*odd[:2], literal]} <= found


def test_a_test_fraction_of_what_has_images_to_test_with(made, imagenet, tmp_path):
    """It is refused, not passed over."""
    for split in "train", "test":
        photos(tmp_path / "photos" / split, each=4)
    why = "has images to test with of its own; leave the option away"
    for folder in tmp_path / "photos", imagenet:
        told = pack(folder, tmp_path / "packed", "--test-fraction=0.5", code=2)
        assert told.err == f"--test-fraction=0.5: {folder} {why}\n"
    argv = f"--layer-def={tiny(tmp_path)}", "--epochs=1", "--workers=0", "--test-fraction=0.5"
    told = call("train", *argv, f"--data-path={made}")
    assert (told.code, told.err) == (2, f"--test-fraction=0.5: {made} {why}\n")
    assert not (tmp_path / "packed").exists()


def test_train_and_test_folders(tmp_path):
    for split, each in ("train", 6), ("val", 2):
        photos(tmp_path / "photos" / split, each=each)
    pack(tmp_path / "photos", tmp_path / "packed")
    with open_(tmp_path / "photos") as a, open_(tmp_path / "packed") as b:
        same(a, b)
        assert (b.train.size, b.test.size) == (18, 6)


def test_small_images_of_one_size_stay_in_memory(tmp_path):
    folder = photos(tmp_path / "photos", suffixes=(".png",))
    for path in folder.rglob("*.png"):
        Image.open(path).resize((24, 24)).save(path)
    pack(folder, tmp_path / "packed")
    with open_(folder, size=None) as a, open_(tmp_path / "packed", size=None) as b:
        assert a.size == b.size == 24
        same(a, b)


def test_workers_change_nothing(source, made, tmp_path):
    pack(source, tmp_path / "packed", "--workers=2")
    assert files(tmp_path / "packed") == files(made)
    with (
        open_(made) as a,
        packed.Packed(str(made), 32, 3, DataOptions(workers=2)) as b,
    ):
        same(a, b)


def test_train_and_test(made, source, tmp_path):
    """The run on a set is that on its folder, and each can be tested on the other."""
    cfg, losses = tiny(tmp_path), []
    for name, path in ("a", source), ("b", made):
        argv = (f"--layer-def={cfg}", f"--data-path={path}", f"--save-path={tmp_path / name}")
        result = call("train", *argv, "--epochs=1", "--minibatch=8", "--workers=0")
        assert (result.code, result.err) == (0, "")
        losses.append([line for line in result.out.splitlines() if line.startswith("test output")])
    assert losses[0] == losses[1]
    tests = [
        call("test", tmp_path / "b", "--workers=0", *argv)
        for argv in ([], [f"--data-path={source}"])
    ]
    assert [t.code for t in tests] == [0, 0], tests
    assert tests[0].out.splitlines()[-4:] == tests[1].out.splitlines()[-4:]


def test_resized(source, tmp_path):
    """Larger ones at 40 pixels, as JPEG; smaller ones stay as they are."""
    folder = shutil.copytree(source, tmp_path / "photos")
    Image.new("RGB", (30, 90)).save(folder / "ant" / "thin.png")
    pack(folder, tmp_path / "packed", "--resize=40", "--quality=95")
    with open_(folder) as a, open_(tmp_path / "packed") as b:
        for x, y, key in zip(
            *(p.images("train", range(p.train.size)) for p in (a, b)), a.train.keys
        ):
            if key == "ant/thin.png":
                assert np.array_equal(x, y)
                continue
            h, w = x.shape[:2]
            assert min(y.shape[:2]) == 40
            assert abs(max(y.shape[:2]) - 40 * max(h, w) / min(h, w)) <= 0.5
            assert np.abs(x.mean((0, 1)) - y.mean((0, 1))).max() < 3
        assert "ant/thin.png" in [*a.train.keys, *a.test.keys]


def test_imagenet(imagenet, tmp_path):
    out, cfg = tmp_path / "packed", tiny(tmp_path)
    pack(imagenet, out)
    with open_(imagenet, 16) as a, open_(out, 16) as b:
        same(a, b)
        a.test_with("test")
        b.test_with("test")
        same(a, b)
        assert set(b.test.labels.tolist()) == {-1}
        b.test_with("val")
        assert b.test.size == 12
    argv = (f"--layer-def={cfg}", f"--data-path={out}", f"--save-path={tmp_path / 'run'}")
    assert call("train", *argv, "--epochs=1", "--minibatch=8", "--workers=0").code == 0
    made = []
    for path in imagenet, out:  # the devkit has come along, so that there is a submission
        argv = f"--data-path={path}", f"--submission={tmp_path / 'val.txt'}", "--workers=0"
        assert call("test", tmp_path / "run", *argv).code == 0
        made.append((tmp_path / "val.txt").read_text())
    assert made[0] == made[1]
    errors = [
        call("ilsvrc_eval", tmp_path / "val.txt", f"--devkit={p / KIT}") for p in (imagenet, out)
    ]
    assert errors[0].code == 0
    assert errors[0].out == errors[1].out
    assert "without the blacklist: 10 images" in errors[1].out


def test_a_test_folder_that_cannot_be_read_is_not_passed_over(imagenet, tmp_path, monkeypatch):
    listed = os.listdir

    def refuse(path):
        if Path(path).name == "test":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)
    told = pack(imagenet, tmp_path / "packed", code=3)
    why = "cannot be read, permission denied; look at its rights and the disk"
    assert told.err == f"{imagenet / 'test'}: {why}\n"
    assert not (tmp_path / "packed").exists()


def test_test_images_of_imagenet_that_are_gone(imagenet, tmp_path):
    """Their shard is made again, or deleted; those of train and val stay as they are."""
    folder, out = shutil.copytree(imagenet, tmp_path / "imagenet"), tmp_path / "packed"
    pack(folder, out)
    before = files(out)
    (folder / "test" / "ILSVRC2012_test_00000002.JPEG").unlink()
    told = pack(folder, out).out
    assert "unlabelled-00000.h5: is made again, the images of unlabelled are others\n" in told
    assert "6 images of unlabelled" in told
    with open_(folder, 16) as a, open_(out, 16) as b:
        a.test_with("test")
        b.test_with("test")
        same(a, b)
    one, other = (folder / "test" / f"ILSVRC2012_test_0000000{i}.JPEG" for i in (1, 2))
    one.rename(other)  # as many, with another name
    told = pack(folder, out).out
    assert "unlabelled-00000.h5: is made again, the images of unlabelled are others\n" in told
    shutil.rmtree(folder / "test")
    told = pack(folder, out).out
    assert "unlabelled-00000.h5: is deleted, no image is left for it" in told
    assert "of unlabelled" not in told
    after = files(out)
    assert before.keys() - after.keys() == {"unlabelled-00000.h5"}
    assert {n for n in after if after[n] != before[n]} == {"index.json"}
    assert call("make_data", f"--check={out}", "--workers=0").code == 0


def test_submissions_of_a_packed_imagenet_with_bad_images(imagenet, tmp_path):
    """They are those of the folder: a bad image has a line of its own."""
    folder, out = shutil.copytree(imagenet, tmp_path / "imagenet"), tmp_path / "packed"
    bad = "test/ILSVRC2012_test_00000003.JPEG", "val/ILSVRC2012_val_00000012.JPEG"
    for name in bad:
        (folder / name).write_bytes(b"no image")
    packing = pack(folder, out)
    assert sorted(packing.err.splitlines()) == [
        f"bad image left out: {name}: no image of a known format" for name in bad
    ]
    assert "unlabelled-00000.h5: 7 images, " in packing.out
    assert "7 images of unlabelled, 6 classes, 2 bad images kept without bytes" in packing.out
    assert "is made again" not in pack(folder, out).out
    checked = call("make_data", f"--check={out}", "--workers=0")
    assert (checked.code, checked.err) == (0, "")
    argv = f"--layer-def={tiny(tmp_path)}", f"--data-path={out}", f"--save-path={tmp_path / 'run'}"
    assert call("train", *argv, "--epochs=1", "--minibatch=8", "--workers=0").code == 0
    for split, lines, name in ("val", 12, bad[1]), ("test", 7, bad[0]):
        made = []
        for path in folder, out:
            argv = f"--data-path={path}", f"--split={split}", f"--submission={tmp_path / 'x.txt'}"
            told = call("test", tmp_path / "run", *argv, "--workers=0")
            assert told.code == 0, told
            assert f"lines of bad images (1, such as {name}) name the classes" in told.err
            made.append((tmp_path / "x.txt").read_text())
        assert f"{name}: could not be read when it was packed" in told.err
        assert made[0] == made[1]
        assert made[0].count("\n") == lines


def test_a_packed_imagenet_of_before_bad_images_had_places(imagenet, tmp_path, monkeypatch):
    """It stays as it is, so that runs on it go on; what it lacks is told."""
    folder, out = shutil.copytree(imagenet, tmp_path / "imagenet"), tmp_path / "packed"
    (folder / "test" / "ILSVRC2012_test_00000003.JPEG").write_bytes(b"no image")
    begin = packing.Packing.__init__

    def older(self, *args):
        begin(self, *args)
        self.keeping = set()

    with monkeypatch.context() as m:
        m.setattr(packing.Packing, "__init__", older)
        pack(folder, out)
    before = files(out)
    told = pack(folder, out)
    assert files(out) == before
    assert "6 images of unlabelled, 6 classes, 1 bad image left out; nothing to do\n" in told.out
    assert told.err == (
        "unlabelled-00000.h5: bad images have no place, so that submissions lack them; deleted "
        "and packed again they have one, but that makes another set\n"
    )
    (folder / "test" / "ILSVRC2012_test_00000004.JPEG").unlink()  # another is no bad one
    told = pack(folder, out).out
    assert "unlabelled-00000.h5: is made again, the images of unlabelled are others\n" in told
    assert "1 bad image kept without bytes" in told
    shutil.copy(folder / "test" / "ILSVRC2012_test_00000005.JPEG", folder / "test" / "last.JPEG")
    told = pack(folder, out).out  # as many more as there are bad ones
    assert "unlabelled-00000.h5: is made again, the images of unlabelled are others\n" in told


def test_other_splits_are_only_for_imagenet(made):
    with open_(made) as data, pytest.raises(DataError, match="only ImageNet's own layout"):
        data.test_with("test")


# ---------------------------------------------------------------- the order of an epoch


def sets(folder, n, each):
    """A set of n shards of `each` records that are their own numbers, mixed; its labels are 0."""
    folder.mkdir()
    order = np.random.default_rng(1).permutation(n * each)
    data, made = io.BytesIO(), {"train": [], "test": []}
    Image.new("RGB", (8, 8)).save(data, "PNG")
    for split, parts in ("train", order.reshape(n, each)), ("test", [[0]]):
        for number, part in enumerate(parts):
            path = folder / packed.name_of(split, number)
            records = (shards.Record(data.getvalue(), 0, i, f"{i}.png") for i in part)
            shards.write(path, records, [], {"side": 8, "of": ""})
            made[split].append(shards.read(path).about["tables"])
    about = {"format": packed.FORMAT, "source": "images", "classes": ["a", "b"], "shards": made}
    (folder / packed.INDEX).write_text(json.dumps(about))
    return order.reshape(n, each)


def test_many_shards_are_mixed_some_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "BUFFER", 4)
    order = sets(tmp_path / "set", 10, 25)
    shard_of = {image: shard for shard, part in enumerate(order) for image in part.tolist()}
    with open_(tmp_path / "set", 8) as data, open_(tmp_path / "set", 8, seed=1) as other:
        assert [data.train.keys[i] for i in range(250)] == [f"{i}.png" for i in range(250)]
        epochs = [data.mixed("train", epoch).tolist() for epoch in range(2)]
        for epoch in epochs:
            assert sorted(epoch) == list(range(250))
            used = [{shard_of[i] for i in epoch[at : at + 100]} for at in (0, 100, 200)]
            assert [len(some) for some in used] == [4, 4, 2]
            assert len(set.union(*used)) == 10
            assert len({shard_of[i] for i in epoch[:20]}) == 4  # these take turns
        assert epochs[0] != epochs[1]
        assert epochs[0] == data.mixed("train", 0).tolist()
        assert epochs[0] != other.mixed("train", 0).tolist()
        begin = next(iter(data.batches("train", 50, 1, start=2))).indices
        assert begin.tolist() == epochs[1][100:150]


# ---------------------------------------------------------------- killed, damaged, wrong


def big(folder):
    """Photos that make several shards of one MB."""
    rng = np.random.default_rng(0)
    for i in range(60):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8)).save(path)
    return folder


KILLED = """
import os
import signal
import sys
from convnet import cli, shards
from tools.make_data import main

finish, made = shards._finish, []

def killed(*args):
    if made:
        os.kill(os.getpid(), signal.SIGKILL)
    made.append(finish(*args))

shards._finish = killed
sys.exit(cli.run(main))
"""


def test_it_goes_on_after_kill_9(tmp_path):
    """In the middle of the second shard, whoever is quicker."""
    source, out = big(tmp_path / "photos"), tmp_path / "killed"
    pack(source, tmp_path / "undisturbed", "--shard-size=1")
    argv = [sys.executable, "-c", KILLED, source, f"--out={out}", "--workers=1", "--shard-size=1"]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    assert done.stdout.startswith("train-00000.h5: ") and len(list(out.glob(".*.part"))) == 1
    assert not (out / "index.json").exists()
    first = (out / "train-00000.h5").stat()
    with pytest.raises(DataError, match="not finished; the same command of"):
        open_(out)
    later(out)
    (out / ".1-00000000.part").write_bytes(b"what a killed process leaves")
    result = pack(source, out, "--shard-size=1")
    assert "train-00000.h5" not in result.out
    assert (out / "train-00000.h5").stat().st_mtime_ns == first.st_mtime_ns
    assert files(out) == files(tmp_path / "undisturbed")
    assert not list(out.glob(".*"))
    assert len(list(out.glob("train-*"))) > 4
    wrong = pack(source, out, code=2)  # other options
    assert "holds shards of other images or options" in wrong.err


def test_two_at_a_time(source, tmp_path):
    """The second is refused, and changes nothing; the lock of one that was killed is none."""
    out = tmp_path / "packed"
    pack(source, out)
    before = files(out)
    with convnet_files.locked(out / packing.LOCK):
        told = pack(source, out, "--shard-size=2", code=2)
    why = f"process {os.getpid()} packs into this folder; wait for its end, or name another folder"
    assert told.err == f"--out={out}: {why}\n"
    assert (out / packing.LOCK).exists()
    assert files(out).items() - before.items() == {(packing.LOCK, b"%d\n" % os.getpid())}
    pack(source, out)
    assert files(out) == before
    assert not list(out.glob(".*"))


def test_a_lock_that_goes_while_it_is_taken(tmp_path, monkeypatch):
    """By the process that had it, between any two looks at it: the next is taken."""
    path, stat = tmp_path / packing.LOCK, Path.stat

    def gone(self, **kwargs):
        if next(looks, False):
            path.unlink()
        return stat(self, **kwargs)

    monkeypatch.setattr(Path, "stat", gone)
    for goes in (True,), (False, True), (True, True):
        looks = iter(goes)
        with convnet_files.locked(path) as file:
            assert os.path.samestat(os.fstat(file.fileno()), stat(path))
    monkeypatch.undo()
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError):  # and does not try for ever
        convnet_files.locked(path)


@pytest.mark.parametrize("how", ["written over", "an older file", "a link", "in a tar"])
def test_an_image_that_was_replaced_is_packed_again(tmp_path, monkeypatch, how):
    """By one of the same length, between two runs; the other shards stay as they are."""
    folder, out = photos(tmp_path / "photos", suffixes=(".png",)), tmp_path / "packed"
    old, new = folder / "ant" / "2.png", tmp_path / "new.png"
    pixels = np.asarray(Image.open(old))
    Image.fromarray(255 - pixels).save(new)
    length = max(path.stat().st_size for path in (old, new))
    for path in old, new:  # Pillow does not mind what is behind the end
        path.write_bytes(path.read_bytes().ljust(length, b"\0"))
    if how == "a link":
        old.rename(tmp_path / "old.png")
        old.symlink_to(tmp_path / "old.png")
    given = tar(tmp_path / "photos.tar", folder) if how == "in a tar" else folder
    later(tmp_path)
    pack(given, out)
    before = files(out)
    later(tmp_path)
    if how == "written over":
        old.write_bytes(new.read_bytes())
    elif how == "an older file":
        os.utime(new, (1e9, 1e9))
        new.replace(old)
    elif how == "a link":
        old.unlink()
        old.symlink_to(new)
    else:
        old.write_bytes(new.read_bytes())
        tar(given, folder)
    later(tmp_path)
    with monkeypatch.context() as m:  # killed at it: a set that is not finished, no damaged one
        m.setattr(shards, "_finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(given, out)
    with pytest.raises(DataError, match="not finished"):
        open_(out)
    told = pack(given, out).out
    assert f"train-00000.h5: is made again, ant{os.sep}" in told
    assert files(out).keys() == before.keys()
    with open_(folder) as a, open_(out) as b:
        same(a, b)
    changed = {name for name, data in files(out).items() if data != before[name]}
    assert changed == {"index.json", "train-00000.h5"}
    again = pack(given, out).out
    assert "is made again" not in again


def test_an_image_that_is_replaced_while_its_shard_is_written(tmp_path, monkeypatch):
    folder, out = photos(tmp_path / "photos"), tmp_path / "packed"
    finish, late = shards._finish, [*folder.rglob("*.*")]

    def finished(*args):
        while late:  # of the first shard alone
            path = late.pop()
            path.write_bytes(path.read_bytes())
        later(folder)  # the shard is written later
        return finish(*args)

    monkeypatch.setattr(shards, "_finish", finished)
    pack(folder, out)
    monkeypatch.undo()
    told = pack(folder, out).out
    assert "train-00000.h5: is made again" in told and "test-00000" not in told


def test_a_damaged_image_is_a_bad_image(copy):
    with open_(copy) as data:
        place = data.item("train", 4)
        key = data.train.keys[4]
    path = copy / "train-00000.h5"
    raw = bytearray(path.read_bytes())
    raw[place.begin + place.length // 2] ^= 1
    path.write_bytes(raw)
    result = call("make_data", f"--check={copy}", "--workers=0")
    assert result.code == 3
    assert f"{key}: damaged in train-00000.h5: its bytes have another checksum" in result.err
    assert "1 bad image; delete the shards that hold them" in result.err
    with open_(copy) as data:
        lines = []
        data.warn = lines.append
        data.mean = 0
        assert sum(len(batch.labels) for batch in data.batches("train", 5)) == data.train.size - 1
        assert lines == [f"bad image left out: {key}: damaged in train-00000.h5: its bytes have "
                         "another checksum"]  # fmt: skip


def test_check(made):
    result = call("make_data", f"--check={made}", "--workers=0")
    assert (result.code, result.err) == (0, "")
    assert "21 images of train, 6 images of test, 3 classes" in result.out


def test_a_folder_of_other_things_is_let_be(source, made, tmp_path):
    def refused(folder, why):
        before = files(folder)
        told = pack(source, folder, code=2)
        assert told.err == f"--out={folder}: {why}\n"
        assert files(folder) == before

    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    (home / "index.json").write_text("{}")  # of somebody else
    refused(home, "holds other things, such as index.json; name a new folder, or an empty one")
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)  # as a new one is
    (tmp_path / "disk" / ".DS_Store").touch()
    pack(source, tmp_path / "disk")
    refused(source.parent, f"is a folder that {source} is in; name another")
    (home / ".1-00000000.part").touch()  # a run that was killed before its first shard
    pack(source, home)
    (tmp_path / "lost").mkdir()  # all shards are
    shutil.copy(made / "index.json", tmp_path / "lost")
    pack(source, tmp_path / "lost")
    assert files(tmp_path / "lost") == files(made)


def test_a_lost_or_damaged_shard_is_made_again(source, copy, made):
    (copy / "train-00000.h5").unlink()
    with pytest.raises(DataError, match=r"train-00000\.h5: no such shard"):
        open_(copy)
    pack(source, copy)
    assert files(copy) == files(made)
    raw = (copy / "train-00000.h5").read_bytes()
    (copy / "train-00000.h5").write_bytes(raw[:-900])
    result = pack(source, copy, code=3)
    assert "train-00000.h5: " in result.err
    assert f"delete it, {shards.AGAIN}" in result.err


def test_a_shard_of_another_set(copy, tmp_path):
    shards.write(copy / "train-00000.h5", [], [], {"side": 0, "of": ""})
    with pytest.raises(DataError, match=r"is not the shard that index\.json tells of"):
        open_(copy)


def test_two_images_at_one_position(copy):
    data = shards.Record(b"", 0, 5, "a")
    shards.write(copy / "train-00000.h5", [data, data], [], {"side": 0, "of": ""})
    index = json.loads((copy / "index.json").read_text())
    index["shards"]["train"] = [shards.read(copy / "train-00000.h5").about["tables"]]
    del index["crc32"]
    (copy / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="two of its images have one position"):
        open_(copy)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"format": "convnet set of shards 2"}', "\xff",
     '{"format": "convnet set of shards 1", "source": "images", "classes": ["a", "b"], '
     '"shards": {"train": [], "test": [], "../x": [1]}}',
     '{"format": "convnet set of shards 1", "source": "images", "classes": "ab", '
     '"shards": {"train": [], "test": []}}',
     '{"format": "convnet set of shards 1", "source": "images", "classes": [1, 2], '
     '"shards": {"train": [], "test": []}}'],
)  # fmt: skip
def test_a_damaged_index(copy, text):
    (copy / "index.json").write_text(text, "latin-1")
    with pytest.raises(DataError, match=r"index\.json: damaged, or of a newer convnet"):
        open_(copy)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file gives errors here")
@pytest.mark.parametrize("name", ["index.json", "train-00000.h5"])
def test_a_file_that_the_disk_does_not_give(copy, name):
    """It is not called damaged, and nobody is told to delete it."""
    (copy / name).unlink()
    (copy / name).symlink_to("/proc/self/mem")  # whose first bytes are an I/O error
    result = call("make_data", f"--check={copy}", "--workers=0")
    why = "(input/output error|permission denied); look at its rights and the disk"
    assert result.code == 3
    assert re.fullmatch(f"{re.escape(str(copy / name))}: cannot be read, {why}\n", result.err)


def test_a_folder_that_may_not_be_looked_at(source, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as m:
        m.setattr(Path, "is_file", refuse)
        with pytest.raises(DataError, match="photos: cannot be read, permission denied; look at"):
            name_for(str(source))
    images = provider_class("images")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="photos: cannot be read, permission denied; look at"):
        images(str(source), 32, 3)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("classes", lambda classes: ["ant", "bee", "dog"]),
        ("classes", lambda classes: classes[::-1]),
        ("shards", lambda made: {**made, "train": []}),
        ("source", lambda kind: "ilsvrc"),
    ],
)
def test_an_index_that_was_changed(copy, field, change):
    """Its checksum tells; sets of before there was one still open, but no class may come twice."""
    path = copy / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, field: change(index[field])}))
    result = call("make_data", f"--check={copy}", "--workers=0")
    assert result.code == 3
    assert "index.json: damaged, or of a newer convnet; delete it and give the same" in result.err
    del index["crc32"]
    path.write_text(json.dumps(index))
    assert call("make_data", f"--check={copy}", "--workers=0").code == 0
    path.write_text(json.dumps({**index, "classes": ["ant", "bee", "ant"]}))
    assert call("make_data", f"--check={copy}", "--workers=0").code == 3


def test_a_shard_too_many_is_named(copy):
    shutil.copy(copy / "train-00000.h5", copy / "train-00001.h5")
    (copy / "mine.h5").touch()
    result = call("make_data", f"--check={copy}", "--workers=0")
    why = "is none of the shards that index.json names; nothing reads it"
    assert (result.code, result.err) == (0, f"{copy / 'train-00001.h5'}: {why}\n")


def test_bad_images(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "photos")
    (folder / "bee" / "text.jpg").write_text("no image")
    raw = (folder / "ant" / "2.jpg").read_bytes()
    (folder / "ant" / "2.jpg").write_bytes(raw[: len(raw) // 2])
    later(folder)
    stopped = pack(folder, tmp_path / "stopped", "--on-bad-image=stop", code=3)
    assert stopped.err.count("\n") == 1
    assert not (tmp_path / "stopped").exists()
    (tmp_path / "stopped").mkdir()  # one that we did not make
    pack(folder, tmp_path / "stopped", "--on-bad-image=stop", code=3)
    assert not list((tmp_path / "stopped").iterdir())
    result = pack(folder, tmp_path / "packed")
    lines = sorted(result.err.splitlines())
    assert len(lines) == 2
    assert lines[0].startswith("bad image left out: ant/2.jpg: ")
    assert lines[1] == "bad image left out: bee/text.jpg: no image of a known format"
    assert "2 bad images left out" in result.out
    again = pack(folder, tmp_path / "packed")  # nothing is read again, but it is told
    assert (again.out, again.err) == (result.out.splitlines()[-1] + "; nothing to do\n", "")
    (tmp_path / "packed" / "index.json").unlink()
    assert pack(folder, tmp_path / "packed").out == result.out.splitlines()[-1] + "\n"
    with open_(folder) as a, open_(tmp_path / "packed") as b:
        good = [key for key in a.train.keys if key not in ("ant/2.jpg", "bee/text.jpg")]
        assert list(b.train.keys) == good
    with h5py.File(tmp_path / "packed" / "train-00000.h5") as file:
        told = [*file["left_out"].asstr()[:]]
    assert all(any(line.endswith(text) for line in lines) for text in told)


def test_links_that_lead_nowhere_are_bad_images(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "photos")
    (folder / "ant" / "loop.jpg").symlink_to("loop.jpg")
    (folder / "bee" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    (folder / "circle").symlink_to("circle")
    (folder / "cat" / "a_folder.jpg").symlink_to(folder / "ant")
    result = pack(folder, tmp_path / "packed")
    assert sorted(result.err.splitlines()) == [
        f"bad image left out: {Path('ant', 'loop.jpg')}: too many levels of symbolic links",
        f"bad image left out: {Path('bee', 'gone.jpg')}: no such file or directory",
    ]
    with open_(source) as a, open_(folder) as b, open_(tmp_path / "packed") as c:
        assert a.fingerprint == b.fingerprint  # so that a run goes on, whenever a link was broken
        same(a, b)
        same(a, c)
        assert [*map(Path, b.bad)] == [Path("ant", "loop.jpg"), Path("bee", "gone.jpg")]
    with Pictures(str(source / "ant"), 32, 3) as a, Pictures(str(folder / "ant"), 32, 3) as b:
        assert a.fingerprint == b.fingerprint
        assert [*b.bad] == ["loop.jpg"]
    told = pack(folder, tmp_path / "stopped", "--on-bad-image=stop", code=3)
    assert told.err == f"{Path('ant', 'loop.jpg')}: too many levels of symbolic links\n"
    shutil.rmtree(folder / "bee")
    (folder / "bee").mkdir()
    (folder / "bee" / "1.jpg").symlink_to("gone")
    told = pack(folder, tmp_path / "none", code=3).err  # which says why, too
    assert "bee/1.jpg: no such file or directory\n" in told.replace(os.sep, "/")
    assert "bee: no image in it" in told


def test_a_full_disk_is_told_and_leaves_no_shard(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "_finish", full)
    result = pack(source, tmp_path / "packed", code=2)
    assert result.err == f"--out={tmp_path / 'packed'}: No space left on device; free some space\n"
    assert not (tmp_path / "packed").exists()


def test_commands_that_cannot_be(source, made, tmp_path):
    def fails(code, pattern, *argv):
        result = call("make_data", *argv)
        assert result.code == code, result
        assert pattern in result.err
        assert result.err.count("\n") == 1

    one = "name one of these: the images to pack, a set to --check, one to --download"
    fails(2, one)
    fails(2, one, source, f"--check={made}")
    fails(2, one, source, f"--out={tmp_path / 'x'}", f"--check={made}")
    fails(2, "--out=DIR: name the folder to make", source)
    fails(2, "is in the folder that it is made from", source, f"--out={source / 'packed'}")
    fails(2, "is packed; what can be packed is images", made, f"--out={tmp_path / 'x'}")
    fails(3, "no such folder", tmp_path / "none", f"--out={tmp_path / 'x'}")
    fails(3, "no such folder", f"--check={tmp_path / 'none'}")
    fails(3, "photos: is no set of tools/make_data.py: there is no index.json", f"--check={source}")
    for option in ("--out=x", "--resize=32", "--quality=90", "--shard-size=1",
                   "--test-fraction=0.2", "--on-bad-image=stop"):  # fmt: skip
        fails(2, f"{option.partition('=')[0]}: goes with SOURCE", f"--check={made}", option)
        fails(2, f"{option.partition('=')[0]}: goes with SOURCE", "--download=cifar10", option)
    fails(2, "--to: goes with --download", f"--check={made}", "--to=x")
    fails(2, "--workers: goes with SOURCE or --check", "--download=cifar10", "--workers=1")
    fails(2, "--quality: goes with --resize", source, f"--out={tmp_path / 'x'}", "--quality=50")
    for option, why in (
        ("--quality=96", "must be a whole number from 1 to 95, not '96'"),
        ("--quality=0", "must be a whole number from 1 to 95, not '0'"),
        ("--workers=257", "must be a whole number from 0 to 256, not '257'"),
        ("--resize=1e11", "must be a whole number from 1 to 999999999, in digits, not '1e11'"),
        ("--resize=1000000000", "must be a whole number from 1 to 999999999, not '1000000000'"),
    ):
        fails(2, why, source, f"--out={tmp_path / 'x'}", option)
    assert not (tmp_path / "x").exists()


# ---------------------------------------------------------------- tar files


def tar(path, folder, *tops, mode="w"):
    """A tar file of what is in a folder, in no order; the names begin with each of tops in turn."""
    with tarfile.open(path, mode) as file:
        items = filter(Path.is_file, sorted(folder.rglob("*"), reverse=True))
        for item, top in zip(items, itertools.cycle(tops or [""])):
            info = file.gettarinfo(item)
            info.name = f"{top}{item.relative_to(folder)}"  # add() would take a / away
            file.addfile(info, io.BytesIO(item.read_bytes()))
    return path


@pytest.mark.parametrize("tops", [["./"], ["my/photos/"], ["/", "", "//"], ["/a/", "a/", "///a/"]])
def test_a_tar_file(source, tmp_path, tops):
    """Names from the root and others, in one file, are of one folder."""
    path = tar(tmp_path / "photos.tar", source, *tops)
    with open_(source) as a, open_(path) as b:
        assert type(b).__name__ == "Tars"
        same(a, b)
    assert not has_no_classes(str(path))  # to tools/features.py, which may be given a list of files


def test_tars_by_class_and_a_tar_of_tars(source, made, tmp_path):
    (tmp_path / "tars").mkdir()
    for folder in source.iterdir():
        tar(tmp_path / "tars" / f"{folder.name}.tar", folder)
    path = tar(tmp_path / "whole.tar", tmp_path / "tars")
    pack(path, tmp_path / "packed")
    with open_(source) as a, open_(tmp_path / "tars") as b, open_(path) as c:
        same(a, b)
        same(a, c)
    assert files(tmp_path / "packed") == files(made)


def test_a_tar_beside_folders_is_told_to_be_left_out(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "photos")
    tar(folder / "dog.tar", folder / "ant")
    why = "left out, as there are folders, too; unpack it into one"
    told = pack(folder, tmp_path / "packed")
    assert told.err == f"{folder}: dog.tar {why}\n"
    assert "3 classes" in told.out
    shutil.copy(folder / "dog.tar", folder / "eel.tar")
    assert pack(folder, tmp_path / "packed").err == f"{folder}: dog.tar and 1 more {why}\n"
    (folder / "dog.tar").unlink()
    (folder / "ant").rename(folder / "ant.tar")  # a class like any other
    assert pack(folder, tmp_path / "other").err == f"{folder}: eel.tar {why}\n"


def test_ilsvrc_as_it_is_downloaded(imagenet, tmp_path):
    folder = tmp_path / "downloads"
    (tmp_path / "inner").mkdir()
    shutil.copytree(imagenet / KIT, folder / KIT)
    for wnid in (imagenet / "train").iterdir():
        tar(tmp_path / "inner" / f"{wnid.name}.tar", wnid)
    tar(folder / "ILSVRC2012_img_train.tar", tmp_path / "inner")
    tar(folder / "ILSVRC2012_img_val.tar", imagenet / "val")
    tar(folder / "ILSVRC2012_img_test_v10102019.tar", imagenet / "test", "test/")
    with open_(imagenet, 16) as a, open_(folder, 16) as b:
        same(a, b)
        assert a.fingerprint == b.fingerprint
        assert b.devkit.ids == a.devkit.ids
    pack(imagenet, tmp_path / "a")
    pack(folder, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert (tmp_path / "a" / "unlabelled-00000.h5").exists()
    with open_(tmp_path / "a", 16) as a, open_(tmp_path / "b", 16) as b:
        same(a, b)


def test_tars_that_are_none(source, tmp_path):
    def error(path, match):
        with pytest.raises(DataError, match=match) as found:
            open_(path)
        assert "\n" not in str(found.value)

    whole = tar(tmp_path / "whole.tar", source).read_bytes()
    path = tmp_path / "x.tar"
    tar(path, source, mode="w:gz")
    error(path, r"x\.tar: damaged, compressed or no tar file")
    for length in (0, 700, len(whole) // 2, len(whole) // 2 // 512 * 512):
        path.write_bytes(whole[:length])
        error(path, r"x\.tar: damaged, compressed or no tar file")
    spoilt = bytearray(whole)  # a header in the middle
    with tarfile.open(tmp_path / "whole.tar") as file:
        spoilt[file.getmembers()[9].offset + 3] ^= 1
    path.write_bytes(spoilt)
    error(path, r"x\.tar: damaged, compressed or no tar file")
    with tarfile.open(path, "w") as file:
        link = tarfile.TarInfo("ant/1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    error(path, r"ant/1\.jpg is a link; unpack it")
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("../../ant/1.jpg"))
    error(path, "only one class, ant")
