"""A detection job: its options, its folder, and what is found there.

<work>/job.json              the options, so that later commands need not repeat them
<work>/proposals-<how>/      boxes of each photo
<work>/maps/                 maps of each photo of the training set (crops/ for R-CNN)
<work>/finetuned.h5          detector with a fine-tuned net; finetuning.h5 while it runs
<work>/svm.h5, det.h5        with SVMs; with box regression as well, complete
<work>/found-<split>/        detections of each photo; results, curves and tables beside them
"""

import contextlib
import json
import sys
import typing
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convnet import files
from convnet.cli import UsageError
from convnet.detect.proposals import METHODS
from convnet.detect.sampling import RECIPES
from convnet.detect.sets import DetectionSet, Photo, limited
from convnet.detect.store import Store
from convnet.detect.windows import ONE, SCALES, SEMANTICS
from convnet.loader import DataError
from convnet.providers import fingerprint

KINDS = ("voc", "coco", "ilsvrc")
PATHS = (*KINDS, "images", "net", "proposals")
WORDS = {"method": ("spp", "rcnn"), "semantics": SEMANTICS, "head": ("softmax", "softmax+bbox"),
         "finetune": ("fc", "all", "none"), "schedule": tuple(RECIPES)}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What the commands of tools/detect.py take, under the names that they have there."""

    voc: str | None = None
    coco: str | None = None
    ilsvrc: str | None = None
    images: str | None = None  # the folder of a COCO set's photos
    split: str = "trainval"  # to learn from
    test_split: str = "test"
    per_class: int | None = None  # photos to learn from, at most
    net: str | None = None  # the checkpoint of the classifier
    method: str = "spp"
    semantics: str = "release"
    scales: str = "688"
    mean: float | None = None
    proposals: str = "fast"
    head: str = "softmax"
    finetune: str = "fc"
    schedule: str = "short"
    iterations: int | None = None  # None: as many as the schedule has
    rate: float | None = None
    svm: bool = True  # SVMs on the features; without, the softmax scores
    bbox: bool = True
    layer: str = ""
    difficult: bool = False
    nms: float = 0.3
    svd: str = ""
    seed: int = 0
    device: str = "cpu"
    set: tuple[str, ...] = ()  # changes of the detector's cfg, as in tools/train.py

    @classmethod
    def of(cls, saved: dict, given: dict) -> "Options":
        """Those given, over those saved. ValueError where a saved one is of another kind."""
        kinds = typing.get_type_hints(cls)
        for name, value in saved.items():
            kind = kinds[name] if kinds[name] != tuple[str, ...] else tuple
            if not isinstance(value, int | kind if kind in (float, float | None) else kind):
                raise ValueError(f"{name} is {value!r}")
        return cls(**{**saved, **given})

    @property
    def batches(self) -> int:
        """Of fine-tuning."""
        return self.iterations or RECIPES[self.schedule].batches

    @property
    def shorter_sides(self) -> tuple[int, ...]:
        """The scales as numbers; "5" are the five of the semantics, "1" the one at 688."""
        words = {"1": ONE, "5": SCALES.get(self.semantics, ())}
        if self.scales in words:
            return words[self.scales]
        try:
            found = tuple(int(word) for word in self.scales.split(","))
        except ValueError:
            found = ()
        if not found or min(found) < 16 or max(found) > 10_000 or len({*found}) < len(found):
            raise UsageError(
                f"--scales={self.scales}: must be 1, 5, or shorter sides of the photo from 16 on, "
                "as in 480,688"
            )
        return tuple(sorted(found))

    def check(self) -> None:
        """UsageError for a value that is none."""
        given = [kind for kind in KINDS if getattr(self, kind)]
        if len(given) != 1:
            raise UsageError(
                f"one of --voc=, --coco=, --ilsvrc= says where the photos are; {len(given)} are "
                "given"
            )
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                raise UsageError(f"--{name}={getattr(self, name)}: must be {' or '.join(words)}")
        if self.coco and "{split}" not in self.coco and self.split != self.test_split:
            raise UsageError(
                f"--coco={self.coco}: put {{split}} where the name of the split stands, as in "
                "instances_{split}.json; one file for both would test on what was learned"
            )
        if self.rate is not None and self.rate <= 0:
            raise UsageError(f"--rate={self.rate}: must be above 0")
        if self.head == "softmax+bbox" and self.bbox and not self.svm:
            raise UsageError("--head=softmax+bbox moves boxes itself; without SVMs: --no-bbox too")
        _ = self.shorter_sides


class Job:
    """Options and folder of a job."""

    def __init__(self, work: str | Path, given: dict):
        """The options given now, over those that the folder remembers. UsageError, DataError."""
        if not str(work):
            raise UsageError("--work= must name a folder")
        self.work, path = Path(work), Path(work) / "job.json"
        known = {f.name for f in fields(Options)}
        saved = {}
        if path.exists():
            try:
                saved = {k: v for k, v in json.loads(path.read_text()).items() if k in known}
                saved["set"] = tuple(saved.get("set", ()))
                Options.of(saved, {})
            except OSError as e:
                raise DataError(f"{path}: {files.unread(e) or e}") from None
            except (ValueError, AttributeError, TypeError):
                raise DataError(f"{path}: damaged; delete it and give all options again") from None
        if any(given.get(kind) for kind in KINDS):  # one of them takes the place of another
            saved = {k: v for k, v in saved.items() if k not in KINDS}
        self.options = Options.of(
            saved, {name: absolute(name, value) for name, value in given.items()}
        )
        self.options.check()
        self.sets: dict[str, DetectionSet] = {}

    @contextlib.contextmanager
    def remembered(self) -> Iterator[None]:
        """Keep the options for later commands, unless what is done with them proves them wrong."""
        path = self.work / "job.json"
        before = path.read_bytes() if path.exists() else None
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            files.replace(path, [json.dumps(asdict(self.options), indent=1).encode()])
        except OSError as e:
            raise UsageError(f"--work={self.work}: {files.advice(e)}") from None
        try:
            yield
        except Exception:
            if before is None:
                path.unlink(missing_ok=True)
            else:
                files.replace(path, [before])
            raise

    def photos(self, split: str) -> DetectionSet:
        """The photos of a split, and what is odd about them said once."""
        from convnet.detect.opened import open_set

        if split not in self.sets:
            o = self.options
            kind = next(k for k in KINDS if getattr(o, k))
            found = open_set(getattr(o, kind), split, kind=kind, images=o.images)
            for note in found.notes:
                print(f"note: {note}", file=sys.stderr)
            if o.per_class and split == o.split:
                found = limited(found, o.per_class, o.seed)
            if not found.photos:
                raise DataError(f"{getattr(o, kind)}: no photo in split {split}")
            for other, theirs in self.sets.items():
                if theirs.classes != found.classes:
                    raise DataError(
                        f"{getattr(o, kind)}: split {split} has the classes {found.classes}, "
                        f"{other} {theirs.classes}"
                    )
            self.sets[split] = found
        return self.sets[split]

    @cached_property
    def proposals(self) -> Store:
        """The boxes of photos."""
        how = self.options.proposals
        name = how if how.isalnum() else f"file-{Path(how).stem}"
        made_from = {"method": how} | {
            path.name: fingerprint(np.fromfile(path, np.uint8)) for path in self.proposal_files()
        }
        return Store(self.work / f"proposals-{name}", "proposals", made_from)

    def proposal_files(self) -> list[Path]:
        """The files that proposals are read from, one or one of each split; where they are."""
        o = self.options
        splits = dict.fromkeys((o.split, o.test_split))
        paths = dict.fromkeys(Path(o.proposals.replace("{split}", split)) for split in splits)
        return [path for path in paths if path.is_file()]

    def boxes_of(self, photo: Photo) -> np.ndarray:
        """The proposals of a photo. DataError where `prepare` has not made them."""
        return self.proposals.load(photo)["boxes"]


def absolute(name: str, value: Any) -> Any:
    """Paths among the options from the root, so that a job goes on from any working directory."""
    path = name in PATHS and value and value not in METHODS
    return str(Path(value).resolve()) if path else value
