"""Maps of whole photos: strips are the whole, the mirror's map, what is kept in a folder."""

import numpy as np
import pytest

from convnet.cli import UsageError
from convnet.detect import maps as module
from convnet.detect.head import detector
from convnet.detect.maps import PhotoMaps, Trunk, packed, unpacked
from convnet.detect.store import Store
from convnet.detect.windows import resized
from convnet.loader import DataError
from convnet.net import Net
from convnet.source import Source
from convnet.views import resize, to_net
from tests.detect import tiny
from tests.tooling import ROOT


@pytest.fixture(scope="module")
def zf5():
    """A ZF-5 of few filters: strides, paddings and norms of the paper."""
    source = Source.read(ROOT / "layer_configs/spp_zf5_6321.cfg", overrides=(
        "conv1.filters=4", "conv2.filters=6", "conv3.filters=6", "conv4.filters=6",
        "conv5.filters=8", "fc6.outputs=8", "fc7.outputs=8"))  # fmt: skip
    net = Net(source.graph({0: (224, 224, 3)}, 3))
    net.mean = np.full((224, 224, 3), [90, 100, 110], np.float32)
    return net


@pytest.mark.parametrize("h,w", [(75, 260), (230, 70), (90, 91)])
@pytest.mark.parametrize("mirror", [False, True])
def test_strips_are_the_whole(zf5, monkeypatch, h, w, mirror):
    pixels = np.random.default_rng(0).integers(0, 256, (h, w, 3)).astype(np.uint8)
    trunk = Trunk(zf5)
    (whole,) = trunk.maps(pixels, [300], mirror)
    passes, strip = [], Trunk._strip

    def counted(self, *args):
        passes.append(args)
        return strip(self, *args)

    monkeypatch.setattr(Trunk, "_strip", counted)
    monkeypatch.setattr(module, "LIMIT", 200_000)
    (parts,) = trunk.maps(pixels, [300], mirror)
    assert len(passes) > 3
    # Winograd's tiles lie elsewhere: sums are rounded in another order
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-4 * abs(whole).max())


def test_a_map_by_hand(zf5):
    """At twice its size bilinear is Pillow's, which knows nothing of ours."""
    pixels = np.random.default_rng(1).integers(0, 256, (100, 130, 3)).astype(np.uint8)
    (got,) = Trunk(zf5, mean=128).maps(pixels, [200])
    assert resized(100, 130, 200) == (200, 260)
    x = to_net([resize(pixels, 200, 260)], 128)
    wanted = zf5.fprop({"data": x}, [Trunk(zf5).layer])[0][Trunk(zf5).layer][0]
    np.testing.assert_allclose(got, wanted, atol=0.02 * abs(wanted).max())  # a grey level
    (mirrored,) = Trunk(zf5, mean=128).maps(pixels[:, ::-1].copy(), [200])
    np.testing.assert_array_equal(Trunk(zf5, mean=128).maps(pixels, [200], True)[0], mirrored)


def test_packed_and_back():
    x = np.maximum(np.random.default_rng(0).normal(size=(5, 7, 3)), 0).astype(np.float32)
    arrays = packed(x, "a")
    np.testing.assert_array_equal(unpacked(arrays, "a"), x)
    assert len(arrays["a/values"]) < 0.7 * x.size


def test_kept_maps_are_those_of_the_net(tmp_path):
    """A store gives back the very maps; one of another net, mean or scale is refused."""
    photo = tiny.pasted(tmp_path / "photos", 1).photos[0]
    source, net = tiny.net()
    _, net = detector(source, net, tiny.CLASSES)
    trunk = Trunk(net)
    store = Store(tmp_path / "maps", "maps", PhotoMaps.made_from(trunk, (64, 80)))
    kept = PhotoMaps(trunk, (64, 80), store)
    kept.save(photo, mirrors=True)
    photo.path.unlink()  # the photo is not read again
    fresh = tiny.pasted(tmp_path / "photos", 1).photos[0]
    for mirror in False, True:
        for got, wanted in zip(kept(photo, mirror), PhotoMaps(trunk, (64, 80))(fresh, mirror)):
            np.testing.assert_array_equal(got, wanted)
    net.weights["conv1"]["W0"][0, 0, 0, 0] += 1
    for other in (Trunk(net), (64, 80)), (trunk, (64,)), (Trunk(net, 128), (64, 80)):
        with pytest.raises(DataError, match=r"about\.json: maps of another (net|scales) \(.*dele"):
            Store(tmp_path / "maps", "maps", PhotoMaps.made_from(*other))


def test_a_damaged_file_is_told(tmp_path):
    photo = tiny.pasted(tmp_path / "photos", 1).photos[0]
    store = Store(tmp_path / "maps", "maps", {})
    with pytest.raises(DataError, match="no maps of 0_000 yet"):
        store.load(photo)
    store.save(photo, {"a": np.zeros(99)})
    path = store.path(photo)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"0_000\.h5: is .* bytes long .*; delete it"):
        store.load(photo)
    (tmp_path / "maps/about.json").write_text("{")
    with pytest.raises(DataError, match=r"about\.json: damaged; delete the folder"):
        Store(tmp_path / "maps", "maps", {})


def test_photos_of_no_usable_shape(zf5):
    trunk = Trunk(zf5)
    one = np.full((1, 1, 3), 99, np.uint8)
    assert trunk.maps(one, [480])[0].shape[:2] == (29, 29)
    with pytest.raises(ValueError, match="would be 480000000x480 at this scale"):
        trunk.maps(np.broadcast_to(one, (1, 1_000_000, 3)), [480])


def test_a_net_without_a_pyramid():
    text = (ROOT / "layer_configs/zf5.cfg").read_text()
    net = Net(Source("zf5.cfg", text, overrides=("fc6.outputs=8", "fc7.outputs=8")).graph({}, 2))
    with pytest.raises(UsageError, match=r"no pyramid .*--method=rcnn"):
        Trunk(net)
