"""results.csv of a run: one row a test, with the means of the training since the test before it.

For spreadsheets. All that is in it comes from metrics.jsonl: it is made from that file when a run
begins or goes on, and replaced as a whole at each test, so it is never ahead of it nor torn.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from convnet.cfg import CfgError

if TYPE_CHECKING:
    from convnet.graph import Graph

ABOUT = {"step", "epoch", "batch", "batches", "progress", "size", "images", "seconds",
         "images_per_s"}  # fmt: skip
FIELDS = ABOUT | {"test", "rates"}
LARGEST = 1 << 53  # of whole numbers: as far as floats tell them apart
LARGEST_COST = 1e100  # of a batch, far above float32: sums of them stay finite


def check_names(graph: "Graph") -> None:
    """CfgError where a cost has the name of another field of metrics.jsonl."""
    costs = [graph.by_name[name] for name in graph.costs]
    fields = FIELDS | {f"{cost.name}.{kind}" for cost in costs for kind in [*cost.values][1:]}
    why = "metrics.jsonl has a field of this name; a cost needs another"
    if taken := [cost.section.wrong(why) for cost in costs if cost.name in fields]:
        raise CfgError(taken)


def costs_of(row: dict) -> dict[str, float]:
    """The values of the costs of a batch, given its row of metrics.jsonl."""
    return {name: value for name, value in row.items() if name not in ABOUT}


def row_of(line: bytes) -> dict:
    """A line of metrics.jsonl. ValueError where it tells of no batch and no test of a run."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    values = row.get("test", costs_of(row)) if isinstance(row, dict) else None
    if not isinstance(values, dict) or not values:
        raise ValueError("tells of no costs")
    rates = row.get("rates", {})
    if not isinstance(rates, dict):
        raise ValueError("has rates that are none")
    finite = [*rates.values(), row.get("seconds", 0), row.get("images", 1)]
    finite += [] if "test" in row else values.values()  # a test may overflow, training ends then
    numbers = all(map(_is_number, (*finite, *values.values())))
    if not numbers or not all(abs(n) < LARGEST_COST for n in finite):
        raise ValueError("has what is no number")
    if row.get("images", 1) < 1 or row.get("seconds", 0) < 0:
        raise ValueError("is of no images, or of no time")
    at = [*(row.get(k) for k in ("step", "epoch", "batch")), row.get("batches", 1)]
    if not all(type(n) is int and 1 <= n < LARGEST for n in at):
        raise ValueError("does not say where it is")
    return row


def _is_number(n: Any) -> bool:
    return type(n) is float or (type(n) is int and abs(n) < LARGEST)


def lines_of(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes, dict | str]]:
    """(number, line, its row or why it is none) of each line of a metrics.jsonl.

    A last line that is cut short, as a crash leaves it, is left out.
    """
    for number, line in enumerate(lines, 1):
        if line.endswith(b"\n"):
            try:
                row = row_of(line)
            except ValueError as e:
                row = str(e)
            yield number, line, row


class Table:
    """The tests of a run, given the rows of its metrics.jsonl: one for each batch and each test."""

    def __init__(self, rows: Iterable[dict] = ()):
        self.rows: list[dict] = []
        self._begin()
        for row in rows:
            self.add(row)

    def add(self, row: dict) -> None:
        """One more row of metrics.jsonl."""
        if "test" in row:
            self.rows.append(self._tested(row))
            self._begin()
            return
        images = row.get("images", 1)  # runs of older versions do not tell: batches count alike
        for name, value in costs_of(row).items():
            self.sums[name] = self.sums.get(name, 0.0) + images * value
        self.images += images
        self.seconds += row.get("seconds", 0)
        self.told = self.told and "images" in row

    def _begin(self) -> None:
        self.sums: dict[str, float] = {}
        self.images, self.seconds, self.told = 0, 0.0, True

    def _tested(self, row: dict) -> dict:
        """The columns of one test by name."""
        found = {name: row[name] for name in ("epoch", "batch", "step")}
        for name, total in self.sums.items():
            found[f"train {name}"] = f"{total / self.images:.6g}"
        for name, value in row["test"].items():
            found[f"test {name}"] = f"{value:.6g}"
        found["seconds"] = round(self.seconds, 3)
        if self.seconds and self.told:
            found["images/s"] = f"{self.images / self.seconds:.4g}"
        return found | {name: f"{rate:.6g}" for name, rate in row.get("rates", {}).items()}

    @property
    def columns(self) -> list[str]:
        """The names of all columns."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def csv(self) -> bytes:
        """The file."""
        text = io.StringIO(newline="")
        out = csv.DictWriter(text, self.columns, restval="")
        out.writeheader()
        out.writerows(self.rows)
        return text.getvalue().encode()
