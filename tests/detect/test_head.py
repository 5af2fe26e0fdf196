"""A classifier becomes a detector; what its fc layers see; low-rank fc layers; files of models."""

from dataclasses import replace

import numpy as np
import pytest

from convnet.checkpoint import CheckpointError
from convnet.cli import UsageError
from convnet.detect import lowrank
from convnet.detect.bbox import BoxRegressors
from convnet.detect.head import box_layer, detector, fc_layers, with_rates
from convnet.detect.maps import PhotoMaps, Trunk
from convnet.detect.model import Detector, Settings
from convnet.detect.sampling import RECIPES, Draws, labelled
from convnet.detect.store import Store
from convnet.detect.svm import Svms
from convnet.detect.views import CropView, SppView, below_fc, through_fc, warps
from convnet.detect.windows import best_scales, cells
from convnet.graph import Graph
from convnet.loader import DataError
from tests.detect import tiny
from tests.tooling import TINY

POOLS = TINY.replace(
    "[spp]\ntype=spp\ninputs=conv1\nlevels=3,2,1\npool=max\n",
    "[a]\ntype=pool\ninputs=conv1\npool=max\nsizeX=8\nstride=8\n\n"
    "[b]\ntype=pool\ninputs=conv1\npool=max\nsizeX=16\nstride=16\n",
).replace("inputs=spp", "inputs=a,b")


@pytest.fixture
def photo(tmp_path):
    return tiny.pasted(tmp_path / "photos", 1).photos[0]


def made(head="softmax", scales=(48,), method="spp", text=TINY, **more) -> Detector:
    source, net = detector(*tiny.net(text=text), tiny.CLASSES, head, windows=method == "spp")
    rng = np.random.default_rng(0)
    for w in net.own_weights().values():  # biases too
        w += rng.normal(size=w.shape).astype(np.float32) / 20
    return Detector(source, net, Settings(method, scales=scales, **more), tiny.CLASSES)


# ---------------------------------------------------------------- the cfg


def test_the_detector_is_a_cfg_that_one_may_read():
    source, net = tiny.net()
    made, found = detector(source, net, ["a", "b", "c"], "softmax+bbox")
    assert "[windows]\ntype=data\ndataIdx=2" in made.text
    assert {"spp.inputs=conv1,windows", "fc2.outputs=classes"} <= {*made.overrides}
    again = made.graph({0: (16, 16, 3)}, 4)
    assert isinstance(again, Graph)
    assert again.shapes["fc2"] == (1, 1, 4)
    assert box_layer(found) == "boxes"
    assert found.graph.shapes["boxes"] == (1, 1, 16)
    assert found.classes == ["background", "a", "b", "c"]


def test_all_weights_but_the_last_are_the_classifiers():
    source, net = tiny.net()
    _, found = detector(source, net, ["a", "b", "c"], "softmax+bbox")
    own = found.own_weights()
    for name, w in net.own_weights().items():
        if not name.startswith("fc2/"):
            np.testing.assert_array_equal(own[name], w)
    assert own["fc2/W0"].shape == (20, 4)


def test_a_detector_of_a_detector_keeps_its_windows():
    source, net = tiny.net()
    source, net = detector(source, net, ["a", "b"])
    source, net = detector(source, net, ["a", "b", "c"])
    assert source.text.count("dataIdx=2") == 1
    assert net.graph.shapes["fc2"] == (1, 1, 4)


def test_pools_of_one_map_are_a_pyramid():
    source, net = detector(*tiny.net(text=POOLS), tiny.CLASSES)
    assert {"a.inputs=conv1,windows", "b.inputs=conv1,windows"} <= {*source.overrides}
    assert [*below_fc(net.graph, net.output)] == ["a", "b"]


def test_nets_that_cannot_be_one():
    text = TINY.replace("type=spp", "type=pool").replace("levels=3,2,1", "sizeX=2\nstride=2")
    with pytest.raises(UsageError, match=r"no pyramid .* --method=rcnn takes any net"):
        detector(*tiny.net(text=text), tiny.CLASSES)
    detector(*tiny.net(text=text), tiny.CLASSES, windows=False)


