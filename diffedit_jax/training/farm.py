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

from ..errors import UserError
from .checkpoint import Checkpoints
from .optimisers import make_optimiser
from .preemption import stopping
from .settings import complete
from .sharding import ROWS, make_mesh
from .state import TrainState, maker
from .step import make_step
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
) -> TrainState:
    """Train N concepts to `config.steps` updates; goes on from the newest checkpoint in `folder`.

    Args:
      tasks: one per concept; they share parameters, objective and condition, and differ in where
        their selection starts.
      data: one per concept, as `fit` takes it; batches of equal shapes.
      mesh: N must divide by its data times fsdp.
      watch: called with (step, states, metrics) at every save and at the end.
    Returns: the stacked states; state i is what `fit` would give for concept i.
    Raises: UserError for concepts that do not divide by the mesh.
    """
    config = complete(config)
    mesh = make_mesh(config.mesh) if mesh is None else mesh
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if len(tasks) % ways:
        raise UserError(f"{len(tasks)} concepts do not divide by the {ways} parts of the mesh")
    place = NamedSharding(mesh, ROWS)
    states = jax.device_put(farm_state(tasks, config), place)
    step, total = farm_step(tasks[0], config, mesh), config.steps * config.accumulate
    with Checkpoints(Path(folder) / "checkpoints", keep_last=config.keep_last) as checkpoints:
        k, states = _resumed(checkpoints, states, data)
        with stopping() as stop:
            while k < total and not stop.requested(k):
                batches = jax.device_put(_stacked(data), place)
                states, metrics = step(states, tasks[0].params, batches)
                k += 1
                if k % config.save_every == 0 or k == total:
                    checkpoints.save(k, states, {"data": [each.state() for each in data]})
                    if watch:
                        watch(k, states, jax.device_get(metrics))
    return states


def _stacked(data: Sequence[Any]) -> dict[str, np.ndarray]:
    """The next batch of every concept: leaves [concepts, n, ...]."""
    batches = [each.next() for each in data]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def _resumed(checkpoints, states, data):
    found = checkpoints.restore(shapes_of(states))
    if found is None:
        return 0, states
    states, k, extra = found
    for each, where in zip(data, extra["data"], strict=True):
        each.restore(where)
    return k, states


def concept(states: TrainState, index: int) -> TrainState:
    """The state of one concept."""
    return jax.tree.map(lambda leaf: leaf[index], states)
