"""Tells how a run goes: to a person a bar or lines, to programs metrics.jsonl and what follows it.

That is results.csv (convnet/results.py) and, where it is asked for, event files of TensorBoard
(convnet/board.py).
"""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convnet import files
from convnet.board import Board
from convnet.checkpoint import CheckpointError
from convnet.results import Table, lines_of
from convnet.sgd import rates_at

if TYPE_CHECKING:
    from convnet.train import Run


class Report:
    """Tells a person (bar or lines) and programs (files in the run's folder) how a run goes."""

    def __init__(self, run: "Run"):
        self.run = run
        self.path = run.folder / "metrics.jsonl"
        self.last_test: dict[str, np.ndarray] = {}
        self.notes: list[str] = []
        self.table = Table()
        if self.path.exists():
            with self._disk(self.path), self.path.open("rb") as file:
                files.replace(self.path, self._past(file))
        self._write_table()
        with self._disk(self.path):
            self.file = self.path.open("ab", buffering=0)
        self.board = Board(run.folder, run.net) if run.plan.tensorboard else None
        self.bar = self._bar() if sys.stderr.isatty() else None

    def _past(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that stay after a resume: those of batches that will not be trained again."""
        none, now = [], self.run.net.step
        for number, line, row in lines_of(lines):
            if isinstance(row, str):
                none.append(f"{self.path}:{number}: {row}, so is no row of a run; taken out")
            elif row["step"] <= now:
                self.table.add(row)
                yield line
        more = f", and {len(none) - 1} more of the kind" if len(none) > 1 else ""
        self.notes += [f"{line}{more}" for line in none[:1]]

    @contextlib.contextmanager
    def _disk(self, path: Path) -> Iterator[None]:
        """What the disk refuses, in one line."""
        try:
            yield
        except OSError as e:
            raise CheckpointError(f"{path}: {files.advice(e)}") from None

    def _bar(self):
        from tqdm import tqdm

        run = self.run
        total = run.plan.epochs * run.provider.train.size
        done = round(run.progress * total)
        return tqdm(total=total, initial=done, unit="img", smoothing=0.1, dynamic_ncols=True)

    def batch(self, values: dict[str, np.ndarray], cases: int, seconds: float, size: int) -> None:
        """One batch is trained, of images of this side."""
        speed = {"seconds": round(seconds, 4), "images_per_s": round(cases / seconds, 2)}
        done = {"progress": round(self.run.progress, 6), "size": size, "images": cases}
        self._write({**done, **speed, **self._flat(values)})
        at, done = self.run.at, self.run.progress
        if self.bar is None:
            self.say(f"{at.epoch}.{at.batch} ({done:.2%})... {self._text(values)} "
                     f"({seconds:.3f} sec)")  # fmt: skip
            return
        shown = ", ".join(f"{name} {v:.4f}" for name, v in self._flat(values).items())
        self.bar.set_description_str(f"epoch {at.epoch}/{self.run.plan.epochs}", refresh=False)
        self.bar.set_postfix_str(shown, refresh=False)
        self.bar.update(cases)

    def test(self, values: dict[str, np.ndarray]) -> None:
        """The test images were run."""
        self.last_test = values
        rates = rates_at(self.run.net.graph, self.run.progress)
        self._write({"test": self._flat(values), "rates": rates})
        self.say(f"test output after {self.run.at.epoch}.{self.run.at.batch}: {self._text(values)}")

    def saved(self, path: Path) -> None:
        """A checkpoint was written."""
        self.say(f"saved {path}")

    def say(self, line: str) -> None:
        """A line above the bar, or just a line."""
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """The run is over."""
        self.file.close()
        if self.board:
            self.board.close()
        if self.bar is not None:
            self.bar.close()

    def _text(self, values: dict[str, np.ndarray]) -> str:
        return "  ".join(
            f"{cost}:  " + ", ".join(f"{v:f}" for v in row) for cost, row in values.items()
        )

    def _flat(self, values: dict[str, np.ndarray]) -> dict[str, float]:
        """{"logprob": ..., "logprob.error": ...}: the cost by its name, the rest behind a dot."""
        flat = {}
        for cost, row in values.items():
            for i, (kind, v) in enumerate(zip(self.run.kinds[cost], row)):
                flat[f"{cost}.{kind}" if i else cost] = float(v)
        return flat

    def _write(self, row: dict) -> None:
        at = self.run.at
        where = {"step": self.run.net.step, "epoch": at.epoch, "batch": at.batch}
        row = {**where, "batches": self.run.batches, **row}
        with self._disk(self.path):
            self.file.write(json.dumps(row).encode() + b"\n")
        self.table.add(row)
        if "test" in row:
            self._write_table()
        if self.board:
            with self._disk(self.run.folder):
                self.board.add(row)

    def _write_table(self) -> None:
        path = self.run.folder / "results.csv"
        if self.table.rows:
            with self._disk(path):
                files.replace(path, [self.table.csv()])
