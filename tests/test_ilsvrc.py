"""ImageNet in its own layouts, submissions and their errors, on one of six classes made up here."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from convnet import ilsvrc, scores
from convnet.ilsvrc import Devkit
from convnet.net import Net
from convnet.providers import DataError, DataOptions, name_for
from convnet.providers.ilsvrc import Ilsvrc
from convnet.providers.images import Images
from tests.tooling import ROOT, call, commands, metrics, tiny

IDS = {"n01440764": 3, "n01443537": 1, "n02110341": 6, "n03000247": 2, "n03141823": 5,
       "n04254680": 4}  # fmt: skip
CLASSES = list(IDS)
INNER = {"n00001740": 1001, "n00015388": 1002}
TRUTH = [3, 1, 6, 2, 5, 4, 4, 5, 2, 6, 1, 3]  # ILSVRC2012_IDs of val
LABELS = [CLASSES.index(next(w for w in IDS if IDS[w] == number)) for number in TRUTH]
TESTS = 7
VAL, TEST = "ILSVRC2012_val_{:08}.JPEG", "ILSVRC2012_test_{:08}.JPEG"
KIT = "ILSVRC2012_devkit_t12"
FIELDS = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height",
          "num_train_images")  # fmt: skip


def picture(path, label, seed, kind="JPEG", mode="RGB"):
    """A picture of odd size, in the colour of its class."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (20 + seed % 13, 23 + seed % 7, 3))
    pixels[..., label % 3] += 80 + 80 * (label // 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path, kind)


def meta(path, ids=IDS, number="ILSVRC2012_ID", fields=FIELDS):
    """meta.mat as MATLAB has written it: a column of structs, classes first, then what is above."""
    synsets = np.zeros((len(ids) + len(INNER), 1), [(f, "O") for f in fields])
    both = sorted({**ids, **INNER}.items(), key=lambda item: item[1])
    for row, (wnid, at) in zip(synsets[:, 0], both):
        inner = at > 1000
        children = np.array([1.0, 2.0]) if inner else np.zeros((0, 0))
        values = (float(at), wnid, f"word {at}", "", 2.0 * inner, children, 1.0 * inner, 5.0)
        for field, value in zip(FIELDS, values):
            if field in fields or field == "ILSVRC2012_ID":
                row[number if field == "ILSVRC2012_ID" else field] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"synsets": synsets})


def devkit(folder):
    """A devkit with ground truth, and a blacklist of the third and the tenth image."""
    meta(folder / "data" / "meta.mat")
    lines = "".join(f"{number}\n" for number in TRUTH)
    (folder / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)
    (folder / "data" / "ILSVRC2014_clsloc_validation_blacklist.txt").write_text("3\n10\n")


