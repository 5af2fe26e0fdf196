"""What a detector learns from the features of a fine-tuned net: SVMs and box regression.

Where not all classes fit into memory they are learned in groups, a pass over the photos each.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from convnet.detect import mining
from convnet.detect import svm as svms
from convnet.detect.bbox import LAMBDAS, BoxLearner, BoxRegressors
from convnet.detect.boxes import overlap
from convnet.detect.job import Job
from convnet.detect.model import Detector
from convnet.detect.passes import Pass, groups
from convnet.detect.sampling import candidates, labelled
from convnet.detect.sets import DetectionSet, Photo
from convnet.detect.steps import COMPLETE, SVM, done, maps_of, progress
from convnet.detect.store import Store
from convnet.detect.views import through_fc
from convnet.graph import memory_of_computer
from convnet.loader import DataError

WINDOWS = 200  # of a photo, and photos, whose features say how long they are


def svm(job: Job, model: Detector) -> Detector:
    """SVMs on the features of the photos' objects and hard negatives."""
    path, photos = job.work / SVM, job.photos(job.options.split)
    made_from = made_from_model(job, model, photos) | {"svm": job.options.svm}
    if (found := done(path, made_from, job.options.device)) is not None:
        return found
    model = model.but(made_from=made_from)
    if job.options.svm:
        model = model.but(svms=_svms(job, model, photos))
    model.save(path)
    _forget(job, "objects", "mining-*")
    return model


def _svms(job: Job, model: Detector, photos: DetectionSet) -> svms.Svms:
    recipe = svms.Recipe()
    scale = recipe.norm / norm(job, model, photos, [model.layer])
    positives = _objects(job, model, photos)
    size = mining.bytes_of(positives)
    found = []
    for i, only in enumerate(groups(len(positives), size, memory_of_computer())):
        of_these = [positives[c] for c in only]
        miner = mining.Mining(of_these, recipe, scale, job.options.seed)
        turn = Pass(job.work / f"mining-{i}.h5", {**model.made_from, "classes": only}, miner)
        left = turn.left(photos.photos)
        for photo, rows, of in outputs(job, model, left, [model.layer], "negatives"):
            overlaps = overlap_by_class(photo, every_box(job, photo), only)
            miner.see(turn.done, mining.Seen(rows, of, overlaps))
            turn.photo()
        found.append(miner.end())
        _tell(miner, [photos.classes[c] for c in only])
        if len(only) < len(positives):
            turn.save()  # the other groups take as long
    return svms.joined(found)


def _tell(miner: mining.Mining, names: list[str]) -> None:
    """What was kept of each class."""
    for name, one in zip(names, miner.classes):
        told = "no object: it will not be found" if not len(one.positives) else (
            f"{len(one.positives):,} objects, {len(one.negatives):,} negatives kept, "
            f"{one.trainings} trainings, objective {mining.objective(one):.4g}"
            + ("; stopped early" if one.stopped else "")
        )  # fmt: skip
        print(f"svm {name}: {told}")


def _objects(job: Job, model: Detector, photos: DetectionSet) -> list[np.ndarray]:
    """(n, D) features of the objects of each class."""
    width = int(np.prod(model.net.graph.shapes[model.layer]))
    found = mining.Objects(len(photos.classes), width)
    turn = Pass(job.work / "objects.h5", model.made_from, found)
    some = turn.left([p for p in photos.photos if len(p.boxes)])
    for photo, rows, of in outputs(job, model, some, [model.layer], "objects", objects_only):
        use = np.ones(len(photo.boxes), bool) if job.options.difficult else photo.easy
        found.see(rows[of[use]], photo.labels[use])
        turn.photo()
    turn.save()
    return found.features()


def bbox(job: Job, model: Detector) -> Detector:
    """Box regression from the pyramids of windows that overlap objects."""
    path, photos = job.work / COMPLETE, job.photos(job.options.split)
    made_from = made_from_model(job, model, photos) | {"bbox": job.options.bbox}
    if (found := done(path, made_from, job.options.device)) is not None:
        return found
    model = model.but(made_from=made_from)
    if job.options.bbox:
        model = model.but(regressors=_regressors(job, model, photos))
    model.save(path)
    _forget(job, "boxes-*")
    return model


