"""The training loop: resume, batches, the step, reports, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from .checkpoint import Checkpoints
from .digests import of_tree
from .frozen import place_frozen
from .optimisers import make_optimiser
from .preemption import stopping
from .report import Report
from .settings import complete, lasting
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

    A run that was cut off and goes on is bit-equal to one that was not. SIGTERM, SIGINT or a
    preemption notice saves and returns early: state.updates then is less than config.steps.

    Args:
      data: next() -> this process's part of a batch, state() -> JSON, restore(state).
      config: the trainer's settings (settings.defaults()) and the task's own.
      mesh: from `sharding.make_mesh`; by default made as config.mesh says.
      watch: called with (step, state) at every save and at the end.
    Returns:
      the final state, which is saved too.
    Raises:
      NotFiniteError: `patience` batches in a row were not finite; the checkpoints are good.
      UserError: settings that do not exist or do not fit, a folder of another run or in use.
    """
    config, folder = complete(config), Path(folder)
    mesh = make_mesh(config.mesh) if mesh is None else mesh
    report = Report(folder, every=config.log_every, patience=config.patience, quiet=quiet)
    keep = dict(keep_last=config.keep_last, keep_best=config.keep_best, fallback=config.fallback)
    with Checkpoints(folder / "checkpoints", **keep) as checkpoints, stopping() as stop:
        return _Run(task, data, config, mesh, checkpoints, report, stop, watch).go()


class _Run:
    """One call of fit: what stays the same while the state moves."""

    def __init__(self, task, data, config, mesh, checkpoints, report, stop, watch):
        self.task, self.data, self.config, self.mesh = task, data, config, mesh
        self.checkpoints, self.report, self.stop, self.watch = checkpoints, report, stop, watch

    def go(self) -> TrainState:
        """Everything from the resume to the last save."""
        about = (self.task, make_optimiser(self.config), self.config)
        shapes = shapes_of_state(*about, self.mesh)
        params = place_frozen(self.task, shapes.trained, self.mesh, self.config.compute)
        self.same = {"task": self.task.name, **lasting(self.config), "frozen": of_tree(params)}
        state, start = self._begin(shapes, about)
        step = make_step(*about, placed=jax.tree.map(lambda x: x.sharding, shapes))
        return self._steps(step, state, params, start)

    def _begin(self, shapes, about) -> tuple[TrainState, int]:
        """The state of the newest checkpoint, or a new one, and its step."""
        found = self.checkpoints.restore(shapes, same=self.same)
        if found is None:
            return create_state(*about, self.mesh), 0
        state, step, extra = found
        self.data.restore(extra["data"])
        return state, step

    def _steps(self, step, state, params, start) -> TrainState:
        k, total = start, self.config.steps * self.config.accumulate
        while k < total:
            batch = spread(self.data.next(), self.mesh)
            state, metrics = step(state, params, batch)
            k += 1
            self.report.take(k, metrics)
            if self.stop.requested(k):
                break
            if k % self.config.save_every == 0 and k < total and not self.report.flush():
                self._save(k, state)  # never while a run goes wrong
        if k > start:
            self._save(k, state)
        return state

    def _save(self, k: int, state: TrainState) -> None:
        self.report.flush()
        self.checkpoints.save(k, state, {**self.same, "data": self.data.state()})
        if self.watch:
            self.watch(k, state)