def images(root):
    """train/, val/ and test/, with what the real ones have: CMYK, and a PNG that says JPEG."""
    for label, wnid in enumerate(CLASSES):
        for i in range(4 + label):
            picture(root / "train" / wnid / f"{wnid}_{i * 37}.JPEG", label, 10 * label + i)
    picture(root / "train" / CLASSES[0] / "n01440764_0.JPEG", 0, 1, mode="CMYK")
    picture(root / "train" / CLASSES[2] / "n02110341_37.JPEG", 2, 2, kind="PNG")
    for i, label in enumerate(LABELS):
        mode, kind = "CMYK" if i == 4 else "RGB", "PNG" if i == 5 else "JPEG"
        picture(root / "val" / VAL.format(i + 1), label, 100 + i, kind, mode)
    for i in range(TESTS):
        picture(root / "test" / TEST.format(i + 1), i % 6, 200 + i)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The layout of image-net.org; nobody writes on it."""
    root = tmp_path_factory.mktemp("data") / "imagenet"
    images(root)
    devkit(root / KIT)
    return root


@pytest.fixture
def copy(whole, tmp_path):
    """One to change."""
    return shutil.copytree(whole, tmp_path / "imagenet")


@pytest.fixture(scope="module")
def run(whole, tmp_path_factory):
    """A run on it, found to be what it is."""
    folder = tmp_path_factory.mktemp("run")
    argv = (f"--layer-def={tiny(folder)}", f"--data-path={whole}", "--workers=0", "--crop=corners")
    result = call("train", *argv, "--epochs=3", "--minibatch=8", f"--save-path={folder}")
    assert (result.code, result.err) == (0, "")
    assert "ilsvrc: 39 images to train on, 12 to test on, 6 classes" in result.out
    return folder


def open_(path, size=16, **options):
    return Ilsvrc(str(path), size, 3, DataOptions(workers=0, **options))


def sort_val(root, of=lambda i: CLASSES[LABELS[i]]):
    """What valprep.sh does."""
    for i in range(len(LABELS)):
        (root / "val" / of(i)).mkdir(exist_ok=True)
        name = VAL.format(i + 1)
        (root / "val" / name).rename(root / "val" / of(i) / name)


def kaggle(root, at):
    """The same images as Kaggle packs them, without a devkit."""
    inner = at / "ILSVRC" / "Data" / "CLS-LOC"
    shutil.copytree(root, inner, ignore=shutil.ignore_patterns(KIT))
    lines = "".join(f"{wnid} word, another\n" for wnid in CLASSES)
    (at / "LOC_synset_mapping.txt").write_text(lines)
    rows = [f"{VAL.format(i + 1)[:-5]},{CLASSES[l]} 1 2 3 4 \n" for i, l in enumerate(LABELS)]
    (at / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows[::-1]))
    return at


# ---------------------------------------------------------------- layouts


def check(p, flat=True):
    """It is the ImageNet of this page."""
    assert p.classes == CLASSES == sorted(CLASSES)
    assert np.bincount(p.train.labels).tolist() == [4, 5, 6, 7, 8, 9]
    assert p.train.labels.dtype == p.test.labels.dtype == np.int64
    assert p.test.labels.tolist() == LABELS
    folders = [""] * 12 if flat else [CLASSES[l] for l in LABELS]
    assert list(p.test.keys) == [str(Path("val", f, VAL.format(i + 1))) for i, f in
                                 enumerate(folders)]  # fmt: skip
    assert p.train.keys[-1] == str(Path("train", "n04254680", "n04254680_74.JPEG"))
    for split in ("train", "test"):
        found = sum(len(b.labels) for b in p.batches(split, 5))
        assert found == p.splits[split].size and not p.bad
    return p.fingerprint


def test_its_own_layout(whole):
    p = open_(whole)
    check(p)
    assert name_for(str(whole)) == "ilsvrc" and p.devkit.ids == IDS
    same = Images(str(whole / "train"), 16, 3, DataOptions(workers=0))
    assert same.classes == p.classes  # the order of Caffe and torchvision
    cmyk = p.images("train", [0])[0]
    assert cmyk.shape[2] == 3 and cmyk.dtype == np.uint8


def test_the_devkit_may_lie_beside_it(copy, whole):
    (copy / KIT).rename(copy.parent / KIT)
    assert name_for(str(copy)) == "ilsvrc"
    assert check(open_(copy)) == open_(whole).fingerprint


def test_val_may_be_sorted(copy, whole):
    sort_val(copy)
    assert name_for(str(copy)) == "ilsvrc"
    assert check(open_(copy), flat=False) == open_(whole).fingerprint
    shutil.rmtree(copy / KIT)
    assert name_for(str(copy)) == "images"  # which knows all that can be known of it
    assert check(open_(copy), flat=False) == open_(whole).fingerprint


def test_kaggle(whole, tmp_path):
    at, expected = kaggle(whole, tmp_path / "kaggle"), open_(whole).fingerprint
    for inner in ("", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC"):
        assert name_for(str(at / inner)) == "ilsvrc"
        assert check(open_(at / inner)) == expected
    (at / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match="nothing says what its images show"):
        open_(at)
    shutil.copytree(whole / KIT, at / KIT)
    assert check(open_(at)) == expected


def test_without_train_it_tests(copy, run, tmp_path):
    shutil.rmtree(copy / "train")
    assert name_for(str(copy)) == "ilsvrc"
    p = open_(copy)
    assert p.classes == CLASSES and p.train.size == 0 and p.test.labels.tolist() == LABELS
    result = call("test", run, f"--data-path={copy}", "--workers=0")
    assert (result.code, result.err) == (0, "")
    argv = (f"--layer-def={tiny(tmp_path)}", f"--data-path={copy}", "--workers=0")
    result = call("train", *argv)
    assert (result.code, result.err) == (3, f"{copy}: there is no train/ in it, without which it "
                                            "only tests\n")  # fmt: skip
    shutil.rmtree(copy / KIT)
    (copy.parent / "LOC_synset_mapping.txt").write_text("".join(f"{c} x\n" for c in CLASSES))
    sort_val(copy)
    assert open_(copy).classes == CLASSES


def test_other_folders_are_not_taken_for_it(whole, tmp_path):
    devkit(tmp_path / KIT)
    for folder in ("cat", "dog"):
        picture(tmp_path / "pets" / "train" / folder / "1.jpg", 0, 0)
    picture(tmp_path / "tiny-imagenet-200" / "train" / CLASSES[0] / "images" / "1.JPEG", 0, 0)
    picture(tmp_path / "tiny-imagenet-200" / "val" / "images" / "val_1.JPEG", 0, 0)
    for folder in ("pets", "tiny-imagenet-200", "nothing", ""):
        assert name_for(str(tmp_path / folder)) == "images"
    assert name_for(str(whole / "train")) == "images"
    assert name_for(None) == "digits"


def test_the_fingerprint_sees_labels_names_and_sizes(copy, whole):
    first = open_(whole).fingerprint
    picture(copy / "train" / CLASSES[1] / "n01443537_0.JPEG", 1, 77)
    resized = open_(copy).fingerprint
    train = copy / "train"
    (train / CLASSES[1] / "n01443537_37.JPEG").rename(train / CLASSES[2] / "x.jpg")
    moved = open_(copy).fingerprint
    truth = copy / KIT / "data" / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text(truth.read_text().replace("3", "4"))
    assert len({first, resized, moved, open_(copy).fingerprint}) == 4


def test_later_devkits(copy):
    """Other names for the same; only classes in it."""
    data = copy / "ILSVRC2015_devkit" / "data"
    (copy / KIT).rename(copy / "ILSVRC2015_devkit")
    (data / "meta.mat").unlink()
    fields = ("ILSVRC2015_CLSLOC_ID", "WNID", "num_train_images")
    meta(data / "meta_clsloc.mat", number=fields[0], fields=fields)
    (data / "ILSVRC2012_validation_ground_truth.txt").rename(
        data / "ILSVRC2015_clsloc_validation_ground_truth.txt"
    )
    p = open_(copy)
    assert p.devkit.ids == IDS and p.test.labels.tolist() == LABELS


def test_names_are_lean_and_may_be_no_text(copy):
    (copy / "train" / CLASSES[0] / "a\udcff ✓.JPEG").write_bytes(
        (copy / "val" / VAL.format(1)).read_bytes()
    )
    p = open_(copy)
    names = p.train.keys
    assert len(names) == 40 and names[-1] == names[39] and names[np.int64(3)] == list(names)[3]
    assert str(Path("train", CLASSES[0], "a\udcff ✓.JPEG")) in names
    with pytest.raises(IndexError):
        names[40]
    assert sum(len(b.labels) for b in p.batches("train", 40)) == 40


# ---------------------------------------------------------------- what may be wrong with it


def remove(*names):
    return lambda root: [shutil.rmtree(p) if p.is_dir() else p.unlink()
                         for p in (root / name for name in names)]  # fmt: skip


def write(name, text):
    return lambda root: (root / name).write_bytes(text.encode())


TRUTH_FILE = f"{KIT}/data/ILSVRC2012_validation_ground_truth.txt"
META = f"{KIT}/data/meta.mat"


def other_synset(root):
    (root / "train" / CLASSES[0]).rename(root / "train" / "n09999999")


def empty_class(root):
    shutil.rmtree(root / "train" / CLASSES[1])
    (root / "train" / CLASSES[1]).mkdir()


def only_tars(root):
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    (root / "train" / "n01440764.tar").write_bytes(b"")


def half_sorted(root):
    (root / "val" / CLASSES[0]).mkdir()


def sorted_wrong(root):
    sort_val(root, lambda i: "n09999999" if i == 3 else CLASSES[LABELS[i]])


def more_images(root):
    shutil.copy(root / "val" / VAL.format(1), root / "val" / VAL.format(13))


def one_class(root):
    for name in CLASSES[1:]:
        shutil.rmtree(root / "train" / name)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (remove(TRUTH_FILE), f"val: nothing says what its images show: put the folder {KIT} or "),
        (remove(KIT), f"val: nothing says what its images show: put the folder {KIT} or "),
        (write(TRUTH_FILE, "3\n7\n"), "ground_truth.txt:2: 7: must be a whole number from 1 to 6"),
        (write(TRUTH_FILE, "3\n\n1"), "ground_truth.txt:2: 0 words; a line has 1 number"),
        (write(TRUTH_FILE, "3\n1 2\n"), "ground_truth.txt:2: 2 words; a line has 1 number"),
        (write(TRUTH_FILE, "ü"), "ground_truth.txt: is no text of numbers"),
        (write(TRUTH_FILE, "3\n1\n"), "val_00000003.JPEG: .*truth.txt does not say what it shows"),
        (more_images, "val_00000013.JPEG: .*truth.txt does not say what it shows; take it away"),
        (write(META, "nonsense"), f"meta.mat: has no table 'synsets' .* unpack {KIT} again"),
        (lambda root: meta(root / META, {"n01440764": 2}), "has no table 'synsets' of classes fr"),
        (other_synset, "folder n09999999 is of no synset in .*meta.mat; take it away, or give --d"),
        (remove(f"train/{CLASSES[1]}"), "val_00000002.JPEG: is of n01443537, which has no folder"),
        (empty_class, f"train.{CLASSES[1]}: no image in it; unpack it again, or take the folder a"),
        (only_tars, "train: no folder in it; unpack n01440764.tar and the others, each into a fo"),
        (lambda root: (root / "train" / "cat").mkdir(), "folder cat is not named by a WNID as n0"),
        (one_class, "1 class; it takes two to classify"),
        (half_sorted, "val: images and folders; sort all of the images into folders or none"),
        (sorted_wrong, "val.n09999999: no such class in train; take the folder away"),
        (remove("val"), "val: no image in it; unpack ILSVRC2012_img_val.tar there"),
        (remove("train", KIT), "no train/ in it, nor anything that names the classes; put the fo"),
    ],
)  # fmt: skip
def test_mistakes(copy, spoil, text):
    spoil(copy)
    with pytest.raises(DataError, match=text) as e:
        open_(copy)
    assert "\n" not in str(e.value) and str(copy) in str(e.value)


def test_a_val_that_is_not_whole(copy, tmp_path, capsys):
    """It is said, once; of classes that are not there no image is missed."""
    why = "unpack ILSVRC2012_img_val.tar again"
    (copy / "val" / VAL.format(12)).unlink()
    assert open_(copy).test.size == 11
    told = f"{copy / 'val'}: 11 of 12 images are there; {why}\n"
    assert capsys.readouterr().err == told
    result = call("make_data", copy, f"--out={tmp_path / 'packed'}", "--workers=0")
    assert (result.code, result.err) == (0, told)
    for i in range(11):
        (copy / "val" / CLASSES[LABELS[i]]).mkdir(exist_ok=True)
        (copy / "val" / VAL.format(i + 1)).rename(
            copy / "val" / CLASSES[LABELS[i]] / VAL.format(i + 1)
        )
    open_(copy)
    assert capsys.readouterr().err == told
    for split in "train", "val":
        shutil.rmtree(copy / split / CLASSES[LABELS[11]])
    assert len(open_(copy).classes) == 5
    assert capsys.readouterr().err == ""


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="nothing: no such folder"):
        open_(tmp_path / "nothing")
    with pytest.raises(DataError, match="ilsvrc: needs the folder"):
        Ilsvrc(None, 16, 3)


# ---------------------------------------------------------------- submissions


def expected(run, p):
    """The lines that a net's own predictions give."""
    net = Net.from_checkpoint(run)
    probs = net.predict(p.images("test", range(p.test.size)))
    best = np.argsort(-probs, axis=1, kind="stable")[:, :5]
    return probs, "".join(" ".join(str(IDS[CLASSES[i]]) for i in row) + "\n" for row in best)


