"""What a run says of itself: a CSV file always, a bar on a terminal unless quiet."""

from __future__ import annotations

import collections
import csv
import time
from pathlib import Path
from typing import Any

import jax

from ..errors import NotFiniteError

_LAG = 2  # steps after which numbers are read, so that the device never waits for the host


class Report:
    """Takes the metrics of every step, writes each `every`-th, and ends a run that has gone wrong.

    Args:
      folder: gets log.csv; lines are appended when a run goes on.
      every: steps between lines.
      patience: batches in a row with NaN or infinity after which NotFiniteError is raised.
      quiet: nothing is printed.
    """

    def __init__(self, folder: Path, *, every: int, patience: int, quiet: bool):
        self._every, self._patience, self._quiet = every, patience, quiet
        self._table = _Table(folder / "log.csv") if jax.process_index() == 0 else None
        self._waiting: collections.deque = collections.deque()
        self._time, self._streak = time.monotonic(), 0

    def take(self, step: int, metrics: dict[str, Any]) -> None:
        """The metrics of a step, still on the device.

        Raises:
          NotFiniteError: too many batches in a row were not finite.
        """
        self._waiting.append((step, metrics))
        while len(self._waiting) > _LAG:
            self._read(*self._waiting.popleft())

    def flush(self) -> int:
        """Read what is still waiting: how many batches in a row were not finite up to now.

        Raises as `take` does.
        """
        while self._waiting:
            self._read(*self._waiting.popleft())
        return self._streak

    def _read(self, step, metrics):
        self._streak = streak = int(metrics["streak"])
        if step % self._every == 0:
            self._write(step, {name: float(value) for name, value in metrics.items()})
        if streak >= self._patience:
            raise NotFiniteError(
                f"loss or gradient was not finite in {streak} batches in a row, the last at step "
                f"{step}; lower rate, or look at the data; what was saved before is untouched"
            )

    def _write(self, step, row):
        now = time.monotonic()
        row = {"step": step, "rate": self._every / max(now - self._time, 1e-9), **row}
        self._time = now
        if self._table:
            self._table.add(row)
            if not self._quiet:
                print("  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)


class _Table:
    """A CSV file whose first line, once written, decides its columns."""

    def __init__(self, path: Path):
        self._path = path

    def add(self, row: dict) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = not self._path.exists()
        names = list(row) if new else next(csv.reader(self._path.open(newline="")), list(row))
        with self._path.open("a", newline="") as handle:
            writer = csv.DictWriter(handle, names, restval="", extrasaction="ignore")
            if new:
                writer.writeheader()
            writer.writerow(row)
