"""Checkpoints: the same bits back, no crash spoils one, no damaged or evil file gets through."""

import errno
import io
import json
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from convnet import checkpoint, files
from convnet.checkpoint import BLOCK, MAGIC, Checkpoint, CheckpointError, DamagedError, load, save
from convnet.runfolder import (
    checkpoints,
    clean,
    load_newest_good,
    name,
    newest,
    prune,
    run_lock,
)

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parent.parent
KILLS, MUTATIONS = 15, 400
ODD = ["fc 6", "a/b", "..", ".", "", "%2F", "конв", "x\0y", "[]='\n", "\udc80", "n" * 4096]


def small(seed=0, side=100):
    rng = np.random.default_rng(seed)
    return Checkpoint(
        {
            "weights": {"conv1/W0": rng.normal(size=(3, 3, side, 16)).astype(np.float32)},
            "momenta": {"conv1/W0": rng.normal(size=(side, 7)), "conv1/b": np.arange(5)},
        },
        {"cfg": "[data]\ntype=data\n", "step": seed, "rng": 2**127 + 1},
    )


def same(a, b):
    if a.meta != b.meta or list(a.arrays) != list(b.arrays):
        return False
    for group in a.arrays:
        if list(a.arrays[group]) != list(b.arrays[group]):
            return False
        for x, y in zip(a.arrays[group].values(), b.arrays[group].values()):
            if x.dtype != y.dtype or x.shape != y.shape or x.tobytes() != y.tobytes():
                return False
    return True


def alone(folder, *expected):
    return sorted(p.name for p in folder.iterdir()) == sorted(expected)


def run(code, *args, **more):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, **more,
    )  # fmt: skip


# the same bits back


def test_round_trip(tmp_path):
    rng = np.random.default_rng(3)
    odd = {f"{layer}/W0": rng.normal(size=3) for layer in ODD}
    kinds = {d: np.arange(6).reshape(2, 3).astype(d) for d in ("f2", "f4", "f8", "i1", "u8", "i8")}
    shapes = {"0d": np.array(2.5), "empty": np.zeros((0, 4), np.float32), "T": odd["/W0"][::-1]}
    special = {
        "special": np.array([np.nan, -0.0, np.inf, 5e-324]),
        "big": np.arange(3, dtype=">i4"),
    }
    meta = {"a": [1, 0.1, 1e-310, None, True, "é\n\0\udc80", {"": []}], "seed": 2**130}
    sent = Checkpoint({"weights": odd, "momenta": {}, "x/./y": kinds, "": shapes | special}, meta)
    save(tmp_path / "1.0.h5", sent)
    got = load(str(tmp_path / "1.0.h5"))
    sent.arrays[""]["big"] = np.arange(3, dtype=np.int32)
    assert same(sent, got)
    assert alone(tmp_path, "1.0.h5")
    assert got.arrays["weights"]["a/b/W0"].flags.writeable


def test_same_bytes_each_time(tmp_path):
    for file in "ab":
        save(tmp_path / file, small())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_hdf5_reads_it(tmp_path):
    sent = small()
    sent.arrays["weights"]["a/b/W0"] = np.float32([1, 2])
    sent.arrays["weights"]["fc/b"] = np.float32([])
    save(tmp_path / "a.h5", sent)
    with h5py.File(tmp_path / "a.h5") as file:
        weights = sent.arrays["weights"]["conv1/W0"]
        assert (file["weights/conv1/W0"][:] == weights).all()
        assert (file["momenta/conv1/b"][:] == range(5)).all()
        assert (file["weights/a%2Fb/W0"][:] == [1, 2]).all()
        assert file["weights/fc/b"].shape == (0,)
        assert json.loads(bytes(file["table"][:]))["meta"] == sent.meta
        assert file.userblock_size == BLOCK
    assert (tmp_path / "a.h5").read_bytes()[BLOCK + 8] == 0  # superblock 0: any HDF5 knows it


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, np.float32(1), b"x"])
def test_meta_that_json_cannot_hold(tmp_path, value):
    with pytest.raises(CheckpointError, match=r"1\.0\.h5: not saved, .* cannot hold this"):
        save(tmp_path / "1.0.h5", Checkpoint({}, {"a": value}))
    assert alone(tmp_path)


