"""Detections on the photos of a split, what is learned from them, and how long they take."""

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

import numpy as np

from convnet.detect import calibration, lowrank
from convnet.detect.detections import keep, kept
from convnet.detect.job import Job
from convnet.detect.learning import WINDOWS, frozen, some_boxes, some_of
from convnet.detect.model import Detector
from convnet.detect.sets import Photo
from convnet.detect.steps import COMPLETE, done, progress
from convnet.detect.store import Store
from convnet.detect.views import through_fc
from convnet.loader import DataError


def calibrated(job: Job, model: Detector) -> Detector:
    """From which score a detection of each class is shown, told from photos to learn from."""
    settings = replace(model.settings, nms=job.options.nms)
    if model.thresholds is not None and model.settings == settings:
        return model
    model = model.but(settings=settings)
    photos = job.photos(job.options.split)
    some = replace(photos, photos=some_of(photos))
    found = kept(test(job, model, job.options.split, only=some.photos), some)
    thresholds, sigmoids = calibration.learned(some, found)
    model = model.but(thresholds=thresholds, sigmoids=sigmoids)
    model.save(job.work / COMPLETE)
    return model


def lowered(job: Job, model: Detector) -> Detector:
    """The detector with low-rank fc layers."""
    ranks, layers = lowrank.ranks_of(job.options.svd), model.view().layers
    path = job.work / f"det-svd-{'-'.join(map(str, ranks))}.h5"
    made_from = {"detector": model.fingerprint, "ranks": list(ranks)}
    chosen = lowrank.lowered_layers(model.net, layers, ranks)
    if (found := done(path, made_from, job.options.device)) is not None:
        return found
    photos, by_name = job.photos(job.options.split), model.net.by_name

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        wanted = list(dict.fromkeys(n for name in chosen for n in by_name[name].reads))
        view = model.view(frozen(job, model))
        for photo in progress(some_of(photos), min(WINDOWS, len(photos.photos)), "low rank"):
            outs = through_fc(model.net, view(photo, some_boxes(job, photo)).parts, wanted)
            yield {name: np.concatenate([outs[n] for n in by_name[name].reads], 1)
                   for name in chosen}  # fmt: skip

    source, net, shares = lowrank.lowered(model.source, model.net, chosen, inputs())
    for name, share in shares.items():
        print(f"[{name}] of rank {chosen[name]:,} keeps {100 * share:.2f} % of its variance")
    model = model.but(source=source, net=net, made_from=made_from)
    model.save(path)
    return model


def fc_seconds(job: Job, models: list[Detector], split: str) -> list[float]:
    """Seconds that the fc layers of each model take for a photo: medians over some photos."""
    times: list[list[float]] = [[] for _ in models]
    for i, photo in enumerate(some_of(job.photos(split))[:6]):
        boxes = job.boxes_of(photo)
        for model, mine in zip(models, times):
            parts = model.view()(photo, boxes).parts
            for turn in range(1 if i else 2):  # the very first prepares the weights
                begin = perf_counter()
                through_fc(model.net, parts, [model.layer if model.svms else model.net.output])
                if i or turn:
                    mine.append(perf_counter() - begin)
    return [float(np.median(mine)) for mine in times]


def test(
    job: Job,
    model: Detector,
    split: str,
    shard: tuple[int, int] = (1, 1),
    only: list[Photo] | None = None,
) -> Store:
    """Detect on the photos of a split, or some of them; each photo's detections are kept."""
    photos = job.photos(split)
    if photos.classes != model.classes:
        raise DataError(
            f"the photos have the classes {photos.classes}, the detector {model.classes}"
        )
    store = found_store(job, model, split)
    todo = [*store.missing(only or photos.photos, shard)]
    view = model.view(frozen(job, model) if split == job.options.split else None)
    for photo in progress(todo, len(todo), split):
        keep(store, photo, model.found(photo, job.boxes_of(photo), view))
    return store


def found_store(job: Job, model: Detector, split: str) -> Store:
    """Where the detections of a split are kept."""
    made_from = {"detector": model.fingerprint, "proposals": job.options.proposals,
                 "classes": model.classes}  # fmt: skip
    folder = job.work / f"found-{split}-{model.fingerprint[:8]}"
    return Store(folder, "detections", made_from)
