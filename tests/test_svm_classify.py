"""tools/svm_classify.py: the protocols by hand and against scikit-learn; average precision."""

import json
import re
import sys
from collections import Counter

import h5py
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve
from sklearn.svm import LinearSVC

from convnet import features, svm, transfer
from convnet.ap import average_precision
from convnet.rows import Rows, texts
from tests.tooling import call, tiny

CLASSES = ["ant", "bee", "cat", "dog"]


def save(path, rows, labels, splits=None, names=None, classes=CLASSES, layer="fc7", **more):
    """A file as tools/features.py writes it."""
    count = len(labels)
    with Rows(path) as file:
        file.add("features", np.asarray(rows, np.float32))
        file.add("names", texts(names or [f"{i:06d}.jpg" for i in range(count)]))
        file.add("labels", np.asarray(labels, np.int32))
        file.add("splits", np.asarray(np.zeros(count) if splits is None else splits, np.int8))
        about = {"format": features.FORMAT, "layer": layer, "view": "full", "classes": classes}
        for name, value in {**about, **more}.items():
            file.attrs[name] = value
    return path


def clouds(count, seed=0, spread=1.0, size=12, classes=4):
    """(rows, labels): `count` of each class, around a place of its own; lengths of all kinds."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    rows = 2 * np.eye(classes, size)[labels] + spread * rng.normal(size=(len(labels), size))
    return rows * rng.uniform(0.01, 100, (len(labels), 1)), labels


def run(path, *argv):
    """What the tool writes with --json, and what it prints."""
    out = path.with_suffix(".json")
    result = call("svm_classify", f"--features={path}", f"--json={out}", *argv)
    assert (result.code, result.err) == (0, ""), result
    return json.loads(out.read_text()), result.out


def fails(code, pattern, *argv):
    """One line on stderr, of this form, and this exit code."""
    result = call("svm_classify", *argv)
    assert result.code == code and result.err.count("\n") == 1, result
    assert re.search(pattern, result.err), result.err


def machine(rows, truth, test, C=1.0):
    """An SVM by scikit-learn alone, of rows at length 1."""
    rows, test = (x / np.linalg.norm(x, axis=1)[:, None] for x in (rows, test))
    made = LinearSVC(C=C, random_state=0, dual=False, tol=1e-8, max_iter=10000)
    return made.fit(rows, truth).decision_function(test)


# ---------------------------------------------------------------- average precision


def test_by_hand():
    """Hits at ranks 1 and 3 of 4: precision 1 up to half the recall, then 2/3."""
    found = average_precision([0.1, 0.9, 0.7, 0.8], [False, True, True, False])
    assert found.eleven == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert found.area == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # a miss first: precision 1/2, then 2/3; so 2/3 at every recall
    found = average_precision([4, 3, 2, 1], [False, True, True, False])
    assert found == pytest.approx((2 / 3, 2 / 3))
    assert average_precision([3, 2, 1], [True, True, False]) == (1, 1)
    assert average_precision([1, 2, 3], [True, False, False]) == pytest.approx((1 / 3, 1 / 3))


def test_recall_of_exactly_a_tenth_counts():
    """30 hits, of which 3, 6, ... are exactly 0.1, 0.2, ...: the points meet them."""
    for k in range(1, 10):
        truth = np.repeat([True, False, True, False], [3 * k, 30, 30 - 3 * k, 1])
        found = average_precision(np.arange(len(truth), 0, -1), truth)
        low = 30 / 60
        assert found.eleven == pytest.approx(((k + 1) * 1 + (10 - k) * low) / 11)


def devkit(scores, truth):
    """VOCevalcls.m of VOC 2007 and the area of VOC 2010, line by line."""
    order = np.argsort(-scores)
    tp, fp = np.cumsum(truth[order]), np.cumsum(~truth[order])
    rec, prec = tp / truth.sum(), tp / (tp + fp)
    eleven = sum(max(prec[rec >= t], default=0) / 11 for t in np.arange(11) / 10)
    mrec, mpre = [0, *rec, 1], [0, *prec, 0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    area = sum((mrec[i + 1] - mrec[i]) * mpre[i + 1] for i in range(len(mrec) - 1))
    return eleven, area


@pytest.mark.parametrize("seed", range(20))
def test_against_the_devkit_and_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < 0.3
    scores = rng.normal(size=60) + truth
    found = average_precision(scores, truth)
    assert found == pytest.approx(devkit(scores, truth))
    # scikit-learn adds precision as it is, VOC the best at this recall or more
    assert found.area >= average_precision_score(truth, scores) - 1e-12
    coarse = np.round(scores)  # many are equal
    precision, recall, _ = precision_recall_curve(truth, coarse)
    envelope = np.maximum.accumulate(precision)
    area = average_precision(coarse, truth).area
    assert area == pytest.approx(np.sum(-np.diff(recall) * envelope[:-1]))
    mixed = rng.permutation(60)
    assert average_precision(coarse[mixed], truth[mixed]) == average_precision(coarse, truth)
    # where precision never rises with recall the two are one
    best = np.argsort(~truth, kind="stable")
    ranks = np.empty(60)
    ranks[best] = np.arange(60, 0, -1)
    ranks[best[:3]] = ranks[best[2]]
    assert average_precision(ranks, truth).area == average_precision_score(truth, ranks) == 1


def test_one_rank_at_a_time_is_scikit_learns():
    """A ranking whose precision falls all the way: both are the sum of precision at hits."""
    truth = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1], bool)
    scores = -np.arange(12.0)
    assert average_precision(scores, truth).area == pytest.approx(
        average_precision_score(truth, scores)
    )


def test_no_ranking():
    with pytest.raises(ValueError, match="no positive case"):
        average_precision([1, 2], [False, False])
    with pytest.raises(ValueError, match="a score is NaN"):
        average_precision([1, np.nan], [True, False])


# ---------------------------------------------------------------- training and test of the file


def test_the_split_of_the_file(tmp_path):
    """The accuracies are those of scikit-learn, called by itself."""
    rows, labels = clouds(30, spread=1.2)
    splits = np.random.default_rng(1).integers(0, 2, 120)
    told, out = run(save(tmp_path / "f.h5", rows, labels, splits))
    train, test = splits == 0, splits == 1
    scores = [machine(rows[train], labels[train] == c, rows[test]) for c in range(4)]
    right = np.argmax(scores, axis=0) == labels[test]
    each = [right[labels[test] == c].mean() for c in range(4)]
    assert min(each) > 0.5 and len({*each}) > 1
    assert [row["accuracy"] for row in told["classes"]] == pytest.approx(100 * np.array(each))
    assert told["mean"]["accuracy"] == pytest.approx(100 * np.mean(each))
    assert told["all images"] == pytest.approx(100 * right.mean())
    counts = [(row["name"], row["training"], row["test"]) for row in told["classes"]]
    assert counts == [(n, (labels[train] == c).sum(), (labels[test] == c).sum())
                      for c, n in enumerate(CLASSES)]  # fmt: skip
    assert f"{'mean of the classes':42}{100 * np.mean(each):15.2f}%\n" in out
    assert told["protocol"] == "file" and told["C"] == 1


def test_rows_without_a_label_are_left_out(tmp_path):
    rows, labels = clouds(20)
    splits = np.arange(80) % 2
    told, _ = run(save(tmp_path / "a.h5", rows, labels, splits))
    more = np.concatenate([rows, 1000 * rows[::-1]])
    unknown = np.concatenate([labels, np.full(80, -1)])
    again, _ = run(save(tmp_path / "b.h5", more, unknown, np.tile(splits, 2)))
    assert again["classes"] == told["classes"]


def test_two_classes(tmp_path):
    rows, labels = clouds(30, classes=2, spread=0.3)
    path = save(tmp_path / "f.h5", rows, labels, np.arange(60) % 2, classes=["a", "b"])
    assert run(path)[0]["mean"]["accuracy"] > 95


def test_norm(tmp_path):
    """At length 1 the lengths of the rows do not matter; without, they do."""
    rows, labels = clouds(30, spread=1.2)
    splits = np.arange(120) % 2
    rows[5] = 0
    other = rows * np.random.default_rng(3).uniform(0.1, 10, (120, 1))
    paths = [save(tmp_path / f"{n}.h5", x, labels, splits) for n, x in enumerate((rows, other))]
    one, two = (run(path)[0]["classes"] for path in paths)
    raw, odd = (run(path, "--norm=none")[0]["classes"] for path in paths)
    assert one == two and raw != odd
    unit = svm.normalised(np.array([[3, 4], [0, 0], [3e30, -4e30]], np.float32))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [0.6, -0.8]], rtol=1e-6)


def test_files_that_are_off(tmp_path):
    """One line each, and the file that is read is never the one that is written."""
    rows, labels = clouds(10, spread=0.3)
    path = save(tmp_path / "f.h5", rows, labels, np.arange(40) % 2)
    before = path.read_bytes()
    fails(2, r"^--json=.*f\.h5: is read from", f"--features={path}", f"--json={path}")
    assert path.read_bytes() == before

    def off(change, why):
        path.write_bytes(before)
        with h5py.File(path, "r+") as file:
            change(file)
        fails(3, why, f"--features={path}")

    def labels_are(values):
        def change(file):
            del file["labels"]
            file["labels"] = values

        return change

    off(labels_are(np.zeros((40, 2), np.int32)), "its rows are of no use")
    off(labels_are(np.full(40, -5, np.int32)), "it has a label -5 but 4 classes")
    off(lambda file: file.attrs.__setitem__("layer", 3), "damaged, or no file of tools")
    off(lambda file: file.attrs.__setitem__("classes", file.attrs["classes"][:0]), "it has a label")

    def one_class(file):
        labels_are(np.zeros(40, np.int32))(file)
        file.attrs["classes"] = file.attrs["classes"][:1]

    off(one_class, "has one class only, ")


def test_several_layers_and_ten_views(tmp_path):
    rows, labels = clouds(10, spread=0.3)
    splits = np.arange(40) % 2
    ten = np.repeat(rows[:, None], 10, axis=1)
    ten += np.where(np.arange(10) % 2, 1, -1)[:, None]  # the mean of the ten is `rows`
    path = save(tmp_path / "f.h5", ten, labels, splits, view="ten")
    np.testing.assert_allclose(features.read(path).rows, rows, rtol=1e-4, atol=1e-5)
    fails(2, r"f\.h5: no layer 'fc6'; has fc7$", f"--features={path}", "--layer=fc6")
    with h5py.File(path, "r+") as file:
        file.attrs["layer"] = "fc7,spp"
        file.move("features", "old")
        file["features/fc7"], file["features/spp"] = file["old"][:], np.zeros((40, 2))
    fails(2, r"f\.h5: has several layers; choose with --layer=fc7, ", f"--features={path}")
    assert run(path, "--layer=fc7")[0]["mean"]["accuracy"] > 80
    assert run(path, "--layer=spp")[0]["mean"]["accuracy"] == 25


# ---------------------------------------------------------------- random draws


def test_draws(tmp_path, monkeypatch):
    """So many of each class, none of them in the test; others with another seed, or number."""
    rows, labels = clouds(25, spread=1.5)
    rows, labels = np.delete(rows, range(3, 9), 0), np.delete(labels, range(3, 9))  # 19 ants
    path, seen = save(tmp_path / "f.h5", rows, labels), []
    draw = transfer._draw

    def watched(*args):
        seen.append(draw(*args))
        return seen[-1]

    monkeypatch.setattr(transfer, "_draw", watched)
    argv = ("--per-class=15", "--test-per-class=6", "--splits=4")
    told, out = run(path, *argv)
    assert len(seen) == 4
    for train, test in seen:
        assert not {*train} & {*test} and len({*train}) == 60
        assert Counter(labels[train]) == {0: 15, 1: 15, 2: 15, 3: 15}
        assert Counter(labels[test]) == {0: 4, 1: 6, 2: 6, 3: 6}
    assert len({tuple(sorted(train)) for train, _ in seen}) == 4
    means = []
    for (train, test), mean in zip(seen, told["splits"]):
        scores = [machine(rows[train], labels[train] == c, rows[test]) for c in range(4)]
        right = np.argmax(scores, axis=0) == labels[test]
        means.append(100 * np.mean([right[labels[test] == c].mean() for c in range(4)]))
        assert mean == pytest.approx(means[-1])
    assert told["mean"]["accuracy"] == pytest.approx(np.mean(means))
    assert told["sd"]["accuracy"] == pytest.approx(np.std(means, ddof=1)) and np.std(means) > 0
    assert f"{'standard deviation of 4 draws':42}{np.std(means, ddof=1):15.2f}%\n" in out
    first = [*seen]
    assert run(path, *argv)[0]["splits"] == told["splits"]
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, seen[4:8]))
    assert run(path, *argv, "--seed=1")[0]["splits"] != told["splits"]
    train, test = run(path, "--per-class=15")[0]["classes"][0], len(labels)
    assert (train["training"], train["test"]) == (15, 4) and test == 94


def test_caltech(tmp_path):
    rows, labels = clouds(85, spread=0.3)
    told, out = run(save(tmp_path / "f.h5", rows, labels), "--caltech")
    assert len(told["splits"]) == 10 and "standard deviation of 10 draws" in out
    assert {(row["training"], row["test"]) for row in told["classes"]} == {(30, 50)}
    told, _ = run(tmp_path / "f.h5", "--caltech", "--splits=2", "--per-class=5")
    assert len(told["splits"]) == 2
    assert {(row["training"], row["test"]) for row in told["classes"]} == {(5, 50)}


# ---------------------------------------------------------------- C


def test_C_matters_and_is_used(tmp_path):
    rows, labels = clouds(30, spread=1.5)
    path = save(tmp_path / "f.h5", rows, labels, np.arange(120) % 2)
    assert run(path, "--C=0.0001")[0]["classes"] != run(path, "--C=50")[0]["classes"]


def test_C_by_cross_validation(tmp_path, monkeypatch):
    """The C whose machines do best on rows that they were not trained on, all of training rows."""
    rows, labels = clouds(20)
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    splits = np.arange(80) % 2
    path = save(tmp_path / "f.h5", rows, labels, splits)
    training = {tuple(row) for row in np.float32(rows[splits == 0])}
    truth_of = dict(zip(map(tuple, np.float32(rows)), labels))
    last = []

    def fake(train, truth, test, C, seed):
        """Right more often the nearer C is to 10."""
        inside = len(test) == 8
        if inside:
            assert {*map(tuple, train)} | {*map(tuple, test)} == training
            assert not {*map(tuple, train)} & {*map(tuple, test)}
            assert Counter(truth.argmax(1)) == dict.fromkeys(range(4), 8)
        else:
            last.append(C)
        wrong = {0.01: 4, 0.1: 3, 1: 2, 10: 0, 100: 1}[C]
        scores = np.zeros((len(test), 4))
        for i, row in enumerate(test):
            scores[i, (truth_of[tuple(row)] + (i < wrong)) % 4] = 1
        return scores

    monkeypatch.setattr(svm, "fit_and_score", fake)
    told, out = run(path, "--C=auto", "--norm=none")
    assert last == [10] and told["C"] == 10
    assert out.endswith(f"{'C, by cross-validation':42}{'10':>16}\n")


def test_folds():
    truth = np.where(np.repeat(np.arange(3), 20)[:, None] == np.arange(3), 1, -1)
    fold = svm.folds(truth, 0)
    for c in range(3):
        assert Counter(fold[20 * c : 20 * c + 20]) == dict.fromkeys(range(svm.FOLDS), 4)
    assert np.array_equal(fold, svm.folds(truth, 0)) and (fold != svm.folds(truth, 1)).any()


# ---------------------------------------------------------------- PASCAL VOC


def voc(folder, tables):
    """ImageSets/Main of {subset: {class: {image: 1, 0 or -1}}}."""
    main = folder / "VOC2007" / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for subset, classes in tables.items():
        (main / f"{subset}.txt").write_text("\n".join(next(iter(classes.values()))) + "\n")
        for name, rows in classes.items():
            lines = [f"{image} {value:2d}" for image, value in rows.items()]
            (main / f"{name}_{subset}.txt").write_text("\n".join(lines) + "\n")
    return folder / "VOC2007"


@pytest.fixture
def devkit_folder(tmp_path):
    """Three classes, images of one or two of them, some hard to tell; features of all, shuffled."""
    rng = np.random.default_rng(5)
    truth = np.where(rng.random((120, 3)) < 0.4, 1, -1)
    truth[rng.random((120, 3)) < 0.1] = 0
    rows = (truth > 0) @ np.eye(3, 10) + rng.normal(size=(120, 10)) * 0.7
    images = [f"{i:06d}" for i in range(120)]
    tables = {
        subset: {name: {images[i]: truth[i, c] for i in part} for c, name in enumerate(CLASSES[:3])}
        for subset, part in (("trainval", range(70)), ("test", range(70, 120)))
    }
    order = rng.permutation(120)
    names = [f"JPEGImages/{images[i]}.jpg" for i in order]
    path = save(tmp_path / "f.h5", rows[order], [-1] * 120, names=names, classes=[])
    return path, voc(tmp_path, tables), rows, truth


def test_voc(devkit_folder):
    path, folder, rows, truth = devkit_folder
    told, out = run(path, f"--voc={folder}")
    aps = []
    for c in range(3):
        train, test = truth[:70, c] != 0, truth[70:, c] != 0
        assert not train.all() and not test.all()
        scores = machine(rows[:70][train], truth[:70, c][train], rows[70:])
        aps.append(devkit(scores[test], truth[70:, c][test] > 0))
        row = told["classes"][c]
        assert (row["name"], row["training"], row["test"]) == (
            CLASSES[c], (truth[:70, c] > 0).sum(), (truth[70:, c] > 0).sum())  # fmt: skip
        assert (row["AP (11 points)"], row["AP (area)"]) == pytest.approx(
            100 * np.array(aps[-1]), abs=1e-6
        )
    assert 0.4 < np.mean(aps) < 0.95
    means = 100 * np.mean(aps, axis=0)
    assert [*told["mean"].values()] == pytest.approx(means, abs=1e-6)
    assert f"{'mean of the classes':42}{means[0]:15.2f}%{means[1]:15.2f}%\n" in out


def test_what_is_hard_to_tell_counts_neither_way(devkit_folder, tmp_path):
    path, folder, _, truth = devkit_folder
    told = run(path, f"--voc={folder}")[0]["classes"]
    got = features.read(path)
    at = [int(name[-10:-4]) for name in got.names]
    c = 1
    changed = got.rows.copy()
    changed[truth[at, c] == 0] *= -3
    again = run(save(tmp_path / "g.h5", changed, got.labels, names=got.names, classes=[]),
                f"--voc={folder}")[0]["classes"]  # fmt: skip
    assert again[c] == told[c] and again[0] != told[0]


def test_voc_to_choose_a_scale(devkit_folder, tmp_path):
    """train and val instead of trainval and test; then C is chosen within train."""
    path, folder, _, truth = devkit_folder
    images = [f"{i:06d}" for i in range(120)]
    tables = {
        subset: {name: {images[i]: truth[i, c] for i in part} for c, name in enumerate(CLASSES[:3])}
        for subset, part in (("train", range(40)), ("val", range(40, 70)))
    }
    other = voc(tmp_path / "other", tables)
    told, _ = run(path, f"--voc={other}", "--voc-sets=train,val", "--C=auto")
    assert told["sets"] == ["train", "val"] and told["C"] in svm.TRIED
    assert [row["training"] for row in told["classes"]] == [*(truth[:40] > 0).sum(0)]
    fails(3, r"no <class>_trianval.txt in it; did you mean 'trainval'\?", f"--features={path}",
          f"--voc={folder}", "--voc-sets=trianval,test")  # fmt: skip
    fails(3, r"ant_text\.txt: no such file or directory", f"--features={path}", f"--voc={folder}",
          "--voc-sets=trainval,text")  # fmt: skip
    for sets in ("trainval", "a,b,c", "trainval,", "train,train"):
        fails(2, rf"^--voc-sets={sets}: must be two", f"--features={path}", f"--voc={folder}",
              f"--voc-sets={sets}")  # fmt: skip


def test_mistakes_in_a_devkit(devkit_folder, tmp_path):
    path, folder, *_ = devkit_folder
    argv = (f"--features={path}", f"--voc={folder}")
    file = folder / "ImageSets" / "Main" / "bee_test.txt"
    good = file.read_text()
    lines = good.splitlines()
    for text, why in (
        (
            good.replace(lines[2], "000072 2"),
            r"bee_test\.txt:3: must be an image and 1, 0 or -1, not",
        ),
        (good.replace(lines[2], "000072"), r"bee_test\.txt:3: must be"),
        (good + lines[0], r"bee_test\.txt:51: 000070 for the second time"),
        (good.replace("000072", "900072"), r"000072 is in only one of bee_test\.txt and ant_test"),
        ("", r"bee_test\.txt: is empty"),
        (re.sub(r" +1$", " -1", good, flags=re.M), r"test: class bee has no positive image"),
        (re.sub(r"-1$", "1", good, flags=re.M), r"test: class bee has no negative image"),
    ):
        file.write_text(text)
        fails(3, why, *argv)
    file.write_bytes(b"\xff\xfe")
    fails(3, r"bee_test\.txt: is no text", *argv)
    fails(3, r"no ImageSets/Main in it, so no VOC2007", f"--features={path}", f"--voc={tmp_path}")


def test_images_that_are_missing_or_there_twice(devkit_folder, tmp_path):
    path, folder, rows, _ = devkit_folder
    got = features.read(path)
    few = [i for i, name in enumerate(got.names) if name[-10:-4] not in ("000003", "000071")]
    names = [got.names[i] for i in few]
    some = save(tmp_path / "some.h5", got.rows[few], [-1] * 118, names=names, classes=[])
    fails(3, r"\(trainval\): the file lacks 1 of 70 images, 000003$", f"--features={some}",
          f"--voc={folder}")  # fmt: skip
    names = [*got.names, "other/000003.png", "other/x.png", "more/x.png"]
    twice = save(tmp_path / "twice.h5", np.concatenate([got.rows, rows[:3]]), [-1] * 123,
                 names=names, classes=[])  # fmt: skip
    fails(3, r"two rows are called 000003$", f"--features={twice}", f"--voc={folder}")


# ---------------------------------------------------------------- mistakes


def test_options(tmp_path, monkeypatch):
    rows, labels = clouds(5)
    path = save(tmp_path / "f.h5", rows, labels, np.arange(20) % 2)
    of = f"--features={path}"
    fails(2, r"^--features=FILE.h5 is needed", "--caltech")
    fails(3, r"^none\.h5: no such file$", "--features=none.h5")
    fails(3, r"tiny\.cfg: damaged, or no file of tools", f"--features={tiny(tmp_path)}")
    fails(2, r"--C: must be a number from 1e-6 to 1e6, or auto, not '0'", of, "--C=0")
    fails(2, r"--C: must be a number from 1e-6 to 1e6, or auto, not 'atuo'", of, "--C=atuo")
    fails(2, r"--C=auto: \d training images are too few for 5 folds", of, "--C=auto",
          "--per-class=1")  # fmt: skip
    fails(2, r"^--voc has its own training and test images", of, "--voc=x", "--caltech")
    fails(2, r"^--test-per-class: goes with --per-class", of, "--test-per-class=3")
    fails(2, r"^--splits: goes with --per-class or --caltech", of, "--splits=3")
    fails(2, r"--json=.*: there is no folder", of, f"--json={tmp_path}/no/x.json")
    fails(3, r"class ant has 5 images; --per-class=5 leaves none to test with", of, "--per-class=5")
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    fails(2, r"scikit-learn is missing; python -m pip install 'scikit-learn>=1.5,<2'$", of)


def test_labels_that_do_not_do(tmp_path):
    rows, labels = clouds(5)
    path = tmp_path / "f.h5"
    of = f"--features={path}"
    save(path, rows, np.full(20, -1), classes=[])
    for more in ((), ("--caltech",)):
        fails(3, r"f\.h5: has no labels; --voc=VOCdevkit/VOC2007 gives those of VOC", of, *more)
    save(path, rows, labels, labels == 2)
    fails(3, r"class cat has no training image in it; --per-class=N", of)
    save(path, rows, labels, np.zeros(20))
    fails(3, r"class ant has no test image in it", of)


def test_maps_of_many_shapes(tmp_path):
    with Rows(save(tmp_path / "x.h5", *clouds(1)).with_name("f.h5")) as file:
        file.add("features", np.zeros(60, np.float32))
        file.add("offsets", np.array([0, 20, 40, 60]))
        file.add("names", texts(["a", "b", "c"]))
        file.add("labels", np.zeros(3, np.int32))
        file.add("splits", np.zeros(3, np.int8))
        file.attrs.update(format=features.FORMAT, layer="conv5", view="full", classes=["a", "b"])
    fails(2, r"f\.h5: maps of conv5 differ in shape, which no SVM can take; --layer=spp",
          f"--features={tmp_path / 'f.h5'}")  # fmt: skip


def test_rows_that_do_not_belong_together(tmp_path):
    rows, labels = clouds(5)
    path = save(tmp_path / "f.h5", rows[:19], labels)
    fails(3, r"do not belong together: 19 features, 20 names, 20 labels", f"--features={path}")