def test_meta_of_many_bytes(tmp_path):
    with pytest.raises(CheckpointError, match="use arrays"):
        save(tmp_path / "1.0.h5", Checkpoint({}, {"a": "x" * (1 << 24)}))


@pytest.mark.parametrize("array", [[None], ["x"], [1j], np.zeros(2, "f4,f4"), [b"x"], [{}]])
def test_array_of_other_type(tmp_path, array):
    with pytest.raises(CheckpointError, match=r"not saved, .* array 'w/x' of type"):
        save(tmp_path / "1.0.h5", Checkpoint({"w": {"x": np.array(array)}}))


def test_many_arrays(tmp_path, monkeypatch):
    sent = Checkpoint({"w": {f"l{i}/W0": np.full(i % 40, i) for i in range(3000)}})
    save(tmp_path / "a", sent)
    assert same(load(tmp_path / "a"), sent)
    monkeypatch.setattr(checkpoint, "REST", 10**5)
    with pytest.raises(CheckpointError, match="arrays, too many"):
        save(tmp_path / "a", sent)


# nothing spoils the old one


def test_order_of_steps(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace

    def watch_fsync(fd):
        info = os.fstat(fd)
        steps.append("fsync folder" if stat.S_ISDIR(info.st_mode) else f"fsync {info.st_size}")
        fsync(fd)

    def watch_replace(a, b):
        steps.append(f"replace {Path(b).name}")
        assert Path(a).parent == Path(b).parent
        replace(a, b)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    save(tmp_path / "1.0.h5", small())
    size = (tmp_path / "1.0.h5").stat().st_size
    assert steps == [f"fsync {size}", "replace 1.0.h5", "fsync folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    "number, words",
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "get the right"),
        (errno.EROFS, "choose a folder"),
        (errno.EIO, "check the disk"),
    ],
)
def test_failing_disk(tmp_path, monkeypatch, step, number, words):
    path = tmp_path / "1.0.h5"
    save(path, small())

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(CheckpointError) as e:
        save(path, small(1))
    assert str(path) in str(e.value)
    assert os.strerror(number) in str(e.value)
    assert words in str(e.value)
    assert "\n" not in str(e.value)
    monkeypatch.undo()
    assert same(load(path), small())
    assert alone(tmp_path, "1.0.h5")


def test_failing_write(tmp_path, monkeypatch):
    save(tmp_path / "1.0.h5", small())
    real = Path.open

    def full(self, *args):
        file = real(self, *args)
        if self.suffix == ".part":
            raw = os.open("/dev/full", os.O_WRONLY)  # each write fails with ENOSPC
            os.dup2(raw, file.fileno())
            os.close(raw)
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match=r"No space left on device; free some space"):
        save(tmp_path / "1.0.h5", small(1))
    monkeypatch.undo()
    assert same(load(tmp_path / "1.0.h5"), small())
    assert alone(tmp_path, "1.0.h5")


