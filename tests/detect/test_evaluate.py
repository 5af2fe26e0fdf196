"""Average precision: by hand, by the devkits' rules written out in loops, by pycocotools."""

import numpy as np
import pytest

from convnet.detect.detections import Found, nothing
from convnet.detect.evaluate import evaluate
from convnet.detect.sets import DetectionSet, Photo

BOX = np.array([[10, 10, 30, 30]], np.float32)


def photo(name, boxes, labels, hard=(), unknown=()):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    difficult = np.array([i in hard for i in range(len(boxes))], bool)
    labels = np.array(labels, np.int32)
    return Photo(name, None, 200, 150, boxes, labels, difficult, frozenset(unknown))


def found(rows):
    """Detections of (box, score, label)."""
    boxes, scores, labels = zip(*rows) if rows else ((), (), ())
    return Found(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32),
                 np.array(labels, np.int32))  # fmt: skip


def random_case(seed: int, classes: int = 3, photos: int = 25):
    """Photos with objects, some difficult, and detections near and far, scores with ties."""
    rng, made, dets = np.random.default_rng(seed), [], []
    for i in range(photos):
        n = int(rng.integers(0, 5))
        first = rng.integers(0, 100, (n, 2))
        boxes = np.concatenate([first, first + rng.integers(5, 60, (n, 2))], 1)
        labels = rng.integers(0, classes, n)
        hard = set(np.flatnonzero(rng.random(n) < 0.2).tolist())
        unknown = {int(rng.integers(classes))} if rng.random() < 0.2 else ()
        made.append(photo(f"p{i}", boxes, labels, hard, unknown))
        rows = []
        for box, label in zip(boxes, labels):
            for _ in range(int(rng.integers(0, 4))):
                near = box + rng.integers(-6, 7, 4)
                near[2:] = np.maximum(near[2:], near[:2] + 1)
                rows.append((near, np.round(rng.random(), 1), label))
        for _ in range(int(rng.integers(0, 4))):
            x, y = rng.integers(0, 100, 2)
            rows.append(([x, y, x + 20, y + 20], np.round(rng.random(), 1), rng.integers(classes)))
        dets.append(found([rows[k] for k in rng.permutation(len(rows))]))
    return DetectionSet("random", [f"c{c}" for c in range(classes)], made), dets


def iou(a, b):
    """VOCevaldet's, on boxes counted from 1 with both ends included."""
    a, b = a + [1, 1, 0, 0], b + [1, 1, 0, 0]
    iw = min(a[2], b[2]) - max(a[0], b[0]) + 1
    ih = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if iw <= 0 or ih <= 0:
        return 0.0
    ua = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - iw * ih
    return iw * ih / ua


