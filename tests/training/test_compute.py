"""`compute` is the type of the products: networks are loaded for it, others are refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffedit_jax as de
from configs import dreambooth
from diffedit_jax.errors import UserError
from diffedit_jax.training.launch import Launch
from diffedit_jax.training.settings import complete
from diffedit_jax.training.step import total_loss
from diffedit_jax.training.tasks.dreambooth import full_task


def launched(compute):
    """A run of DreamBooth on the embedded model, as its script begins it."""
    config = complete({**dreambooth.get_config(), "compute": compute, "kind": "cat"})
    return Launch(config, Path(), None, True)


def batch_of(model):
    """Two latents, noises, times and texts."""
    shape = (2, model.size // model.factor, model.size // model.factor, 4)
    keys = jax.random.split(jax.random.key(0))
    drawn = dict(zip(("latent", "noise"), (jax.random.normal(k, shape) for k in keys), strict=True))
    return {**drawn, "t": jnp.array([300, 700]), "ids": jnp.asarray(model.tokenize(["a", "cat"]))}


def loss_of(run):
    """(function of the trained parameters, the trained parameters)."""
    task = full_task(run.model, run.config)
    batch, keys = batch_of(run.model), jax.random.split(jax.random.key(1))
    loss = total_loss(task, run.config)
    trained = task.selection.init(task.params, jax.random.key(2))
    return lambda trained: loss(trained, task.params, batch, keys, 0)[0], trained


def equations(jaxpr: Any) -> Iterator[Any]:
    """Of a program and all programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_products_read_the_type_that_the_config_names(compute):
    loss, trained = loss_of(launched(compute))
    program = jax.make_jaxpr(loss)(trained)
    read = [
        {v.aval.dtype.name for v in e.invars[:2]}
        for e in equations(program.jaxpr)
        if e.primitive.name == "dot_general"
    ]
    assert len(read) > 50 and all(types == {compute} for types in read)
    assert all(v.aval.dtype == jnp.float32 for v in program.jaxpr.invars)  # the state


@pytest.mark.slow
def test_gradients_of_both_types_are_close():
    found = {}
    for compute in ("float32", "bfloat16"):
        loss, trained = loss_of(launched(compute))
        value, slopes = jax.jit(jax.value_and_grad(loss))(trained)
        assert {x.dtype for x in jax.tree.leaves(slopes)} == {np.dtype("float32")}
        found[compute] = value, np.concatenate([np.ravel(x) for x in jax.tree.leaves(slopes)])
    (value, slopes), (rounded, near) = found.values()
    assert 0 < abs(rounded - value) < 5e-3 * value
    assert 0 < np.linalg.norm(near - slopes) < 3e-2 * np.linalg.norm(slopes)


def test_a_model_that_computes_in_another_type_is_refused():
    run = launched("bfloat16")
    with pytest.raises(UserError, match='dtype="bfloat16", or set compute=float32'):
        full_task(de.load("emoji", dtype="float32"), run.config)
