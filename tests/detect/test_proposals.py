"""Boxes found on photos, or read from the files of others, and what share of objects they find."""

import json

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from convnet.cli import UsageError
from convnet.detect import proposal_files, proposals, recall, selective
from convnet.detect.boxes import overlap
from convnet.detect.grid import grid
from convnet.detect.store import Store
from convnet.loader import DataError
from tests.detect import tiny


def test_selective_search_finds_what_was_pasted_and_the_same_again(tmp_path):
    photos = tiny.pasted(tmp_path, 4, width=160, height=120).photos
    for photo in photos:
        boxes = selective.selective(photo.pixels())
        np.testing.assert_array_equal(boxes, selective.selective(photo.pixels()))
        assert overlap(photo.boxes, boxes).max(1).min() > 0.7
        sides = boxes[:, 2:] - boxes[:, :2]
        assert sides.min() >= selective.LEAST
        assert boxes.min() >= 0
        assert (boxes[:, 2:] <= [160, 120]).all()
        assert len(np.unique(boxes, axis=0)) == len(boxes)


def test_quality_finds_more_than_fast(tmp_path):
    (photo,) = tiny.pasted(tmp_path, 1, width=160, height=120).photos
    fast, quality = (selective.selective(photo.pixels(), mode) for mode in ("fast", "quality"))
    assert len(quality) > 1.5 * len(fast)


def test_selective_search_at_another_width(tmp_path):
    (photo,) = tiny.pasted(tmp_path, 1, width=160, height=120).photos
    boxes = selective.selective(photo.pixels(), width=320)
    assert boxes.max() <= 160
    assert overlap(photo.boxes, boxes).max(1).min() > 0.7


def test_photos_too_small_have_no_boxes():
    for size in (1, 1), (300, 5):
        assert selective.selective(np.zeros((*size, 3), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize("size", [(500, 375), (96, 72), (20, 20), (1, 1), (3000, 40)])
def test_grid(size):
    boxes = grid(*size)
    assert 1 <= len(boxes) <= 2000
    np.testing.assert_array_equal(boxes[0], [0, 0, *size])
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= size).all()
    if size == (500, 375):
        assert len(boxes) > 1500
        rng = np.random.default_rng(0)
        first = rng.uniform(0, 250, (50, 2))
        objects = np.concatenate([first, first + rng.uniform(60, 120, (50, 1))], 1)
        assert (overlap(objects, boxes).max(1) >= 0.5).mean() > 0.9


def test_what_is_there_is_not_made_again(tmp_path, monkeypatch):
    photos = tiny.pasted(tmp_path / "photos", 3)
    store = Store(tmp_path / "boxes", "proposals", {"method": "grid"})
    proposals.make(photos, store, "grid", shard=(2, 2))
    assert [p in store for p in photos.photos] == [False, True, False]
    before = store.path(photos.photos[1]).stat().st_mtime_ns
    proposals.make(photos, store, "grid")
    assert all(p in store for p in photos.photos)
    assert store.path(photos.photos[1]).stat().st_mtime_ns == before
    np.testing.assert_array_equal(store.load(photos.photos[0])["boxes"], grid(96, 72))


def test_processes_make_what_one_makes(tmp_path):
    photos = tiny.pasted(tmp_path / "photos", 3)
    store = Store(tmp_path / "boxes", "proposals", {"method": "fast"})
    proposals.make(photos, store, "fast")
    for photo in photos.photos:
        wanted = selective.selective(photo.pixels())
        np.testing.assert_array_equal(store.load(photo)["boxes"], wanted)


def test_a_store_of_something_else_is_refused(tmp_path):
    (photo,) = tiny.pasted(tmp_path / "photos", 1).photos
    Store(tmp_path / "s", "maps", {"net": "a"}).save(photo, {"x": np.zeros(3)})
    with pytest.raises(DataError, match=r"maps of another net \(a, not b\); delete the folder"):
        Store(tmp_path / "s", "maps", {"net": "b"})
    with pytest.raises(DataError, match=r"no proposals of 0_000 yet"):
        Store(tmp_path / "t", "proposals", {}).load(photo)
    path = Store(tmp_path / "s", "maps", {"net": "a"}).path(photo)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="delete it"):
        Store(tmp_path / "s", "maps", {"net": "a"}).load(photo)
    (tmp_path / "s/about.json").write_text("{")
    with pytest.raises(DataError, match="damaged; delete the folder"):
        Store(tmp_path / "s", "maps", {"net": "a"})
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no maps written"):
        Store(tmp_path / "file", "maps", {})


# ---------------------------------------------------------------- files


@pytest.fixture
def photos(tmp_path):
    return tiny.pasted(tmp_path / "photos", 3)


def cells(arrays):
    made = np.empty((1, len(arrays)), object)
    made[0] = arrays
    return made


