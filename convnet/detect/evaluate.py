"""Average precision of detections, by the rules of VOC, ILSVRC DET and COCO.

voc07   a detection belongs to the object that it overlaps most; from 0.5 on it is right, a second
        one of the same object is wrong, and difficult objects count neither way. The mean of the
        best precision at recalls of 0, 0.1 ... 1
area    the same, the area under the best precision at each recall (VOC 2010 and later)
ilsvrc  a detection takes the object that it overlaps most among those not taken yet; small objects
        need less overlap, wh / ((w + 10)(h + 10)); the classes that a photo was not searched for do
        not count there; the area
coco    pycocotools: the mean over overlaps of 0.5 to 0.95
"""

import contextlib
import io
from dataclasses import dataclass

import numpy as np

from convnet.ap import averaged
from convnet.cli import UsageError
from convnet.detect.boxes import area, overlap
from convnet.detect.detections import Found
from convnet.detect.sets import DetectionSet

RULES = ("voc07", "area", "ilsvrc", "coco")
RIGHT, WRONG, IGNORED = 1, 0, -1


@dataclass
class Result:
    """ap: (classes,) NaN of a class without objects. curves: (recall, precision) by class.

    more: other numbers of the rule by name.
    """

    rule: str
    classes: list[str]
    ap: np.ndarray
    objects: np.ndarray
    detections: np.ndarray
    curves: list[tuple[np.ndarray, np.ndarray]]
    more: dict[str, float]

    @property
    def mean(self) -> float:
        """mAP: the mean over classes with objects; NaN where there is none."""
        known = self.ap[~np.isnan(self.ap)]
        return float(known.mean()) if len(known) else float("nan")

    def table(self) -> str:
        """A line for each class, and the mean."""
        width = max(5, *map(len, self.classes))
        rows = [f"{'class':{width}}  {'AP':>6}  {'objects':>8}  {'detections':>10}"]
        for name, ap, n, d in zip(self.classes, self.ap, self.objects, self.detections):
            told = "     -" if np.isnan(ap) else f"{100 * ap:6.2f}"
            rows.append(f"{name:{width}}  {told}  {n:8,}  {d:10,}")
        rows.append(f"{'mean':{width}}  {100 * self.mean:6.2f}  ({self.rule})")
        rows += [f"{name:{width}}  {100 * value:6.2f}" for name, value in self.more.items()]
        return "\n".join(rows)


def evaluate(
    photos: DetectionSet, found: list[Found], rule: str = "voc07", at: float = 0.5
) -> Result:
    """Detections of each photo of the set, in its order. at: overlap from which one is right."""
    if len(found) != len(photos.photos):
        raise ValueError(f"detections of {len(found)} photos, the set has {len(photos.photos)}")
    if rule == "coco":
        return _coco(photos, found)
    if rule not in RULES:
        raise UsageError(f"--rule={rule}: must be {', '.join(RULES)}")
    aps, curves, counts, hits = [], [], photos.count(), []
    for c in range(len(photos.classes)):
        judged = [judge(p, f, c, rule, at) for p, f in zip(photos.photos, found)]
        scores = np.concatenate([s for s, _ in judged])
        truth = np.concatenate([t for _, t in judged])
        scores, truth = scores[truth != IGNORED], truth[truth != IGNORED] == RIGHT
        hits.append(len(scores))
        curves.append(ranked(scores, truth, counts[c]) if counts[c] else (scores[:0], scores[:0]))
        both = averaged(*curves[-1])
        value = both.eleven if rule == "voc07" else both.area
        aps.append(value if counts[c] else np.nan)
    return Result(rule, photos.classes, np.array(aps), counts, np.array(hits), curves, {})


