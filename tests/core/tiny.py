"""A network of a few hundred numbers, and everything a run of it needs."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffedit_jax.core import Cond, Network, Schedule, chain, image_keys, with_key
from diffedit_jax.transforms import Blend, Combine, guidance_weights

SHAPE = (4, 4, 3)
TOKENS = (5, 6)


class Tiny(nn.Module):
    """Looks at its neighbours, the time and the mean of the text."""

    @nn.compact
    def __call__(self, x, t, context=None, *, control=None, added=None, kv=None, mask=None):
        hidden = nn.Conv(8, (3, 3))(x) + jnp.sin(t / 200)
        hidden = hidden + nn.Dense(8)(context.mean(1))[:, None, None]
        return nn.Conv(x.shape[-1], (3, 3))(nn.silu(hidden)), {}


@functools.cache
def network(kind="epsilon"):
    params = Tiny().init(jax.random.key(7), jnp.zeros((1, *SHAPE)), 0.0, jnp.zeros((1, *TOKENS)))
    return Network(params=params["params"], module=Tiny(), kind=kind)


def texts(count, seed=3):
    """[count, 2, tokens, width]: the null prompt and the prompt of each image."""
    return Cond(text=jax.random.normal(jax.random.key(seed), (count, 2, *TOKENS)))


def noise(count, seed=0, first=0):
    """[count, h, w, c] from (seed, the image's own index) alone."""
    keys = image_keys(seed, jnp.arange(first, first + count))
    return jax.vmap(lambda key: jax.random.normal(key, SHAPE))(keys)


def keyed(solver, count, images, seed=1, first=0, **rest):
    """A table of `count` rows with the own keys of every image."""
    steps = solver.steps(Schedule(), count, **rest)
    keys = image_keys(seed, jnp.arange(first, first + images))
    return steps.replace(key=jax.vmap(lambda key: with_key(steps, key).key)(keys))


def edit(count, scale=3.0, seed=5):
    """Guidance and a masked blend, one of each per image."""
    weights = guidance_weights(jnp.full(count, scale))
    mask = jax.random.bernoulli(jax.random.key(seed), 0.5, (count, *SHAPE[:2], 1)) * 1.0
    blend = Blend(mask=mask, x0=noise(count, 8), noise=noise(count, 9))
    return chain(Combine(weights=weights), blend)
