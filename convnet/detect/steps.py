"""The steps of a detection job, each of which takes up where a killed run of it stopped."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from convnet import checkpoint, runfolder
from convnet.checkpoint import CheckpointError
from convnet.cli import UsageError
from convnet.detect import calibration, lowrank, proposals, recall
from convnet.detect import svm as svms
from convnet.detect.bbox import LAMBDAS, BoxLearner, groups
from convnet.detect.boxes import overlap
from convnet.detect.detections import keep, kept
from convnet.detect.finetune import Finetuning, prepared, scaled
from convnet.detect.head import detector
from convnet.detect.job import Job
from convnet.detect.maps import PhotoMaps, Trunk
from convnet.detect.model import Detector, Settings
from convnet.detect.sampling import RECIPES, Draws, candidates, labelled
from convnet.detect.sets import DetectionSet, Photo
from convnet.detect.store import Store
from convnet.detect.svm import Seen
from convnet.detect.views import CropView, through_fc
from convnet.graph import memory_of_computer
from convnet.loader import DataError
from convnet.net import Net
from convnet.source import Source

WINDOWS = 200  # of a photo, and photos, whose features say how long they are
FINETUNED, SVM, COMPLETE = "finetuned.h5", "svm.h5", "det.h5"


def progress(items: Iterable, total: int, what: str) -> Iterator:
    """The items, with a bar on a terminal."""
    from tqdm import tqdm

    return tqdm(items, total=total, unit="photo", desc=what, disable=not sys.stderr.isatty())


def prepare(job: Job, split: str, shard: tuple[int, int] = (1, 1)) -> None:
    """Proposals of the photos of a split, and how many of the objects they find."""
    photos, store = job.photos(split), job.proposals()
    proposals.make(photos, store, job.options.proposals, shard=shard)
    there = replace(photos, photos=[p for p in photos.photos if p in store])
    counts = [len(job.boxes_of(p)) for p in there.photos]
    print(f"{split}: {len(counts)} photos with {np.mean(counts):.0f} proposals each")
    if there.count().any():
        print(recall.table(there, job.boxes_of))


def classifier(job: Job) -> Detector:
    """The detector before it has learned anything: the classifier's net with a new last layer."""
    o = job.options
    if not o.net:
        raise UsageError(
            "--net= must be the checkpoint of a trained net (tools/train.py makes one)"
        )
    saved, path, notes = runfolder.find(o.net)
    for note in notes:
        print(note, file=sys.stderr)
    if "classes" not in saved.meta or "detector" in saved.meta:
        raise CheckpointError(f"{path}: is a detector already; --net= takes a classifier")
    source, net = Source.from_dict(saved.meta["source"]), Net.from_saved(saved, o.device)
    net.seed = o.seed
    classes = job.photos(o.split).classes
    source, net = detector(source, net, classes, o.head, windows=o.method == "spp")
    settings = Settings(
        o.method, o.semantics, o.shorter_sides, o.mean, o.layer, proposals=o.proposals
    )
    made = Detector(source, net, settings, classes)
    _ = made.layer  # --layer= is one of the net's, or UsageError
    return made


def maps_of(job: Job, model: Detector) -> Store:
    """The folder of the maps (crops, for R-CNN) that this net makes."""
    if model.settings.method == "rcnn":
        made_from = CropView.made_from(model.net, model.settings.mean)
        return Store(job.work / "crops", "crops", made_from)
    trunk = Trunk(model.net, model.settings.mean)
    return Store(job.work / "maps", "maps", PhotoMaps.made_from(trunk, model.settings.scales))


def features(job: Job, shard: tuple[int, int] = (1, 1)) -> None:
    """The maps of the photos to learn from, and of their mirror images."""
    model = classifier(job)
    photos, store = job.photos(job.options.split), maps_of(job, model)
    mirrors = RECIPES[job.options.schedule].mirrors and job.options.finetune == "fc"
    todo = [*store.missing(photos.photos, shard)]
    view = model.view(store)
    for photo in progress(todo, len(todo), "features"):
        if isinstance(view, CropView):
            boxes = np.concatenate([photo.boxes, job.boxes_of(photo)])
            view.save(photo, boxes, mirrors)
        else:
            view.maps.save(photo, mirrors)
    there = sum(p in store for p in photos.photos)
    print(f"{there} of {len(photos.photos)} photos have their {store.what} in {store.folder}")


def finetune(job: Job) -> Detector:
    """Fine-tune the net on windows of the photos."""
    o, path = job.options, job.work / FINETUNED
    model = classifier(job)
    photos = job.photos(o.split)
    made_from = {
        "net": model.fingerprint, "photos": photos.fingerprint, "classes": model.classes,
        "proposals": o.proposals, "finetune": o.finetune, "head": o.head, "schedule": o.schedule,
        "iterations": o.batches, "rate": o.rate, "seed": o.seed, "difficult": o.difficult,
        "set": list(o.set),
    }  # fmt: skip
    if (found := done(path, made_from, o.device)) is not None:
        return found
    if o.finetune != "none":
        model = _finetuned(job, model, photos, made_from)
    model.made_from = made_from
    model.save(path)
    (job.work / "finetuning.h5").unlink(missing_ok=True)
    return model