def test_rates_of_the_layers_that_learn_and_of_those_that_do_not():
    source, net = detector(*tiny.net(), tiny.CLASSES)
    assert fc_layers(net, ["spp"]) == ["fc1", "fc2"]
    source = with_rates(source, net, {"epsW": "0.5", "epsB": "1"}, ["fc1", "fc2"])
    source = with_rates(source, net, {"epsW": "0.25", "epsB": "1"}, ["fc1", "fc2"])
    assert "fc1.epsW=0.25" in source.overrides and "fc1.epsW=0.5" not in source.overrides
    assert "conv1.epsW=0" in source.overrides


# ---------------------------------------------------------------- what fc layers see


@pytest.mark.parametrize("text", [TINY, POOLS])
@pytest.mark.parametrize("mirror", [False, True])
def test_a_window_is_the_pyramid_of_its_cells(photo, text, mirror):
    model = made(scales=(40, 64), text=text)
    view, boxes = model.view(), tiny.windows(photo)
    seen = view(photo, boxes, mirror)
    trunk, maps = view.trunk, view.maps(photo, mirror)
    if mirror:
        boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [96, 0, 96, 0]
    which = best_scales(boxes, 72, 96, (40, 64), trunk.aim, "release")
    assert {*which} == {0, 1}
    sides = np.array([m.shape[:2] for m in maps])[which]
    at = cells(boxes, np.array([40, 64])[which], (72, 96), sides, trunk.field, "release")
    levels = [int(word) for word in ("3,2,1" if text is TINY else "2,1").split(",")]
    for i, (top, left, bottom, right) in enumerate(at):
        part = maps[which[i]][top:bottom, left:right]
        wanted = np.concatenate([pyramid(part, n).reshape(-1) for n in levels])
        got = np.concatenate([seen.parts[n][seen.of[i]].reshape(-1) for n in view.layers])
        np.testing.assert_array_equal(got, wanted)


def pyramid(part, n):
    """Max over n x n bins, as in section 3.1 of the paper: floor and ceil of their edges."""
    h, w = part.shape[:2]
    return np.array([[part[i * h // n : -(-(i + 1) * h // n), k * w // n : -(-(k + 1) * w // n)]
                      .max((0, 1)) for k in range(n)] for i in range(n)])  # fmt: skip


def test_identical_windows_are_computed_once_and_change_no_bit(photo):
    model = made(scales=(40, 64))
    view = model.view()
    boxes = np.repeat(tiny.windows(photo), 2, 0)
    boxes[1::2] += 0.01  # the same cells
    once, each = view(photo, boxes), view(photo, boxes, once=False)
    assert len(once.parts["spp"]) < 0.55 * len(boxes) == 0.55 * len(each.parts["spp"])
    np.testing.assert_array_equal(once.parts["spp"][once.of], each.parts["spp"][each.of])


def test_no_boxes(photo):
    for method in "spp", "rcnn":
        model = made(method=method)
        assert len(model.found(photo, np.zeros((0, 4), np.float32), model.view()).boxes) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 2)])
def test_photos_of_a_pixel_or_a_line(size):
    for method in "spp", "rcnn":
        model = made(method=method)
        boxes = np.array([[0, 0, size[1], size[0]], [0, 0, 1, 1]], np.float32)
        found = model.detect(np.full((*size, 3), 99, np.uint8), boxes)
        assert np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()


def test_warped_windows_by_the_formula_of_rcnn():
    """Box and context to S x S, such that the box itself is S - 2p wide (appendix A); by hand."""
    # 32 pixels of box, p = 4: 24 of 32 are the box, so that 32 / 24 * 32 = 42.67 pixels are seen
    (rows,) = warps(np.float32([[20, 40, 52, 72]]), 200, 200, 32, 4)
    top, left, height, width, to_top, to_left, high, wide = rows
    assert (left, top) == (15, 35) and (width, height) == (43, 43)
    assert (to_top, to_left, high, wide) == (0, 0, 32, 32)
    # at the corner the context is outside of the photo: 5 of 43 pixels, 4 of 32
    (rows,) = warps(np.float32([[0, 0, 32, 32]]), 200, 200, 32, 4)
    assert rows[:4].tolist() == [0, 0, 38, 38]
    assert rows[4:].tolist() == [4, 4, 28, 28]


def test_crops_of_a_flat_photo_are_flat(photo):
    model = made(method="rcnn")
    view = model.view()
    x = view.crops(np.full((72, 96, 3), 150, np.uint8), np.float32([[0, 0, 20, 20]]))
    assert {*np.unique(x)} == {0, 50}  # 150 - 100; outside of the photo the mean
    assert x[0, 8:, 8:].min() == 50


