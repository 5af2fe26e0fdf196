"""The commands of tools/detect.py."""

import itertools
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convnet import cli
from convnet.cli import UsageError
from convnet.detect import crops as crops_by_class
from convnet.detect import learning, results, steps, testing
from convnet.detect.calibration import probability
from convnet.detect.charts import curves
from convnet.detect.combine import union
from convnet.detect.detections import Found, kept, nothing, to_json, write_json
from convnet.detect.draw import draw
from convnet.detect.evaluate import Result, evaluate
from convnet.detect.job import KINDS, Job
from convnet.detect.model import Detector
from convnet.detect.opened import open_set
from convnet.detect.proposals import METHODS, finder
from convnet.detect.sets import DetectionSet, Photo, of_photos
from convnet.loader import DataError
from convnet.providers import printable

WORK = "runs/detect"
RULES = {"voc": "voc07", "coco": "coco", "ilsvrc": "ilsvrc"}
TESTED = {"test_split", "device", "svd"}  # options that leave the detector as it is
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def run(args: dict[str, Any]) -> int:
    """Do what the command line says; args: what of it was given, by name."""
    args = dict(args)
    command = args.pop("command")
    if command == "run":
        return detect(**args)
    if command == "crops":
        return crops(**args)
    if command == "combine":
        return combined(**args)
    return job(command, args)


def job(command: str, args: dict[str, Any]) -> int:
    """A step of a job, or all of them."""
    work, shard = Path(args.pop("work", WORK)), args.pop("shard", (1, 1))
    rule = args.pop("rule", None)
    if shard != (1, 1) and command not in ("prepare", "features", "test"):
        raise UsageError(f"--shard= is for prepare, features and test, not for {command}")
    if "set" in args:
        args["set"] = tuple(args["set"])
    one = Job(work, args)
    o, chain = one.options, Chain(one)
    if command == "test" and set(args) <= TESTED and (work / steps.COMPLETE).exists():
        chain.complete = Detector.load(work / steps.COMPLETE, o.device)  # needs no --net=
    done: dict[str, Callable[[], Any]] = {
        "prepare": lambda: [
            steps.prepare(one, split, shard) for split in dict.fromkeys((o.split, o.test_split))
        ],
        "features": lambda: steps.features(one, shard),
        "finetune": lambda: chain.finetuned,
        "svm": lambda: chain.with_svms,
        "bbox": lambda: chain.complete,
        "test": lambda: test(one, chain.complete, shard, rule),
    }
    names = [*done] if command == "train" else [command]
    if command == "train" and o.finetune == "all":
        names.remove("features")  # maps of a net that is to change serve nothing
    with one.remembered():
        for name in names:
            done[name]()
    if command == "train":
        model = one.work / steps.COMPLETE
        print(f"now: {cli.command('detect', 'run', f'--model={model}')} <photos>")
    return 0


class Chain:
    """The detector after each step; what is not there yet is made, once."""

    def __init__(self, one: Job):
        self.job = one

    @cached_property
    def finetuned(self) -> Detector:
        """With a fine-tuned net."""
        return steps.finetune(self.job)

    @cached_property
    def with_svms(self) -> Detector:
        """And SVMs."""
        return learning.svm(self.job, self.finetuned)

    @cached_property
    def complete(self) -> Detector:
        """And box regression, and scores from which detections are shown."""
        return testing.calibrated(self.job, learning.bbox(self.job, self.with_svms))


