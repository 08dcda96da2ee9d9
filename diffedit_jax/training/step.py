"""The one jitted step: gradients of what is trained, their sum, the update, the average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .average import decay_at, move_average
from .optimisers import rates
from .spikes import is_spike, seen
from .state import TrainState
from .task import Task


def make_step(
    task: Task, optimiser: optax.GradientTransformation, config: Any, *, placed: Any = None
) -> Callable:
    """Build `step(state, params, batch) -> (state, metrics)`; the state's buffers are donated.

    keys = split(fold_in(state.key, state.step)): the first for the condition, the second for the
    objective. `accumulate` batches make one update, from the mean of their gradients. A batch whose
    loss or gradient is not finite changes nothing but step, skipped and streak; with config.spike,
    one whose loss or gradient is a spike changes nothing but step, skipped and recent.

    Args:
      config: `settings.complete(...)`; read are accumulate, compute, remat, spike, the average's.
      placed: shardings of the state, or None.
    """
    gradient = jax.value_and_grad(total_loss(task, config), has_aux=True)
    rate = rates(config)

    def step(state, params, batch):
        keys = jax.random.split(jax.random.fold_in(state.key, state.step))
        (loss, facts), grads = gradient(state.trained, params, batch, keys, state.step)
        norm = optax.global_norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        state = state.replace(streak=jnp.where(finite, 0, state.streak + 1))
        usual, state = _usual(state, jnp.stack([loss, norm]), config.spike)
        state = _advance(state, grads, finite & usual, optimiser, config)
        counts = {"skipped": state.skipped, "streak": state.streak, "updates": state.updates}
        counts["rate"] = jnp.float32(rate(state.updates))
        return state, {"loss": loss, "gradient": norm, **counts, **facts}

    return jax.jit(step, donate_argnums=0, out_shardings=None if placed is None else (placed, None))


def total_loss(task: Task, config: Any) -> Callable:
    """The function (trained, params, batch, keys, step) -> (scalar, facts) that is minimised."""

    def loss(trained, params, batch, keys, step):
        joined = lower(task.selection.join(params, trained), config.compute)
        cond = task.condition(joined, batch, keys[0])
        errors, facts = task.objective(joined, cond, batch, keys[1], step)
        return (errors * batch.get("weight", 1.0)).mean(), facts

    return jax.checkpoint(loss, policy=_is_product) if config.remat else loss


def lower(params: Any, compute: str) -> Any:
    """Kernels and tables of a tree in the dtype of the products; vectors stay in float32."""
    dtype = jnp.dtype(compute)
    if dtype == jnp.float32:
        return params
    wide = lambda x: jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 1  # noqa: E731
    return jax.tree.map(lambda x: x.astype(dtype) if wide(x) else x, params)


def _is_product(primitive, *_, **__):
    """What remat keeps: products are dear to compute again, all else is cheap."""
    return primitive.name in ("dot_general", "conv_general_dilated")


def _advance(state: TrainState, grads, good, optimiser, config) -> TrainState:
    """The state after these gradients, or what it was if they are not good."""
    held = state.held + 1
    due = good & (held == config.accumulate)
    if state.accumulated is not None:
        grads = jax.tree.map(jnp.add, state.accumulated, grads)
    mean = jax.tree.map(lambda g: g / config.accumulate, grads)
    moved = _move(state, mean, optimiser, config)
    state = _either(due, moved, state)
    if state.accumulated is not None:
        kept = jax.tree.map(lambda g: jnp.where(due, 0.0, g), grads)
        state = state.replace(accumulated=_either(good, kept, state.accumulated))
    return state.replace(
        step=state.step + 1,
        held=jnp.where(good, jnp.where(due, 0, held), state.held),
        skipped=state.skipped + ~good,
    )


def _usual(state, now, sigmas) -> tuple[Any, TrainState]:
    """(whether a batch is no spike, the state that has seen it)."""
    if not sigmas:
        return True, state
    usual = ~is_spike(state.recent, now, sigmas)
    return usual, state.replace(recent=seen(state.recent, now, state.step))


def _move(state: TrainState, grads, optimiser, config) -> TrainState:
    """The state after one update of optimiser and average."""
    changes, moments = optimiser.update(grads, state.optimiser, state.trained)
    trained, updates = optax.apply_updates(state.trained, changes), state.updates + 1
    average = state.average
    if average is not None:
        average = move_average(average, trained, decay_at(updates, config))
    return state.replace(trained=trained, average=average, optimiser=moments, updates=updates)


def _either(condition, one, other):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
