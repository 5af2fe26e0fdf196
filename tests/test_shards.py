"""convnet/shards.py: what comes out is what went in, or an error."""

import errno
import itertools
import pickle
import re

import h5py
import numpy as np
import pytest

from convnet import shards
from convnet.loader import BadImage, DataError
from convnet.shards import Place, Places, Record

ABOUT = {"of": "something", "side": 0}


def records(n=20):
    rng = np.random.default_rng(0)
    return [Record(rng.bytes(30 + 7 * i), i % 3 - 1, 3 * i, f"a/{i}-é.jpg") for i in range(n)]


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "train-00000.h5"
    given = records()
    assert shards.write(path, iter(given), ["b/1.jpg: bad"], ABOUT) == sum(
        len(r.data) for r in given
    )
    return path, given


def places(shard):
    """The Place of each image, in the order of the file."""
    ends = zip(shard.offset[:-1].tolist(), shard.offset[1:].tolist(), shard.crc32.tolist())
    return [Place(0, shard.begin + begin, end - begin, crc) for begin, end, crc in ends]


def contents(path):
    """All there is to know of a shard; an image that is bad is None."""
    shard, read = shards.read(path, 3), Places([str(path)])
    images = []
    for place in places(shard):
        try:
            images.append(read(place))
        except BadImage:
            images.append(None)
    size = shard.keys[1]
    keys = [read.read(0, shard.keys[0] + i * size, size) for i in range(len(shard))]
    tables = [getattr(shard, name).tolist() for name in ("label", "position")]
    return images, keys, tables, shard.left_out, {**shard.about}


def test_what_went_in_comes_out(made):
    path, given = made
    images, keys, (label, position), left_out, about = contents(path)
    assert images == [r.data for r in given]
    assert [key.rstrip(b"\0").decode() for key in keys] == [r.key for r in given]
    assert list(zip(label, position)) == [(r.label, r.position) for r in given]
    assert left_out == ["b/1.jpg: bad"]
    assert about.items() >= ABOUT.items()


def test_any_program_with_hdf5_can_read_it(made):
    path, given = made
    with h5py.File(path) as file:
        data, offset = file["bytes"][:].tobytes(), file["offset"][:]
        assert [data[a:b] for a, b in itertools.pairwise(offset)] == [r.data for r in given]
        assert file["key"].asstr()[:].tolist() == [r.key for r in given]
        assert file["label"][:].tolist() == [r.label for r in given]
    with path.open("rb") as file:  # of the oldest kind of superblock, which HDF5 1.8 can read
        assert file.read(9) == b"\x89HDF\r\n\x1a\n\x00"


def test_the_same_images_make_the_same_bytes(made):
    path, given = made
    other = path.with_name("other.h5")
    shards.write(other, given, ["b/1.jpg: bad"], ABOUT)
    assert other.read_bytes() == path.read_bytes()
    shards.write(other, given[:-1], ["b/1.jpg: bad"], ABOUT)
    assert other.read_bytes() != path.read_bytes()


def test_no_images_and_empty_ones(tmp_path):
    path = tmp_path / "x.h5"
    assert shards.write(path, [], ["a: bad"], ABOUT) == 0
    assert len(shards.read(path)) == 0
    assert shards.read(path).left_out == ["a: bad"]
    shards.write(path, [Record(b"", 0, 0, "a"), Record(b"x", 0, 1, "b")], [], ABOUT)
    assert contents(path)[0] == [b"", b"x"]
    assert shards.read(path).left_out == []


def test_no_damage_goes_unnoticed(made, tmp_path):
    """A byte changed anywhere: an error of the file, or a bad image, or nothing is lost."""
    path, _ = made
    whole, good, spoilt = path.read_bytes(), contents(path), tmp_path / "spoilt.h5"
    rng, seen = np.random.default_rng(1), {"error": 0, "bad": 0, "harmless": 0}
    for at in rng.permutation(len(whole))[:600]:
        data = bytearray(whole)
        data[at] ^= 1 << rng.integers(8)
        spoilt.write_bytes(data)
        try:
            found = contents(spoilt)
        except DataError as e:
            assert "\n" not in str(e)
            assert str(e).startswith(f"{spoilt}: ")
            seen["error"] += 1
            continue
        lost = [i for i, image in enumerate(found[0]) if image is None]
        assert [a for a in found[0] if a is not None] == [
            a for i, a in enumerate(good[0]) if i not in lost
        ]
        assert found[1:] == good[1:]
        seen["bad" if lost else "harmless"] += 1
    assert seen["error"] > 50
    assert seen["bad"] > 50


