"""A detector in one file: the net and its cfg, SVMs, box regression, and how windows are seen.

model = Detector.load("det.h5")
found = model.detect(pixels, boxes)     # boxes: proposals of this photo
found.boxes, found.scores, [model.classes[c] for c in found.labels]
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from convnet import checkpoint
from convnet.checkpoint import Checkpoint, CheckpointError, DamagedError
from convnet.cli import UsageError
from convnet.detect.bbox import BoxRegressors
from convnet.detect.boxes import clipped, decoded, nms
from convnet.detect.combine import union
from convnet.detect.detections import Found
from convnet.detect.head import box_layer, feature_layer
from convnet.detect.maps import PhotoMaps, Trunk
from convnet.detect.sampling import STD
from convnet.detect.sets import InMemory, Photo, no_objects
from convnet.detect.store import Store
from convnet.detect.svm import Svms
from convnet.detect.views import CropView, SppView, through_fc
from convnet.net import Net
from convnet.providers import fingerprint
from convnet.source import Source

FLOOR = {True: -1.5, False: 0.05}  # least score that is kept: of SVMs, of a softmax
MOST = 100  # detections of a class on a photo that are kept


@dataclass(frozen=True)
class Settings:
    """How a detector sees windows and answers.

    scales: shorter sides of the photo that maps are made at; mean: number subtracted from all
    channels, None for the net's means; layer: the features of the SVMs; nms: overlap above which
    the worse of two detections goes.
    """

    method: str = "spp"
    semantics: str = "release"
    scales: tuple[int, ...] = (688,)
    mean: float | None = None
    layer: str = ""
    nms: float = 0.3
    proposals: str = "fast"  # how boxes of new photos are found


@dataclass
class Detector:
    """classes: without the background. thresholds: (classes,) score from which `run` shows one;
    sigmoids: (classes, 2), how likely a score is right (convnet/detect/calibration.py)."""

    source: Source
    net: Net
    settings: Settings
    classes: list[str]
    svms: Svms | None = None
    regressors: BoxRegressors | None = None
    thresholds: np.ndarray | None = None
    sigmoids: np.ndarray | None = None
    made_from: dict[str, Any] = field(default_factory=dict)

    @property
    def layer(self) -> str:
        """The layer whose outputs are the features of the SVMs."""
        name = self.settings.layer
        if not name:
            return feature_layer(self.net)
        try:
            return self.net.graph.resolve(name)
        except ValueError as e:
            raise UsageError(f"--layer={name}: {e}") from None

    def view(self, store: Store | None = None) -> SppView | CropView:
        """What makes the fc layers' input of boxes of a photo; store: of maps that are there."""
        if self.settings.method == "rcnn":
            return CropView(self.net, self.settings.mean, store)
        maps = PhotoMaps(Trunk(self.net, self.settings.mean), self.settings.scales, store)
        return SppView(maps, self.settings.semantics)

    @property
    def net_fingerprint(self) -> str:
        """Changes with the weights, and with how windows are seen."""
        alike = replace(self.settings, layer="", proposals="", nms=Settings.nms)
        return self.but(settings=alike, svms=None, regressors=None).fingerprint

    @property
    def fingerprint(self) -> str:
        """Changes with the weights, and with all that scores and boxes depend on."""
        weights = [self.net.device.numpy(w) for w in self.net.own_weights().values()]
        learned = [part.to_arrays() for part in (self.svms, self.regressors) if part]
        arrays = [a for part in learned for a in part.values()]
        return fingerprint([*map(str, asdict(self.settings).items())], self.net.mean_image,
                           *weights, *arrays)  # fmt: skip

    # ---------------------------------------------------------------- detection

    def detect(self, pixels: np.ndarray, boxes: np.ndarray) -> Found:
        """What is on a uint8 photo (H, W, 3), among these boxes (N, 4)."""
        height, width = pixels.shape[:2]
        photo = InMemory("photo", Path("photo"), width, height, *no_objects(), picture=pixels)
        return self.found(photo, boxes, self.view())

    def found(self, photo: Photo, boxes: np.ndarray, view: SppView | CropView) -> Found:
        """The detections of a photo, best first for each class: scored, thinned out, moved."""
        boxes = boxes.astype(np.float32)
        seen = view(photo, boxes)
        outs = through_fc(self.net, seen.parts, self._asked(view))
        scores = self.scores(outs)[seen.of]
        moved = self._by_net(outs, seen.of, boxes)
        at, labels = self.kept(moved, scores)
        got = moved[at, labels] if moved.ndim == 3 else boxes[at]
        if self.regressors is not None and len(at):
            rows = np.concatenate([outs[name][seen.of[at]] for name in view.layers], 1)
            got = self.regressors.moved(rows, got, labels)
        found = Found(clipped(got, photo.width, photo.height), scores[at, labels], labels)
        # moved boxes may meet on one object; the release thins them out again at evaluation
        return found if self.regressors is None else union([found], self.settings.nms)

    def _asked(self, view) -> list[str]:
        wanted = [self.layer if self.svms else self.net.output]
        if not self.svms and box_layer(self.net):
            wanted.append(box_layer(self.net))
        return [*wanted, *(view.layers if self.regressors is not None else [])]

    def scores(self, outs: dict[str, np.ndarray]) -> np.ndarray:
        """(K, classes): margins of the SVMs, or probabilities."""
        if self.svms:
            return self.svms.scores(outs[self.layer])
        return outs[self.net.output][:, 1:]

    def _by_net(self, outs: dict[str, np.ndarray], of: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """The boxes (N, 4), or (N, classes, 4) where the net moves them."""
        name = box_layer(self.net)
        if self.svms or not name:
            return boxes
        by = outs[name].reshape(len(outs[name]), -1, 4)[of, 1:] * STD
        return np.stack([decoded(boxes, by[:, c]) for c in range(by.shape[1])], 1)

    def kept(self, boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of boxes, their classes) after the floor and non-maximum suppression."""
        at, labels = [], []
        for c in range(len(self.classes)):
            here = np.flatnonzero(scores[:, c] > FLOOR[self.svms is not None])
            mine = boxes[here, c] if boxes.ndim == 3 else boxes[here]
            best = here[nms(mine, scores[here, c], self.settings.nms)[:MOST]]
            at.append(best)
            labels.append(np.full(len(best), c, np.int32))
        return np.concatenate(at).astype(np.int64), np.concatenate(labels)

    # ---------------------------------------------------------------- files

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all. CheckpointError."""
        net, numpy = self.net, self.net.device.numpy
        arrays = {
            "weights": {n: numpy(w) for n, w in net.own_weights().items()},
            "data": {"mean": net.mean_image},
        }
        if self.svms is not None:
            arrays["svms"] = self.svms.to_arrays()
        if self.regressors is not None:
            arrays["regressors"] = self.regressors.to_arrays()
        if self.thresholds is not None:
            arrays["scores"] = {"thresholds": self.thresholds, "sigmoids": self.sigmoids}
        meta = {
            "detector": 1,
            "source": self.source.to_dict(),
            "classes": self.classes,
            "image": list(net.graph.shapes[net.graph.feeds[0]]),
            "mirrors": net.mirror,
            "settings": asdict(self.settings),
            "made_from": self.made_from,
        }
        checkpoint.save(path, Checkpoint(arrays, meta))

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> "Detector":
        """Read a file. CheckpointError where it is none."""
        saved = checkpoint.load(path)
        meta, arrays = saved.meta, saved.arrays
        if meta.get("detector") != 1:
            raise CheckpointError(
                f"{path}: a net, not a detector; tools/detect.py train --net={path} makes one"
            )
        try:
            source, classes = Source.from_dict(meta["source"]), list(meta["classes"])
            settings = Settings(**{**meta["settings"], "scales": tuple(meta["settings"]["scales"])})
            net = Net(source.graph({0: tuple(meta["image"])}, len(classes) + 1), device)
            net.set_weights(arrays["weights"])
            net.mean, net.mirror = arrays["data"]["mean"], meta["mirrors"]
            net.classes = ["background", *classes]
            found = cls(source, net, settings, classes, made_from=meta["made_from"])
            if "svms" in arrays:
                found.svms = Svms.from_arrays(arrays["svms"])
            if "regressors" in arrays:
                found.regressors = BoxRegressors.from_arrays(arrays["regressors"])
            if "scores" in arrays:
                found.thresholds = arrays["scores"]["thresholds"]
                found.sigmoids = arrays["scores"]["sigmoids"]
        except (KeyError, TypeError, ValueError) as e:
            raise DamagedError(f"{path}: no detector that makes sense ({e})") from None
        return found

    def but(self, **changes) -> "Detector":
        """The same detector with other parts."""
        return replace(self, **changes)
