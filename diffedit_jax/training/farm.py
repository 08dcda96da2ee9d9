"""Many concepts trained at once: one compiled step, mapped over concepts, spread over the mesh.

Every concept has its own key, optimiser, clipping, average and skipped batches, so that a concept
that diverges disturbs no other, and each run equals the one that it would have been alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ..cli.progress import Progress
from ..errors import UserError
from .agree import is_first
from .checkpoint import Checkpoints
from .digests import of_tree
from .optimisers import make_optimiser
from .peak import peak_of, step_flops
from .preemption import stopping
from .ranges import check_ranges
from .report import Meter, Report
from .settings import complete, lasting
from .sharding import ROWS, make_mesh
from .state import TrainState, maker
from .step import make_step, total_loss
from .task import Task
from .tree import shapes_of


def farm_state(tasks: Sequence[Task], config: Any) -> TrainState:
    """The states of all concepts at step 0, stacked: leaves [concepts, ...].

    Concept i is the run that `create_state` begins with seed config.seed + i.
    """
    optimiser = make_optimiser(config)
    states = [
        maker(task, optimiser, config)(task.params, jax.random.PRNGKey(config.seed + i))
        for i, task in enumerate(tasks)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def farm_step(task: Task, config: Any, mesh: Any) -> Any:
    """step(states, params, batches) -> (states, metrics [concepts]), concepts over data and fsdp.

    Batches: leaves [concepts, n, ...]. The states' buffers are donated.
    """
    one = make_step(task, make_optimiser(config), config)
    spread = NamedSharding(mesh, ROWS)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        jax.vmap(one, in_axes=(0, None, 0)),
        in_shardings=(spread, whole, spread),
        out_shardings=spread,
        donate_argnums=0,
    )


def train_farm(
    tasks: Sequence[Task],
    data: Sequence[Any],
    config: Any,
    folder: str | Path,
    *,
    mesh: Any = None,
    watch: Any = None,
    quiet: bool = False,
) -> TrainState:
    """Train N concepts to `config.steps` updates; goes on from the newest checkpoint in `folder`.

    log.csv has means over the concepts; a run ends for batches that are not finite only when
    those of every concept are.

    Args:
      tasks: one per concept; they share parameters, objective and condition, and differ in where
        their selection starts.
      data: one per concept, as `fit` takes it; batches of equal shapes.
      mesh: N must divide by its data times fsdp.
      watch: called with (step, states, metrics) at every save and at the end.
    Returns: the stacked states; state i is what `fit` would give for concept i.
    Raises: UserError for concepts that do not divide by the mesh, a folder of another run, a number
      in a batch outside the task's limits; NotFiniteError.
    """
    config, folder = complete(config), Path(folder)
    mesh = make_mesh(config.mesh) if mesh is None else mesh
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if len(tasks) % ways:
        raise UserError(f"{len(tasks)} concepts do not divide by the {ways} parts of the mesh")
    keep = dict(keep_last=config.keep_last, keep_best=config.keep_best, fallback=config.fallback)
    with (
        Checkpoints(folder / "checkpoints", **keep) as checkpoints,
        stopping() as stop,
        Progress(quiet or not is_first()) as progress,
    ):
        progress.stage(f"{len(tasks)} concepts")
        return _Farm(tasks, data, config, mesh, checkpoints, stop).go(folder, progress, watch)


class _Farm:
    """One call of train_farm: what stays the same while the states move."""

    def __init__(self, tasks, data, config, mesh, checkpoints, stop):
        self.tasks, self.data, self.config, self.mesh = tasks, data, config, mesh
        self.checkpoints, self.stop = checkpoints, stop
        self.place = NamedSharding(mesh, ROWS)
        self.total = config.steps * config.accumulate

    def go(self, folder, progress, watch) -> TrainState:
        """Everything from the resume to the last save."""
        params = self.tasks[0].params
        same = {"task": self.tasks[0].name, "concepts": len(self.tasks), **lasting(self.config)}
        self.same = {**same, "frozen": of_tree(params)}
        states = jax.device_put(farm_state(self.tasks, self.config), self.place)
        k, states = self._resumed(states)
        step = farm_step(self.tasks[0], self.config, self.mesh)
        report = self._reporting(folder, progress, states)
        try:
            while k < self.total and not self.stop.requested(k):
                self.batches = jax.device_put(self._next(k), self.place)
                states, metrics = step(states, params, self.batches)
                k += 1
                report.take(k, _over_concepts(metrics))
                if k % self.config.save_every == 0 or k == self.total:
                    report.flush()
                    self._save(k, states, report.score(), metrics, watch)
            return states
        finally:
            report.close()

    def _save(self, k, states, score, metrics, watch):
        extra = {"data": [each.state() for each in self.data], **self.same}
        self.checkpoints.save(k, states, extra, score=score)
        if watch:
            watch(k, states, jax.device_get(metrics))

    def _resumed(self, states):
        found = self.checkpoints.restore(shapes_of(states), same=self.same)
        if found is None:
            return 0, states
        states, k, extra = found
        for each, where in zip(self.data, extra["data"], strict=True):
            each.restore(where)
        return k, states

    def _next(self, k) -> dict[str, np.ndarray]:
        """The next batch of every concept: leaves [concepts, n, ...]."""
        batches = [each.next() for each in self.data]
        for batch in batches:
            check_ranges(batch, self.tasks[0].limits, k)
        return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)

    def _reporting(self, folder, progress, states) -> Report:
        task, trained = self.tasks[0], concept(states, 0).trained

        def flops():
            first = jax.tree.map(lambda x: x[0], self.batches)
            one = step_flops(total_loss(task, self.config), trained, task.params, first)
            return one * len(self.tasks)

        meter = Meter(
            total=self.total,
            examples=lambda: int(np.prod(jax.tree.leaves(self.batches)[0].shape[:2])),
            devices=self.mesh.size,
            flops=flops,
            peak=peak_of(self.mesh.devices.flat[0]),
        )
        every, patience = self.config.log_every, self.config.patience
        return Report(folder, every=every, patience=patience, meter=meter, progress=progress)


def _over_concepts(metrics: dict[str, Any]) -> dict[str, Any]:
    """Means over the concepts whose numbers are finite; of the streaks, the shortest."""
    finite = {name: jnp.where(jnp.isfinite(x), x, jnp.nan) for name, x in metrics.items()}
    means = {name: jnp.nanmean(x) for name, x in finite.items()}
    return {**means, "streak": metrics["streak"].min()}


def concept(states: TrainState, index: int) -> TrainState:
    """The state of one concept."""
    return jax.tree.map(lambda leaf: leaf[index], states)