def _finetuned(job: Job, model: Detector, photos: DetectionSet, made_from: dict) -> Detector:
    o = job.options
    recipe = scaled(RECIPES[o.schedule], o.rate)
    store = maps_of(job, model) if o.finetune == "fc" else None
    view = model.view(store)
    source, net = prepared(
        model.source, model.net, view.layers, o.finetune, recipe, o.batches, o.set
    )
    model = model.but(source=source, net=net)
    draws = Draws(photos, job.boxes_of, recipe, o.seed, o.difficult)
    run = Finetuning(net, model.view(store), draws, o.finetune, o.batches,
                     job.work / "finetuning.h5", made_from)  # fmt: skip
    if run.resume():
        print(f"going on after batch {run.done}")

    def report(batches: int, steps: list) -> None:
        costs = np.mean([s.costs for s in steps], 0)
        told = "  ".join(f"{n} {c:.4f}" for n, c in zip(net.graph.costs, costs))
        error = 100 * np.mean([s.error for s in steps])
        print(f"batch {batches:,} of {o.batches:,}  {told}  error {error:.1f} %", flush=True)

    run.run(report)
    return model


def done(path: Path, made_from: dict, device: str) -> Detector | None:
    """The detector of a file that was made from the same; None: it is to be made (anew)."""
    if not path.exists():
        return None
    try:
        theirs = checkpoint.load(path).meta.get("made_from", {})
    except CheckpointError as e:
        print(f"note: {e}; it is made anew", file=sys.stderr)
        return None
    if theirs == made_from:
        print(f"{path}: is there already")
        return Detector.load(path, device)
    first = next(k for k in {**made_from, **theirs} if made_from.get(k) != theirs.get(k))
    print(f"note: {path} was made with another {first}; it is made anew", file=sys.stderr)
    return None


def svm(job: Job, model: Detector) -> Detector:
    """SVMs on the features of the photos' objects and hard negatives."""
    path, photos = job.work / SVM, job.photos(job.options.split)
    made_from = made_from_model(job, model, photos)
    if (found := done(path, made_from, job.options.device)) is not None:
        return found
    if not job.options.svm:
        model = model.but(made_from=made_from)
        model.save(path)
        return model
    recipe = svms.Recipe()
    scale = recipe.norm / norm(job, model, photos, [model.layer])
    objects: list[list[np.ndarray]] = [[] for _ in photos.classes]
    some = [p for p in photos.photos if len(p.boxes)]
    for photo, rows, of in outputs(job, model, some, [model.layer], "objects", objects_only):
        use = np.ones(len(photo.boxes), bool) if job.options.difficult else photo.easy
        for c in np.unique(photo.labels[use]):
            objects[c].append(rows[of[use & (photo.labels == c)]])
    width = int(np.prod(model.net.graph.shapes[model.layer]))
    positives = [np.concatenate([*o, np.zeros((0, width), np.float32)]) for o in objects]

    def mined() -> Iterator[Seen]:
        for photo, rows, of in outputs(job, model, photos.photos, [model.layer], "negatives"):
            yield Seen(rows, of, overlaps(photo, every_box(job, photo), len(photos.classes)))

    found, classes = svms.train(
        positives, mined, len(photos.photos), recipe, scale, job.options.seed
    )
    for name, one in zip(photos.classes, classes):
        told = "no object: it will not be found" if not len(one.positives) else (
            f"{len(one.positives):,} objects, {len(one.negatives):,} negatives kept, "
            f"{one.trainings} trainings, objective {svms.objective(one):.4g}"
            + ("; stopped early" if one.stopped else "")
        )  # fmt: skip
        print(f"svm {name}: {told}")
    model = model.but(svms=found, made_from=made_from)
    model.save(path)
    return model


def bbox(job: Job, model: Detector) -> Detector:
    """Box regression from the pyramids of windows that overlap objects."""
    path, photos = job.work / COMPLETE, job.photos(job.options.split)
    made_from = made_from_model(job, model, photos) | {"bbox": job.options.bbox}
    if (found := done(path, made_from, job.options.device)) is not None:
        return found
    if not job.options.bbox:
        model = model.but(made_from=made_from)
        model.save(path)
        return model
    penalty, least = LAMBDAS[model.settings.method]
    layers = model.view().layers
    scale = svms.Recipe().norm / norm(job, model, photos, layers)
    width = sum(int(np.prod(model.net.graph.shapes[name])) for name in layers)
    found, count = None, len(photos.classes)
    for only in groups(count, width, memory_of_computer()):
        learner = BoxLearner(count, width, scale, only)
        some = [p for p in photos.photos if len(p.boxes)]
        for photo, rows, of in outputs(job, model, some, layers, "boxes"):
            told = labelled(photo, job.boxes_of(photo), job.options.difficult)
            at = np.flatnonzero(told.best > least)
            learner.see(rows[of[at]], told.boxes[at], told.objects[at], told.labels[at])
        found = learner.solve(penalty, found)
    model = model.but(regressors=found, made_from=made_from)
    model.save(path)
    return model


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


def overlaps(photo: Photo, boxes: np.ndarray, classes: int) -> np.ndarray:
    """(N, classes) largest overlap of each box with an object of each class."""
    found = np.zeros((len(boxes), classes), np.float32)
    every = overlap(boxes, photo.boxes)
    for c in np.unique(photo.labels):
        found[:, c] = every[:, photo.labels == c].max(1)
    return found


def frozen(job: Job, model: Detector) -> Store | None:
    """The maps that are kept, where the net still makes the same; else None."""
    return maps_of(job, model) if job.options.finetune != "all" else None


def made_from_model(job: Job, model: Detector, photos: DetectionSet) -> dict[str, Any]:
    """What SVMs and box regression depend on."""
    o = job.options
    return {"net": model.fingerprint, "photos": photos.fingerprint, "proposals": o.proposals,
            "layer": o.layer, "difficult": o.difficult, "seed": o.seed}  # fmt: skip


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
            begin = perf_counter()
            through_fc(model.net, parts, [model.layer if model.svms else model.net.output])
            if i:  # the first prepares the weights
                mine.append(perf_counter() - begin)
    return [float(np.median(mine or [np.nan])) for mine in times]


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