@pytest.mark.parametrize("method", ["spp", "rcnn"])
def test_what_is_kept_is_what_is_made(photo, tmp_path, monkeypatch, method):
    model, boxes = made(method=method), tiny.windows(photo)
    if method == "spp":
        trunk = Trunk(model.net)
        store = Store(tmp_path / "s", "maps", PhotoMaps.made_from(trunk, (48,)))
        view = model.view(store)
        view.maps.save(photo, True)
    else:
        store = Store(tmp_path / "s", "crops", CropView.made_from(model.net, None))
        view = model.view(store)
        view.save(photo, boxes, True)
    for mirror in False, True:
        fresh = model.view()(photo, boxes[:20], mirror)
        with monkeypatch.context() as patch:
            patch.delattr(type(photo), "pixels")  # it must not be decoded again
            kept = view(photo, boxes[:20], mirror)
        for name, x in fresh.parts.items():
            np.testing.assert_allclose(kept.parts[name][kept.of], x[fresh.of], rtol=1e-6, atol=1e-6)


def test_the_whole_net_trains_on_the_windows_that_the_view_shows(photo):
    """What `images` gives the net's first layer makes the same pyramid as the view."""
    model, boxes = made(), tiny.windows(photo)
    view = model.view()
    assert isinstance(view, SppView)
    given = view.images(photo, boxes, False, np.random.default_rng(0))
    outs = model.net.fprop(given, ["spp"])[0]["spp"]
    seen = view(photo, boxes)
    np.testing.assert_array_equal(outs, seen.parts["spp"][seen.of])


def test_rows_through_the_fc_layers_in_parts_are_the_whole(photo, monkeypatch):
    model, boxes = made(), tiny.windows(photo)
    parts = model.view()(photo, boxes).parts
    whole = through_fc(model.net, parts, ["fc1", "probs"])
    monkeypatch.setattr("convnet.detect.views.ROWS", 7)
    for name, x in through_fc(model.net, parts, ["fc1", "probs"]).items():
        np.testing.assert_allclose(x, whole[name], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- which windows it learns from


def test_windows_for_fine_tuning(tmp_path):
    photos = tiny.pasted(tmp_path, 6)
    draws = Draws(photos, tiny.windows, RECIPES["release"], 0, False)
    drawn = [d for d, _ in zip(draws.since(0), range(30))]
    assert {d.photo.name for d in drawn[:6]} == {p.name for p in photos.photos}
    assert {d.mirror for d in drawn} == {False, True}
    for d in drawn:
        told = labelled(d.photo, tiny.windows(d.photo), False)
        overlap = {tuple(b): (o, l) for b, o, l in zip(told.boxes, told.best, told.labels)}
        for i, box in enumerate(d.boxes):
            best, label = overlap[tuple(box)]
            assert best >= 0.5 if i < d.objects else 0.1 <= best < 0.5
            assert d.labels[i] == (label + 1 if i < d.objects else 0)
    again = [d for d, _ in zip(draws.since(20), range(10))]
    for a, b in zip(drawn[20:], again):
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_sets_without_objects_or_with_the_boxes_of_others(tmp_path):
    photos = tiny.pasted(tmp_path, 2)
    none = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "difficult": np.zeros(0, bool)}
    empty = replace(photos, photos=[replace(p, **none) for p in photos.photos])
    with pytest.raises(DataError, match="no photo has an object"):
        Draws(empty, tiny.windows, RECIPES["paper"], 0, False)
    hard = replace(photos, photos=[replace(p, difficult=~p.difficult) for p in photos.photos])
    with pytest.raises(DataError, match="no window shows an object; all objects are difficult"):
        [*Draws(hard, tiny.windows, RECIPES["paper"], 0, False).since(0)]
    far = np.float32([[0, 0, 1, 1]])
    with pytest.raises(DataError, match=r"is background.*are these the proposals of this set"):
        [*Draws(photos, lambda p: far, RECIPES["paper"], 0, False).since(7)]


# ---------------------------------------------------------------- low rank


