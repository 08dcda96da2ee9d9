"""What is said while a command works: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

_PATIENCE = 2.0  # seconds before anything is said
_EVERY = 10.0  # seconds between lines where there is no terminal


class Progress:
    """Says what is going on, and how long it still takes; silent if `quiet`.

    Example: `with Progress(quiet=False) as progress: progress.stage("loading the model")`.
    """

    def __init__(self, quiet: bool):
        self._quiet = quiet
        self._bar = None
        self._task = None
        self._label = ""
        self._began = self._said = time.monotonic()

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            self._bar = _rich_bar()
            self._task = self._bar.add_task("starting", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def stage(self, label: str) -> None:
        """Names what is being done; the bar has no length until `step` is called."""
        self._label = label
        self._began = time.monotonic()
        if self._bar is not None:
            self._bar.reset(self._task, description=label, total=None)

    def step(self, done: int, total: int) -> None:
        """One more step of the current stage is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif not self._quiet:
            self._line(done, total)

    def note(self, text: str) -> None:
        """One line that stays, unless quiet."""
        if self._bar is not None:
            self._bar.console.print(f"diffedit: {text}", markup=False, highlight=False)
        elif not self._quiet:
            print(f"diffedit: {text}", file=sys.stderr)

    def _line(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 1:  # what came before was compiling
            self._began = now
        if now - self._began < _PATIENCE or now - self._said < _EVERY or done == total:
            return
        self._said = now
        left = (now - self._began) / (done - 1) * (total - done)
        self.note(f"{self._label}: step {done} of {total}, {left:.0f} s left")


class Preview:
    """Writes OUT.step-NNN.png while a run goes on.

    Args:
      target: the file that the run will write.
      every: steps between pictures; 0 makes about eight a run.
    """

    def __init__(self, target: Path, every: int):
        self._target, self._every = target, every

    def __call__(self, done: int, total: int, look) -> None:
        every = self._every or max(1, total // 8)
        if look is None or done % every or done == total:
            return
        from ..images import write

        beside = np.concatenate(list(np.asarray(look())), axis=1)
        name = f"{self._target.stem}.step-{done:03d}.png"
        write(self._target.with_name(name), beside)


def _rich_bar():
    from rich import progress
    from rich.console import Console

    columns = (
        *(progress.SpinnerColumn(), progress.TextColumn("{task.description}")),
        *(progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn()),
    )
    return progress.Progress(*columns, console=Console(stderr=True), transient=True)
