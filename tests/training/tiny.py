"""A task that costs nothing: a noisy two-layer fit, all of it trained."""

import jax
import jax.numpy as jnp
import numpy as np

from diffedit_jax.training.data import Stepped
from diffedit_jax.training.settings import complete
from diffedit_jax.training.task import Task


class All:
    """Everything is trained."""

    def init(self, params, key):
        return params

    def join(self, params, trained):
        return trained


def objective(params, cond, batch, key, step):
    x = batch["x"]
    noise = batch["noise"] if "noise" in batch else jax.random.normal(key, x.shape)
    found = jnp.tanh((x + 0.1 * noise) @ params["first"]) @ params["second"]
    return jnp.square(found - x.sum(-1)), {"largest": jnp.abs(found).max()}


def parameters(width=5):
    keys = jax.random.split(jax.random.PRNGKey(1))
    return {"first": jax.random.normal(keys[0], (4, width)), "second": jnp.ones(width)}


def task(objective=objective, selection=None, params=None, **more):
    return Task("tiny", params or parameters(), objective, selection or All(), **more)


def batch(step, count=8):
    return {"x": np.random.default_rng(step).normal(size=(count, 4)).astype(np.float32)}


def data():
    return Stepped(batch)


def config(**changes):
    plain = dict(steps=12, rate=1e-2, save_every=3, log_every=2, average=0.99)
    return complete({**plain, **changes})