def mat(path, photos, columns, first, old=True):
    """Windows of the photos, spelt in an order of numbers and counted from `first`."""
    names = [p.name for p in photos.photos]
    boxes = [
        tiny.windows(p) + np.array([first, first, first - 1, first - 1]) for p in photos.photos
    ]
    boxes = [b[:, columns] for b in boxes]
    if old:
        savemat(path, {"images": cells(names), "boxes": cells(boxes)})
        return
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, arrays in (
            ("boxes", [b.T for b in boxes]),
            ("images", [np.array([[ord(c)] for c in n], np.uint16) for n in names]),
        ):
            refs = []
            for i, array in enumerate(arrays):
                refs.append(file.create_dataset(f"#refs#/{key}{i}", data=array).ref)
            kind = h5py.special_dtype(ref=h5py.Reference)
            file.create_dataset(key, data=np.array(refs)[None], dtype=kind)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    "columns,first,said",
    [
        ([1, 0, 3, 2], 1, "y1 x1 y2 x2, counted from 1"),
        ([0, 1, 2, 3], 0, "x1 y1 x2 y2, counted from 0"),
        ([0, 1, 2, 3], 1, "x1 y1 x2 y2, counted from 1"),
    ],
)
def test_mat_files_of_either_order_and_base(photos, tmp_path, capsys, columns, first, said, old):
    mat(tmp_path / "boxes.mat", photos, columns, first, old)
    found = [*proposal_files.read(tmp_path / "boxes.mat", photos, photos.photos)]
    for photo, boxes in found:
        np.testing.assert_array_equal(boxes, tiny.windows(photo))
    assert said in capsys.readouterr().err


def test_json_and_text(photos, tmp_path):
    rows = {p.name: tiny.windows(p).tolist() for p in photos.photos}
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    lines = [" ".join([n, *map(str, box)]) for n, boxes in rows.items() for box in boxes]
    (tmp_path / "boxes.txt").write_text("\n".join(lines))
    for name in "boxes.json", "boxes.txt":
        for photo, boxes in proposal_files.read(tmp_path / name, photos, photos.photos):
            np.testing.assert_array_equal(boxes, tiny.windows(photo))


def test_boxes_are_cut_to_the_photo(photos, tmp_path):
    rows = {p.name: [[-5, 2, 500, 20], [4, 4, 4, 9], [1, 2, 3, 4]] for p in photos.photos}
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    for _, boxes in proposal_files.read(tmp_path / "boxes.json", photos, photos.photos):
        assert boxes.tolist() == [[0, 2, 96, 20], [1, 2, 3, 4]]


def test_files_of_other_photos(photos, tmp_path):
    path = tmp_path / "boxes.json"
    for text, said in [
        ('{"x": [[1, 2, 3, 4]]}', "proposals of other photos: 3 of 3 are missing, first 0_000"),
        ("[", "cannot be read as proposals"),
        (json.dumps({p.name: [[1, 2, 3]] for p in photos.photos}), "cannot be read"),
        (json.dumps({p.name: [[1, 2, 3, float("nan")]] for p in photos.photos}), "no rows of 4"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            [*proposal_files.read(path, photos, photos.photos)]
        assert said in str(caught.value)
        assert str(path) in str(caught.value)
    (tmp_path / "boxes.txt").write_text("0_000 1 2 3 4\n0_000 1 2 3\n")
    with pytest.raises(DataError, match=r"boxes\.txt:2: must be"):
        [*proposal_files.read(tmp_path / "boxes.txt", photos, photos.photos)]
    with pytest.raises(DataError, match=r"must be \.mat, \.json, \.txt"):
        [*proposal_files.read(tmp_path / "boxes.csv", photos, photos.photos)]
    large = tiny.pasted(tmp_path / "large", 3, width=400, height=300)
    mat(tmp_path / "boxes.mat", large, [0, 1, 2, 3], 0)
    with pytest.raises(DataError, match="outside of their photos in either order"):
        [*proposal_files.read(tmp_path / "boxes.mat", photos, photos.photos)]


# ---------------------------------------------------------------- recall


def test_recall_by_hand(photos):
    """The objects themselves at place 11 of each photo, boxes far away before and behind."""
    far = np.float32([[0, 0, 1, 1]])

    def boxes_of(photo):
        return np.concatenate([np.repeat(far, 10, 0), photo.boxes, np.repeat(far, 60, 0)])

    counts, shares = recall.recall(photos, boxes_of)
    most = max(70 + len(p.boxes) for p in photos.photos)
    assert counts == [10, 50, most]
    assert shares.tolist() == [[0] * 5, [1] * 5, [1] * 5]
    shifted = recall.recall(photos, lambda p: p.boxes * np.float32([1, 1, 1, 1]) + far * 0)[1]
    assert shifted.tolist() == [[1] * 5]

    def lower_half(photo):
        boxes = photo.boxes.copy()
        boxes[:, 1] += (boxes[:, 3] - boxes[:, 1]) * 0.35
        return boxes

    assert recall.recall(photos, lower_half)[1].tolist() == [[1, 1, 0, 0, 0]]
    assert "100.0  100.0    0.0    0.0    0.0" in recall.table(photos, lower_half)
    assert recall.recall(photos, lambda p: np.zeros((0, 4), np.float32))[1].tolist() == [[0] * 5]
