"""Curves, filters, predictions, confusion, activations, bins: their numbers, and the files."""

import json
import os
import tracemalloc
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from convnet import Net, geometry, runfolder, scores
from convnet.cfg import parse
from convnet.checkpoint import CheckpointError
from convnet.graph import Graph
from convnet.providers import DataOptions
from convnet.providers.images import Images
from convnet.results import Table, row_of
from convnet.show import bins, confusion, curves, filters, opened, predictions, windows
from convnet.show.bins import Bin
from convnet.tiles import balanced, mosaic
from tests.test_layer_configs import few, source
from tests.tooling import TINY, call, photos, tiny

pytest.importorskip("matplotlib")
CLASSES = ("ant", "bee & <b>", "$c$at$")
LITTLE = ("--workers=0", "--set=DEFAULT.epsW=0.0001")  # it is to make mistakes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on photos in three classes with names that are no plain text."""
    folder = tmp_path_factory.mktemp("pictures")
    data = photos(folder / "photos", CLASSES, each=12)
    argv = (f"--layer-def={tiny(folder)}", f"--data-path={data}", f"--save-path={folder / 'run'}")
    assert call("train", *argv, "--minibatch=8", "--epochs=2", *LITTLE).code == 0
    return folder / "run"


@pytest.fixture(scope="module")
def net(run):
    return Net.from_checkpoint(run)


@pytest.fixture
def data(run):
    with Images(str(run.parent / "photos"), 16, 3, DataOptions(workers=0)) as provider:
        yield provider


def shows(path):
    """Whether a file is a picture with something on it."""
    if path.suffix == ".svg":
        root = ElementTree.parse(path).getroot()
        return root.tag.endswith("svg") and len(list(root.iter())) > 20
    with Image.open(path) as picture:
        return min(picture.size) > 100 and np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("words", [
    "curves RUN", "curves RUN RUN --cost=logprob", "filters RUN", "filters RUN --layer=conv1",
    "predictions RUN", "predictions RUN --only-errors --seed=1", "confusion RUN",
    "activations RUN 0", "activations RUN IMAGE --layer=conv1:pre", "bins RUN",
    "bins RUN --filters=0,3 --level=3 --images=4 --windows=2", "graph RUN",
])  # fmt: skip
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_every_command_writes_a_picture(run, tmp_path, words, kind):
    image = next((run.parent / "photos" / "ant").iterdir())
    words = words.replace("RUN", str(run)).replace("IMAGE", str(image)).split()
    out = tmp_path / f"picture.{kind}"
    result = call("show", *words, f"--out={out}")
    assert (result.code, result.out, result.err) == (0, f"{out}\n", "")
    assert shows(out)


def test_the_newest_of_runs_of_one_moment(tmp_path):
    """The steps of a file system's clock may be longer than a short run: the name decides."""
    for name in "b_002", "a_009", "b_001":
        (tmp_path / name).mkdir()
        for file in "metrics.jsonl", "1.6.h5":
            (tmp_path / name / file).touch()
            os.utime(tmp_path / name / file, (1e9, 1e9))
    assert opened.folder_of(tmp_path).name == "b_002"
    with pytest.raises(CheckpointError, match=r"b_002: no good checkpoint"):
        runfolder.find(tmp_path)
    os.utime(tmp_path / "a_009" / "metrics.jsonl", ns=(10**18 + 1, 10**18 + 1))
    assert opened.folder_of(tmp_path).name == "a_009"


