"""What a run says of itself: a CSV file always; a bar unless quiet; TensorBoard where it is."""

from __future__ import annotations

import collections
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import NotFiniteError
from .agree import is_first

_LAG = 2  # steps after which numbers are read, so that the device never waits for the host


class Report:
    """Takes the metrics of every step, writes each `every`-th, and ends a run that has gone wrong.

    Columns of log.csv: step, step_time in seconds, images_per_second of one device, mfu (model
    FLOPs over what the devices could do; empty where their peak is not known), and the metrics.

    Args:
      folder: gets log.csv, pictures/, and tensorboard/ if tensorboardX is installed.
      every: steps between lines.
      patience: batches in a row with NaN or infinity after which NotFiniteError is raised.
      meter: what a step is worth.
      progress: a `cli.progress.Progress`, or None to say nothing.
    """

    def __init__(self, folder: Path, *, every: int, patience: int, meter: Meter, progress=None):
        self._folder, self._every, self._patience = folder, every, patience
        self._meter, self._progress = meter, progress if is_first() else None
        self._table = _Table(folder / "log.csv") if is_first() else None
        self._board = _board(folder / "tensorboard") if is_first() else None
        self._waiting: collections.deque = collections.deque()
        self._streak, self._losses = 0, []

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

    def score(self) -> float | None:
        """The mean loss of the steps since the last call, as far as it was finite."""
        finite = [loss for loss in self._losses if np.isfinite(loss)]
        self._losses = []
        return float(np.mean(finite)) if finite else None

    def show(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Write uint8 pictures [n, h, w, 3] by name, side by side."""
        if not is_first():
            return
        from ..images import write

        for name, several in pictures.items():
            beside = np.concatenate(list(np.asarray(several)), axis=1)
            place = self._folder / "pictures" / f"{name}-{step:06d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            write(place, beside)
            if self._board:
                self._board.add_image(name, beside, step, dataformats="HWC")

    def close(self) -> None:
        """Let go of the files."""
        if self._board:
            self._board.close()

    def _read(self, step, metrics):
        self._streak = int(metrics["streak"])  # waits for the device
        self._losses.append(float(metrics["loss"]))
        self._meter.tick(step)
        if self._progress:
            self._progress.step(step, self._meter.total)
        if step % self._every == 0:
            self._write(step, {name: float(value) for name, value in metrics.items()})
        if self._streak >= self._patience:
            raise NotFiniteError(
                f"loss or gradient was not finite in {self._streak} batches in a row, the last at "
                f"step {step}; lower rate, or look at the data; what was saved before is untouched"
            )

    def _write(self, step, metrics):
        row = {**self._meter.read(), **metrics}
        if self._table:
            self._table.add({"step": step, **row})
        if self._board:
            for name, value in row.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)
        if self._progress:
            shown = {"step": step, **{k: v for k, v in row.items() if v is not None}}
            self._progress.note("  ".join(f"{k} {v:.4g}" for k, v in shown.items()))


class Meter:
    """Times steps: tick(step) when one is done, read() since the last read.

    Args:
      total: steps of the whole run.
      examples: () -> examples of one step, over all devices.
      devices: how many.
      flops: () -> model FLOPs of one step; asked once, and only if `peak` is known.
      peak: FLOP/s of one device, or None.
    """

    def __init__(
        self,
        *,
        total: int,
        examples: Callable[[], int],
        devices: int,
        flops: Callable[[], int],
        peak: float | None,
    ):
        self.total, self._examples, self._devices = total, examples, devices
        self._flops, self._peak, self._work = flops, peak, None
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def tick(self, step: int) -> None:
        """A step is done. The first one, which compiles, only starts the clock."""
        self._last = (step, time.monotonic())
        self._first = self._first or self._last

    def read(self) -> dict[str, float | None]:
        """{step_time, images_per_second of one device, mfu}, None for what is not known."""
        steps, seconds = (b - a for a, b in zip(self._first, self._last, strict=True))
        self._first = self._last
        if not steps or not seconds:
            return {"step_time": None, "images_per_second": None, "mfu": None}
        pace = seconds / steps
        speed = self._examples() / pace / self._devices
        return {"step_time": pace, "images_per_second": speed, "mfu": self._use(pace)}

    def _use(self, pace):
        if self._peak is None:
            return None
        self._work = self._flops() if self._work is None else self._work
        return self._work / pace / (self._devices * self._peak)


class _Table:
    """A CSV file whose first line, once written, decides its columns."""

    def __init__(self, path: Path):
        self._path = path

    def add(self, row: dict) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        names = self._names()
        with self._path.open("a", newline="") as handle:
            if not names:
                csv.writer(handle).writerow(names := list(row))
            writer = csv.DictWriter(handle, names, restval="", extrasaction="ignore")
            writer.writerow({k: "" if v is None else v for k, v in row.items()})

    def _names(self) -> list[str]:
        if not self._path.exists():
            return []
        with self._path.open(newline="") as handle:
            return next(csv.reader(handle), [])


def _board(folder: Path):
    """A writer of TensorBoard's files, or None where tensorboardX is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
