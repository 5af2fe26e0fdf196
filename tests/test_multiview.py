"""Views pooled from feature maps: what they are, what they give, what they save."""

import csv
import re
from collections import Counter

import numpy as np
import pytest

from convnet import Net, multiview
from convnet.multiview import Multiview, View, plan, read_plan
from convnet.source import Source
from tests.tooling import ROOT, TINY, call, photos, tiny

# cells are pixels: what is cut from the map is what the map of the cut would be
POINTS = TINY.replace("filterSize=3\npadding=1", "filterSize=1")
PHOTO = (300, 400)


def net_of(text=TINY, channels=3, **more):
    net = Net(Source("n.cfg", text).graph({0: (16, 16, channels)}, 10), seed=1)
    net.mean = np.full((16, 16, channels), 120, np.float32)
    return net


def pictures(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def squares(found):
    return [(v.rows, v.columns, v.top, v.left, v.flip) for v in found]


# ---------------------------------------------------------------- which views


def test_96_views_of_a_photograph():
    """18 at each of five scales, 6 at 224 (SPP-net, section 3.1.4); places by hand at 256."""
    found = plan("96")(*PHOTO, 224, 256)
    assert len(set(found)) == 96
    assert Counter(v.rows for v in found) == dict(
        zip((224, 256, 300, 360, 448, 560), (6, *[18] * 5))
    )
    assert {(v.top, v.left) for v in found if v.rows == 256} == {
        (y, x) for y in (0, 16, 32) for x in (0, 58, 117)
    }
    assert {v.bottom - v.top for v in found} == {v.right - v.left for v in found} == {224}
    assert sum(v.flip for v in found) == 48 and {v.weight for v in found} == {1.0}


def test_96_and_2_views():
    found = plan("96+2")(*PHOTO, 224, 256)
    whole = [v for v in found if v.whole]
    assert len(found) == 98 and squares(whole) == [(256, 341, 0, 0, f) for f in (False, True)]
    assert squares(plan("full")(*PHOTO, 224, 256)) == [(256, 341, 0, 0, False)]


def test_ten_views_are_centre_and_corners():
    five = [(256, 341, y, x) for y, x in ((16, 58), (0, 0), (0, 117), (32, 0), (32, 117))]
    found = plan("10")(*PHOTO, 224, 256)
    assert squares(found) == [(*v, f) for f in (False, True) for v in five]


def test_a_file_of_views(tmp_path):
    rows = [f"{y},{x}" for y in ("left", "right") for x in ("top", "bottom")]
    lines = [f"256 {place},224x224 {f} 1" for f in (0, 1) for place in ("centre,middle", *rows)]
    (tmp_path / "ten.txt").write_text("# scale rectangle flip weight\n\n" + "\n".join(lines))
    assert {*read_plan(tmp_path / "ten.txt")(*PHOTO, 224, 256)} == {*plan("10")(*PHOTO, 224, 256)}
    (tmp_path / "v.txt").write_text("300 16,32,200x180 0 2.5  # a comment\n256 full 1 1\n")
    assert read_plan(tmp_path / "v.txt")(*PHOTO, 224, 256) == [
        View(300, 400, 32, 16, 212, 216, False, 2.5),
        View(256, 341, 0, 0, 256, 341, True, 1.0),
    ]


@pytest.mark.parametrize(
    "line",
    ["256 full 0", "256 full 0 0", "0 full 0 1", "x full 0 1", "256 centre,224x224 0 1",
     "256 centre,middle,224 0 1", "256 full 2 1", "256 full 0 -1", "256 up,middle,9x9 0 1"],
)  # fmt: skip
def test_a_line_that_is_no_view(line, tmp_path):
    path = tmp_path / "v.txt"
    path.write_text(f"256 full 0 1\n{line}\n")
    with pytest.raises(
        ValueError, match=re.escape(f"{path}:2: '{line}': a view is scale left,top")
    ):
        read_plan(path)


def test_a_view_outside_the_image(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("\n20 10,0,16x16 0 1\n")
    look = Multiview(net_of(), read_plan(path))
    with pytest.raises(ValueError, match=re.escape(f"{path}:2: 10,0,16x16 is outside the image")):
        look.predict(pictures((40, 50)))
    path.write_text("256 left,top,400x224 0 1")
    with pytest.raises(ValueError, match=r"at scale 256 is 341x256 \(width x height\)"):
        read_plan(path)(*PHOTO, 224, 256)


# ---------------------------------------------------------------- what they give


def test_views_of_images_are_those_that_predict_cuts():
    images = pictures((40, 50), (16, 16), (30, 22), (40, 50))
    for net in (net_of(), net_of(TINY.replace("type=spp", "type=pool\nsizeX=4\nstride=4").replace(
            "levels=3,2,1\n", ""))):  # fmt: skip
        got = Multiview(net, plan("10"), of="images", batch=3).predict(images)
        np.testing.assert_allclose(got, net.predict(images, "ten"), atol=1e-6)


def test_views_of_maps_are_those_of_images_where_cells_are_pixels():
    net = net_of(POINTS)
    net.mean[...] = 120  # the same everywhere: it is warped to the whole image, or to the view
    images = pictures((40, 50), (16, 16), (30, 22), (40, 50))
    for name in ("10", "96", "96+2"):
        a, b = (Multiview(net, plan(name), of=of).predict(images) for of in ("maps", "images"))
        np.testing.assert_allclose(a, b, atol=2e-6)
        assert np.abs(a[0] - a[2]).max() > 1e-3


@pytest.mark.parametrize("of", ["maps", "images"])
def test_a_mirrored_view_is_the_mirror_image_of_its_rectangle(of, tmp_path):
    """One corner alone: no other view of the plan makes up for a wrong side."""
    net, image = net_of(POINTS), pictures((20, 26))[0]
    net.mean[...] = 120
    (tmp_path / "v.txt").write_text("20 left,top,16x16 1 1\n")
    got = Multiview(net, read_plan(tmp_path / "v.txt"), of=of).predict([image])
    right, wrong = (net.predict(cut[None, :16], "asis") for cut in (
        image[:, :16][:, ::-1], image[:, -16:][:, ::-1]))  # fmt: skip
    np.testing.assert_allclose(got, right, atol=2e-6)
    assert np.abs(got - wrong).max() > 1e-4


@pytest.mark.parametrize("how", [{"semantics": "papr"}, {"of": "image"}])
def test_words_that_are_none(how):
    with pytest.raises(ValueError, match="must be"):
        Multiview(net_of(), plan("10"), **how)
    with pytest.raises(ValueError, match="must be one of 10, 96"):
        plan("97")


def test_a_border_or_two_makes_little_difference():
    """With 3 x 3 filters the cells at the edge of a view see beyond it, nothing else changes."""
    net, images = net_of(), pictures((40, 50), (16, 16))
    a, b = (Multiview(net, plan("10"), of=of).predict(images) for of in ("maps", "images"))
    assert 1e-6 < np.abs(a - b).max() < 0.1


def test_the_whole_image():
    net, images = net_of(), pictures((40, 50), (16, 24), (40, 50))
    got = Multiview(net, plan("full")).predict(images)
    np.testing.assert_allclose(got, net.predict(images, "full"), atol=1e-6)


def test_weights(tmp_path):
    """Of two views, one counted three times; by hand from each alone."""
    net, images, alone = net_of(), pictures((40, 50)), []
    lines = ["18 left,top,16x16 0 1", "20 right,bottom,16x12 1 3"]
    for text in (*lines, "\n".join(lines)):
        (tmp_path / "v.txt").write_text(text)
        alone.append(Multiview(net, read_plan(tmp_path / "v.txt")).predict(images))
    np.testing.assert_allclose(alone[2], (alone[0] + 3 * alone[1]) / 4, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_digits_are_not_mirrored():
    net = net_of(channels=1)
    net.mirror = False
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 1), np.uint8)
    look = Multiview(net, plan("10"))
    assert len(look.views(image[0])) == 5
    left = look.predict(image)
    net.mirror = True
    assert np.abs(left - look.predict(image)).max() > 1e-4


@pytest.mark.parametrize("semantics", ["paper", "release"])
def test_other_semantics_see_other_cells(semantics):
    net = Net.from_cfg(
        ROOT / "layer_configs/spp_small.cfg", classes=10, overrides=["conv1.stride=2"]
    )
    images = pictures((90, 120))
    a, b = (Multiview(net, plan("10"), s).predict(images) for s in ("crop", semantics))
    assert 0 < np.abs(a - b).max() < 0.2


# ---------------------------------------------------------------- what they save


def test_one_pass_for_each_scale_and_mirror():
    net, images = net_of(), pictures((40, 50), (40, 50), (30, 64))
    look = Multiview(net, plan("96"))
    look.predict(images)
    assert look.convolved == 3 * 6 * 2
    assert look.passes == 2 * 96 + len(set(look.views(images[2])))


def test_views_with_the_same_cells_are_computed_once(tmp_path):
    """Views two pixels apart on a map of stride 4 cover the same cells."""
    text = TINY.replace("filterSize=3\npadding=1", "filterSize=4\nstride=4")
    (tmp_path / "v.txt").write_text("".join(f"24 {x},0,16x16 0 1\n" for x in range(9)))
    net, images = net_of(text), pictures((24, 24))
    look = Multiview(net, read_plan(tmp_path / "v.txt"))
    look.predict(images)
    assert (len(look.views(images[0])), look.passes) == (9, 3)


def test_batches_do_not_matter(monkeypatch):
    net, images = net_of(), pictures((40, 50), (16, 16), (40, 50), (28, 22))
    a = Multiview(net, plan("96+2"), batch=32).predict(images)
    monkeypatch.setattr(multiview, "WINDOWS", 5)
    b = Multiview(net, plan("96+2"), batch=1).predict(images)
    np.testing.assert_allclose(a, b, atol=1e-6)


# ---------------------------------------------------------------- the tool


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same photos, of unequal seeds; a third of other classes."""
    folder = tmp_path_factory.mktemp("runs")
    data = photos(folder / "photos", side=30)
    cfg = tiny(folder)
    options = f"--layer-def={cfg}", "--epochs=1", "--minibatch=8", "--workers=0"
    for seed in (1, 2):
        where = f"--save-path={folder}/{seed}"
        assert call("train", *options, f"--data-path={data}", f"--seed={seed}", where).code == 0
    assert call("train", *options[:2], "--minibatch=500", f"--save-path={folder}/digits").code == 0
    return folder


def table(path):
    with path.open(newline="") as file:
        return np.array([[float(p) for p in row[3:]] for row in list(csv.reader(file))[1:]])


@pytest.mark.parametrize("more", [[], ["--multiview=96+2"], ["--multiview=full"]])
def test_several_nets_are_averaged(runs, tmp_path, more):
    found = []
    for names in (["1"], ["2"], ["1", "2"]):
        out = tmp_path / "out.csv"
        paths = [runs / name for name in names]
        result = call("test", *paths, *more, "--workers=0", f"--predictions={out}")
        assert result.code == 0, result
        found.append((table(out), re.findall(r"top-1 error ([\d.]+) %", result.out)))
    np.testing.assert_allclose(found[2][0], (found[0][0] + found[1][0]) / 2, atol=2e-6)
    assert found[2][1][:2] == [found[0][1][0], found[1][1][0]] and len(found[2][1]) == 3
    assert "average of 2 nets" in result.out


def test_views_that_the_tool_names(runs, tmp_path):
    (tmp_path / "v.txt").write_text("20 full 0 1\n")
    assert ", 10 views\n" in call("test", runs / "1", "--multiview", "--workers=0").out
    assert ", 96 views\n" in call("test", runs / "1", "--multiview=96", "--workers=0").out
    done = call("test", runs / "1", f"--views={tmp_path}/v.txt", "--workers=0")
    assert f", views of {tmp_path}/v.txt\n" in done.out
    assert (
        ", 10 views, those without a mirror\n" in call("test", runs / "digits", "--multiview").out
    )


@pytest.mark.parametrize(
    "options,why",
    [
        (["--views=nowhere.txt"], "--views=nowhere.txt: no such file or directory"),
        (["--multiview", "--views=x"], "--multiview and --views both say which views"),
        (["--multiview=12"], "invalid choice: '12'"),
        (["--multiview=96", "--semantics=mine"], "invalid choice: 'mine'"),
        (["--semantics=paper"], "--semantics: goes with --multiview or --views"),
        (["--views-of=maps"], "--views-of: goes with --multiview or --views"),
        (["--multiview", "--views-of=images", "--semantics=paper"], "is about views of maps"),
    ],
)
def test_options_that_cannot_be(runs, options, why):
    done = call("test", runs / "1", *options)
    assert done.code == 2 and why in done.err and done.err.count("\n") == 1


def test_views_that_the_photos_do_not_have(runs, tmp_path):
    (tmp_path / "v.txt").write_text("40 30,0,16x16 0 1\n")
    target = tmp_path / "out.csv"
    done = call("test", runs / "1", f"--views={tmp_path}/v.txt", f"--predictions={target}")
    where = f"ant/5.png: {tmp_path}/v.txt:1: 30,0,16x16 is outside"
    assert done.code == 2 and where in done.err
    assert not target.exists()


def test_a_view_that_no_memory_holds(runs, tmp_path):
    (tmp_path / "v.txt").write_text("99999 full 0 1\n")
    done = call("test", runs / "1", f"--views={tmp_path}/v.txt")
    assert done.code == 2 and "a view at " in done.err and "of memory" in done.err
    assert done.err.count("\n") == 1


def test_the_whole_image_of_the_nets_own_size(runs):
    """One border, whoever looks: tools/test.py --multiview=full and Net.predict(view="full")."""
    net = Net.from_checkpoint(runs / "1")
    side = net.graph.size
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    many = Multiview(net, plan("full")).predict(list(images))
    np.testing.assert_allclose(many, net.predict(images, view="full"), rtol=1e-5)


def test_a_number_behind_multiview(runs):
    """As --help writes it; a checkpoint may stand behind it as well."""
    for words in ["--multiview", "96", runs / "1"], ["--multiview", runs / "1"]:
        done = call("test", *words)
        assert done.code == 0 and f"{96 if '96' in words else 10} views" in done.out


def test_nets_that_cannot_be_averaged(runs):
    done = call("test", runs / "1", runs / "digits", "--workers=0")
    assert done.code == 2 and "has the classes 0, 1, 2" in done.err and "ant, bee, cat" in done.err


def test_a_net_without_a_pyramid(tmp_path):
    cfg = ROOT / "layer_configs" / "cifar10.cfg"
    small = [f"--set=conv{i}.filters=2" for i in (1, 2, 3)]
    run = f"--save-path={tmp_path}/run"
    call("train", f"--layer-def={cfg}", *small, "--epochs=1", "--minibatch=500", run)
    done = call("test", tmp_path / "run", "--multiview", "--views-of=maps")
    assert done.code == 2 and "has no pyramid: its views are cut from images" in done.err
    assert call("test", tmp_path / "run", "--multiview").code == 0
    (tmp_path / "v.txt").write_text("64 full 0 1\n")
    done = call("test", tmp_path / "run", f"--views={tmp_path}/v.txt")
    assert done.code == 2 and "takes images of 32x32 only" in done.err