def vocevaldet(photos, dets, c):
    """(11-point, area) as the devkit's VOCevaldet and VOCap go about it."""
    rows = [(float(s), i, b.astype(float)) for i, d in enumerate(dets)
            for b, s, k in sorted(zip(d.boxes, d.scores, d.labels), key=lambda r: -r[1])
            if k == c]  # fmt: skip
    rows.sort(key=lambda row: -row[0])
    taken, tp, fp = set(), [], []
    npos = sum(int(((p.labels == c) & ~p.difficult).sum()) for p in photos.photos)
    for _, i, b in rows:
        p, best, which = photos.photos[i], -np.inf, None
        for j in range(len(p.boxes)):
            if p.labels[j] == c and iou(b, p.boxes[j].astype(float)) > best:
                best, which = iou(b, p.boxes[j].astype(float)), j
        right, wrong = 0, 1
        if best >= 0.5:
            if p.difficult[which]:
                wrong = 0
            elif (i, which) not in taken:
                right, wrong = 1, 0
                taken.add((i, which))
        tp.append(right)
        fp.append(wrong)
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    if not npos:
        return float("nan"), float("nan")
    if not len(tp):
        return 0.0, 0.0
    rec, prec = tp / npos, tp / np.maximum(tp + fp, 1e-300)
    prec[(tp + fp) == 0] = 0
    eleven = sum(max(prec[rec >= t], default=0) for t in np.linspace(0, 1, 11)) / 11
    mrec, mpre = [0, *rec, 1], [0, *prec, 0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
    return eleven, area


def eval_detection(photos, dets, c):
    """ILSVRC DET's rule, in loops."""
    rows, npos = [], 0
    for p, d in zip(photos.photos, dets):
        if c in p.unknown:
            npos += int((p.labels == c)[~p.difficult].sum())
            continue
        npos += int(((p.labels == c) & ~p.difficult).sum())
        mine = sorted([(-float(s), n) for n, (s, k) in enumerate(zip(d.scores, d.labels))
                       if k == c])  # fmt: skip
        taken = set()
        for s, n in mine:
            best, which = -1, None
            for j in range(len(p.boxes)):
                w, h = p.boxes[j, 2:] - p.boxes[j, :2]
                least = min(0.5, w * h / ((w + 10) * (h + 10)))
                o = iou(d.boxes[n].astype(float), p.boxes[j].astype(float))
                if p.labels[j] == c and j not in taken and o >= least and o > best:
                    best, which = o, j
            if which is not None and p.difficult[which]:
                continue
            if which is not None:
                taken.add(which)
            rows.append((s, which is not None))
    rows.sort(key=lambda row: row[0])
    tp = np.cumsum([r for _, r in rows])
    if not npos:
        return float("nan")
    if not rows:
        return 0.0
    rec, prec = tp / npos, tp / np.arange(1, len(tp) + 1)
    mpre = np.maximum.accumulate([*prec, 0][::-1])[::-1]
    return float(sum((b - a) * q for a, b, q in zip([0, *rec], rec, mpre)))


@pytest.mark.parametrize("seed", range(6))
def test_voc_by_the_devkit(seed):
    photos, dets = random_case(seed)
    wanted = np.array([vocevaldet(photos, dets, c) for c in range(3)])
    for k, rule in enumerate(("voc07", "area")):
        got = evaluate(photos, dets, rule)
        np.testing.assert_allclose(got.ap, wanted[:, k], atol=1e-9)
        assert got.mean == pytest.approx(np.nanmean(wanted[:, k]), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_ilsvrc_by_its_rule(seed):
    photos, dets = random_case(seed)
    wanted = [eval_detection(photos, dets, c) for c in range(3)]
    np.testing.assert_allclose(evaluate(photos, dets, "ilsvrc").ap, wanted, atol=1e-9)


def test_by_hand():
    """Two objects; the first detection hits, the second hits it again, the third hits the other."""
    photos = DetectionSet("s", ["a", "b"], [photo("p", [[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])])
    rows = [([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 9], 0.8, 0), ([50, 50, 60, 60], 0.7, 0)]
    got = evaluate(photos, [found(rows)], "area")
    assert got.ap[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-12)
    assert np.isnan(got.ap[1]) and got.mean == got.ap[0]
    assert "b" in got.table() and "    -" in got.table()
    eleven = evaluate(photos, [found(rows)], "voc07")
    assert eleven.ap[0] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11, abs=1e-12)
    assert evaluate(photos, [nothing()], "voc07").ap[0] == 0
    with pytest.raises(ValueError, match="detections of 2 photos, the set has 1"):
        evaluate(photos, [nothing()] * 2)


def test_coco_by_its_own_tools():
    """What it makes of perfect detections, of none, and next to VOC's rule."""
    pytest.importorskip("pycocotools")
    photos, dets = random_case(0)
    got = evaluate(photos, dets, "coco")
    assert 0 < got.mean < got.more["AP50"] < 1
    right = [found([(b, 1.0, c) for b, c in zip(p.boxes, p.labels)]) for p in photos.photos]
    assert evaluate(photos, right, "coco").mean == pytest.approx(1)
    assert evaluate(photos, [nothing()] * 25, "coco").mean == 0
    voc = evaluate(photos, dets, "area").mean
    assert got.more["AP50"] == pytest.approx(voc, abs=0.08)


def coco_ap(photos, dets, c, at=0.5):
    """AP at an overlap by COCO's rule in loops: a detection takes the best object that is free, one
    that counts before a crowd; a crowd may be taken again; 101 points."""
    rows, npos = [], 0
    for i, (p, d) in enumerate(zip(photos.photos, dets)):
        objects = [j for j in range(len(p.boxes)) if p.labels[j] == c]
        npos += sum(not p.difficult[j] for j in objects)
        mine = [n for n in range(len(d.scores)) if d.labels[n] == c]
        mine.sort(key=lambda n: -float(d.scores[n]))
        taken = set()
        for n in mine[:100]:
            found = None
            for crowd in False, True:
                best = at - 1e-10
                for j in objects:
                    if bool(p.difficult[j]) != crowd or (j in taken and not crowd):
                        continue
                    o = shared(d.boxes[n].astype(float), p.boxes[j].astype(float), crowd)
                    if o >= best:
                        best, found = o, j
                if found is not None:
                    break
            taken.add(found)
            if found is None or not p.difficult[found]:
                rows.append((-float(d.scores[n]), i, found is not None))
    rows.sort(key=lambda row: row[0])
    tp = np.cumsum([r for *_, r in rows])
    if not npos:
        return float("nan")
    if not len(rows):
        return 0.0
    recall, precision = tp / npos, tp / np.arange(1, len(tp) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean([best[k] if k < len(best) else 0 for k in at]))


def shared(a, b, crowd):
    """Overlap of a with b; with a crowd, of what of a lies in it."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    mine, other = ((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return w * h / (mine if crowd else mine + other - w * h)


@pytest.mark.parametrize("seed", range(6))
def test_coco_to_the_last_digit(seed):
    """pycocotools, as we call it, next to the loops above."""
    pytest.importorskip("pycocotools")
    photos, dets = random_case(seed)
    got = evaluate(photos, dets, "coco")
    wanted = [[coco_ap(photos, dets, c, at) for at in np.linspace(0.5, 0.95, 10)] for c in range(3)]
    np.testing.assert_allclose(got.ap, np.mean(wanted, 1), atol=1e-9)
    assert got.more["AP50"] == pytest.approx(np.nanmean([row[0] for row in wanted]), abs=1e-9)
    assert got.more["AP75"] == pytest.approx(np.nanmean([row[5] for row in wanted]), abs=1e-9)


def test_order_of_photos_and_a_late_false_one():
    photos, dets = random_case(7)
    for i, d in enumerate(dets):  # no two scores are equal
        d.scores[:] += np.arange(len(d.scores), dtype=np.float32) / 997 + i / 99991
    turned = DetectionSet("t", photos.classes, photos.photos[::-1])
    for rule in ("voc07", "area", "ilsvrc"):
        ap = evaluate(photos, dets, rule).ap
        np.testing.assert_allclose(evaluate(turned, dets[::-1], rule).ap, ap, atol=1e-12)
        last = Found(np.concatenate([dets[0].boxes, [[0, 140, 3, 145]]]).astype(np.float32),
                     np.append(dets[0].scores, np.float32(-1)),
                     np.append(dets[0].labels, np.int32(0)))  # fmt: skip
        assert (evaluate(photos, [last, *dets[1:]], rule).ap <= ap + 1e-12)[~np.isnan(ap)].all()
