"""tools/features.py: its rows are what the net gives; nothing is left half-written."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from convnet import Net, features, look, rows, views
from convnet.graph import Graph
from convnet.loader import DataError
from convnet.providers import DataOptions
from convnet.providers._pictures import Pictures, has_no_classes
from convnet.providers.images import Images
from convnet.rows import Rows
from tests.tooling import ROOT, TINY, call, commands, environment, photos, tiny

POOLS = "".join(
    f"[pool{n}]\ntype=pool\npool=max\ninputs=conv1\nsizeX={size}\nstride={stride}\n\n"
    for n, size, stride in ((3, 6, 5), (2, 8, 8), (1, 16, 16))
)
ORDER = ["pool2", "pool1", "pool3"]  # not that of the sections
OF_POOLS = re.sub(r"\[spp\].*?(?=\[fc1\])", POOLS, TINY, flags=re.S).replace(
    "inputs=spp", f"inputs={','.join(ORDER)}"
)

WITHOUT = re.sub(r"\[spp\].*?(?=\[fc1\])", "", TINY, flags=re.S).replace("spp", "conv1")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three classes of seven, upright and lying, 40 pixels and more."""
    folder = photos(tmp_path_factory.mktemp("pictures") / "photos", each=7, side=40)
    Image.open(folder / "ant" / "1.png").resize((80, 41)).save(folder / "ant" / "1.png")
    Image.open(folder / "bee" / "3.png").resize((41, 80)).save(folder / "bee" / "3.png")
    return folder


def trained(folder, pictures, text):
    path = tiny(folder, text)
    argv = (f"--layer-def={path}", f"--data-path={pictures}", f"--save-path={folder / 'run'}")
    assert call("train", *argv, "--minibatch=8", "--epochs=1", "--workers=0").code == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"), pictures, TINY)


@pytest.fixture(scope="module")
def pool_run(pictures, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("pool_run"), pictures, OF_POOLS)


def images(pictures):
    """(names, labels, splits, images) of all of them, by the provider that trains on them."""
    with Images(str(pictures), 16, 3, DataOptions(workers=0)) as data:
        splits = [("train", 0), ("test", 1)]
        sizes = [data.splits[name].size for name, _ in splits]
        keys = [key for name, _ in splits for key in data.splits[name].keys]
        labels = np.concatenate([data.splits[name].labels for name, _ in splits])
        pixels = [x for name, _ in splits for x in data.images(name, range(data.splits[name].size))]
        return keys, labels, np.repeat([0, 1], sizes), pixels


def write(run, out, *argv, layer="fc1"):
    result = call("features", run, f"--layer={layer}", f"--out={out}", *argv)
    assert result.code == 0, result
    return result


def fails(code, pattern, *argv):
    """One line on stderr, of this form, and this exit code."""
    result = call("features", *argv)
    assert result.code == code and result.err.count("\n") == 1, result
    assert re.search(pattern, result.err), result.err


# ---------------------------------------------------------------- what is in the file


@pytest.mark.parametrize("view", ["centre", "ten", "full", "warp"])
@pytest.mark.parametrize("layer", ["fc1", "spp", "conv1", "conv1:pre"])
def test_rows_are_what_the_net_gives(run, pictures, tmp_path, view, layer):
    out = tmp_path / "f.h5"
    said = write(run, out, f"--view={view}", "--minibatch=4", layer=layer)
    assert said.out.endswith(f"21 rows in {out}\n") and said.err == ""
    net, (keys, labels, splits, pixels) = Net.from_checkpoint(run), images(pictures)
    with h5py.File(out) as file:
        assert [*file["names"].asstr()] == keys
        assert np.array_equal(file["labels"], labels) and np.array_equal(file["splits"], splits)
        assert [*file.attrs["classes"]] == ["ant", "bee", "cat"]
        got = file["features"][:]
        if view == "full" and "conv" in layer:
            assert got.ndim == 1
            offsets, shapes = file["offsets"][:], file["shapes"][:]
            got = [got[a:b].reshape(s) for a, b, s in zip(offsets, offsets[1:], shapes)]
            assert len({row.shape for row in got}) > 3
    assert len(got) == 21
    for row, image in zip(got, pixels):
        expected = net.features([image], layer, view)
        if "conv" not in layer:
            expected = expected.reshape(len(expected), -1)
        assert row.shape == (expected.shape if view == "ten" else expected.shape[1:])
        np.testing.assert_allclose(row, np.reshape(expected, row.shape), rtol=1e-4, atol=1e-5)