@pytest.mark.parametrize("layout", ["flat", "sorted"])
def test_a_submission_of_val_has_the_error_that_the_test_says(run, copy, tmp_path, layout):
    if layout == "sorted":
        sort_val(copy)
    target = tmp_path / "val.txt"
    result = call("test", run, f"--data-path={copy}", "--workers=0", f"--submission={target}")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith(f"the submission, 12 lines, is in {target}\n")
    p = open_(copy)
    probs, lines = expected(run, p)
    assert target.read_text() == lines
    wrong = [100 * scores.errors(probs, probs[range(12), LABELS], k).mean() for k in (1, 5)]
    assert "top-1 error {:.2f} %, top-5 error {:.2f} %".format(*wrong) in result.out
    result = call("ilsvrc_eval", target, f"--devkit={copy / KIT}")
    assert (result.code, result.err) == (0, "")
    first, second = result.out.splitlines()
    assert first == "all: 12 images, flat error top-1 {:.3f} %, top-5 {:.3f} %".format(*wrong)
    assert second.startswith("without the blacklist: 10 images, flat error top-1 ")


def test_a_submission_of_test_has_no_error(run, whole, tmp_path):
    target, csv = tmp_path / "test.txt", tmp_path / "test.csv"
    result = call("test", run, "--workers=0", "--split=test", f"--submission={target}",
                  f"--predictions={csv}", "--multiview")  # fmt: skip
    assert (result.code, result.err) == (0, "")
    assert "7 test images of 46, 10 views" in result.out and "error" not in result.out
    lines = target.read_text().splitlines()
    assert len(lines) == TESTS and all(len(set(line.split())) == 5 for line in lines)
    rows = [row.split(",") for row in csv.read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == [""] * TESTS
    assert [row[0] for row in rows] == [str(Path("test", TEST.format(i + 1))) for i in range(TESTS)]
    assert [str(IDS[row[2]]) for row in rows] == [line.split()[0] for line in lines]
    p = open_(whole)
    p.test_with("test")
    assert (p.test.size, set(p.test.labels)) == (TESTS, {-1})
    p.test_with("val")
    check(p)


def test_a_bad_image_has_a_line_too(run, copy, tmp_path):
    """Of the classes with the most training images; the lines below it do not move up."""
    target = tmp_path / "val.txt"
    (copy / "val" / VAL.format(3)).write_bytes(b"no image")
    result = call("test", run, f"--data-path={copy}", "--workers=0", f"--submission={target}")
    assert result.code == 0
    bad, note = result.err.splitlines()
    assert bad.startswith("bad image left out: val") and VAL.format(3) in bad
    key = Path("val", VAL.format(3))
    why = "name the classes with the most training images"
    assert note == f"lines of bad images (1, such as {key}) {why}"
    lines = target.read_text().splitlines()
    shutil.copy(copy / "val" / VAL.format(2), copy / "val" / VAL.format(3))
    others = expected(run, open_(copy))[1].splitlines()
    assert lines[2] == " ".join(str(IDS[name]) for name in CLASSES[:0:-1])
    assert lines[:2] + lines[3:] == others[:2] + others[3:] and len(lines) == 12


def fails(code, pattern, tool, *argv, notes=0):
    result = call(tool, *argv)
    assert result.code == code and result.err.count("\n") == 1 + notes, result
    assert re.search(pattern, result.err), result.err


def test_submissions_that_cannot_be(run, copy, whole, tmp_path):
    argv = (run, f"--data-path={copy}", "--workers=0", f"--submission={tmp_path / 'val.txt'}")
    (copy / "val" / VAL.format(12)).unlink()
    fails(3, r"1 of 12 images missing, such as number 00000012; a sub", "test", *argv,
          notes=1)  # fmt: skip
    (copy / "test" / TEST.format(2)).unlink()
    fails(3, r"1 of 7 images missing, such as number 00000002", "test", *argv, "--split=test",
          notes=1)  # fmt: skip
    shutil.rmtree(copy / "test")
    fails(3, r"test: no image in it; unpack the tar of the test", "test", *argv, "--split=test",
          notes=1)  # fmt: skip
    shutil.rmtree(copy)
    shutil.copytree(whole, copy, ignore=shutil.ignore_patterns(KIT))
    sort_val(copy)
    fails(3, rf"needs the numbers of the classes; put the folder {KIT} into it or beside it",
          "test", *argv, "--data-provider=ilsvrc")  # fmt: skip
    fails(2, r"ImageNet in its own layout \(docs/imagenet.md\), not for images", "test", *argv)
    fails(3, r"--split=test: only ImageNet's own layout has", "test", *argv[:3], "--split=test")
    fails(2, r"there is no folder", "test", run, f"--submission={tmp_path / 'none' / 'val.txt'}")
    assert not (tmp_path / "val.txt").exists()


# ---------------------------------------------------------------- errors of submissions


def test_flat_errors():
    """By hand: right at the first guess, at the second, never; lines of different lengths."""
    guesses = np.array([[4, 2, 0], [2, 4, 1], [1, 2, 3], [4, 0, 0]])
    wrong = ilsvrc.flat_errors(guesses, np.array([4, 4, 4, 4]))
    assert wrong.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]]


