"""The training loop: resume, batches, the step, reports, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from ..cli.progress import Progress
from .agree import is_first
from .checkpoint import opened
from .digests import of_tree
from .frozen import place_frozen
from .optimisers import make_optimiser
from .peak import peak_of, step_flops
from .preemption import stopping
from .ranges import check_ranges
from .report import Meter, Report
from .settings import complete, lasting
from .sharding import make_mesh, spread
from .state import TrainState, create_state, shapes_of_state
from .step import make_step, total_loss
from .task import Task


def fit(
    task: Task,
    data: Any,
    config: Any,
    folder: str | Path,
    *,
    mesh: Any = None,
    watch: Callable[[int, TrainState], None] | None = None,
    look: Callable[[int, TrainState], dict[str, Any]] | None = None,
    about: Mapping[str, Any] | None = None,
    room: int = 0,
    quiet: bool = False,
) -> TrainState:
    """Train on the batches of `config.steps` updates, from the newest checkpoint in `folder` on.

    A run that was cut off and goes on is bit-equal to one that was not. SIGTERM, SIGINT or a
    preemption notice saves and returns early: `finished(state, config)` then is False. A batch that
    is skipped counts as a batch, but the updates are fewer then.

    Args:
      data: next() -> this process's part of a batch, state() -> JSON, restore(state).
      config: the trainer's settings (settings.defaults()) and the task's own.
      mesh: from `sharding.make_mesh`; by default made as config.mesh says.
      watch: called with (step, state) at every save and at the end, by every process.
      look: (step, state) -> {name: uint8 [n, h, w, 3]}, asked every `look_every` steps for pictures
        that show what the run can do by now.
      about: what else a run keeps when it goes on, as JSON, such as a digest of its data.
      room: bytes of what the caller writes at the end: a disk without them, and without those of
        a checkpoint, is told before the first step.
    Returns:
      the final state, which is saved too.
    Raises:
      NotFiniteError: `patience` batches in a row were not finite; the checkpoints are good.
      UserError: settings that do not exist or do not fit, a folder of another run or in use, a
        number in a batch outside the task's `limits`.
    """
    config, folder = complete(config), Path(folder)
    mesh = make_mesh(config.mesh) if mesh is None else mesh
    with (
        opened(folder / "checkpoints", config) as checkpoints,
        stopping() as stop,
        Progress(quiet or not is_first()) as progress,
    ):
        progress.stage(task.name)
        run = _Run(task, data, config, mesh, checkpoints, stop, folder, progress)
        return run.go(watch, look, about or {}, room)


def finished(state: TrainState, config: Any) -> bool:
    """Whether a run has seen all its batches, those that were skipped too; else it was cut off."""
    return int(state.step) >= config.steps * config.accumulate


class _Run:
    """One call of fit: what stays the same while the state moves."""

    def __init__(self, task, data, config, mesh, checkpoints, stop, folder, progress):
        self.task, self.data, self.config, self.mesh = task, data, config, mesh
        self.checkpoints, self.stop = checkpoints, stop
        self.folder, self.progress = folder, progress

    def go(self, watch, look, about, room) -> TrainState:
        """Everything from the resume to the last save."""
        self.watch, self.look = watch, look
        parts = (self.task, make_optimiser(self.config), self.config)
        shapes = shapes_of_state(*parts, self.mesh)
        params = place_frozen(self.task, shapes.trained, self.mesh, self.config.compute)
        told = {"task": self.task.name, **lasting(self.config), **about}
        self.same = {**told, "frozen": of_tree(params)}
        state, start = self._begin(shapes, parts)
        if not finished(state, self.config):
            self.checkpoints.check_room(state, room)
        step = make_step(*parts, placed=jax.tree.map(lambda x: x.sharding, shapes))
        self.report = self._reporting(shapes.trained, params)
        try:
            return self._steps(step, state, params, start)
        finally:
            self.report.close()

    def _reporting(self, trained, params) -> Report:
        config = self.config

        def flops():
            return step_flops(total_loss(self.task, config), trained, params, self.batch)

        meter = Meter(
            total=config.steps * config.accumulate,
            examples=lambda: len(jax.tree.leaves(self.batch)[0]),
            devices=self.mesh.size,
            flops=flops,
            peak=peak_of(self.mesh.devices.flat[0]),
        )
        return Report(self.folder, every=config.log_every, patience=config.patience, meter=meter,
                      progress=self.progress)  # fmt: skip

    def _begin(self, shapes, parts) -> tuple[TrainState, int]:
        """The state of the newest checkpoint, or a new one, and its step."""
        found = self.checkpoints.restore(shapes, same=self.same)
        if found is None:
            return create_state(*parts, self.mesh), 0
        state, step, extra = found
        self.data.restore(extra["data"])
        return state, step

    def _steps(self, step, state, params, start) -> TrainState:
        k, total = start, self.config.steps * self.config.accumulate
        while k < total:
            batch = self.data.next()
            check_ranges(batch, self.task.limits, k)
            self.batch = spread(batch, self.mesh)
            state, metrics = step(state, params, self.batch)
            k += 1
            self.report.take(k, metrics)
            if self.stop.requested(k):
                break
            self._between(k, total, state)
        if k > start:
            self._save(k, state)
        return state

    def _between(self, k: int, total: int, state: TrainState) -> None:
        """What is due after step k but not at the end."""
        config = self.config
        if k % config.save_every == 0 and k < total and not self.report.flush():
            self._save(k, state)  # never while a run goes wrong
        if self.look and config.look_every and k % config.look_every == 0:
            self.report.show(k, self.look(k, state))

    def _save(self, k: int, state: TrainState) -> None:
        self.report.flush()
        extra = {**self.same, "data": self.data.state()}
        self.checkpoints.save(k, state, extra, score=self.report.score())
        if self.watch:
            self.watch(k, state)