def test_file_size_limit(tmp_path):
    save(tmp_path / "1.0.h5", small())
    code = """
import resource, sys
from tests.test_checkpoint import CheckpointError, save, small
for limit in 100, 600, 4096, 30000:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save(sys.argv[1], small(1))
    except CheckpointError as e:
        print(e)
"""
    done = run(code, tmp_path / "1.0.h5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("File too large") == 4
    assert same(load(tmp_path / "1.0.h5"), small())
    assert alone(tmp_path, "1.0.h5")


def test_folder_missing(tmp_path):
    with pytest.raises(CheckpointError, match="make its folder first"):
        save(tmp_path / "a" / "1.0.h5", small())
    (tmp_path / "1.0.h5").mkdir()
    with pytest.raises(CheckpointError, match="Is a directory"):
        save(tmp_path / "1.0.h5", small())
    assert alone(tmp_path, "1.0.h5")


SAVE_FOR_EVER = """
import itertools, sys
from tests.test_checkpoint import Checkpoint, name, newest, np, prune, save
folder, start = sys.argv[1], int(sys.argv[2])
print("go", flush=True)
for i in itertools.count(start):
    arrays = {"weights": {f"l{k}/W0": np.full(50000 * k, i, np.float32) for k in range(5)}}
    save(f"{folder}/{name(i // 10, i % 10)}", Checkpoint(arrays, {"i": i}))
    prune(folder, 3)
"""


def test_kill_9(tmp_path):
    rng, start = random.Random(1), 0
    for _ in range(KILLS):
        last, before = newest(tmp_path), len(checkpoints(tmp_path))
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path), str(start)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"go\n"
            deadline = time.monotonic() + 30
            while newest(tmp_path) == last and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.1))
            child.kill()
        assert child.returncode == -signal.SIGKILL
        got, path, notes = load_newest_good(tmp_path)
        i = got.meta["i"]
        assert notes == []
        assert path.name == name(i // 10, i % 10)
        assert i >= start  # it did save in between
        assert all((a == i).all() for a in got.arrays["weights"].values())
        clean(tmp_path)
        assert all(p.suffix == ".h5" for p in tmp_path.iterdir())
        # one that is killed before it could prune leaves all that there were, and its own
        assert len(checkpoints(tmp_path)) <= (4 if i > start else before + 1)
        start = i + 1


# damage


def mutants(data, count):
    rng = random.Random(0)
    for i in range(count):
        bad = bytearray(data)
        how = ("flip", "truncate", "zero", "head", "grow")[i % 5]
        at = rng.randrange(len(data))
        if how == "flip":
            for _ in range(rng.randint(1, 64)):
                bad[rng.randrange(len(data))] ^= rng.randint(1, 255)
        elif how == "truncate":
            del bad[at:]
        elif how == "zero":
            bad[at : at + 4096] = bytes(len(bad[at : at + 4096]))
        elif how == "head":  # HDF5's own bytes
            bad[rng.randrange(4096)] ^= 1 << rng.randrange(8)
        else:
            bad += bytes(rng.randint(1, 5000))
        yield how, bytes(bad)


def test_mutants(tmp_path):
    sent = small()
    save(tmp_path / "1.0.h5", sent)
    data = (tmp_path / "1.0.h5").read_bytes()
    path, found = tmp_path / "2.0.h5", 0
    for how, bad in mutants(data, MUTATIONS):
        path.write_bytes(bad)
        if bad == data:
            continue
        with pytest.raises(DamagedError) as e:
            load(path)
            pytest.fail(how)
        assert str(path) in str(e.value)
        assert "\n" not in str(e.value)
        found += 1
    assert found > MUTATIONS - 10


def test_every_byte_counts(tmp_path):
    save(tmp_path / "a", Checkpoint({"w": {"x/b": np.arange(3)}}, {"step": 1}))
    data = (tmp_path / "a").read_bytes()
    for i in range(len(data)):
        (tmp_path / "b").write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with pytest.raises(DamagedError):
            load(tmp_path / "b")


def test_damage_names_the_array(tmp_path):
    path = tmp_path / "3.12.h5"
    save(path, small())
    data = bytearray(path.read_bytes())
    data[data.index(small().arrays["momenta"]["conv1/W0"].tobytes()) + 9] ^= 4
    path.write_bytes(data)
    with pytest.raises(
        DamagedError,
        match=r"3\.12\.h5: array 'momenta/conv1/W0' is damaged "
        r"\(checksum \w{8} != \w{8}\); use an older checkpoint$",
    ):
        load(path)


def zip_bytes():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("x", "y")
    return file.getvalue()


class Gadget:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "is empty"),
        (b"[conv1]\ntype=conv\n", "is text"),
        ("naïve".encode(), "is text"),
        (pickle.dumps(Gadget()), "is a pickle"),
        (zip_bytes(), "is a zip file"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG"),
        (b"\xff\xd8\xff\xe0", "is a JPEG"),
        (b"\x93NUMPY\1\0", "is a .npy"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, but no checkpoint"),
        (bytes(5000), "is zeros"),
        (b"\1\2\3\4", "is no checkpoint"),
        (MAGIC, "damaged"),
        (MAGIC + bytes(600), "damaged"),
    ],
)
def test_other_files(tmp_path, data, words):
    (tmp_path / "1.0.h5").write_bytes(data)
    with pytest.raises(DamagedError, match=rf"1\.0\.h5: .*{words}.*; use an older checkpoint"):
        load(tmp_path / "1.0.h5")


def test_weights_of_other_programs(tmp_path):
    for kind in "pth", "safetensors", "caffemodel":
        (tmp_path / f"a.{kind}").write_bytes(zip_bytes())
        with pytest.raises(DamagedError, match=r"; tools/import\.py makes a checkpoint of weights"):
            load(tmp_path / f"a.{kind}")


