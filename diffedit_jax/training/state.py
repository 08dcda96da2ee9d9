"""The state of a training run: everything that it needs to go on bit-equal, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from .sharding import make_mesh, shardings
from .spikes import fresh_window
from .task import Task

_START = 2**32 - 1  # the key of the start: no step has this number


class TrainState(struct.PyTreeNode):
    """Saved whole. The frozen parameters are not part of it."""

    step: Any  # int32: batches seen, those that were skipped too
    updates: Any  # int32: how often the optimiser has moved
    trained: Any  # pytree of float32
    average: Any  # exponential moving average of `trained`, or None
    optimiser: Any  # optax state
    accumulated: Any  # sum of gradients since the last update, or None if each batch is an update
    held: Any  # int32: batches in `accumulated`
    skipped: Any  # int32: batches whose loss or gradient was not finite, or a spike
    streak: Any  # int32: how many that were not finite came last in a row
    key: Any  # uint32 [2]; the keys of a step are folded from it
    recent: Any = None  # [window, 2] losses and gradients' norms of the last batches, NaN at first


def create_state(
    task: Task, optimiser: optax.GradientTransformation, config: Any, mesh: Any = None
) -> TrainState:
    """A run at step 0, created in the places that the task's rules give its arrays.

    Args:
      config: `settings.complete(...)`; read are seed, accumulate and average.
      mesh: from `sharding.make_mesh`; None: the first device.
    """
    mesh = make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
    placed = jax.tree.map(lambda x: x.sharding, shapes_of_state(task, optimiser, config, mesh))
    params = jax.device_put(task.params, shardings(task.params, mesh, task.rules))
    make = jax.jit(maker(task, optimiser, config), out_shardings=placed)
    return make(params, jax.random.PRNGKey(config.seed))


def shapes_of_state(
    task: Task, optimiser: optax.GradientTransformation, config: Any, mesh: Any
) -> TrainState:
    """Shapes, dtypes and places of the state, without making it."""
    make = maker(task, optimiser, config)
    shapes = jax.eval_shape(make, task.params, jax.random.PRNGKey(config.seed))
    placed = shardings(shapes, mesh, task.rules)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, placed
    )


def maker(task: Task, optimiser: optax.GradientTransformation, config: Any) -> Callable:
    """The function (params, key) -> TrainState at step 0, to be compiled or mapped."""

    def make(params, key):
        params = jax.tree.map(lambda x: x, params)  # dicts in jit's order: keys are given out by it
        start = task.selection.init(params, jax.random.fold_in(key, _START))
        # Copies: the step consumes the state's buffers, and callers keep their parameters.
        trained = jax.tree.map(lambda x: jnp.copy(jnp.asarray(x, jnp.float32)), start)
        return _begin(trained, optimiser, key, config)

    return make


def _begin(trained, optimiser, key, config):
    return TrainState(
        step=jnp.int32(0),
        updates=jnp.int32(0),
        trained=trained,
        average=jax.tree.map(jnp.copy, trained) if config.average else None,
        optimiser=optimiser.init(trained),
        accumulated=jax.tree.map(jnp.zeros_like, trained) if config.accumulate > 1 else None,
        held=jnp.int32(0),
        skipped=jnp.int32(0),
        streak=jnp.int32(0),
        key=key,
        recent=fresh_window() if config.spike else None,
    )