def test_evaluation(whole, tmp_path):
    """Anyone's file: fewer guesses, commas, lines of Windows; images 3 and 10 are on the list."""
    path = tmp_path / "mine.txt"
    lines = [str(number) for number in TRUTH]
    lines[2], lines[3], lines[4] = "1", "1 2", "1,2,3,4,6"
    path.write_bytes("\r\n".join([*lines, "", ""]).encode())
    result = call("ilsvrc_eval", path, f"--devkit={whole}")
    assert result.out.splitlines() == [
        "all: 12 images, flat error top-1 25.000 %, top-5 16.667 %",
        "without the blacklist: 10 images, flat error top-1 20.000 %, top-5 10.000 %",
    ]
    lists = list(whole.glob("*/data/*blacklist.txt"))
    other = tmp_path / KIT
    shutil.copytree(whole / KIT, other)
    (other / "data" / lists[0].name).unlink()
    assert call("ilsvrc_eval", path, f"--devkit={other / 'data'}").out.count("\n") == 1
    (tmp_path / "ILSVRC2014_devkit" / "data").mkdir(parents=True)
    shutil.copy(lists[0], tmp_path / "ILSVRC2014_devkit" / "data")
    assert call("ilsvrc_eval", path, f"--devkit={other}").out == result.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n" * 11, r"11 lines for the 12 images of .*truth.txt; it must have one for each image"),
        ("1\n" * 13, "13 lines for the 12 images"),
        ("1\n\n" + "1\n" * 10, ":2: 0 words; a line has 1 to 5 classes, and no boxes"),
        ("1\n1 2 3 4 5 6\n", ":2: 6 words; a line has 1 to 5 classes, and no boxes"),
        ("1\n1 7\n", ":2: 7: must be a whole number from 1 to 6"),
        ("1 0\n", ":1: 0: must be a whole number from 1 to 6"),
        ("n01440764\n", ":1: n01440764: must be a whole number"),
        ("1\n" + "9" * 5000, ":2: 9{20}: must be a whole number"),
        ("", ":1: 0 words"),
    ],
)
def test_files_that_are_no_submission(whole, tmp_path, text, message):
    path = tmp_path / "wrong.txt"
    path.write_text(text)
    fails(3, f"^{re.escape(str(path))}.*{message}", "ilsvrc_eval", path, f"--devkit={whole}")


