"""Sets of VOC, COCO and ILSVRC DET: what is read, what is said of what is odd or wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from convnet.detect import coco, ilsvrc_det, pascal
from convnet.detect.opened import open_set
from convnet.detect.sets import limited, of_photos
from convnet.loader import DataError
from tests.detect import tiny


def xml(*rows, difficult=0):
    """An annotation of (name, x1, y1, x2, y2) rows."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{a}</xmin>"
        f"<ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in rows
    )
    return f"<annotation>{objects}</annotation>"


@pytest.fixture
def kit(tmp_path):
    return tiny.devkit(tmp_path / "kit", trainval=4, test=2)


def test_voc_is_what_was_pasted(tmp_path):
    kit = tiny.devkit(tmp_path / "kit", trainval=4, test=2)
    truth = tiny.pasted(tmp_path / "again", 4, 0)
    found = pascal.read(kit, "trainval")
    assert (found.classes, found.kind, len(found.photos)) == (["disc", "square"], "voc", 4)
    for photo, wanted in zip(found.photos, truth.photos):
        np.testing.assert_array_equal(photo.boxes, wanted.boxes)
        np.testing.assert_array_equal(photo.labels, wanted.labels)
        np.testing.assert_array_equal(photo.pixels(), wanted.pixels())
    assert found.fingerprint != pascal.read(kit, "test").fingerprint
    assert found.fingerprint == open_set(kit.parent / "kit", "trainval").fingerprint


def test_the_classes_of_voc_keep_their_order(kit):
    (kit / "Annotations/0_000.xml").write_text(xml(("person", 1, 1, 9, 9)))
    for path in (kit / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("disc", "cat").replace("square", "dog"))
    assert pascal.read(kit, "test").classes == pascal.CLASSES


def test_a_folder_of_years(kit, tmp_path):
    (tmp_path / "dev").mkdir()
    kit.rename(tmp_path / "dev/VOC2007")
    assert pascal.read(tmp_path / "dev", "test").name == "VOC2007_test"


def test_difficult_objects_are_known(kit):
    (kit / "Annotations/0_000.xml").write_text(xml(("disc", 1, 1, 9, 9), difficult=1))
    photo = pascal.read(kit, "trainval").photos[0]
    assert photo.difficult.tolist() == [True]
    assert photo.easy.tolist() == [False]


@pytest.mark.parametrize(
    "rows,boxes,note",
    [
        ([("disc", 1, 1, 200, 40)], [[0, 0, 96, 40]], "a box reaches outside of the photo"),
        ([("disc", 5, 5, 4, 9)], [], "a box without an inside"),
        ([("disc", 300, 1, 310, 9)], [], "a box without an inside"),
        ([("disc", 5, 5, 5, 5)], [[4, 4, 5, 5]], None),  # one pixel
        ([], [], None),
    ],
)
def test_odd_boxes_are_noted(kit, rows, boxes, note):
    (kit / "Annotations/0_000.xml").write_text(xml(*rows))
    found = pascal.read(kit, "trainval")
    assert found.photos[0].boxes.tolist() == boxes
    said = " ".join(found.notes)
    assert (note in said and "0_000.xml" in said) if note else not said


def test_photos_without_annotation_have_no_objects(kit):
    (kit / "Annotations/0_001.xml").unlink()
    found = pascal.read(kit, "trainval")
    assert len(found.photos[1].boxes) == 0
    assert "0_001" in found.notes[0]


