"""The first steps of a detection job: proposals, maps, a fine-tuned net.

Each takes up where a killed run of it stopped. What is learned from the net's features then is in
learning.py, what is done with a complete detector in testing.py.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from convnet import checkpoint, given, runfolder
from convnet.checkpoint import CheckpointError
from convnet.cli import UsageError
from convnet.detect import proposals, recall
from convnet.detect.finetune import Finetuning, prepared, scaled
from convnet.detect.head import detector
from convnet.detect.job import Job
from convnet.detect.maps import PhotoMaps, Trunk
from convnet.detect.model import Detector, Settings
from convnet.detect.sampling import RECIPES, Draws
from convnet.detect.sets import DetectionSet
from convnet.detect.store import Store
from convnet.detect.views import CropView
from convnet.loader import DataError
from convnet.net import Net
from convnet.source import Source
from convnet.work import needed

WINDOWS = 200  # of a photo, and photos, whose features say how long they are
FINETUNED, SVM, COMPLETE = "finetuned.h5", "svm.h5", "det.h5"


def progress(items: Iterable, total: int, what: str) -> Iterator:
    """The items, with a bar on a terminal, elsewhere a line at their beginning."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    if total and not terminal:
        print(f"{what}: {given.count(total, 'photo')}", flush=True)
    return tqdm(items, total=total, unit="photo", desc=what, disable=not terminal)


def prepare(job: Job, split: str, shard: tuple[int, int] = (1, 1)) -> None:
    """Proposals of the photos of a split, and how many of the objects they find."""
    o, photos, store = job.options, job.photos(split), job.proposals
    every = [p for s in dict.fromkeys((o.split, o.test_split)) for p in job.photos(s).photos]
    proposals.make(photos, store, o.proposals.replace("{split}", split), shard, every)
    there = replace(photos, photos=[p for p in photos.photos if p in store])
    if not there.photos:
        print(f"{split}: no photo has proposals yet, others are in other shards")
        return
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
    if not {*made.view().layers} & needed(net.graph, [made.layer]):
        raise UsageError(f"--layer={o.layer}: is below the windows; name one that is made of them")
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
        "net": model.net_fingerprint, "photos": photos.fingerprint, "classes": model.classes,
        "proposals": o.proposals, "finetune": o.finetune, "head": o.head, "schedule": o.schedule,
        "iterations": o.batches, "rate": o.rate, "seed": o.seed, "difficult": o.difficult,
        "set": list(o.set),
    }  # fmt: skip
    if (found := done(path, made_from, o.device)) is not None:
        return found.but(settings=model.settings)
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
    if theirs.get("classes", made_from.get("classes")) != made_from.get("classes"):
        raise DataError(
            f"{path}: is of the classes {theirs['classes']}, the photos have "
            f"{made_from['classes']}; choose another --work"
        )
    if theirs == made_from:
        print(f"{path}: is there already")
        return Detector.load(path, device)
    every = {**made_from, **theirs}
    first = next((k for k in every if made_from.get(k) != theirs.get(k)), "recipe")
    print(f"note: {path} was made with another {first}; it is made anew", file=sys.stderr)
    return None
