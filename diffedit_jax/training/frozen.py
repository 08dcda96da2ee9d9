"""The parameters that are not trained: only what the step needs, where and how it needs it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from .sharding import shardings
from .step import lower
from .task import Task

UNUSED, HANDED_ON, COMPUTED_WITH = "unused", "handed on", "computed with"


def place_frozen(task: Task, trained: Any, mesh: Any, compute: str) -> Any:
    """The task's parameters for the step: placed by its rules, in the dtype of the products.

    What `join` replaces is left out (an empty array stands in its place), so that a network that
    is trained whole does not lie in memory twice. What it computes with, such as the kernels that a
    LoRA changes, keeps its own dtype: a change of 1e-4 would be lost in a kernel of bfloat16.
    """
    roles = roles_in(task.selection.join, task.params, trained)
    places = shardings(task.params, mesh, task.rules)

    def put(x, role, place):
        low = lower(x, compute) if role == HANDED_ON else x
        return np.zeros((0,), x.dtype) if role == UNUSED else jax.device_put(low, place)

    return jax.tree.map(put, task.params, roles, places)


def shapes_of_frozen(task: Task, trained: Any, mesh: Any, compute: str) -> Any:
    """Shapes, dtypes and places of what `place_frozen` makes, for a task without values."""
    roles = roles_in(task.selection.join, task.params, trained)
    places = shardings(task.params, mesh, task.rules)

    def one(x, role, place):
        if role == UNUSED:
            return jax.ShapeDtypeStruct((0,), x.dtype)
        low = jax.eval_shape(lambda a: lower(a, compute), x) if role == HANDED_ON else x
        return jax.ShapeDtypeStruct(low.shape, low.dtype, sharding=place)

    return jax.tree.map(one, task.params, roles, places)


def roles_in(join: Any, params: Any, trained: Any) -> Any:
    """Of every leaf of params, what join(params, trained) does with it."""
    closed = jax.make_jaxpr(join)(params, trained)
    leaves, tree = jax.tree.flatten(params)
    read = {v for e in closed.jaxpr.eqns for v in e.invars if isinstance(v, jex.Var)}
    given = {v for v in closed.jaxpr.outvars if isinstance(v, jex.Var)}
    own = closed.jaxpr.invars[: len(leaves)]
    return tree.unflatten(
        [COMPUTED_WITH if v in read else HANDED_ON if v in given else UNUSED for v in own]
    )
