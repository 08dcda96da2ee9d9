"""The loop. `sample` is one scan; `stream` is the same body, one jitted step at a time.

for row in table:  ask = edit.denoise(denoiser);  x' = solver.step(ask, x);  x = edit.settle(x')
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from .denoiser import Cond, prepared
from .prediction import Move
from .solver import Solver
from .time import Step, counted, row
from .transform import Transform

_NEVER = jnp.iinfo(jnp.int32).max
_OF_IMAGES = ("key", "active", "walked", "noise")  # columns that may differ from image to image


class Carry(struct.PyTreeNode):
    """What one step hands to the next."""

    x: Any  # latent, usually [*rows, h, w, c]; a pair for EDICT
    memory: Any  # the solver's
    state: Any  # the edit's
    broken: Any  # [] int32, first step whose latent was not finite


class Result(struct.PyTreeNode):
    """The end of a run."""

    x: Any  # latent after the last step
    state: Any  # the edit's memory
    recorded: Any  # what `record` returned, stacked over the steps (zeros where a row was idle)
    broken: Any  # [] int32, first step whose latent was not finite; a huge number if none


def sample(
    denoiser,
    solver: Solver,
    edit: Transform,
    steps: Step,
    x,
    cond: Cond,
    *,
    record: Callable[[Move], Any] | None = None,
    state=None,
    remat: bool = False,
) -> Result:
    """Runs one image through the table, in one `lax.scan`; batch it with `sample_batch` or vmap.

    Args:
      denoiser: who answers (Network, Mixture, a function).
      solver: the update rule.
      edit: a Transform or a chain.
      steps: the table; row keys come from `with_key`.
      x: starting latent [*rows, h, w, c].
      cond: condition; its leaves begin with the rows the network will see.
      record: what to keep of every step.
      state: the edit's memory to begin with; None begins afresh.
      remat: recompute each step in the backward pass instead of storing it.
    """
    cond = prepared(denoiser, cond)

    def body(carry, step):
        return _advance(denoiser, solver, edit, carry, step, cond, record)

    carry = _begin(solver, edit, x, state)
    steps = jax.tree.map(jnp.asarray, counted(steps))
    carry, recorded = jax.lax.scan(jax.checkpoint(body) if remat else body, carry, steps)
    return Result(carry.x, carry.state, recorded, carry.broken)


@functools.partial(jax.jit, static_argnames=("record", "remat"))
def sample_batch(denoiser, solver, edit, steps, x, cond, *, record=None, remat=False) -> Result:
    """`sample` over a leading image axis of edit, x and cond (and of the steps' keys and noise).

    The axis is outermost everywhere, so sharding it over devices needs no communication.
    """

    def one(edit, steps, x, cond):
        return sample(denoiser, solver, edit, steps, x, cond, record=record, remat=remat)

    return jax.vmap(one, in_axes=(0, image_axes(steps), 0, 0))(edit, steps, x, cond)


def stream(denoiser, solver, edit, steps, x, cond, *, record=None) -> Iterator[Result]:
    """`sample_batch`, yielding after every step that is walked: progress, preview, cancel.

    The body is compiled once, whatever the number of rows.
    """
    carry, cond = _stream_begin(denoiser, solver, edit, x, cond)
    steps = counted(steps)
    for index in range(len(steps.index)):
        step = _row_of_images(steps, index)
        if step.active is not None and not jnp.any(step.active):
            continue
        carry, recorded = _stream_step(denoiser, solver, edit, carry, step, cond, record)
        yield Result(carry.x, carry.state, recorded, carry.broken)


def _begin(solver, edit, x, state=None):
    state = edit.init(x) if state is None else state
    return Carry(x, solver.init(x), state, jnp.int32(_NEVER))


def _advance(denoiser, solver, edit, carry, step, cond, record):
    """One row of the table; idle rows are skipped by a real branch unless vmapped apart."""

    def walk(carry):
        edited = edit.denoise(denoiser, carry.state)

        def ask(x, step):
            return edited(x, step, cond)

        x, memory, prediction = solver.step(ask, carry.x, carry.memory, step)
        move = Move(x=carry.x, x_next=x, prediction=prediction, step=step)
        x, state = edit.settle(move, carry.state)
        x = jax.tree.map(lambda new, old: new.astype(old.dtype), x, carry.x)
        broken = jnp.minimum(carry.broken, jnp.where(_finite(x), _NEVER, step.index))
        kept = None if record is None else record(move.replace(x_next=x))
        return Carry(x, memory, state, broken.astype(jnp.int32)), kept

    if step.active is None:
        return walk(carry)
    kept = None if record is None else _zeros(jax.eval_shape(walk, carry)[1])
    return jax.lax.cond(step.active, walk, lambda carry: (carry, kept), carry)


def _zeros(shapes):
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)


def _finite(x):
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(x)]))


def image_axes(steps: Step):
    """Which columns of the table differ from image to image, told by their rank."""
    rank = jnp.ndim(steps.index)  # 1 for a table, 0 for one row of it
    own = {name: getattr(steps, name) for name in _OF_IMAGES}
    mapped = {name: None if a is None or jnp.ndim(a) == rank else 0 for name, a in own.items()}
    return jax.tree.map(lambda a: None, steps).replace(**mapped)


def _row_of_images(steps: Step, index: int) -> Step:
    """Row `index` of a table some of whose columns carry a leading image axis."""
    axes = image_axes(steps)
    own = {
        name: None if a is None else (a[index] if axis is None else a[:, index])
        for name in _OF_IMAGES
        for a, axis in [(getattr(steps, name), getattr(axes, name))]
    }
    return row(steps.replace(**dict.fromkeys(_OF_IMAGES)), index).replace(**own)


@jax.jit
def _stream_begin(denoiser, solver, edit, x, cond):
    carry = jax.vmap(lambda edit, x: _begin(solver, edit, x))(edit, x)
    return carry, jax.vmap(lambda x, cond: prepared(denoiser, cond))(x, cond)


@functools.partial(jax.jit, static_argnames="record")
def _stream_step(denoiser, solver, edit, carry, step, cond, record):
    def one(edit, carry, step, cond):
        return _advance(denoiser, solver, edit, carry, step, cond, record)

    return jax.vmap(one, in_axes=(0, 0, image_axes(step), 0))(edit, carry, step, cond)
