"""The state of a training run and the one jitted step that moves it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


class TrainState(struct.PyTreeNode):
    """Everything a run needs to go on bit-equal: save it and nothing else."""

    step: Any  # int32 scalar
    params: Any  # pytree of float32
    average: Any  # exponential moving average of params, same tree
    optimiser: Any  # optax state
    key: Any  # PRNG key data of the run; step keys are folded from it


def create_state(params: Any, optimiser: optax.GradientTransformation, seed: int) -> TrainState:
    """Start a run at step 0 with the average equal to the parameters."""
    params = jax.tree.map(jnp.array, params)  # copies: the step consumes the state's buffers
    average = jax.tree.map(jnp.copy, params)
    return TrainState(
        jnp.int32(0), params, average, optimiser.init(params), jax.random.PRNGKey(seed)
    )


def move_average(average: Any, params: Any, decay: float, step: Any) -> Any:
    """average <- d average + (1 - d) params, with d = min(decay, (1 + step) / (10 + step))."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: rate * a + (1 - rate) * p, average, params)


def make_step(
    loss: Callable, optimiser: optax.GradientTransformation, *, decay: float = 0.999
) -> Callable:
    """Build `step(state, batch) -> (state, metrics)` from `loss(params, batch, key, step)`.

    `loss` returns (scalar, dict of scalars). The key of a step is fold_in(state.key, state.step).
    The state's buffers are donated.
    """

    def step(state, batch):
        key = jax.random.fold_in(state.key, state.step)
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, metrics), grads = gradient(state.params, batch, key, state.step)
        updates, moments = optimiser.update(grads, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        average = move_average(state.average, params, decay, state.step)
        metrics = {"loss": value, "gradient": optax.global_norm(grads), **metrics}
        return TrainState(state.step + 1, params, average, moments, state.key), metrics

    return jax.jit(step, donate_argnums=0)


def adamw(
    rate: float,
    steps: int,
    *,
    warmup: int = 100,
    settle: float = 1.0,
    decay: float = 0.01,
    clip: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW with clipping by global norm and a rate that rises, holds and falls.

    Linear warm-up, then constant, then a cosine to 2 % of the rate over the last share `settle` of
    the steps; settle = 1 falls from the end of the warm-up. A long run can be cut short by resuming
    it with fewer `steps`, as long as its fall has not begun.
    """
    fall = min(int(settle * steps), max(steps - warmup, 1))
    pieces = [
        optax.linear_schedule(0.0, rate, warmup),
        optax.constant_schedule(rate),
        optax.cosine_decay_schedule(rate, fall, 0.02),
    ]
    schedule = optax.join_schedules(pieces, [warmup, max(steps - fall, warmup)])
    weights = optax.adamw(schedule, b2=0.99, weight_decay=decay)
    return optax.chain(optax.clip_by_global_norm(clip), weights)