def test(one: Job, model: Detector, shard: tuple[int, int], rule: str | None) -> None:
    """Detect on the test split (a shard of it); once all is there, the table and result files."""
    split, ranks = one.options.test_split, one.options.svd
    models = [model, testing.lowered(one, model)] if ranks else [model]
    means = []
    for which, suffix in zip(models, ["", f"-svd-{ranks.replace(',', '-')}"]):
        photos, store = one.photos(split), testing.test(one, which, split, shard)
        if left := sum(1 for _ in store.missing(photos.photos)):
            print(f"{left} photos are to be tested yet, in other shards")
            return
        if suffix:
            print(f"fc layers of rank {ranks}:")
        got = report(one.work / f"results-{split}{suffix}", photos, kept(store, photos),
                     rule or default_rule(one), split)  # fmt: skip
        means.append(got.mean)
    if ranks:
        exact, low = testing.fc_seconds(one, models, split)
        print(
            f"fc layers of rank {ranks}: mAP {100 * means[1]:.2f}, {low:.3f} s a photo; "
            f"exact: {100 * means[0]:.2f}, {exact:.3f} s ({exact / low:.1f} x)"
        )


def default_rule(one: Job) -> str:
    """How sets of this kind are evaluated."""
    return RULES[next(k for k in KINDS if getattr(one.options, k))]


def report(folder: Path, photos: DetectionSet, found: list[Found], rule: str, split: str) -> Result:
    """Print the table, and write result files and curves."""
    got = evaluate(photos, found, rule)
    print(got.table())
    written = results.write(folder, photos, found, split)
    for path in [*written, *curves(folder, got, photos, found)]:
        print(path)
    return got


def combined(
    jobs: list[str],
    out: str = "runs/combined",
    calibrate: bool = False,
    nms: float = 0.3,
    rule: str | None = None,
) -> int:
    """The detections of several jobs that have been tested, together."""
    if len(jobs) < 2:
        raise UsageError("combine takes the folders of two jobs or more")
    if len({Path(work).resolve() for work in jobs}) < len(jobs):
        raise UsageError("combine takes different jobs")
    every, photos, split, kinds = [], None, "", set()
    for work in jobs:
        model, one = Detector.load(complete(work)), Job(work, {})
        mine = one.photos(one.options.test_split)
        if photos is None:
            photos, split, rule = mine, one.options.test_split, rule or default_rule(one)
        elif mine.fingerprint != photos.fingerprint:
            raise DataError(f"{work}: is tested on other photos than {jobs[0]}")
        found = kept(testing.found_store(one, model, split), photos)
        kinds.add(model.svms is not None)
        if len(kinds) > 1 and not calibrate:
            raise UsageError(
                f"{jobs[0]} and {work} have scores of other kinds, of SVMs and of a softmax; "
                "--calibrate makes probabilities of both"
            )
        if calibrate and model.sigmoids is None:
            raise DataError(f"{work}: is not tested yet; tools/detect.py test --work={work}")
        if calibrate:
            found = [probability(f, model.sigmoids) for f in found]
        every.append(found)
    report(Path(out), photos, [union(row, nms) for row in zip(*every)], rule, split)
    return 0


def detect(
    photos: list[str],
    model: str,
    out: str = "detections",
    threshold: float | None = None,
    proposals: str | None = None,
    device: str = "cpu",
) -> int:
    """Detect on photos: a picture of each with its boxes, and detections.json."""
    detector = Detector.load(complete(model) if Path(model).is_dir() else model, device)
    how = proposals or detector.settings.proposals
    if not proposals and how not in METHODS:
        how = METHODS[0]  # the model has learned from a file of boxes of other photos
    find, paths, folder = finder(how), pictures(photos), Path(out)
    made = dict(zip(paths, names(paths)))
    made_folder(folder)
    if there := {p.resolve() for p in paths} & {(folder / n).resolve() for n in made.values()}:
        raise UsageError(
            f"--out={out}: {sorted(there)[0]} would be drawn over; name another folder"
        )
    shown, rows, bad = Shown(detector, threshold), [], 0
    try:
        for path, name in made.items():
            try:
                photo = of_photos([path], detector.classes).photos[0]
                one = shown.of(photo, find)
            except DataError as e:  # the others are not to wait for it
                if len(made) == 1:
                    raise
                print(e, file=sys.stderr)
                bad += 1
                continue
            chances = shown.chances(one)
            draw(photo.pixels(), one, detector.classes, folder / name, chances)
            print(f"{printable(str(path))}: {told(one, detector.classes)} -> {folder / name}")
            rows.append(to_json(photo, one, detector.classes, name, chances))
    finally:
        write_json(folder / "detections.json", rows)
    print(folder / "detections.json")
    if bad:
        raise DataError(f"{bad} of {len(made)} photos could not be read")
    return 0