def test_where_it_is_from(run, pictures, tmp_path):
    write(run, tmp_path / "f.h5", "--view=full", "--scale=30", "--mean=128")
    with h5py.File(tmp_path / "f.h5") as file:
        about = dict(file.attrs)
    saved = next(run.glob("*.h5"))
    digest = subprocess.run(["sha256sum", saved], capture_output=True, text=True, check=True)
    assert about["checkpoint_sha256"] == digest.stdout.split()[0]
    assert about["checkpoint"] == str(saved) and about["net"] == TINY
    assert (about["layer"], about["view"], about["scale"], about["mean"]) == (
        "fc1",
        "full",
        30,
        128,
    )
    assert about["data"] == str(pictures)


def test_scale_and_mean(run, pictures, tmp_path):
    """The paper's 128, and views of another scale than in training."""
    net, pixels = Net.from_checkpoint(run), images(pictures)[3]
    net.mean = np.full((16, 16, 3), 128, np.float32)
    for view in ("centre", "full", "warp", "ten"):
        write(run, tmp_path / "f.h5", f"--view={view}", "--scale=24", "--mean=128")
        with h5py.File(tmp_path / "f.h5") as file:
            got = file["features"][:]
        for row, image in zip(got, pixels):
            whole = views.resize(image, 24, 24) if view == "warp" else views.fit(image, 24)
            if view == "centre":
                whole = views.centre(whole, 16)
            cuts = views.ten_views(whole, 16, 24) if view == "ten" else [whole]
            expected = net.features([*cuts], "fc1", "asis").reshape(row.shape)
            np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_warp_ignores_the_shape(run, pictures):
    net = Net.from_checkpoint(run)
    image = images(pictures)[3][0]
    squeezed = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(net.look("warp")(image)[0], squeezed)
    assert net.look("warp", 20)(image)[0].shape == (20, 20, 3)
    expected = net.features([squeezed], "fc1", "asis")
    assert np.array_equal(net.features([image], "fc1", "warp"), expected)
    assert np.array_equal(net.predict([image], "warp"), net.predict([squeezed], "asis"))