def test_no_file_no_devkit(whole, tmp_path):
    fails(3, "none.txt: no such file", "ilsvrc_eval", tmp_path / "none.txt", f"--devkit={whole}")
    fails(3, rf"--devkit={re.escape(str(tmp_path))}: no data/meta.mat in it; name the folder {KIT}",
          "ilsvrc_eval", tmp_path / "none.txt", f"--devkit={tmp_path}")  # fmt: skip
    shutil.copytree(whole / KIT, tmp_path / KIT)
    (tmp_path / TRUTH_FILE).unlink()
    fails(3, "there is no ILSVRC2012_validation_ground_truth.txt in it", "ilsvrc_eval",
          tmp_path / "none.txt", f"--devkit={tmp_path}")  # fmt: skip
    assert Devkit.find(tmp_path / "nothing") is None


# ---------------------------------------------------------------- the page


def test_the_commands_of_the_page(whole, tmp_path, monkeypatch):
    """docs/imagenet.md from the first command to the last, on a small net and few images."""
    lines = commands("docs/imagenet.md", "tools/")
    tools = [Path(script).stem for _, script, *_ in lines]
    assert tools == ["train", "test", "test", "ilsvrc_eval", "test", "make_data"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").symlink_to(whole)
    cfg, out = tiny(tmp_path), []
    for tool, (_, _, *argv) in zip(tools, lines):
        if tool == "train":
            assert (ROOT / argv[0].partition("=")[2]).is_file()
            argv += [f"--layer-def={cfg}", "--epochs=2"]
        out.append(call(tool, *argv))
        assert out[-1].code == 0, out[-1]
    assert metrics(tmp_path / "runs" / "tiny_001")[-1]["epoch"] == 2
    assert "top-5 error" in out[1].out and "error" not in out[4].out
    assert out[3].out.startswith("all: 12 images, flat error top-1 ")
    assert len(Path("test.txt").read_text().splitlines()) == TESTS
    assert "packed: 39 images of train, 12 images of test, 7 images of unlabelled" in out[5].out