def judge(photo, found: Found, c: int, rule: str, at: float) -> tuple[np.ndarray, np.ndarray]:
    """(scores, RIGHT, WRONG or IGNORED) of the detections of a class on a photo, best first."""
    mine = found.labels == c
    boxes, scores = found.boxes[mine], found.scores[mine].astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    here = photo.labels == c
    objects, hard = photo.boxes[here], photo.difficult[here]
    if c in photo.unknown and rule == "ilsvrc":
        return scores, np.full(len(scores), IGNORED)
    verdicts = np.full(len(boxes), WRONG)
    if not len(objects) or not len(boxes):
        return scores, verdicts
    overlaps, taken = overlap(boxes, objects), np.zeros(len(objects), bool)
    sides = objects[:, 2:] - objects[:, :2]
    needs = np.full(len(objects), at)
    if rule == "ilsvrc":
        needs = np.minimum(at, area(objects) / ((sides[:, 0] + 10) * (sides[:, 1] + 10)))
    for i, row in enumerate(overlaps):
        if rule == "ilsvrc":
            row = np.where(taken | (row < needs), -1, row)
        best = int(row.argmax())
        if row[best] < needs[best]:
            continue
        if hard[best]:
            verdicts[i] = IGNORED
        elif not taken[best]:
            verdicts[i], taken[best] = RIGHT, True
    return scores, verdicts


def ranked(scores: np.ndarray, truth: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) after each detection, best first; of equal scores the first comes first,
    as in VOC's devkit."""
    hits = np.cumsum(truth[np.argsort(-scores, kind="stable")])
    return hits / objects, hits / np.arange(1, len(hits) + 1)


def _coco(photos: DetectionSet, found: list[Found]) -> Result:
    """By pycocotools. UsageError where it is missing."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise UsageError(
            "--rule=coco needs pycocotools; python -m pip install 'convnet[detect]'"
        ) from None
    truth, rows = COCO(), []
    numbers = photos.numbers or tuple(range(1, len(photos.classes) + 1))
    truth.dataset = _as_coco(photos, numbers)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        for i, one in enumerate(found, 1):
            for box, score, c in zip(one.boxes.tolist(), one.scores.tolist(), one.labels):
                side = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                rows.append({"image_id": i, "category_id": numbers[c], "bbox": side,
                             "score": score})  # fmt: skip
        judge = COCOeval(truth, truth.loadRes(rows) if rows else COCO(), "bbox")
        if rows:
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
    counts = photos.count()
    names = ("AP50", "AP75", "small", "medium", "large", "AR1", "AR10", "AR100")
    if not rows:
        nothing = np.where(counts > 0, 0.0, np.nan)
        empty = [(np.zeros(0), np.zeros(0))] * len(counts)
        return Result("coco", photos.classes, nothing, counts, counts * 0, empty, {})
    precision = judge.eval["precision"][:, :, :, 0, 2]  # overlap, recall, class
    known = precision > -1
    ap = np.array([precision[:, :, c][known[:, :, c]].mean() if known[:, :, c].any() else np.nan
                   for c in range(len(counts))])  # fmt: skip
    recall = np.arange(101) / 100
    curves = [(recall, precision[0, :, c]) for c in range(len(counts))]
    detections = np.bincount(np.concatenate([f.labels for f in found]), minlength=len(counts))
    more = {name: x for name, x in zip(names, judge.stats[1:9].tolist()) if x >= 0}  # -1: none
    return Result("coco", photos.classes, ap, counts, detections, curves, more)


def _as_coco(photos: DetectionSet, numbers: tuple[int, ...]) -> dict:
    """The set as COCO's JSON has it, photos counted from 1."""
    rows = []
    for i, p in enumerate(photos.photos, 1):
        for box, c, hard in zip(p.boxes.tolist(), p.labels, p.difficult):
            w, h = box[2] - box[0], box[3] - box[1]
            rows.append({"id": len(rows) + 1, "image_id": i, "category_id": numbers[c],
                         "bbox": [box[0], box[1], w, h], "area": w * h,
                         "iscrowd": int(hard)})  # fmt: skip
    return {
        "images": [{"id": i, "width": p.width, "height": p.height}
                   for i, p in enumerate(photos.photos, 1)],
        "categories": [{"id": n, "name": name} for n, name in zip(numbers, photos.classes)],
        "annotations": rows,
    }  # fmt: skip
