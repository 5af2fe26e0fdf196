"""results.csv of a run: one row a test, with the means of the training since the test before it.

For spreadsheets. All that is in it comes from metrics.jsonl: it is made from that file when a run
begins or goes on, and replaced as a whole at each test, so it is never ahead of it nor torn.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from convnet import files

ABOUT = {"step", "epoch", "batch", "progress", "size", "images", "seconds", "images_per_s"}


def costs_of(row: dict) -> dict[str, float]:
    """The values of the costs of a batch, given its row of metrics.jsonl."""
    return {name: value for name, value in row.items() if name not in ABOUT}


class Results:
    """The table of a run. Rows of metrics.jsonl go in, one for each batch and each test."""

    def __init__(self, path: Path, rows: Iterable[dict]):
        self.path, self.table = path, []
        self._begin()
        for row in rows:
            self._take(row)
        if self.table:
            self._write()

    def add(self, row: dict) -> None:
        """One more row; a test's writes the file. Raises OSError."""
        self._take(row)
        if "test" in row:
            self._write()

    def _begin(self) -> None:
        self.sums: dict[str, float] = {}
        self.images, self.seconds = 0, 0.0

    def _take(self, row: dict) -> None:
        if "test" in row:
            self.table.append(self._result(row))
            self._begin()
            return
        images = row.get("images", 1)  # runs of older versions do not tell: batches count alike
        for name, value in costs_of(row).items():
            self.sums[name] = self.sums.get(name, 0.0) + images * value
        self.images += images
        self.seconds += row["seconds"]

    def _result(self, row: dict) -> dict:
        """The columns of one test by name."""
        found = {name: row[name] for name in ("epoch", "batch", "step")}
        for name, total in self.sums.items():
            found[f"train {name}"] = f"{total / self.images:.6g}"
        for name, value in row["test"].items():
            found[f"test {name}"] = f"{value:.6g}"
        found["seconds"] = round(self.seconds, 3)
        found["images/s"] = f"{self.images / self.seconds:.4g}" if self.seconds else ""
        return found | {name: f"{rate:.6g}" for name, rate in row.get("rates", {}).items()}

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.table for name in row))
        text = io.StringIO(newline="")
        out = csv.DictWriter(text, names, restval="")
        out.writeheader()
        out.writerows(self.table)
        files.replace(self.path, [text.getvalue().encode()])