@pytest.mark.parametrize("text", [TINY, POOLS])
def test_full_rank_would_be_exact_and_less_is_what_pca_says(photo, text):
    model = made(text=text)
    net, view = model.net, model.view()
    parts = view(photo, tiny.windows(photo)).parts
    rows = np.concatenate([x.reshape(len(x), -1) for x in parts.values()], 1)
    W, b = np.concatenate(lowrank.matrices(net, "fc1")), net.weights["fc1"]["b"]
    y = rows.astype(np.float64) @ W + b
    values, errors = np.linalg.svd(y - y.mean(0))[1] ** 2, []
    for rank in 2, 5, 9:
        layers = lowrank.lowered_layers(net, view.layers, (rank,))
        source, low, kept = lowrank.lowered(model.source, net, layers, [{"fc1": rows}])
        assert source.graph({0: (16, 16, 3)}, 3).shapes["fc1_low"] == (1, 1, rank)
        low_y = low.fprop(parts, ["fc1_low"])[0]["fc1_low"].reshape(len(rows), -1)
        low_y = low_y @ low.weights["fc1"]["W0"] + low.weights["fc1"]["b"]
        errors.append(np.square(low_y - y).sum())
        np.testing.assert_allclose(errors[-1], values[rank:].sum(), rtol=1e-3)
        np.testing.assert_allclose(kept["fc1"], values[:rank].sum() / values.sum(), rtol=1e-4)
    assert errors == sorted(errors, reverse=True)


def test_ranks():
    assert lowrank.ranks_of("1024,256") == (1024, 256)
    for wrong in "a", "0", "5,,5", "-1":
        with pytest.raises(UsageError, match="must be ranks"):
            lowrank.ranks_of(wrong)


# ---------------------------------------------------------------- the model's file


def trained(**more) -> Detector:
    model = made(**more)
    rng = np.random.default_rng(0)
    W = rng.normal(size=(20, 2)).astype(np.float32)
    width = sum(int(np.prod(model.net.graph.shapes[n])) for n in model.view().layers)
    moves = rng.normal(size=(2, width + 1, 4)).astype(np.float32) / 1e3
    return model.but(
        svms=Svms(W, np.zeros(2, np.float32), 0.5),
        regressors=BoxRegressors(moves, np.zeros((2, 4)), np.tile(np.eye(4), (2, 1, 1)), 1.0),
        thresholds=np.array([0.5, np.inf]), sigmoids=np.ones((2, 2)), made_from={"net": "x"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "more", [{}, {"method": "rcnn"}, {"head": "softmax+bbox"}, {"scales": (40, 64)}]
)
def test_a_model_finds_the_same_from_its_file(photo, tmp_path, more):
    model, boxes = trained(**more), tiny.windows(photo)
    model.save(tmp_path / "det.h5")
    other = Detector.load(tmp_path / "det.h5")
    for a, b in zip(model.detect(photo.pixels(), boxes), other.detect(photo.pixels(), boxes)):
        np.testing.assert_array_equal(a, b)
    assert len(model.detect(photo.pixels(), boxes).boxes)
    assert (other.fingerprint, other.settings) == (model.fingerprint, model.settings)
    np.testing.assert_array_equal(other.thresholds, model.thresholds)
    assert other.made_from == {"net": "x"}


def test_the_net_moves_boxes_where_it_has_learned_to(photo):
    model, boxes = made("softmax+bbox"), tiny.windows(photo)
    net = model.net
    net.weights["boxes"]["W0"][...] = 0
    net.weights["boxes"]["b"][...] = 0
    still = model.detect(photo.pixels(), boxes)
    assert {tuple(b) for b in still.boxes.tolist()} <= {tuple(b) for b in boxes.tolist()}
    net.weights["boxes"]["b"].reshape(3, 4)[1:, 0] = 10 * 0.25  # right by a quarter; std is 0.1
    moved = model.detect(photo.pixels(), boxes[:1])
    wide = boxes[0, 2] - boxes[0, 0]
    for box in moved.boxes:
        np.testing.assert_allclose(box[0], min(boxes[0, 0] + wide / 4, 96), rtol=1e-5)


def test_other_files_are_no_models(tmp_path):
    trained().save(tmp_path / "det.h5")
    with pytest.raises(CheckpointError, match=r"none\.h5: cannot be read"):
        Detector.load(tmp_path / "none.h5")
    (tmp_path / "x.h5").write_bytes((tmp_path / "det.h5").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"x\.h5"):
        Detector.load(tmp_path / "x.h5")
    with pytest.raises(UsageError, match="--layer=nix"):
        _ = trained(layer="nix").layer