def _regressors(job: Job, model: Detector, photos: DetectionSet) -> BoxRegressors:
    penalty, least = LAMBDAS[model.settings.method]
    layers = model.view().layers
    scale = svms.Recipe().norm / norm(job, model, photos, layers)
    width = sum(int(np.prod(model.net.graph.shapes[name])) for name in layers)
    found, count = None, len(photos.classes)
    some = [p for p in photos.photos if len(p.boxes)]
    for i, only in enumerate(groups(count, 8 * (width + 1) ** 2, memory_of_computer())):
        learner = BoxLearner(count, width, scale, only)
        turn = Pass(job.work / f"boxes-{i}.h5", {**model.made_from, "classes": only}, learner)
        for photo, rows, of in outputs(job, model, turn.left(some), layers, "boxes"):
            told = labelled(photo, job.boxes_of(photo), job.options.difficult)
            at = np.flatnonzero(told.best > least)
            learner.see(rows[of[at]], told.boxes[at], told.objects[at], told.labels[at])
            turn.photo()
        if len(only) < count:
            turn.save()
        found = learner.solve(penalty, found)
    return found


def _forget(job: Job, *names: str) -> None:
    """Delete what passes have kept, once what they were for is there."""
    for name in names:
        for path in job.work.glob(f"{name}.h5"):
            path.unlink(missing_ok=True)


def outputs(
    job: Job,
    model: Detector,
    photos: list[Photo],
    layers: list[str],
    what: str,
    boxes_of: Callable[[Job, Photo], np.ndarray] | None = None,
) -> Iterator[tuple[Photo, np.ndarray, np.ndarray]]:
    """(photo, outputs (K, numbers) of layers one behind the other, window of each of its boxes)."""
    view = model.view(frozen(job, model))
    for photo in progress(photos, len(photos), what):
        found = view(photo, (boxes_of or every_box)(job, photo))
        outs = through_fc(model.net, found.parts, layers)
        rows = [outs[name] for name in layers]
        yield photo, rows[0] if len(rows) == 1 else np.concatenate(rows, 1), found.of


def every_box(job: Job, photo: Photo) -> np.ndarray:
    """Objects and proposals of a photo."""
    return candidates(photo, job.boxes_of(photo))


def some_boxes(job: Job, photo: Photo) -> np.ndarray:
    """At most WINDOWS of them."""
    return np.random.default_rng(3).permutation(every_box(job, photo))[:WINDOWS]


def some_of(photos: DetectionSet) -> list[Photo]:
    """At most WINDOWS of the photos."""
    some = np.random.default_rng(3).permutation(len(photos.photos))[:WINDOWS]
    return [photos.photos[i] for i in sorted(some)]


def objects_only(job: Job, photo: Photo) -> np.ndarray:
    """The objects of a photo."""
    return photo.boxes


def norm(job: Job, model: Detector, photos: DetectionSet, layers: list[str]) -> float:
    """The mean length of the features, over 200 windows of 200 photos, as in the release."""
    made = outputs(job, model, some_of(photos), layers, "scale", some_boxes)
    try:
        return svms.mean_norm(rows[of] for _, rows, of in made)
    except ValueError as e:
        raise DataError(f"{job.work}: {e}") from None


def overlap_by_class(photo: Photo, boxes: np.ndarray, classes: list[int]) -> np.ndarray:
    """(N, len(classes)) largest overlap of each box with an object of each of these classes."""
    found = np.zeros((len(boxes), len(classes)), np.float32)
    every = overlap(boxes, photo.boxes)
    for i, c in enumerate(classes):
        if (mine := photo.labels == c).any():
            found[:, i] = every[:, mine].max(1)
    return found


def frozen(job: Job, model: Detector) -> Store | None:
    """The maps that are kept, where the net still makes the same; else None."""
    return maps_of(job, model) if job.options.finetune != "all" else None


def made_from_model(job: Job, model: Detector, photos: DetectionSet) -> dict[str, Any]:
    """What SVMs and box regression depend on."""
    o = job.options
    return {"net": model.net_fingerprint, "photos": photos.fingerprint, "proposals": o.proposals,
            "layer": o.layer, "difficult": o.difficult, "seed": o.seed}  # fmt: skip
