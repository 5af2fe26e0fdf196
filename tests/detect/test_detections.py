"""What is made of detections: files of each devkit, kinds of errors, thresholds, pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from convnet.detect import analysis, calibration, results
from convnet.detect.charts import curves
from convnet.detect.combine import union
from convnet.detect.detections import Found, nothing, to_json
from convnet.detect.draw import draw, drawn
from convnet.detect.evaluate import RULES, evaluate
from convnet.detect.sets import DetectionSet
from convnet.loader import DataError
from tests.detect import tiny


def found(*rows):
    """Detections of (box, score, label) rows."""
    if not rows:
        return nothing()
    boxes, scores, labels = zip(*rows)
    return Found(np.float32(boxes), np.float32(scores), np.int32(labels))


@pytest.fixture
def photos(tmp_path):
    return tiny.pasted(tmp_path / "photos", 5)


def guesses(photos, seed=0):
    """The objects moved a little, under the right label mostly, and boxes anywhere."""
    rng, made = np.random.default_rng(seed), []
    for photo in photos.photos:
        boxes = np.concatenate([photo.boxes + rng.uniform(-6, 6, photo.boxes.shape),
                                tiny.windows(photo, seed)[-4:]])  # fmt: skip
        labels = rng.integers(0, 2, len(boxes))
        labels[: len(photo.labels)] = photo.labels
        scores = rng.normal(size=len(boxes)) + np.r_[np.full(len(photo.labels), 2), np.zeros(4)]
        order = np.lexsort((-scores, labels))
        made.append(found(*zip(boxes[order], scores[order], labels[order])))
    return made


@pytest.mark.parametrize("kind", ["voc", "coco", "ilsvrc"])
def test_result_files_are_read_as_they_were_written(photos, tmp_path, kind):
    numbers = (7, 3) if kind == "coco" else ()
    photos = DetectionSet("x", photos.classes, photos.photos, kind, numbers)
    made = [*guesses(photos)[:-1], nothing()]
    paths = results.write(tmp_path / "out", photos, made, "test")
    assert all(p.exists() for p in paths)
    for wanted, got in zip(made, results.read(tmp_path / "out", photos, "test")):
        np.testing.assert_allclose(got.boxes, wanted.boxes, atol=2e-6 * 100)
        np.testing.assert_array_equal(got.scores, wanted.scores)
        np.testing.assert_array_equal(got.labels, wanted.labels)


def test_the_devkits_formats(photos, tmp_path):
    one = [found(([9, 19, 30, 40], 0.5, 1)), *[nothing()] * 4]
    for kind, name, text in [
        ("voc", "comp4_det_val_square.txt", "0_000 0.5 10.000000 20.000000 30.000000 40.000000\n"),
        ("ilsvrc", "detections.txt", "1 2 0.5 9.000000 19.000000 29.000000 39.000000\n"),
        ("coco", "detections.json", '[{"image_id": 1, "category_id": 2, "bbox": '
         '[9.0, 19.0, 21.0, 21.0], "score": 0.5}]'),
    ]:  # fmt: skip
        photos = DetectionSet("x", photos.classes, photos.photos, kind)
        results.write(tmp_path / kind, photos, one, "val")
        assert (tmp_path / kind / name).read_text() == text


@pytest.mark.parametrize(
    "kind,name,text,said",
    [
        ("voc", "comp4_det_test_disc.txt", "0_000 0.5 1 2 3\n", "line 1: must be a photo and 5"),
        ("voc", "comp4_det_test_disc.txt", "0_000 0.5 1 2 3 x\n", "line 1: must be a photo"),
        ("voc", "comp4_det_test_disc.txt", "zzz 0.5 1 2 3 4\n", "zzz is no photo of this set"),
        ("ilsvrc", "detections.txt", "1 9 0.5 1 2 3 4\n", "class 9 of 2"),
        ("coco", "detections.json", "[{}]", "no detections of COCO's kind"),
        ("coco", "detections.json", None, "no detections of COCO's kind"),
        ("voc", "comp4_det_test_disc.txt", None, "cannot be read"),
    ],
)
def test_bad_result_files(photos, tmp_path, kind, name, text, said):
    photos = DetectionSet("x", photos.classes, photos.photos, kind)
    results.write(tmp_path, photos, [nothing()] * 5, "test")
    (tmp_path / name).unlink() if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        results.read(tmp_path, photos, "test")
    assert said in str(caught.value) and name in str(caught.value)


# ---------------------------------------------------------------- kinds of errors


def test_kinds_of_errors_by_hand(photos):
    """Detections of class disc, one of each kind, on a photo with objects at known places."""
    boxes = np.float32([[0, 0, 20, 20], [50, 0, 70, 20], [0, 40, 20, 60]])
    one = photos.photos[0]
    photo = type(one)("a", one.path, 96, 72, boxes, np.int32([0, 1, 2]), np.zeros(3, bool))
    three = DetectionSet("x", ["disc", "ball", "square"], [photo] * 5)
    rows = [
        ([0, 0, 20, 20], 0), ([0, 0, 20, 19], 1), ([12, 0, 32, 20], 1), ([52, 0, 72, 20], 2),
        ([0, 42, 20, 62], 3), ([80, 40, 90, 60], 4),
    ]  # fmt: skip
    for k, (box, kind) in enumerate(rows[1:], 1):
        several = [found((rows[0][0], 2, 0), (box, 1, 0)), *[nothing()] * 4]
        shares = analysis.shares(three, several, {"disc": frozenset({"ball"})})
        wanted = np.zeros(5)
        np.add.at(wanted, [0, kind], 0.5)
        np.testing.assert_array_equal(shares[0], wanted, err_msg=str(k))
        assert np.isnan(shares[1:]).all()


def test_as_many_detections_count_as_there_are_objects(photos):
    count = photos.count()[0]
    rows = [(photos.photos[0].boxes[0], 1.0, photos.photos[0].labels[0])]
    rows += [([80 + i / 9, 60, 90, 70], 0.5, rows[0][2]) for i in range(40)]
    shares = analysis.shares(photos, [found(*rows), *[nothing()] * 4])
    assert shares[rows[0][2], 0] == 1 / photos.count()[rows[0][2]]
    assert count > 1


def test_likes_of_voc():
    """Hoiem et al., section 3.1: vehicles, animals and people, furniture, and what flies."""
    likes = analysis.likes(["bird", "sheep", "boat", "person", "aeroplane", "bottle"])
    assert {"sheep", "person", "aeroplane"} < likes["bird"] and "bird" not in likes["bird"]
    assert "boat" not in likes["bird"] and "boat" in likes["aeroplane"] and not likes["bottle"]


@pytest.mark.parametrize("rule", RULES)
def test_pictures_of_curves(photos, tmp_path, rule):
    made = guesses(photos)
    paths = curves(tmp_path, evaluate(photos, made, rule), photos, made)
    assert [p.name for p in paths] == ["precision-recall.png", "errors.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert np.asarray(picture).std() > 10
    empty = [nothing()] * 5
    curves(tmp_path, evaluate(photos, empty, rule), photos, empty)


# ---------------------------------------------------------------- scores


def test_the_threshold_has_the_best_f1():
    rng = np.random.default_rng(0)
    for _ in range(30):
        scores, right = rng.integers(0, 8, 20).astype(float), rng.random(20) < 0.4
        if not right.any():
            continue
        got = calibration.threshold(scores, right, 15)

        def f1(at, scores=scores, right=right):
            shown = scores >= at
            return 2 * right[shown].sum() / (shown.sum() + 15)

        assert f1(got) == max(f1(at) for at in scores)
    assert np.isnan(calibration.threshold(np.ones(3), np.zeros(3, bool), 5))


def test_the_sigmoid_is_that_of_what_made_the_cases():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-(2 * scores - 1)))
    a, b = calibration.sigmoid(scores, right)
    assert abs(a - 2) < 0.2 and abs(b + 1) < 0.15
    assert calibration.sigmoid(scores, np.ones(4000, bool)) == (0.0, np.log(4001))
    got = calibration.probability(found(([0, 0, 1, 1], 0.5, 1)), np.array([[9, 9], [2.0, -1.0]]))
    assert got.scores == [0.5]


def test_union_by_hand():
    a = found(([0, 0, 10, 10], 0.9, 0), ([40, 0, 50, 10], 0.2, 1))
    b = found(([0, 0, 10, 9], 0.8, 0), ([0, 0, 10, 9], 0.1, 1), ([40, 0, 50, 10], 0.2, 1))
    got = union([a, b], 0.3)
    assert got.scores.tolist() == pytest.approx([0.9, 0.2, 0.1])
    assert got.labels.tolist() == [0, 1, 1]
    assert len(union([nothing(), nothing()], 0.3).boxes) == 0
    assert len(union([a, nothing()], 0.3).boxes) == 2


def test_the_union_is_no_worse_on_what_each_finds_half(photos):
    every = guesses(photos)
    halves = [[Found(*(x[i::2] for x in f)) for f in every] for i in (0, 1)]
    both = [union(row, 0.3) for row in zip(*halves)]
    single = max(evaluate(photos, half, "area").mean for half in halves)
    assert evaluate(photos, both, "area").mean > single


# ---------------------------------------------------------------- pictures


def test_drawn_boxes_are_where_they_are():
    pixels = np.zeros((100, 120, 3), np.uint8)
    picture = np.asarray(drawn(pixels, found(([20, 30, 60, 80], 0.5, 0)), ["a"]))
    ink = picture.any(2)
    assert ink[30, 20:60].all() and ink[79, 20:60].all()
    assert ink[30:80, 20].all() and ink[30:80, 59].all()
    assert not ink[80:].any() and not ink[:, 60:].any() and not ink[40:70, 25:55].any()


def test_drawing_what_reaches_to_the_edges(tmp_path):
    pixels = np.zeros((5, 7, 3), np.uint8)
    rows = [([0, 0, 7, 5], 1, 0), ([6, 4, 7, 5], 1, 0), ([0, 0, 1, 1], np.nan, 1)]
    draw(pixels, found(*rows), ["a name longer than the photo is wide", "ö"], tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (7, 5)
    draw(np.zeros((1, 1, 3), np.uint8), nothing(), [], tmp_path / "y.png")


def test_json(photos):
    one = found(([1, 2, 3.123, 4], 0.25, 0), ([0, 0, 1, 1], 1, 1))
    row = to_json(photos.photos[0], one, photos.classes, "x.png")
    assert json.loads(json.dumps(row))["detections"] == [
        {"label": "square", "score": 1.0, "box": [0, 0, 1, 1]},
        {"label": "disc", "score": 0.25, "box": [1, 2, 3.12, 4]},
    ]
    row = to_json(photos.photos[0], one, photos.classes, "x.png", np.array([0.3, 0.8]))
    assert [d["probability"] for d in row["detections"]] == [0.8, 0.3]


def test_above():
    three = found(([0, 0, 1, 1], 0.5, 0), ([0, 0, 1, 1], 0.5, 1), ([0, 0, 1, 1], 0.2, 1))
    assert three.above(0.5).labels.tolist() == [0, 1]
    assert three.above(np.array([0.6, 0.1])).labels.tolist() == [1, 1]
    assert nothing().above(np.array([0.6, 0.1])).labels.tolist() == []
    assert nothing().above(0.3).labels.tolist() == []