def test_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        load(tmp_path / "1.0.h5")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(CheckpointError, match="is not a file"):
            load(path)


# evil files


def cheap(path):
    """Refuses it in little memory; returns the message."""
    tracemalloc.start()
    with pytest.raises(CheckpointError) as e:
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert str(path) in str(e.value)
    return str(e.value)


def external(f):
    f.create_dataset("weights/conv1/W0", (8,), "u1", external=[("/etc/hostname", 0, 8)])


def external_link(f):
    f["weights/conv1/W0"] = h5py.ExternalLink("/etc/hostname", "/x")


def soft_loop(f):
    f["weights/conv1/W0"] = h5py.SoftLink("/weights/conv1/W0")


def virtual(f):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    f.create_virtual_dataset("weights/conv1/W0", layout)


def huge(f):
    f.create_dataset("weights/conv1/W0", (10**7, 10**7), "f4", chunks=(1024, 1024))


def compound(f):
    f["weights/conv1/W0"] = np.zeros(3, "f4,f4")


def vlen(f):
    f.create_dataset("weights/conv1/W0", (3,), h5py.string_dtype())


def references(f):
    f.create_dataset("weights/conv1/W0", (3,), h5py.ref_dtype)


def gzip(f):
    f.create_dataset("weights/conv1/W0", (1 << 20,), "f4", compression="gzip", fillvalue=1)


