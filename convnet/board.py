"""Event files for TensorBoard in the folder of a run; tensorboardX writes them."""

from pathlib import Path

import numpy as np

from convnet.cli import UsageError
from convnet.net import Net
from convnet.results import costs_of
from convnet.tiles import balanced, columns_for, first_layer, kernels, mosaic

SIDE = 24  # pixels of a filter in the picture, at least


def writer_class():
    """tensorboardX's. UsageError where it is missing."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard: needs tensorboardX: python -m pip install -e '.[tensorboard]' "
            "(--tensorboard=no goes on without)"
        ) from None
    return SummaryWriter


class Board:
    """What metrics.jsonl has, and the first layer's filters at each test.

    After a resume TensorBoard forgets the steps that are trained again: the new file says so. It
    must be a new one, and behind the others by name, which is how TensorBoard orders them; but
    tensorboardX tells its files apart by the second they were begun in, and a short run that is
    resumed at once would write over its own. So they are numbered, too.
    """

    def __init__(self, folder: Path, net: Net):
        self.net = net
        purge = net.step + 1 if net.step else None
        before = sum(1 for _ in folder.glob("events.out.tfevents.*"))
        suffix = f".{before:04d}" if before else ""
        self.writer = writer_class()(str(folder), purge_step=purge, filename_suffix=suffix)

    def add(self, row: dict) -> None:
        """One row of metrics.jsonl, of a batch or of a test."""
        step = row["step"]
        if "test" in row:
            self._scalars("test", row["test"], step)
            self._scalars("rate", row["rates"], step)
            if name := first_layer(self.net):
                filters = _picture(kernels(self.net, name))
                self.writer.add_image("filters", filters, step, dataformats="HWC")
            self.writer.flush()
            return
        self._scalars("train", costs_of(row), step)
        self.writer.add_scalar("speed/images_per_s", row["images_per_s"], step)

    def _scalars(self, group: str, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Write what waits."""
        self.writer.close()


def _picture(filters: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3); of filters over neither grey nor colours the first channel."""
    filters = balanced(filters if filters.shape[3] in (1, 3) else filters[..., :1])
    zoom = -(-SIDE // filters.shape[1])
    made = np.nan_to_num(mosaic(filters, columns_for(len(filters)), zoom, (2, 2)), nan=1)
    return np.rint(255 * np.broadcast_to(made, (*made.shape[:2], 3))).astype(np.uint8)
