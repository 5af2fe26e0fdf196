"""Nets as boxes and arrows: which arrows there are, that nothing overlaps, that files are whole."""

import configparser
import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from PIL import Image

from convnet.show.graph import boxes_of
from convnet.show.layout import HEIGHT, WIDTH, place
from convnet.source import Source
from tests.tooling import ROOT, call, tiny

CFGS = sorted(p for p in (ROOT / "layer_configs").glob("*.cfg") if "-params" not in p.name)


def graph_of(path):
    source = Source.read(path)
    side, channels = source.image_size()
    return source.graph({0: (side, side, channels)}, 10)


def wires(path):
    """The wires of a cfg as configparser reads it."""
    text = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    text.read_string(path.read_text())
    return {
        (name.strip(), section)
        for section in text.sections()
        for name in text[section].get("inputs", "").split(",")
        if name
    }


@pytest.mark.parametrize("path", CFGS, ids=lambda path: path.stem)
def test_layout(path):
    """Every wire is an arrow, it points down, no box lies on another, no arrow runs through one."""
    boxes, reads = boxes_of(graph_of(path))
    assert {(o, n) for n, ins in reads.items() for o in ins} == wires(path)
    assert set(boxes) == {name for pair in wires(path) for name in pair}
    placed = place(reads)
    for a, b in combinations(placed.boxes.values(), 2):
        assert abs(a[0] - b[0]) >= WIDTH or abs(a[1] - b[1]) >= HEIGHT
    for x, y in placed.boxes.values():
        assert WIDTH / 2 <= x <= placed.size[0] - WIDTH / 2
        assert HEIGHT / 2 <= y <= placed.size[1] - HEIGHT / 2
    for points in placed.arrows:
        assert all(above[1] < below[1] for above, below in pairwise(points))
        for (x, y), (to, below) in pairwise(points[1:-1]):
            if x == to:  # past the boxes of a row
                middle = (y + below) / 2
                rest = [at for at in placed.boxes.values() if abs(at[1] - middle) < 1]
                assert all(abs(at[0] - x) > WIDTH / 2 for at in rest)


def test_a_chain_is_a_straight_line():
    placed = place({"a": [], "b": ["a"], "c": ["b"]})
    assert len({x for x, _ in placed.boxes.values()}) == 1
    ys = [y for _, y in placed.boxes.values()]
    assert ys == sorted(ys) and len(placed.arrows) == 2


def test_what_stands_in_the_boxes(tmp_path):
    result = call("show", "graph", ROOT / "layer_configs" / "spp_zf5.cfg", "--classes=1000",
                  f"--out={tmp_path / 'net.svg'}")  # fmt: skip
    assert (result.code, result.out) == (0, f"{tmp_path / 'net.svg'}\n")
    root = ElementTree.parse(tmp_path / "net.svg").getroot()
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    for words in (
        ["conv1", "conv 7x7 /2, relu", "110x110x96 · 14.21 k weights"],
        ["pool3x3", "pool max 5x5 /4", "3x3x256"],
        ["drop6", "dropout keep 0.5", "1x1x4096"],
        ["fc8", "fc", "1x1x1000 · 4.10 M weights"],
    ):
        at = texts.index(words[0])
        assert texts[at : at + 3] == words
    dashed = [e for e in root.iter() if "stroke-dasharray" in e.attrib]
    assert len(dashed) == 2


def test_dot_and_png(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    cfg = tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert call("show", "graph", cfg).out == "tiny.svg\n"
    for kind in ("dot", "png"):
        assert call("show", "graph", cfg, f"--out=a.{kind}").code == 0
    text = (tmp_path / "a.dot").read_text()
    assert set(re.findall(r'^  "(\w+)" -> "(\w+)";$', text, re.M)) == wires(cfg)
    assert r'"drop" [label="drop\ndropout keep 0.8\n1x1x20"' in text
    assert text.count("{") == text.count("}") == 1
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[1] > 800 and len(picture.convert("RGB").getcolors(1 << 20)) > 50
