"""What was found on photos, and the files that hold it."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convnet import files
from convnet.cli import UsageError
from convnet.detect.sets import DetectionSet, Photo
from convnet.detect.store import Store


class Found(NamedTuple):
    """Detections of one photo: boxes (N, 4) float32, scores (N,) float32, labels (N,) int32."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def above(self, thresholds: np.ndarray | float) -> "Found":
        """Those that score at least a number, or the number of their class."""
        least = np.broadcast_to(thresholds, self.labels.max(initial=0) + 1) if np.ndim(
            thresholds) == 0 else thresholds  # fmt: skip
        stay = self.scores >= least[self.labels] if len(self.labels) else slice(0, 0)
        return Found(self.boxes[stay], self.scores[stay], self.labels[stay])


def nothing() -> Found:
    """No detection."""
    return Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


def keep(store: Store, photo: Photo, found: Found) -> None:
    """Write the detections of a photo."""
    store.save(photo, found._asdict())


def kept(store: Store, photos: DetectionSet) -> list[Found]:
    """The detections of all photos of a set, in its order. DataError where one has none yet."""
    return [Found(**store.load(photo)) for photo in photos.photos]


def to_json(
    photo: Photo, found: Found, classes: list[str], picture: str, chances: np.ndarray | None = None
) -> dict:
    """{"photo", "picture", "width", "height", "detections": [{"label", "score", "probability",
    "box": [left, top, right, bottom]}]}, best first; chances: (N,) the probabilities, if known."""
    rows = []
    for i in np.argsort(-found.scores, kind="stable"):
        row = {"label": classes[found.labels[i]], "score": round(float(found.scores[i]), 6)}
        if chances is not None:
            row["probability"] = round(float(chances[i]), 4)
        rows.append({**row, "box": [round(v, 2) for v in found.boxes[i].tolist()]})
    return {"photo": str(photo.path), "picture": picture, "width": photo.width,
            "height": photo.height, "detections": rows}  # fmt: skip


def write_json(path: Path, rows: list[dict]) -> None:
    """Write them as text. UsageError where that cannot be done."""
    try:
        files.replace(path, [json.dumps(rows, indent=1).encode()])
    except OSError as e:
        raise UsageError(f"{path}: not written, {files.advice(e)}") from None