def test_an_exact_image_at_a_scale(run):
    """Without a scale it is the view; with one it is resized like any other."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    how = look.Look("centre", 16, 18)
    assert how(image)[0] is image
    expected = views.centre(views.fit(image, 20), 16)
    assert np.array_equal(look.Look("centre", 16, 18, 20)(image)[0], expected)


def test_a_pyramid_of_pools_is_spp(pool_run, pictures, tmp_path):
    """In the order in which fc1 reads them; so fc1 is a product of it and its own weights."""
    layers = ["spp", "fc1:pre", *ORDER]
    for view in ("centre", "full"):
        write(pool_run, tmp_path / "f.h5", f"--view={view}", layer=",".join(layers))
        with h5py.File(tmp_path / "f.h5") as file:
            assert [*file["features"]] == sorted(layers)
            got = {name: file["features"][name][:] for name in layers}
            assert file["features/spp"].attrs["made_of"] == ",".join(ORDER)
        pools = [got[name].reshape(21, -1) for name in ORDER]
        assert got["spp"].shape == (21, 6 * 14)
        assert np.array_equal(got["spp"], np.concatenate(pools, axis=1))
        net = Net.from_checkpoint(pool_run)
        w = net.weights["fc1"]
        W = np.concatenate([w[f"W{i}"] for i in range(3)])
        np.testing.assert_allclose(got["spp"] @ W + w["b"], got["fc1:pre"], rtol=1e-4, atol=1e-4)


def test_spp_behind_neurons_and_under_other_names():
    def parts(text):
        from convnet.cfg import parse

        return Graph(parse(text), classes=3).parts("spp")

    assert parts(OF_POOLS) == ORDER
    relu = OF_POOLS.replace("stride=8\n", "stride=8\nneuron=relu\n")
    assert parts(relu) == ["pool2_neuron", "pool1", "pool3"]
    other = TINY.replace("[spp]", "[pyramid]").replace("inputs=spp", "inputs=pyramid")
    assert parts(other) == ["pyramid"]
    joined = "[all]\ntype=concat\ninputs=pool1,pool3,pool2\n[fc1]"
    joined = OF_POOLS.replace("[fc1]", joined).replace(f"inputs={','.join(ORDER)}", "inputs=all")
    assert parts(joined) == ["pool1", "pool3", "pool2"]
    with pytest.raises(ValueError, match="this net has no pyramid"):
        parts(WITHOUT)


@pytest.mark.parametrize("held", [1, features.HELD])
def test_order_with_many_sizes(run, pictures, tmp_path, monkeypatch, held):
    """Whole images run size by size, block by block; the rows stay in order."""
    monkeypatch.setattr(features, "HELD", held)
    sizes = []
    show = Net.show

    def watched(self, cuts, layers):
        sizes.append(len(cuts))
        return show(self, cuts, layers)

    monkeypatch.setattr(Net, "show", watched)
    write(run, tmp_path / "f.h5", "--view=full", "--minibatch=3")
    assert sum(sizes) == 21 and max(sizes) <= 3
    monkeypatch.undo()
    got = features.read(tmp_path / "f.h5")
    keys, _, _, pixels = images(pictures)
    assert got.names == keys
    expected = np.concatenate(
        [Net.from_checkpoint(run).features([x], "fc1", "full") for x in pixels]
    )
    np.testing.assert_allclose(got.rows, expected.reshape(21, -1), rtol=1e-4, atol=1e-5)


def test_splits(run, pictures, tmp_path):
    write(run, tmp_path / "all.h5")
    whole = features.read(tmp_path / "all.h5")
    for split, number in (("train", 0), ("test", 1)):
        write(run, tmp_path / "f.h5", f"--split={split}")
        part = features.read(tmp_path / "f.h5")
        assert np.array_equal(part.names, np.array(whole.names)[whole.splits == number])
        assert (part.splits == number).all() and len(part.names) == (16, 5)[number]


def test_half_the_bytes(run, tmp_path, monkeypatch):
    write(run, tmp_path / "a.h5")
    write(run, tmp_path / "b.h5", "--dtype=float16")
    a, b = (features.read(tmp_path / name) for name in ("a.h5", "b.h5"))
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["features"].dtype == np.float16
    assert (a.rows != b.rows).any()
    np.testing.assert_allclose(a.rows, b.rows, rtol=1e-3, atol=1e-4)
    show = Net.show
    monkeypatch.setattr(Net, "show", lambda *args: [x + np.float32(7e4) for x in show(*args)])
    fails(2, r"--dtype=float16: \[fc1\] reaches 70,0\d\d, which is more", run, "--layer=fc1",
          "--dtype=float16", f"--out={tmp_path / 'c.h5'}")  # fmt: skip
    monkeypatch.setattr(Net, "show", lambda *args: [x * np.float32(np.nan) for x in show(*args)])
    fails(
        3, r"the output of \[fc1\] is not finite", run, "--layer=fc1", f"--out={tmp_path / 'c.h5'}"
    )
    assert not (tmp_path / "c.h5").exists()


def test_the_built_in_digits(tmp_path):
    folder = tmp_path / "run"
    argv = (f"--layer-def={tiny(tmp_path)}", "--minibatch=512", "--epochs=1")
    assert call("train", *argv, f"--save-path={folder}").code == 0
    write(folder, tmp_path / "f.h5", "--split=test", "--view=ten")
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["features"].shape == (360, 5, 20)  # a mirrored digit is none
    assert features.read(tmp_path / "f.h5").rows.shape == (360, 20)


# ---------------------------------------------------------------- pictures without classes


def test_a_flat_folder_and_a_list(run, pictures, tmp_path):
    """The same pictures as in their classes, in another order, one of them damaged."""
    flat = tmp_path / "flat"
    (flat / "more").mkdir(parents=True)
    expected = {}
    for i, path in enumerate(sorted(pictures.glob("*/*"))):
        to = flat / ("more" if i % 2 else ".") / f"{path.parent.name}{path.name}"
        to.write_bytes(path.read_bytes())
        expected[str(to.relative_to(flat))] = str(path.relative_to(pictures))
    (flat / "zz.jpg").write_bytes(b"\xff\xd8\xff none")
    result = write(run, tmp_path / "flat.h5", f"--data-path={flat}")
    assert re.fullmatch(r"bad image left out: zz\.jpg: .*\n", result.err)
    assert result.out.endswith(f"21 rows in {tmp_path / 'flat.h5'}; 1 image left out\n")
    write(run, tmp_path / "sorted.h5")
    flat_, sorted_ = (features.read(tmp_path / f"{name}.h5") for name in ("flat", "sorted"))
    assert sorted(flat_.names) == sorted(expected)
    assert flat_.classes == [] and {*flat_.labels, *flat_.splits} == {-1}
    at = {name: i for i, name in enumerate(sorted_.names)}
    rows_ = sorted_.rows[[at[expected[name]] for name in flat_.names]]
    np.testing.assert_allclose(flat_.rows, rows_, rtol=1e-4, atol=1e-5)

    wanted = [str(flat / "antx.jpg"), "flat/more/../bee2.jpg", "flat/cat4.jpg", "no such.png"]
    lists = tmp_path / "list.txt"
    lists.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*wanted, "", ""]).encode())
    (flat / "antx.jpg").write_bytes((pictures / "ant" / "0.jpg").read_bytes())
    for name in ("bee2.jpg", "cat4.jpg"):
        (flat / name).write_bytes((pictures / name[:3] / name[3:]).read_bytes())
    result = write(run, tmp_path / "list.h5", f"--data-path={lists}", "--workers=0")
    assert result.err == "bad image left out: no such.png: no such file or directory\n"
    got = features.read(tmp_path / "list.h5")
    assert got.names == wanted[:3]
    rows_ = sorted_.rows[[at[name] for name in ("ant/0.jpg", "bee/2.jpg", "cat/4.jpg")]]
    np.testing.assert_allclose(got.rows, rows_, rtol=1e-4, atol=1e-5)


def test_what_has_no_classes(pictures, tmp_path):
    assert not has_no_classes(str(pictures))
    assert has_no_classes(str(pictures / "ant"))
    (tmp_path / "holidays" / "2009").mkdir(parents=True)
    assert not has_no_classes(str(tmp_path / "holidays"))  # there is nothing at all
    Image.new("RGB", (40, 40)).save(tmp_path / "holidays" / "2009" / "1.png")
    assert has_no_classes(str(tmp_path / "holidays"))
    assert not has_no_classes(str(tmp_path / "none"))
    photos(tmp_path / "data" / "train", each=1)
    assert not has_no_classes(str(tmp_path / "data"))
    (tmp_path / "l.txt").write_text("holidays/2009/1.png\n")
    assert Pictures(str(tmp_path / "l.txt"), 16, 3).test.size == 1


def test_lists_that_are_none(run, pictures, tmp_path):
    for data, why in ((b"\n \n", "names no image"), (b"a\0b", "is no text that names one image")):
        (tmp_path / "list.txt").write_bytes(data)
        fails(3, rf"list\.txt: {why}", run, "--layer=fc1", f"--out={tmp_path / 'f.h5'}",
              f"--data-path={tmp_path / 'list.txt'}")  # fmt: skip
    (tmp_path / "list.txt").write_text("gone.png\n")
    result = call("features", run, "--layer=fc1", f"--out={tmp_path / 'f.h5'}",
                  f"--data-path={tmp_path / 'list.txt'}")  # fmt: skip
    assert result.code == 3 and result.err.endswith("list.txt: no image can be read\n")
    fails(3, r"^gone\.png: no such file", run, "--layer=fc1", f"--out={tmp_path / 'f.h5'}",
          f"--data-path={tmp_path / 'list.txt'}", "--on-bad-image=stop")  # fmt: skip
    fails(3, r"there are no images of train$", run, "--layer=fc1", f"--out={tmp_path / 'f.h5'}",
          f"--data-path={pictures / 'ant'}", "--split=train")  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["list.txt"]


def test_names_that_are_no_text(run, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a\nb.png", "c\udcff.png", "é.png"):
        Image.new("RGB", (40, 40), len(name)).save(folder / name)
    write(run, tmp_path / "f.h5", f"--data-path={folder}")
    assert sorted(features.read(tmp_path / "f.h5").names) == ["a\nb.png", "c\\xff.png", "é.png"]


def test_workers_change_nothing(run, pictures, tmp_path):
    path = pictures / "cat" / "bad.png"
    path.write_bytes(b"none")
    try:
        said = [write(run, tmp_path / f"{n}.h5", f"--workers={n}", "--view=full") for n in (0, 2)]
    finally:
        path.unlink()
    assert said[0].err == said[1].err != ""
    one, two = ((tmp_path / f"{n}.h5").read_bytes() for n in (0, 2))
    assert one == two


# ---------------------------------------------------------------- mistakes


def test_options(run, tmp_path):
    out = f"--out={tmp_path / 'f.h5'}"
    fails(2, r"^--layer=NAME and --out=FILE.h5 are needed$", run, "--layer=fc1")
    fails(2, r"^--layer=NAME and --out=FILE.h5 are needed$", run, out)
    fails(2, r"^--layer: no layer 'cnv1'; did you mean 'conv1'\?$", run, "--layer=cnv1", out)
    fails(2, r"^--layer=fc1,fc1: fc1 twice$", run, "--layer=fc1,fc1", out)
    fails(2, r"^--layer=logprob: layer 'labels' needs data", run, "--layer=logprob", out)
    fails(2, r"^--scale=12: a view of 16x16 does not fit in; --view=full", run, "--layer=fc1", out,
          "--scale=12")  # fmt: skip
    fails(2, r"--out=.*: there is no folder", run, "--layer=fc1", f"--out={tmp_path}/no/f.h5")
    fails(2, r"is a folder; name a file", run, "--layer=fc1", f"--out={tmp_path}")
    fails(5, r"no such file or folder; train a net first", tmp_path / "none", "--layer=fc1", out)
    fails(3, r"none: no such folder", run, "--layer=fc1", out, f"--data-path={tmp_path}/none")
    assert not any(tmp_path.iterdir())


def test_a_net_that_takes_one_size(pictures, tmp_path):
    folder = trained(tmp_path, pictures, WITHOUT)
    out = f"--out={tmp_path / 'f.h5'}"
    why = r"^--layer=fc1: \[fc1\] gets 18x18x6, its weights are for 16x16x6: this net takes images"
    fails(2, why, folder, "--layer=fc1", "--view=full", out)
    fails(
        2, r"^--layer=fc1: .*gets 20x20x6", folder, "--layer=fc1", "--view=warp", "--scale=20", out
    )
    fails(
        2, r"^--layer=spp: no layer 'spp', and this net has no pyramid$", folder, "--layer=spp", out
    )
    assert write(folder, tmp_path / "f.h5", "--view=full", layer="conv1").code == 0


def test_a_disk_without_room(run, tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: Usage)
    fails(2, r"--out=.*f\.h5: takes 0\.0 GB, 0\.0 GB are free there", run, "--layer=fc1",
          f"--out={tmp_path / 'f.h5'}")  # fmt: skip
    monkeypatch.undo()
    (tmp_path / "f.h5").write_text("old")
    real = rows.Disk.write

    def full(self, data):
        self.error = self.error or (OSError(errno.ENOSPC, "No space left on device")
                                    if len(data) > 1000 else None)  # fmt: skip
        return real(self, data)

    monkeypatch.setattr(rows.Disk, "write", full)
    fails(2, r"--out=.*f\.h5: not written, No space left on device; free some space", run,
          "--layer=conv1", f"--out={tmp_path / 'f.h5'}")  # fmt: skip
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_run_that_is_stopped_leaves_the_old_file(run, tmp_path, monkeypatch):
    (tmp_path / "f.h5").write_text("old")
    (tmp_path / ".123-0123abcd.part").write_text("of one that was killed")
    (tmp_path / ".film.part").write_text("of somebody else")
    show, calls = Net.show, []

    def stop(*args):
        calls.append(1)
        if len(calls) == 3:
            assert len([p for p in tmp_path.iterdir() if p.suffix == ".part"]) == 2
            raise KeyboardInterrupt
        return show(*args)

    monkeypatch.setattr(Net, "show", stop)
    result = call("features", run, "--layer=fc1", f"--out={tmp_path / 'f.h5'}", "--minibatch=4")
    assert (result.code, result.err) == (130, "stopped\n") and len(calls) == 3
    assert {p.name for p in tmp_path.iterdir()} == {"f.h5", ".film.part"}
    assert (tmp_path / "f.h5").read_text() == "old"


# ---------------------------------------------------------------- Rows


def test_rows_grow(tmp_path):
    data = np.random.default_rng(0).normal(size=(1000, 700)).astype(np.float32)
    with Rows(tmp_path / "a.h5") as file:
        for i in range(0, 1000, 37):
            file.add("x", data[i : i + 37])
            assert not (tmp_path / "a.h5").exists()
        file.add("none", np.empty((0, 3), np.int32))
        file.attrs["long"] = "x" * 200_000
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["x"], data) and file["x"].fletcher32
        assert file["none"].shape == (0, 3) and len(file.attrs["long"]) == 200_000
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_a_limit_on_the_size_of_files(tmp_path):
    """At whichever write the system says no: one error, its own, and nothing is left."""
    code = """
