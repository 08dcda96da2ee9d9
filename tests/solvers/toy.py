"""The toy network of the reference trajectories, and a way to walk many tables in one program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffedit_jax.core import KINDS, Cond, Prediction, Transform, sample

ROWS = 50


class Toy(struct.PyTreeNode):
    """m = 0.3 x / (1 + |x|) + 0.05 t / 1000, spoken in the kind that `is_kind` [3] marks."""

    is_kind: Any  # one-hot over KINDS, so that all kinds share a program
    kind: str | None = struct.field(pytree_node=False, default=None)  # or one kind, statically
    learned: bool = struct.field(pytree_node=False, default=False)

    def __call__(self, x, step, cond, control=None):
        output = 0.3 * x / (1 + jnp.abs(x)) + 0.05 * step.t / 1000
        rest = dict(log_variance=jnp.sin(2 * x) if self.learned else None)
        if self.kind is not None:
            return Prediction.of(self.kind, output, x, step.alpha, step.sigma, **rest)
        said = [Prediction.of(k, output, x, step.alpha, step.sigma, **rest) for k in KINDS]
        pick = self.is_kind > 0.5
        x0 = jnp.where(pick[0], said[0].x0, jnp.where(pick[1], said[1].x0, said[2].x0))
        eps = jnp.where(pick[0], said[0].eps, jnp.where(pick[1], said[1].eps, said[2].eps))
        return said[0].replace(x0=x0, eps=eps)


def padded(steps, rows=ROWS):
    """The table with idle rows behind it, so that tables of all lengths stack."""
    count = len(steps.index)

    def pad(a):
        a = np.asarray(a)
        return np.concatenate([a, np.repeat(a[-1:], rows - count, axis=0)])

    active = np.arange(rows) < count
    return jax.tree.map(pad, steps).replace(active=pad(steps.active) & active)


def walk_all(toy, solver, tables, starts, kinds):
    """Every latent of every case, [cases, rows, h, w, c], in one compiled program."""
    tables = jax.tree.map(lambda *a: np.stack(a), *[padded(t) for t in tables])
    one_hot = np.eye(3, dtype=np.float32)[[KINDS.index(k) for k in kinds]]

    @jax.jit
    @jax.vmap
    def run(steps, x, is_kind):
        model = toy.replace(is_kind=is_kind)
        result = sample(
            model, solver, Transform(), steps, x, Cond(), record=lambda move: move.x_next
        )
        return result.recorded

    return np.asarray(run(tables, np.stack(starts), one_hot))