@pytest.mark.parametrize("length", [0, 10, 500, 1100, 3000, -1])
def test_one_that_is_cut_short(made, length):
    path, _ = made
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=re.escape(shards.AGAIN)):
        shards.read(path)


def replaced(name, make):
    def spoil(file):
        old = file[name][:]
        del file[name]
        make(file, name, old)

    return spoil


def external(file, name, old):
    file.create_dataset(name, old.shape, old.dtype, external=[("/etc/hostname", 0, old.nbytes)])


def virtual(file, name, old):
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[:] = h5py.VirtualSource("other.h5", "x", old.shape)
    file.create_virtual_dataset(name, layout)


def huge(file, name, old):
    file.create_dataset(name, (10**13,), old.dtype)


def soft(file, name, old):
    file[name] = h5py.SoftLink(f"/{name}")


def linked(file, name, old):
    file[name] = h5py.ExternalLink("other.h5", "/x")


def chunked(file, name, old):
    file.create_dataset(name, data=old, chunks=True, compression="gzip")


def wide(file, name, old):
    file[name] = old.reshape(1, -1)


def floats(file, name, old):
    file[name] = old.astype(np.float64)


def a_group(file, name, old):
    file.create_group(name)


@pytest.mark.parametrize("name", ["bytes", "offset", "label"])
@pytest.mark.parametrize(
    "make", [external, virtual, huge, soft, linked, chunked, wide, floats, a_group]
)
def test_files_that_are_no_shard(made, make, name):
    path, _ = made
    with h5py.File(path, "r+") as file:
        replaced(name, make)(file)
    with pytest.raises(DataError, match=str(path)) as error:
        shards.read(path)
    assert "\n" not in str(error.value)


def test_labels_outside_of_the_classes(tmp_path):
    path = tmp_path / "x.h5"
    shards.write(path, records(), [], ABOUT)
    assert len(shards.read(path, 2)) == 20
    with pytest.raises(DataError, match="it has a label 1 but 1 classes; delete it"):
        shards.read(path, 1)
    shards.write(path, [Record(b"x", -2, 0, "a")], [], ABOUT)
    with pytest.raises(DataError, match="it has a label -2"):
        shards.read(path, 2)


def test_offsets_that_go_back(made):
    path, _ = made
    with h5py.File(path, "r+") as file:
        offset = file["offset"][:]
        offset[3] = 0
        file["offset"][:] = offset
        told = {name: shards._plain(v) for name, v in file.attrs.items() if name != "tables"}
        tables = {name: file[name][:] for name in (*shards.TABLES, *shards.TEXTS)}
        file.attrs["tables"] = shards._checksum(tables, told)
    with pytest.raises(DataError, match="its images lie outside of it"):
        shards.read(path)


def test_other_files(tmp_path):
    path = tmp_path / "x.h5"
    with pytest.raises(DataError, match=r"x\.h5: no such shard"):
        shards.read(path)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="no shard of images, or of a newer convnet"):
        shards.read(path)


def test_a_full_disk_leaves_nothing(tmp_path):
    def failing():
        yield from records()
        raise OSError(errno.ENOSPC, "no space left on device")

    with pytest.raises(OSError, match="no space"):
        shards.write(tmp_path / "x.h5", failing(), [], ABOUT)
    assert not list(tmp_path.iterdir())


def test_places_travel_to_other_processes_and_keep_few_files_open(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "OPEN", 3)
    paths = [tmp_path / str(i) for i in range(9)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i] * 5))
    read = Places(list(map(str, paths)))
    for _ in range(2):
        for i in range(9):
            assert read(Place(i, 1, 3)) == bytes([i] * 3)
            assert len(read._open) <= 3
    again = pickle.loads(pickle.dumps(read))
    assert again._open == {}
    assert again(Place(8, 0, 5)) == bytes([8] * 5)
    with pytest.raises(BadImage, match="8 is cut short"):
        read(Place(8, 1, 5))
    read.close()
    paths[2].unlink()
    again.close()
    with pytest.raises(BadImage, match="2: no such file"):
        Places(list(map(str, paths)))(Place(2, 0, 1))
