"""The parameters that are not trained: only what the step needs, where and how it needs it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from .sharding import shardings
from .step import lower
from .task import Task


def place_frozen(task: Task, trained: Any, mesh: Any, compute: str) -> Any:
    """The task's parameters for the step: placed by its rules, in the dtype of the products.

    What `join` replaces is left out (an empty array stands in its place), so that a network that
    is trained whole does not lie in memory twice.
    """
    needed = used_by(task.selection.join, task.params, trained)
    places = shardings(task.params, mesh, task.rules)

    def put(x, wanted, place):
        return jax.device_put(lower(x, compute), place) if wanted else np.zeros((0,), x.dtype)

    return jax.tree.map(put, task.params, needed, places)


def shapes_of_frozen(task: Task, trained: Any, mesh: Any, compute: str) -> Any:
    """Shapes, dtypes and places of what `place_frozen` makes, for a task without values."""
    needed = used_by(task.selection.join, task.params, trained)
    places = shardings(task.params, mesh, task.rules)

    def one(x, wanted, place):
        if not wanted:
            return jax.ShapeDtypeStruct((0,), x.dtype)
        low = jax.eval_shape(lambda a: lower(a, compute), x)
        return jax.ShapeDtypeStruct(low.shape, low.dtype, sharding=place)

    return jax.tree.map(one, task.params, needed, places)


def used_by(join: Any, params: Any, trained: Any) -> Any:
    """Of every leaf of params, whether join(params, trained) depends on its value."""
    closed = jax.make_jaxpr(join)(params, trained)
    leaves, tree = jax.tree.flatten(params)
    read = {v for e in closed.jaxpr.eqns for v in e.invars if isinstance(v, jex.Var)}
    read |= {v for v in closed.jaxpr.outvars if isinstance(v, jex.Var)}
    return tree.unflatten([v in read for v in closed.jaxpr.invars[: len(leaves)]])