BAD = {
    "Annotations/0_000.xml": ("<annotation><object>", "no annotation of VOC"),
    "Annotations/0_001.xml": ("<annotation><object><name>disc</name></object></annotation>",
                              "lacks its bndbox"),
    "Annotations/0_002.xml": ("<!DOCTYPE x []><annotation/>", "no DOCTYPE"),
    "Annotations/0_003.xml": (xml(("disc", "a", 1, 2, 3)), "could not convert"),
    "ImageSets/Main/trainval.txt": ("0_000\n0_000\n", "for the second time"),
    "ImageSets/Main/trainval.txt ": ("0_000\n9\n", "1 of 2 photos are not in JPEGImages, first 9"),
    "JPEGImages/0_000.png": ("no image", "cannot be read as an image"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named(kit, name):
    text, said = BAD[name]
    path = kit / name.strip()
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        pascal.read(kit, "trainval")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_mistakes_of_voc(kit, tmp_path):
    (kit / "Annotations/0_000.xml").write_text(xml(("disk", 1, 1, 9, 9)))
    for path, split, said in [
        (tmp_path / "none", "test", "no such file or folder"),
        (kit, "tset", "did you mean 'test'"),
        (kit / "Annotations", "test", "no ImageSets/Main in it"),
    ]:
        with pytest.raises(DataError) as caught:
            open_set(path, split)
        assert said in str(caught.value)
    with pytest.raises(DataError, match=r"class 'disk' is none of .* did you mean 'disc'"):
        pascal.read(kit, "trainval", classes=["disc", "square"])


def test_a_photo_of_another_size_is_refused(kit):
    found = pascal.read(kit, "trainval")
    Image.new("RGB", (20, 30)).save(kit / "JPEGImages/0_000.png")
    with pytest.raises(DataError, match="20x30 pixels; its boxes are for 96x72"):
        found.photos[0].pixels()


def test_photos_of_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    (photo,) = of_photos([tmp_path / "dot.png"], ["a"]).photos
    assert photo.pixels().tolist() == [[[255, 0, 0]]]
    with pytest.raises(DataError, match=r"x\.png"):
        of_photos([tmp_path / "x.png"], ["a"])


# ---------------------------------------------------------------- COCO


@pytest.fixture
def annotations(tmp_path):
    truth = tiny.pasted(tmp_path / "val", 3, 0)
    rows = [
        {"id": 10 * i + k, "image_id": i, "category_id": [7, 3][c], "iscrowd": 0,
         "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])]}
        for i, p in enumerate(truth.photos) for k, (b, c) in enumerate(zip(p.boxes, p.labels))
    ]  # fmt: skip
    images = [{"id": i, "file_name": p.path.name, "width": 96, "height": 72}
              for i, p in enumerate(truth.photos)]  # fmt: skip
    found = {"images": images, "annotations": rows,
             "categories": [{"id": 7, "name": "disc"}, {"id": 3, "name": "square"}]}  # fmt: skip
    (tmp_path / "annotations").mkdir()
    return tmp_path / "annotations/instances_val.json", found, truth


def test_coco_is_what_was_pasted(annotations):
    path, found, truth = annotations
    found["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(found))
    got = open_set(str(path).replace("val", "{split}"), "val")
    assert (got.classes, got.numbers, got.kind) == (["square", "disc"], (3, 7), "coco")
    for i, (photo, wanted) in enumerate(zip(got.photos, truth.photos)):
        np.testing.assert_array_equal(photo.boxes, wanted.boxes)
        np.testing.assert_array_equal(photo.labels, 1 - wanted.labels)
        assert photo.number == i
    assert got.photos[0].difficult[0]
    assert got.count().sum() == len(found["annotations"]) - 1


@pytest.mark.parametrize(
    "change,said",
    [
        (lambda f: f.pop("categories"), "KeyError 'categories'"),
        (lambda f: f["annotations"][0].update(category_id=99), "annotation 0: no bbox, or of an"),
        (lambda f: f["annotations"][0].update(image_id=99), "annotation 0: no bbox, or of an"),
        (lambda f: f["annotations"][0].update(bbox=[1, 2]), "annotation 0: no bbox"),
        (lambda f: f["images"][0].update(file_name="x.jpg"), "--images= names the folder"),
    ],
)
def test_bad_json_of_coco(annotations, change, said):
    path, found, _ = annotations
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(DataError) as caught:
        coco.read(path)
    assert said in str(caught.value) and path.name in str(caught.value)


# ---------------------------------------------------------------- ILSVRC DET


@pytest.fixture
def det(tmp_path):
    """A tree as the challenge's, of three classes: val of two photos, the second blacklisted."""
    from scipy.io import savemat

    data = tmp_path / "ILSVRC2013_devkit/data"
    (data / "det_lists").mkdir(parents=True)
    names = [(2, "n02", "dog"), (1, "n01", "cat"), (3, "n03", "cow"), (201, "n99", "abstract")]
    kinds = [("ILSVRC2013_DET_ID", "O"), ("WNID", "O"), ("name", "O")]
    savemat(data / "meta_det.mat", {"synsets": np.array(names, dtype=kinds)})
    (data / "det_lists/val1.txt").write_text("photo_a 1\nphoto_b 2\n")
    (data / "ILSVRC2013_det_validation_blacklist.txt").write_text("2 n03\n")
    (tmp_path / "ILSVRC2013_DET_val").mkdir()
    (tmp_path / "ILSVRC2013_DET_bbox_val").mkdir()
    for name in "ab":
        Image.new("RGB", (50, 40)).save(tmp_path / f"ILSVRC2013_DET_val/photo_{name}.JPEG", "JPEG")
    text = xml(("n02", 0, 0, 9, 9), ("n77", 0, 0, 5, 5))
    (tmp_path / "ILSVRC2013_DET_bbox_val/photo_a.xml").write_text(text)
    return tmp_path


def test_ilsvrc(det):
    got = open_set(det, "val1")
    assert (got.classes, got.kind) == (["cat", "dog", "cow"], "ilsvrc")
    a, b = got.photos
    assert (a.boxes.tolist(), a.labels.tolist(), a.number) == ([[0, 0, 10, 10]], [1], 1)
    assert (len(b.boxes), b.unknown, b.number) == (0, {2}, 2)


def test_mistakes_of_ilsvrc(det):
    with pytest.raises(DataError, match="no such list"):
        ilsvrc_det.read(det, "val3")
    path = det / "ILSVRC2013_devkit/data/ILSVRC2013_det_validation_blacklist.txt"
    path.write_text("2 n03\nabc\n")
    with pytest.raises(DataError, match=r"blacklist\.txt:2: must be an image and a WNID"):
        ilsvrc_det.read(det, "val1")
    (det / "ILSVRC2013_devkit/data/meta_det.mat").write_text("x")
    with pytest.raises(DataError, match="no table 'synsets'"):
        ilsvrc_det.read(det, "val1")


def test_at_most_so_many_photos_of_a_class(tmp_path):
    every = tiny.pasted(tmp_path, 20)
    some = limited(every, 3)
    assert 3 <= len(some.photos) <= 6
    assert some.photos == limited(every, 3).photos
    shown = [sum(c in p.labels for p in some.photos) for c in (0, 1)]
    assert min(shown) >= 3