def complete(work: str) -> Path:
    """The detector of a job. DataError where the folder has none."""
    path = Path(work) / steps.COMPLETE
    if not path.exists():
        raise DataError(f"{work}: no {path.name} there; is this the folder of a job?")
    return path


class Shown:
    """What a detector shows of photos: what scores at least a threshold, its own or another."""

    def __init__(self, model: Detector, threshold: float | None):
        self.model, self.view = model, model.view()
        self.least = model.thresholds if threshold is None else threshold
        if self.least is None:
            self.least = 0.0 if model.svms is not None else 0.5

    def of(self, photo: Photo, find: Callable[[np.ndarray], np.ndarray]) -> Found:
        """The detections on a photo, among the boxes that are found there."""
        boxes = find(photo.pixels())
        found = self.model.found(photo, boxes, self.view) if len(boxes) else nothing()
        return found.above(self.least)

    def chances(self, found: Found) -> np.ndarray | None:
        """How likely each is right; None where the detector does not know."""
        sigmoids = self.model.sigmoids
        return None if sigmoids is None else probability(found, sigmoids).scores


def told(found: Found, classes: list[str]) -> str:
    """How many of which class, in words."""
    counts = np.bincount(found.labels, minlength=len(classes))
    some = [f"{n} {printable(name)}" for name, n in zip(classes, counts) if n]
    return ", ".join(some) or "nothing found"


def names(paths: list[Path]) -> Iterator[str]:
    """A name for the picture of each photo; photos of one name in several folders get numbers."""
    used: set[str] = set()
    for path in paths:
        tries = itertools.chain([path.stem], (f"{path.stem}-{n}" for n in itertools.count(2)))
        used.add(name := next(name for name in tries if name not in used))
        yield f"{name}.png"


def pictures(given: list[str]) -> list[Path]:
    """The photos that are named, in folders that are named, and in lists. DataError, UsageError."""
    found: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
            if not inside:
                raise DataError(f"{path}: no photo in this folder")
            found += inside
        elif path.suffix.lower() == ".txt":
            found += listed(path)
        else:
            found.append(path)
    if not found:
        raise DataError(f"{', '.join(given)}: no photo is listed there")
    return [*dict.fromkeys(found)]


def listed(path: Path) -> list[Path]:
    """The photos of a list, one a line; paths are from the list's own folder."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: is no list of photos ({e})") from None
    return [path.parent / line.strip() for line in lines if line.strip()]


def made_folder(folder: Path) -> None:
    """Make a folder for results. UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(f"--out={folder}: {e.strerror.lower()}") from None


def crops(out: str, seed: int = 0, split: str = "trainval", **where: Any) -> int:
    """Crops of objects by class, to train a net on."""
    given = [kind for kind in KINDS if where.get(kind)]
    if len(given) != 1:
        raise UsageError("one of --voc=, --coco=, --ilsvrc= says where the photos are")
    kind = given[0]
    photos = open_set(where[kind], split, kind=kind, images=where.get("images"))
    for note in photos.notes:
        print(f"note: {note}", file=sys.stderr)
    counts = crops_by_class.write(photos, Path(out), seed)
    for name, n in counts.items():
        print(f"{name}: {n:,}")
    print(
        "now: "
        + cli.command(
            "train",
            "--layer-def=layer_configs/spp_zf5_half.cfg",
            f"--data-path={out}",
            "--epochs=12",
            "--save-path=runs/base",
        )
    )
    return 0