import resource, sys, os
import numpy as np
from convnet.rows import Rows
for limit in 0, 100, 600, 3000, 100_000, 1_500_000, 2_800_000, 2_850_000:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with Rows(sys.argv[1] + "/a.h5") as file:
            for i in range(10):
                file.add("x", np.full((100, 700), i, np.float32))
    except OSError as e:
        print(limit, e.errno, os.listdir(sys.argv[1]))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], env=environment(),
                          capture_output=True, text=True, timeout=100)  # fmt: skip
    assert done.returncode == 0, done.stderr
    limits = (0, 100, 600, 3000, 100_000, 1_500_000, 2_800_000)
    assert done.stdout.splitlines()[:7] == [f"{n} {errno.EFBIG} []" for n in limits]


# ---------------------------------------------------------------- reading


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "f.h5"
    write(run, out)
    return out


def test_damage_is_seen(made, tmp_path):
    """Whatever byte is another: an error, or the same features."""
    good, data, rng = features.read(made), made.read_bytes(), np.random.default_rng(0)
    path, seen = tmp_path / "f.h5", 0
    at = [*rng.integers(0, len(data), 150), *range(0, 400, 13)]
    begin = data.index(good.rows[:5].tobytes())
    for place in [*at, begin, begin + 5]:
        bad = bytearray(data)
        bad[place] ^= 1 << rng.integers(0, 8)
        path.write_bytes(bad)
        try:
            got = features.read(path)
        except DataError as e:
            assert str(e).startswith(f"{path}: ") and "\n" not in str(e)
            seen += 1
            continue
        assert np.array_equal(got.rows, good.rows) and got.names == good.names
        assert np.array_equal(got.labels, good.labels) and np.array_equal(got.splits, good.splits)
    assert seen > 20
    for length in (0, 10, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"f\.h5: damaged, or no file of tools/features"):
            features.read(path)