def test_where_pictures_go(run):
    """Into the folder of the run, which stays a run."""
    before = {path.name for path in run.iterdir()}
    assert call("show", "curves", run.parent).out == f"{run / 'curves.png'}\n"
    assert call("show", "filters", run).out == f"{run / 'filters-conv1.png'}\n"
    for words, name in (
        (("curves", "--cost=logprob.error"), "curves-logprob.error.png"),
        (("activations", "0", "--layer=conv1:pre"), "activations-conv1_pre.png"),
    ):  # a colon is in no name of a file on Windows
        assert call("show", words[0], run, *words[1:]).out == f"{run / name}\n"
        (run / name).unlink()
    assert {path.name for path in run.iterdir()} - before == {"curves.png", "filters-conv1.png"}
    assert Net.from_checkpoint(run)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize("words, code, text", [
    ("curves NONE", 5, "no such file or folder; train a net first"),
    ("curves PHOTOS", 5, "no metrics.jsonl there; is it a run of tools/train.py?"),
    ("curves RUN --cost=loss", 2, "--cost=loss: the runs have logprob, logprob.error"),
    ("curves RUN --out=x.jpg", 2, "--out=x.jpg: must end in .png or .svg"),
    ("curves RUN --out=none/x.png", 2, "--out=none/x.png: there is no folder none"),
    ("filters RUN --layer=conv2", 2, "--layer=conv2: no layer 'conv2'; did you mean 'conv1'?"),
    ("filters RUN --layer=drop", 2, "--layer=drop: has no weights; conv1, fc1, fc2 have some"),
    ("filters RUN --layer=fc2", 2, "--layer=fc2: reads 20 numbers, no maps or images"),
    ("filters RUN --layer=fc1", 2, "--layer=fc1: reads 84 numbers, no maps or images"),
    ("filters RUN --input=1", 2, "--layer=conv1: has no weights over an input 1"),
    ("predictions RUN --data-path=NONE", 3, "no such folder"),
    ("activations RUN NONE.jpg", 3, "no such file"),
    ("activations RUN CFG", 3, "tiny.cfg: no image of a known format"),
    ("activations RUN 999", 2, "999: no such file, and there are 8 test images, from 0"),
    ("activations RUN 0 --layer=fc1", 2, "--layer=fc1: gives 20 numbers, no maps; conv1 give"),
    ("bins RUN --layer=spp", 2, "--layer=spp: gives 84 numbers, no maps"),
    ("bins RUN --layer=data", 2, "--layer=data: is what the net is given, no map that it makes"),
    ("activations RUN 0 --layer=data", 2, "--layer=data: is what the net is given"),
    ("bins RUN --level=4", 2, "--level=4: the pyramid has 1, 2, 3"),
    ("bins RUN --filters=6", 2, "--filters=6: must be numbers from 0 to 5"),
    ("graph NONE.cfg", 2, "NONE.cfg"),
    ("graph RUN --classes=5", 2, "--classes=5: a run has its own"),
    ("graph RUN --size=50", 2, "--size=50: a run has its own"),
    ("graph RUN --set=conv1.filters=2", 2, "--set=conv1.filters=2: a run has its own"),
    ("graph CFG --size=8", 2, "; --set=data.imgSize=8 changes it"),
    ("confusion RUN --split=test", 3, "has a split of this name (--data-provider=ilsvrc)\n"),
    ("graph CFG --out=x.gif", 2, "--out=x.gif: must end in .svg, .png or .dot"),
])  # fmt: skip
def test_mistakes_are_one_line(run, tmp_path, monkeypatch, words, code, text):
    monkeypatch.chdir(tmp_path)
    words = words.replace("RUN", str(run)).replace("PHOTOS", str(run.parent / "photos"))
    result = call("show", *words.replace("CFG", str(run.parent / "tiny.cfg")).split())
    assert result.code == code and text in result.err, result.err
    assert result.err.count("\n") == 1 and result.out == ""
    assert not list(tmp_path.iterdir())


def test_a_cfg_as_set_makes_it(run, tmp_path, monkeypatch):
    """Drawn into the folder where one is."""
    monkeypatch.chdir(tmp_path)
    argv = ("graph", run.parent / "tiny.cfg", "--set=data.imgSize=8", "--set=conv1.filters=5")
    assert call("show", *argv).out == "tiny.svg\n"
    assert "8x8x5" in (tmp_path / "tiny.svg").read_text()


def test_a_data_set_that_has_moved(run, tmp_path):
    moved = run.parent / "moved"
    (run.parent / "photos").rename(moved)
    try:
        result = call("show", "confusion", run, f"--out={tmp_path / 'a.png'}")
        assert result.code == 3
        assert result.err.endswith("--data-path=DIR says where the images of the run are now\n")
        argv = ("confusion", run, f"--data-path={moved}", f"--out={tmp_path / 'a.png'}")
        assert call("show", *argv).code == 0
    finally:
        moved.rename(run.parent / "photos")