def unknown_filter(f):
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((4,))
    how.set_filter(32000, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(f["weights/conv1"].id, b"W0", h5py.h5t.NATIVE_FLOAT, space, how)


def many_groups(f):
    for i in range(10**5):
        h5py.h5g.create(f.id, b"%d" % i)


EVIL = [external, external_link, soft_loop, virtual, huge, compound, vlen, references, gzip,
        unknown_filter, many_groups]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
def test_evil_hdf5(tmp_path, evil):
    """Each as a file of its own, and as a checkpoint that was changed."""
    with h5py.File(tmp_path / "1.0.h5", "w") as f:
        f.create_group("weights/conv1")
        evil(f)
    assert "is an HDF5 file, but no checkpoint of convnet" in cheap(tmp_path / "1.0.h5")
    if evil is many_groups:
        return
    save(tmp_path / "2.0.h5", small())
    with h5py.File(tmp_path / "2.0.h5", "r+") as f:
        del f["weights/conv1/W0"]
        evil(f)
    cheap(tmp_path / "2.0.h5")


def forge(path, table=b"", /, *, text=None, holes=0, **head):
    """A file whose checksums are all right and whose table is a lie."""
    text = json.dumps(table).encode() if text is None else text
    size = BLOCK + len(text) + holes
    head = {
        "version": 1, "size": size, "rest": zlib.crc32(bytes(min(holes, 1 << 20))),
        "table": [BLOCK, len(text), zlib.crc32(text)],
    } | head  # fmt: skip
    block = (MAGIC + json.dumps(head).encode()).ljust(BLOCK - 8)
    path.write_bytes(block + b"%08x" % zlib.crc32(block) + text)
    os.truncate(path, max(size, 0))
    return path


def entry(kind="<f4", shape=(2,), begin=1 << 20, crc=0, **more):
    return {"arrays": {"w": {"x": [kind, shape, begin, crc]}}, "meta": {}} | more


GOOD = {"arrays": {}, "meta": {"a": 1}}


def test_the_forger_can_forge(tmp_path):
    assert load(forge(tmp_path / "a", GOOD)) == Checkpoint({}, {"a": 1})
    zeros = zlib.crc32(bytes(80))
    end = BLOCK + len(json.dumps(entry(begin=999, crc=zeros, shape=[20])))
    table = entry(begin=end, crc=zeros, shape=[20])
    good = load(forge(tmp_path / "a", table, holes=80, rest=0))
    assert not good.arrays["w"]["x"].any()


NO_SENSE = "its table makes no sense"
OUTSIDE = "overlap or lie outside the file"


@pytest.mark.parametrize(
    "table, words",
    [
        (entry(shape=[10**7, 10**7]), OUTSIDE),
        (entry(shape=[0, 1 << 47, 1 << 47]), "of no possible shape"),
        (entry(shape=[0] * 40), "of no possible shape"),
        (entry(shape=[2**70]), "of no possible shape"),
        (entry(shape=[1 << 40, 9]), OUTSIDE),
        (entry(shape=[-1]), "of no possible shape"),
        (entry(shape=[1] * 10**5), "of no possible shape"),
        (entry(shape=[1.0]), NO_SENSE),
        (entry(shape=["2"]), NO_SENSE),
        (entry(shape=[True]), NO_SENSE),
        (entry(shape=2), NO_SENSE),
        (entry(shape=None), NO_SENSE),
        (entry(begin=BLOCK), OUTSIDE),
        (entry(begin=0), OUTSIDE),
        (entry(begin=-8), OUTSIDE),
        (entry(begin=2**63), OUTSIDE),
        (entry(begin=1e300), NO_SENSE),
        (entry(begin=None), NO_SENSE),
        (entry(crc="x"), NO_SENSE),
        (entry(crc=1), "array 'w/x' is damaged"),
        (entry(kind="O"), "of type 'O'"),
        (entry(kind="|O"), "of type '|O'"),
        (entry(kind="<U8"), "of type '<U8'"),
        (entry(kind=">f4"), "of type '>f4'"),
        (entry(kind="<f4,<f4"), "of type '<f4,<f4'"),
        (entry(kind=["<f4"]), "of type ['<f4']"),
        (entry(kind={}), "of type {}"),
        (entry(kind=None), "of type None"),
        (entry(kind="V" * 10**6), "of type 'VVV"),
        (entry(meta=[]), NO_SENSE),
        (entry(meta=None), NO_SENSE),
        ([], NO_SENSE),
        (0, NO_SENSE),
        (None, NO_SENSE),
        ({"arrays": {}}, NO_SENSE),
        ({"meta": {}}, NO_SENSE),
        ({"arrays": [], "meta": {}}, NO_SENSE),
        ({"arrays": {"w": []}, "meta": {}}, NO_SENSE),
        ({"arrays": {"w": {"x": []}}, "meta": {}}, NO_SENSE),
        ({"arrays": {"w": {"x": [1, 2, 3, 4, 5]}}, "meta": {}}, NO_SENSE),
        ({"arrays": {f"{i}": {"x": ["<f4", [9], 600, 0]} for i in range(10**4)}, "meta": {}},
         OUTSIDE),
        ({"arrays": {f"{i}": 0 for i in range(10**5)}, "meta": {}}, NO_SENSE),
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
def test_evil_table(tmp_path, table, words):
    holes = 2 << 20
    got = cheap(forge(tmp_path / "1.0.h5", table, holes=holes, rest=zlib.crc32(bytes(holes - 8))))
    assert words in got
    assert len(got) < 400


@pytest.mark.parametrize(
    "text", [b"", b"x", b"\xff\xfe", b"[" * 10**5, b"9" * 10**5, b'{"arrays": ' * 10**5, b"\0" * 99]
)
def test_evil_json(tmp_path, text):
    cheap(forge(tmp_path / "1.0.h5", text=text))


@pytest.mark.parametrize(
    "head",
    [
        {"size": 10**15},
        {"size": -1},
        {"size": None},
        {"size": 1e3},
        {"table": [BLOCK, 2**60, 0]},
        {"table": [2**60, 4, 0]},
        {"table": [-4, 4, 0]},
        {"table": [BLOCK, -4, 0]},
        {"table": [0, 4, 0]},
        {"table": [BLOCK]},
        {"table": "x"},
        {"rest": "x"},
        {"rest": 1},
    ],
)
def test_evil_head(tmp_path, head):
    cheap(forge(tmp_path / "1.0.h5", GOOD, **head))


def test_evil_holes(tmp_path):
    """Sparse files: 1 TB on a disk of less."""
    assert "besides its arrays" in cheap(forge(tmp_path / "1.0.h5", GOOD, holes=10**12))
    cheap(forge(tmp_path / "1.0.h5", GOOD, holes=10**12, table=[BLOCK, 10**11, 0]))
    cheap(forge(tmp_path / "1.0.h5", GOOD, holes=10**12, table=[BLOCK, 1 << 24, 0]))


def test_newer_format(tmp_path):
    with pytest.raises(CheckpointError, match="has format 2, too new; update convnet") as e:
        load(forge(tmp_path / "5.0.h5", GOOD, version=2))
    assert not isinstance(e.value, DamagedError)
    save(tmp_path / "4.0.h5", small())
    with pytest.raises(CheckpointError, match="update convnet"):  # not back to 4.0
        load_newest_good(tmp_path)


# the folder of a run


def test_newest(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "none") is None
    for file in ("3.9.h5", "3.10.h5", "2.99.h5", "x.h5", "3.11.h5.bak", "3.h5", "3.11.txt",
                 ".3.12.h5", ".1-ab.part", "-4.1.h5", "4.-1.h5", "4.1e3.h5"):  # fmt: skip
        (tmp_path / file).touch()
    assert [p.name for p in checkpoints(tmp_path)] == ["2.99.h5", "3.9.h5", "3.10.h5"]
    assert newest(str(tmp_path)) == tmp_path / "3.10.h5"
    (tmp_path / name(10, 0)).touch()
    assert newest(tmp_path).name == "10.0.h5"


@pytest.mark.parametrize("keep, left", [(-1, 1), (0, 1), (1, 1), (2, 2), (9, 4)])
def test_prune(tmp_path, keep, left):
    names = ["1.0.h5", "1.9.h5", "1.10.h5", "2.0.h5"]
    for file in (*names, "note.txt"):
        (tmp_path / file).touch()
    assert [p.name for p in prune(tmp_path, keep)] == names[: 4 - left]
    assert alone(tmp_path, "note.txt", *names[4 - left :])


def test_fall_back(tmp_path):
    with pytest.raises(CheckpointError, match="no good checkpoint in this folder"):
        load_newest_good(tmp_path)
    for i in (8, 9, 10, 11):
        save(tmp_path / name(1, i), small(i))
    got, path, notes = load_newest_good(tmp_path)
    assert (path.name, got.meta["step"], notes) == ("1.11.h5", 11, [])
    (tmp_path / "1.11.h5").write_bytes(b"")
    with (tmp_path / "1.10.h5").open("r+b") as file:
        file.seek(20000)
        file.write(b"damage")
    got, path, notes = load_newest_good(tmp_path)
    assert (path.name, got.meta["step"]) == ("1.9.h5", 9)
    assert "1.11.h5: is empty" in notes[0]
    assert "1.10.h5: array 'weights/conv1/W0' is damaged" in notes[1]
    for i in (8, 9):
        (tmp_path / name(1, i)).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"1\.8\.h5: is text(.|\n)*no good checkpoint"):
        load_newest_good(tmp_path)


HOLD = """
import sys, time
from convnet import files, runfolder
if sys.argv[2] == "part":
    file = open(sys.argv[1] + "/.1-live.part", "wb")
    assert files.hold(file)
    print("go", flush=True)
    time.sleep(60)
with runfolder.run_lock(sys.argv[1]):
    print("go", flush=True)
    time.sleep(60)
"""


def test_clean(tmp_path):
    for file in (".1-dead.part", f".{os.getpid()}-old.part", "1.0.h5", "a.part"):
        (tmp_path / file).write_bytes(b"x")
    command = [sys.executable, "-c", HOLD, str(tmp_path), "part"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"go\n"
        gone = clean(tmp_path)
        assert sorted(p.name for p in gone) == sorted([".1-dead.part", f".{os.getpid()}-old.part"])
        assert alone(tmp_path, ".1-live.part", "1.0.h5", "a.part")
        child.kill()
    clean(tmp_path)
    assert alone(tmp_path, "1.0.h5", "a.part")
    assert clean(tmp_path / "none") == []


def test_lock(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path), "lock"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"go\n"
        with pytest.raises(CheckpointError) as e, run_lock(tmp_path):
            pass
        assert f"{tmp_path}: process {child.pid} runs in this folder" in str(e.value)
        child.kill()
    twice = pytest.raises(CheckpointError, match=f"process {os.getpid()} runs")
    with run_lock(tmp_path), twice, run_lock(tmp_path):  # the system frees the lock of the dead
        pass
    with run_lock(tmp_path):
        pass
    with pytest.raises(CheckpointError, match="No such file"), run_lock(tmp_path / "none"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_disk_that_is_full_when_a_run_begins(tmp_path):
    (tmp_path / "run.lock").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"^\S+run.lock: "), run_lock(tmp_path):
        raise AssertionError


def test_disk_without_locks(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with run_lock(tmp_path):
        save(tmp_path / "1.0.h5", small())