def edited(made, tmp_path, change):
    path = tmp_path / "edited.h5"
    path.write_bytes(made.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def test_what_is_no_feature_file(made, tmp_path):
    def put(name, values):
        def change(file):
            del file[name]
            file[name] = values

        return change

    def outside(file):
        del file["features"]
        file.create_dataset("features", (21, 20), "f4", external=[("/etc/hostname", 0, 1680)])

    def linked(file):
        del file["labels"]
        file["labels"] = h5py.ExternalLink(str(made), "labels")

    def relabel(value):
        def change(file):
            file["labels"][3] = value

        return change

    for change, why in (
        (lambda f: f.attrs.pop("format"), "no file of tools/features.py, or of a newer one"),
        (put("labels", np.zeros(20, int)), "do not belong together: 21 features, 21 names, 20 lab"),
        (
            put("features", np.zeros((9, 20))),
            "do not belong together: 9 features, 21 names, 21 lab",
        ),
        (put("features", np.full((21, 20), np.nan)), "its features are not finite"),
        (relabel(3), "it has a label 3 but 3 classes"),
        (relabel(-2), "it has a label"),
        (lambda f: f.__delitem__("splits"), "it has no splits"),
        (linked, "it has no labels"),
        (outside, "its features are not in it"),
    ):
        with pytest.raises(DataError, match=why):
            features.read(edited(made, tmp_path, change))
    with pytest.raises(DataError, match="no such file"):
        features.read(tmp_path / "none.h5")
    with pytest.raises(DataError, match="is not a file"):
        features.read(tmp_path)


def test_maps_as_long_rows(run, tmp_path):
    write(run, tmp_path / "f.h5", layer="conv1,fc1")
    got = features.read(tmp_path / "f.h5", "conv1")
    with h5py.File(tmp_path / "f.h5") as file:
        assert np.array_equal(got.rows, file["features/conv1"][:].reshape(21, -1))


# ---------------------------------------------------------------- docs/features.md


PAGE = """
[data]
type=data
dataIdx=0
imgSize=16
channels=3

[labels]
type=data
dataIdx=1

[conv5]
type=conv
inputs=data
filters=4
filterSize=3
stride=2
padding=1
neuron=relu

[pool3x3]
type=pool
pool=max
inputs=conv5
sizeX=3
stride=3

[pool1x1]
type=pool
pool=max
inputs=conv5
sizeX=9
stride=9

[fc7]
type=fc
inputs=pool3x3,pool1x1
outputs=24
neuron=relu

[fc8]
type=fc
inputs=fc7
outputs=classes

[probs]
type=softmax
inputs=fc8

[logprob]
type=cost.logreg
inputs=labels,probs
"""


def test_the_page(tmp_path, monkeypatch):
    """Every command of docs/features.md, in its order, and what it says of the files."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", classes=("cat", "dog"), each=6)
    photos(tmp_path / "101_ObjectCategories", classes=("ant", "bee", "car"), each=33, side=30)
    voc = tmp_path / "VOCdevkit" / "VOC2007"
    photos(voc, classes=["JPEGImages"], each=24, suffixes=[".jpg"])
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    for subset, part in (("trainval", range(16)), ("test", range(16, 24)), ("train", range(8)),
                         ("val", range(8, 16))):  # fmt: skip
        for n, name in enumerate(("cat", "dog"), 2):
            lines = [f"{i} {1 if i % n == 0 else -1}\n" for i in part]
            (voc / "ImageSets" / "Main" / f"{name}_{subset}.txt").write_text("".join(lines))
    path = tmp_path / "x.cfg"
    path.write_text(PAGE)
    assert call("train", f"--layer-def={path}", "--epochs=1", "--minibatch=512").code == 0

    for _, script, *argv in commands("docs/features.md", "tools/"):
        result = call(Path(script).stem, *argv)
        assert (result.code, result.err) == (0, ""), (script, argv, result)
    accuracies = json.loads((tmp_path / "caltech.json").read_text())["splits"]
    assert len(accuracies) == 10 and np.mean(accuracies) > 60  # each class has a colour

    page = (ROOT / "docs" / "features.md").read_text()
    code = re.search(r"^    import h5py\n\n(?:    .*\n)+", page, re.M)[0]
    room = {}
    exec(re.sub("^    ", "", code, flags=re.M), room)
    with room["file"] as file:
        assert file["features"].shape == (12, 24) and file.attrs["classes"][0] == "cat"
        name, label = file["names"].asstr()[0], file["labels"][0]
        assert (name[:6], label) == ("cat/0.", 0) and {*file["splits"]} == {0, 1}
    write("runs/x_001", "maps.h5", "--view=full", "--data-path=photos/", layer="conv5")
    code = re.search(r"^    a, b = .*\n    (.*)$", page, re.M)
    with h5py.File("maps.h5") as file:
        room = {"file": file, "i": 1}
        exec(code[0].strip().replace(code[1], f"row = {code[1]}").replace("\n    ", "\n"), room)
        assert room["row"].shape == tuple(file["shapes"][1])
        net = Net.from_checkpoint("runs/x_001")
        image = np.asarray(Image.open(tmp_path / "photos" / file["names"].asstr()[1]))
        np.testing.assert_allclose(
            room["row"], net.features([image], "conv5", "full")[0], atol=1e-4
        )