def test_letters_that_no_font_has(tmp_path, capsys, monkeypatch):
    from convnet.show import style

    def paint(figure):
        figure.subplots().set_title("\U0001305a")  # a hieroglyph

    monkeypatch.setattr(style, "SCRIPTS", ())
    style.write(tmp_path / "a.png", paint, (2, 2))
    told = capsys.readouterr().err
    assert told.startswith(f"note: {tmp_path / 'a.png'}: no font") and told.count("\n") == 1
    style.write(tmp_path / "a.svg", paint, (2, 2))
    assert capsys.readouterr().err == "" and "\U0001305a" in (tmp_path / "a.svg").read_text()


def test_without_matplotlib(run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    result = call("show", "curves", run, f"--out={tmp_path / 'a.png'}")
    assert result.code == 2
    assert result.err == "pictures: need matplotlib: python -m pip install -e '.[show]'\n"
    assert call("show", "graph", run, f"--out={tmp_path / 'a.svg'}").code == 0


@pytest.mark.parametrize("text, why", [
    ("", "tells of no batch yet"), ("{}\n", ":1: tells of no costs, so is no row of a run; delete"),
    ("[]\n", ":1: tells of no costs"),
    *((f'{{"step": 1, "epoch": 1, "batch": 1, {row}}}\n', "so is no row") for row in (
        '"logprob": NaN', '"logprob": 1e400', '"logprob": null', '"logprob": "x"', '"test": 5',
        '"size": 24', '"seconds": "x", "logprob": 1')),
    ('{"step": 1, "epoch": 1, "batch": 0, "logprob": 1}\n', ":1: does not say where it is"),
    (f'{{"step": 1, "epoch": 1, "batch": 1, "test": {{"a": {10**400}}}}}\n', "so is no row"),
    ('{"step": 1, "epoch": "a", "batch": 1, "logprob": 1}\n', ":1: does not say where it is"),
    ("a b\n", ":1: is no JSON, so is no row of a run"),
    ('{"step": 1, "epo', "tells of no batch yet"),
])  # fmt: skip
def test_metrics_that_are_none(tmp_path, text, why):
    (tmp_path / "metrics.jsonl").write_text(text)
    result = call("show", "curves", tmp_path)
    assert result.code == 5 and why in result.err and result.err.count("\n") == 1


# ---------------------------------------------------------------- curves


def test_epochs_by_hand():
    """Two batches an epoch, then four; the third epoch has only begun."""
    at = [(1, 1), (1, 2), (1, 2), (2, 1), (2, 4), (3, 1)]
    of = {1: 2, 2: 4, 3: 5}
    told = np.array([(epoch, batch, of[epoch]) for epoch, batch in at])
    assert curves.epochs(told).tolist() == [0.5, 1, 1, 1.25, 2, 2.2]
    assert curves.epochs(told * [1, 1, 0]).tolist() == [0.5, 1, 1, 1.25, 2, 2.25], "an old run"
    assert curves.epochs(np.array([(1, 1, 16), (1, 5, 16)])).tolist() == [1 / 16, 5 / 16]
    made_up = np.array([(1, 1, 3), (1, 3, 3), (1, 12, 12), (2, 6, 12)])  # at a resume with others
    assert curves.epochs(made_up).tolist() == [1 / 3, 1, 1, 1.5]


def test_curves_are_the_metrics(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = curves.read(opened.metrics(run))
    batches = [row for row in rows if "test" not in row]
    assert list(found) == ["logprob", "logprob.error"]
    assert found["logprob"].train[1].tolist() == [row["logprob"] for row in batches]
    assert found["logprob"].train[0].tolist() == [row["step"] / 4 for row in batches]
    assert found["logprob.error"].test[0].tolist() == [1, 2]


def test_a_late_end_is_not_cut_off():
    """The first batches may be above the panel; a divergence at the end may not, short as it is."""
    values = np.concatenate([np.full(3, 1000.0), np.ones(1985), np.full(12, 80.0)])
    curve = curves.Curve(np.array([np.arange(2000), values]), np.empty((2, 0)), np.ones(2000))
    assert 40 < curves._top(curve) < 100
    tested = curve._replace(test=np.array([[9.0], [300.0]]))
    assert 300 < curves._top(tested) < 400


def test_a_long_run_is_read_in_little_memory():
    """Rows come one at a time, and of each only numbers stay."""
    rows = ({"step": i, "epoch": 1 + i // 1000, "batch": 1 + i % 1000, "batches": 1000,
             "images": 1, "logprob": 0.5, "logprob.error": 0.2} for i in range(50_000))  # fmt: skip
    tracemalloc.start()
    found = curves.read(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["logprob"].train.shape == (2, 50_000) and peak < 50_000 * 200


def test_thinned_keeps_spikes_and_ends():
    x, y = np.arange(100_000.0), np.random.default_rng(0).normal(size=100_000)
    y[12_345], y[77_777], y[-1] = 50, -60, 7
    made = curves._thinned(x, y)
    assert len(made[0]) <= curves.POINTS + 2 and (np.diff(made[0]) > 0).all()
    for at in (0, 12_345, 77_777, 99_999):
        assert made[1][made[0] == at].tolist() == [y[at]]
    np.testing.assert_array_equal(made[1], y[made[0].astype(int)])
    np.testing.assert_array_equal(curves._thinned(x[:1500], y[:1500])[1], y[:1500])


def test_errors_are_in_percent_and_no_test_is_promised(tmp_path):
    from convnet.show import style

    rows = [{"step": i, "epoch": 1, "batch": i, "logprob": 2.0, "logprob.error": 0.5,
             "logprob.top5": 0.25} for i in range(1, 9)]  # fmt: skip
    run = curves.read(rows)
    style.write(tmp_path / "a.svg", *curves.picture([run], ["a"]))
    text = (tmp_path / "a.svg").read_text()
    assert "error of logprob, %" in text and "top-5 error of logprob, %" in text
    assert "training, smoothed" in text and ">test<" not in text
    assert curves._scaled(run["logprob.error"], "logprob.error").train[1].tolist() == [50] * 8
    style.write(tmp_path / "b.svg", *curves.picture([run], ["a"]))
    assert (tmp_path / "b.svg").read_text() == text, "the same picture is the same file"


def test_only_shares_of_images_are_in_percent():
    """A cost may have a dot in its name, and values that are no shares."""
    for value, title in (("loss.main", "main of loss"), ("mse.pixels", "pixels of mse"),
                         ("logprob.top5", "top-5 error of logprob, %"), ("a", "a")):  # fmt: skip
        assert curves._title(value) == title
    rows = [{"step": 1, "epoch": 1, "batch": 1, "batches": 1, "loss.main": 2.0}]
    curve = curves.read(rows)["loss.main"]
    assert curves._scaled(curve, "loss.main").train[1].tolist() == [2]


def test_rows_that_tell_no_images_count_as_is_usual():
    rows = [{"step": i, "epoch": 1, "batch": i, "logprob": 1.0} for i in (1, 2)]
    rows += [{"step": i, "epoch": 1, "batch": i, "logprob": 1.0, "images": 128} for i in (3, 4)]
    assert curves.read(rows)["logprob"].images.tolist() == [128] * 4
    assert curves.read(rows[:2])["logprob"].images.tolist() == [1, 1]


def test_a_test_that_overflowed_is_left_out():
    rows = [{"step": 1, "epoch": 1, "batch": 1, "batches": 2, "logprob": 1.0},
            {"step": 1, "epoch": 1, "batch": 1, "batches": 2, "test": {"logprob": np.inf}},
            {"step": 1, "epoch": 1, "batch": 1, "batches": 2, "test": {"logprob": 1e308}},
            {"step": 2, "epoch": 1, "batch": 2, "batches": 2, "logprob": 2.0},
            {"step": 2, "epoch": 1, "batch": 2, "batches": 2, "test": {"logprob": 3}}]  # fmt: skip
    rows = [row_of(json.dumps(row).encode()) for row in rows]
    assert curves.read(rows)["logprob"].test.tolist() == [[1], [3]]
    assert [row["test logprob"] for row in Table(rows).rows] == ["inf", "1e+308", "3"]


def test_the_last_map_is_one_of_the_prediction():
    """Not of an auxiliary classifier, and no image, which a pyramid may read as well."""
    net = Net(source("googlenet", *few("googlenet")).graph({}, 10))
    assert opened.maps_of(net)[-1].startswith("aux") and opened.last_map(net) == "inc5b"
    text = TINY.replace("inputs=conv1", "inputs=data").replace("inputs=spp", "inputs=spp,conv1")
    net = Net(Graph(parse(text), classes=3))
    assert net.by_name["spp"].reads == ["data"] and opened.last_map(net) == "conv1"


def test_smooth():
    values = np.random.default_rng(0).normal(size=500)
    half = int(500 * curves.WINDOW) // 2
    inside = np.convolve(values, np.ones(2 * half + 1) / (2 * half + 1), "valid")
    made = curves.smooth(values, np.ones(500))
    np.testing.assert_allclose(made[half:-half], inside)
    assert made[0] == pytest.approx(values[: half + 1].mean())
    assert made[-1] == pytest.approx(values[-half - 1 :].mean())
    few = curves.smooth(values[:9], np.ones(9))
    assert few[4] == pytest.approx(values[2:7].mean()), "5 at the least"
    assert curves.smooth(values[:1], np.ones(1)).tolist() == values[:1].tolist()


def test_smooth_is_the_mean_of_images():
    """The last batch of an epoch, of 3 images, counts as 3; the end is what results.csv says."""
    rows = [
        {"step": i, "epoch": 1, "batch": i, "batches": 4, "images": n, "logprob": value}
        for i, (n, value) in enumerate([(32, 1.0), (32, 2.0), (32, 3.0), (3, 60.0)], 1)
    ]
    rows.append({"step": 4, "epoch": 1, "batch": 4, "test": {"logprob": 1.0}})
    curve = curves.read(rows)["logprob"]
    mean = curves.smooth(curve.train[1], curve.images)[1]
    assert mean == pytest.approx((32 * 6 + 3 * 60) / 99)
    assert f"{mean:.6g}" == Table(rows).rows[0]["train logprob"]


# ---------------------------------------------------------------- filters


def test_tiles_by_hand():
    tiles = np.arange(12, dtype=float).reshape(3, 2, 2, 1)
    made = mosaic(tiles, 2, 2, (1, 3))
    assert made.shape == (9, 11, 1)
    assert made[:4, :4, 0].tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    assert made[0, 7, 0] == 4 and made[5, 0, 0] == 8
    assert np.isnan(made[4]).all() and np.isnan(made[:, 4:7]).all() and np.isnan(made[5:, 7:]).all()


def test_each_filter_has_its_own_scale():
    weights = np.zeros((3, 1, 2, 1))
    weights[0, 0, :, 0], weights[1, 0, :, 0] = (-2, 1), (0.01, 0)
    assert balanced(weights)[..., 0].tolist() == [[[0, 0.75]], [[1, 0.5]], [[0.5, 0.5]]]


def test_kernels_are_the_weights(net):
    W = net.weights["conv1"]["W0"]
    for name in ("conv1", "conv1_neuron"):
        found = filters.kernels(net, name)
        assert found.shape == (6, 3, 3, 3)
        for f in range(6):
            np.testing.assert_array_equal(found[f], W[..., f])


def test_kernels_of_a_fully_connected_layer_over_maps():
    """Pixel (y, x, c) of unit u is its weight for that pixel."""
    cfg = "[data]\ntype=data\ndataIdx=0\nimgSize=4\n[labels]\ntype=data\ndataIdx=1\n"
    cfg += "[fc]\ntype=fc\ninputs=data\noutputs=5\n[probs]\ntype=softmax\ninputs=fc\n"
    cfg += "[cost]\ntype=cost.logreg\ninputs=labels,probs\n"
    net = Net(Graph(parse(cfg), classes=5))
    image = np.zeros((1, 4, 4, 3), np.float32)
    image[0, 1, 2, 0] = 1
    answers = net.run({"data": image}, "fc").reshape(-1)
    np.testing.assert_allclose(filters.kernels(net, "fc")[:, 1, 2, 0], answers, rtol=1e-6)


# ---------------------------------------------------------------- predictions, confusion


def test_predictions_are_those_of_the_test(net, data):
    indices, probs = scores.predict(net, data, None, 4)
    found = predictions.drawn(net, data, 99)
    assert sorted(guess.number for guess in found) == indices.tolist()
    for guess in found:
        np.testing.assert_allclose(guess.probs, probs[guess.number], rtol=1e-5)
        assert guess.label == data.test.labels[guess.number]
        assert guess.name == data.test.keys[guess.number]
        assert guess.top[0] == probs[guess.number].argmax()
        np.testing.assert_array_equal(
            guess.view, net.look("centre")(data.images("test", [guess.number])[0])[0]
        )
    few = predictions.drawn(net, data, 3, seed=5)
    assert len(few) == 3 and [g.number for g in few] != [0, 1, 2]


def test_only_errors(net, data):
    indices, probs = scores.predict(net, data, None, 4)
    wrong = set(indices[probs.argmax(1) != data.test.labels[indices]].tolist())
    assert 1 < len(wrong) < data.test.size, "else the test shows nothing"
    found = predictions.drawn(net, data, 99, only_errors=True)
    assert {guess.number for guess in found} == wrong
    assert len(predictions.drawn(net, data, 1, only_errors=True)) == 1


def test_confusion_is_scikit_learns(net, data):
    indices, probs = scores.predict(net, data, None, 4)
    expected = confusion_matrix(data.test.labels[indices], probs.argmax(1), labels=range(3))
    found = confusion.of(scores.Predictions(indices, probs), data, net.classes)
    np.testing.assert_array_equal(found.counts, expected)


def test_confusion_by_hand():
    found = confusion.Confusion(np.array([[6, 2, 0], [3, 0, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert found.error == pytest.approx(5 / 11)
    assert found.shares.tolist() == [[0.75, 0.25, 0], [1, 0, 0], [0, 0, 0]]
    assert found.pairs() == [(1, 0), (0, 1)]


def test_the_most_frequent_comes_first():
    """1 of 1 is no more than 2 of 9; of two twos the larger share."""
    found = confusion.Confusion(np.array([[7, 2, 0], [0, 3, 2], [1, 0, 0]]), ["a", "b", "c"])
    assert found.pairs() == [(1, 2), (0, 1), (2, 0)]


def test_many_classes_are_a_list(tmp_path):
    from convnet.show import style

    counts = np.random.default_rng(0).integers(0, 5, (60, 60))
    found = confusion.Confusion(counts, [f"class {i}" for i in range(60)])
    style.write(tmp_path / "pairs.svg", *confusion.picture(found))
    text = (tmp_path / "pairs.svg").read_text()
    assert text.count("→") == confusion.PAIRS
    i, j = found.pairs()[0]
    assert f"class {i} → class {j}" in text and f"{counts[i, j]} of {counts[i].sum()}" in text


# ---------------------------------------------------------------- bins


def test_bins_by_hand(net):
    """A 7-cell side in 3 bins as type=spp cuts it, and in the windows of a pool."""
    assert [bins._cells(i, 3, 7, None) for i in range(3)] == [slice(0, 3), slice(2, 5), slice(4, 7)]
    assert [bins._cells(i, 3, 7, (3, 2, 0)) for i in range(3)] == [
        slice(0, 3), slice(2, 5), slice(4, 7)
    ]  # fmt: skip
    own = net.graph.resolve("conv1")
    parts, left = bins.wanted_bins(net.graph, own, None)
    assert [part[:3] for part in parts][:3] == [(1, 0, 0), (2, 0, 0), (2, 0, 1)]
    assert len(parts) == 14 and not left


def test_bins_without_room_are_told_of():
    """Levels 1, 3 and 4 have 26 bins; 5 and 6 would be too many."""
    text = TINY.replace("levels=3,2,1", "levels=5,1,6,4,3")
    net = Net(Graph(parse(text), classes=3))
    parts, left = bins.wanted_bins(net.graph, net.graph.resolve("conv1"), None)
    assert {part.level for part in parts} == {1, 3, 4} and left == [5, 6]


def test_strongest_is_what_the_pyramid_keeps(net, data):
    """The first value of each bin and filter is the largest that type=spp gives for any image."""
    own = net.graph.resolve("conv1")
    parts, _ = bins.wanted_bins(net.graph, own, None)
    seen = list(opened.seen(net, data, range(data.test.size), [[own], ["spp"]]))
    best = bins.strongest(seen, parts, 4)
    pooled = np.concatenate([some.outputs[1] for some in seen]).reshape(data.test.size, 14, 6)
    pooled = pooled[:, [13, *range(9, 13), *range(9)]]  # levels 3, 2, 1 there, 1, 2, 3 here
    np.testing.assert_allclose(best.values, -np.sort(-pooled, axis=0)[:4].transpose(1, 2, 0))
    np.testing.assert_allclose(best.means, pooled.mean(0), rtol=1e-5)
    maps = np.concatenate([some.outputs[0] for some in seen])
    for b, f in ((0, 0), (3, 2), (13, 5)):
        for value, image, place in zip(best.values[b, f], best.images[b, f], best.places[b, f]):
            y, x = divmod(int(place), maps.shape[2])
            assert maps[image, y, x, f] == value
            assert parts[b].cells[0].start <= y < parts[b].cells[0].stop
            assert parts[b].cells[1].start <= x < parts[b].cells[1].stop


def test_strongest_in_parts_is_the_same(net, data):
    own = net.graph.resolve("conv1")
    parts, _ = bins.wanted_bins(net.graph, own, 2)
    whole = list(opened.seen(net, data, range(data.test.size), [[own]]))
    split = [s for i in range(data.test.size) for s in opened.seen(net, data, [i], [[own]])]
    for a, b in zip(bins.strongest(whole, parts, 3), bins.strongest(split, parts, 3)):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_filter_is_chosen_for_its_bin():
    """Filter 1 fires in the second bin alone; filter 0 everywhere, and more; 2 never."""
    parts = [Bin(2, 0, j, (slice(0, 1), slice(j, j + 1))) for j in range(2)]
    values = np.array([[[5.0], [1.0], [0.0]], [[5.0], [4.0], [0.0]]])
    means = np.array([[5.0, 0.1, 0.0], [5.0, 1.0, 0.0]])
    none = np.zeros((2, 3, 1), int)
    assert bins.choose(bins.Best(values, none, none, means), parts) == [(0, 0), (1, 1)]


def test_cut_by_hand():
    """A field of 3 pixels, 2 apart, around pixel 0: the first cell sees a pixel outside."""
    view = np.arange(25, dtype=np.uint8).reshape(5, 5, 1) * 10
    of = geometry.Field(3, 2, 0.0)
    third = windows.SIDE // 3
    inside = windows.cut(view, of, (1, 2))
    assert inside.shape == (windows.SIDE, windows.SIDE, 3)
    shown = np.rint(255 * inside[third // 2 :: third, third // 2 :: third, 0])
    assert shown[:, :2].tolist() == [[80, 90], [130, 140], [180, 190]]
    assert np.allclose(inside[:, 2 * third :], windows.OUTSIDE)
    corner = windows.cut(view, of, (0, 0))
    assert np.allclose(corner[:third], windows.OUTSIDE)
    assert round(255 * corner[third, third, 0]) == 0


def test_a_large_window_is_resized():
    view = np.full((200, 200, 3), 100, np.uint8)
    made = windows.cut(view, geometry.Field(163, 16, 20.0), (0, 6))
    outside = made[..., 0] == np.float32(windows.OUTSIDE)
    assert outside[:20].all() and outside.mean() == pytest.approx(61.5 / 163, abs=0.02)
    assert np.allclose(made[~outside], 100 / 255)
