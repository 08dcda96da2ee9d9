"""Many concepts trained at once: one compiled step, mapped over concepts, spread over the mesh.

Every concept has its own key, optimiser, clipping, average and skipped batches, so that a concept
that diverges disturbs no other, and each run equals the one that it would have been alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ..cli.progress import Progress
from ..errors import UserError
from .agree import is_first, on_host
from .checkpoint import opened
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
    about: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> TrainState:
    """Train N concepts on the batches of `config.steps` updates, from the newest checkpoint on.

    As `fit`, it saves and returns early when it is told to stop. log.csv has means over the
    concepts; a run ends for batches that are not finite only when those of every concept are.

    Args:
      tasks: one per concept; they share parameters, objective and condition, and differ in where
        their selection starts.
      data: one per concept, as `fit` takes it; batches of equal shapes.
      mesh: N must divide by its data times fsdp.
      watch: called with (step, states, metrics) at every save and at the end, by every process;
        the metrics are on the host.
      about: what else the concepts keep when the run goes on, as JSON.
    Returns: the stacked states; state i is what `fit` would give for concept i.
    Raises: UserError for concepts that do not divide by the mesh, a folder of another run, a number
      in a batch outside the task's limits; NotFiniteError.
    """
    config, folder = complete(config), Path(folder)
    mesh = make_mesh(config.mesh) if mesh is None else mesh
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if len(tasks) % ways:
        raise UserError(f"{len(tasks)} concepts do not divide by the {ways} parts of the mesh")
    with (
        opened(folder / "checkpoints", config) as checkpoints,
        stopping() as stop,
        Progress(quiet or not is_first()) as progress,
    ):
        progress.stage(f"{len(tasks)} concepts")
        run = _Farm(tasks, data, config, mesh, checkpoints, stop, watch)
        return run.go(folder, progress, about or {})


class _Farm:
    """One call of train_farm: what stays the same while the states move."""

    def __init__(self, tasks, data, config, mesh, checkpoints, stop, watch):
        self.tasks, self.data, self.config, self.mesh = tasks, data, config, mesh
        self.checkpoints, self.stop, self.watch = checkpoints, stop, watch
        self.place = NamedSharding(mesh, ROWS)
        self.total = config.steps * config.accumulate

    def go(self, folder, progress, about) -> TrainState:
        """Everything from the resume to the last save."""
        task = self.tasks[0]
        same = {"task": task.name, "concepts": len(self.tasks), **lasting(self.config), **about}
        self.same = {**same, "frozen": of_tree(task.params)}
        params = jax.device_put(task.params, NamedSharding(self.mesh, PartitionSpec()))
        states = jax.device_put(farm_state(self.tasks, self.config), self.place)
        start, states = self._resumed(states)
        if start < self.total:
            self.checkpoints.check_room(states)
        self.report = self._reporting(folder, progress, states)
        try:
            return self._steps(states, params, start)
        finally:
            self.report.close()

    def _steps(self, states, params, start) -> TrainState:
        k, step = start, farm_step(self.tasks[0], self.config, self.mesh)
        while k < self.total:
            self.batches = jax.tree.map(self._spread, self._next(k))
            states, metrics = step(states, params, self.batches)
            k += 1
            self.report.take(k, _over_concepts(metrics))
            if self.stop.requested(k):
                break
            if k % self.config.save_every == 0 and k < self.total:
                self._save(k, states, metrics)
        if k > start:
            self._save(k, states, metrics)
        return states

    def _spread(self, x) -> jax.Array:
        """Concepts over data and fsdp; every process has made the batches of all."""
        return jax.make_array_from_callback(x.shape, self.place, lambda part: x[part])

    def _save(self, k, states, metrics):
        self.report.flush()
        extra = {"data": [each.state() for each in self.data], **self.same}
        self.checkpoints.save(k, states, extra, score=self.report.score())
        if self.watch:
            self.watch(k, states, on_host(metrics))

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
        task, trained = self.tasks[0], concept(shapes_of(states.trained), 0)

        def flops():
            first = concept(shapes_of(self.batches), 0)
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


def concept(stacked: Any, index: int) -> Any:
    """What one concept has of a tree of stacked arrays, or of their shapes."""
    return jax.tree.map(lambda leaf: _taken(leaf, index), stacked)


def _taken(leaf, index):
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    return leaf[index]
