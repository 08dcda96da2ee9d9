"""The training loop: resume, batches, the step, reports, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from .checkpoint import Checkpoints
from .frozen import place_frozen
from .optimisers import make_optimiser
from .report import Report
from .settings import complete
from .sharding import make_mesh, spread
from .state import TrainState, create_state, shapes_of_state
from .step import make_step
from .task import Task


def fit(
    task: Task,
    data: Any,
    config: Any,
    folder: str | Path,
    *,
    mesh: Any = None,
    watch: Callable[[int, TrainState], None] | None = None,
    quiet: bool = False,
) -> TrainState:
    """Train to `config.steps` updates, going on from the newest checkpoint in `folder`.

    A run that was cut off and goes on is bit-equal to one that was not.

    Args:
      data: next() -> this process's part of a batch, state() -> JSON, restore(state).
      config: the trainer's settings (settings.defaults()) and the task's own.
      mesh: from `sharding.make_mesh`; by default made as config.mesh says.
      watch: called with (step, state) at every save and at the end.
    Returns:
      the final state, which is saved too.
    Raises:
      NotFiniteError: `patience` batches in a row were not finite; the checkpoints are good.
    """
    config, folder = complete(config), Path(folder)
    mesh = make_mesh(config.mesh) if mesh is None else mesh
    checkpoints = Checkpoints(folder / "checkpoints", keep_last=config.keep_last)
    report = Report(folder, every=config.log_every, patience=config.patience, quiet=quiet)
    try:
        return _Run(task, data, config, mesh, checkpoints, report, watch).go()
    finally:
        checkpoints.close()


class _Run:
    """One call of fit: what stays the same while the state moves."""

    def __init__(self, task, data, config, mesh, checkpoints, report, watch):
        self.task, self.data, self.config, self.mesh = task, data, config, mesh
        self.checkpoints, self.report, self.watch = checkpoints, report, watch

    def go(self) -> TrainState:
        """Everything from the resume to the last save."""
        optimiser = make_optimiser(self.config)
        state, start = self._begin(optimiser)
        placed = jax.tree.map(lambda x: x.sharding, state)
        step = make_step(self.task, optimiser, self.config, placed=placed)
        params = place_frozen(self.task, state.trained, self.mesh, self.config.compute)
        k, total = start, self.config.steps * self.config.accumulate
        while k < total:
            batch = spread(self.data.next(), self.mesh)
            state, metrics = step(state, params, batch)
            k += 1
            self.report.take(k, metrics)
            if k % self.config.save_every == 0 and k < total and not self.report.flush():
                self._save(k, state)  # never while a run goes wrong
        if k > start:
            self._save(k, state)
        return state

    def _begin(self, optimiser) -> tuple[TrainState, int]:
        """The state of the newest checkpoint, or a new one, and its step."""
        about = (self.task, optimiser, self.config, self.mesh)
        found = self.checkpoints.restore(shapes_of_state(*about))
        if found is None:
            return create_state(*about), 0
        state, step, extra = found
        self.data.restore(extra["data"])
        return state, step

    def _save(self, k: int, state: TrainState) -> None:
        self.report.flush()
        self.checkpoints.save(k, state, {"task": self.task.name, "data": self.data.state()})
        if self.watch:
            self.watch(k, state)
