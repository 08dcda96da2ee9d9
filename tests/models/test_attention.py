"""The attention door: every kernel gives one answer, rules are asked only where they want."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffedit_jax.core.control import Control, Site
from diffedit_jax.models.attention import KERNELS, attention, choose_kernel

from .reference import relative


def draw(queries=300, keys=77, heads=2, width=8, n=2):
    keys_ = jax.random.split(jax.random.key(0), 3)
    sizes = (queries, keys, keys)
    return [jax.random.normal(k, (n, s, heads, width)) for k, s in zip(keys_, sizes, strict=True)]


def exact(q, k, v, scale, bias=0.0):
    q, k, v = (np.asarray(part, np.float64) for part in (q, k, v))
    scores = np.einsum("nqhd,nkhd->nhqk", q, k) * scale + np.asarray(bias, np.float64)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("nhqk,nkhd->nqhd", weights, v)


@pytest.mark.parametrize("kernel", ["plain", "tiled"])
@pytest.mark.parametrize("sizes", [(300, 77), (256, 512), (5, 3), (513, 513)])
def test_kernels_agree_with_float64(kernel, sizes):
    q, k, v = draw(*sizes)
    y, read = attention(q, k, v, scale=0.35, kernel=kernel)
    assert read is None
    assert relative(y, exact(q, k, v, 0.35)) < 2e-6


@pytest.mark.parametrize("kernel", ["plain", "tiled"])
@pytest.mark.parametrize("shape", [(1, 1, 300, 77), (2, 1, 1, 77), (2, 2, 300, 77)])
def test_bias_of_every_broadcast_shape(kernel, shape):
    q, k, v = draw()
    bias = 3 * jax.random.normal(jax.random.key(5), shape)
    y, _ = attention(q, k, v, scale=0.35, bias=bias, kernel=kernel)
    assert relative(y, exact(q, k, v, 0.35, bias)) < 2e-6


def test_large_scores_do_not_overflow():
    q, k, v = draw()
    y, _ = attention(100 * q, 100 * k, v, scale=1.0, kernel="tiled")
    assert relative(y, exact(100 * q, 100 * k, v, 1.0)) < 1e-3


def test_tiled_gradients_equal_plain_gradients():
    parts = draw()
    weight = jax.random.normal(jax.random.key(9), parts[0].shape)

    def loss(parts, kernel):
        return (attention(*parts, scale=0.35, kernel=kernel)[0] * weight).sum()

    plain, tiled = (jax.grad(loss)(parts, kernel) for kernel in ("plain", "tiled"))
    for a, b in zip(tiled, plain, strict=True):
        assert relative(a, b) < 5e-6


def test_tiled_memory_under_grad_stays_below_one_score_matrix():
    q, k, v = draw(4096, 4096, heads=2, width=8, n=1)

    def loss(q, k, v):
        return attention(q, k, v, scale=0.35, kernel="tiled")[0].sum()

    analysis = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, v).compile()
    assert analysis.memory_analysis().temp_size_in_bytes < 2 * 4096 * 4096 * 4 / 2


def test_vmap_equals_the_batch():
    q, k, v = draw()
    together, _ = attention(q, k, v, scale=0.35, kernel="tiled")
    one = jax.vmap(lambda *p: attention(*(x[None] for x in p), scale=0.35, kernel="tiled")[0][0])
    assert relative(one(q, k, v), together) < 2e-6


def test_bfloat16_operands_keep_the_storage_type():
    q, k, v = draw()
    for kernel in ("plain", "tiled"):
        y, _ = attention(q, k, v, scale=0.35, operands=jnp.bfloat16, kernel=kernel)
        assert y.dtype == jnp.float32
        assert 1e-5 < relative(y, exact(q, k, v, 0.35)) < 2e-2


def test_auto_is_plain_for_few_tokens_and_tiled_for_many():
    q, k, _ = draw(256, 256)
    assert choose_kernel(q, k, None) == "plain"
    q, k, _ = draw(4096, 4096, n=1)
    assert choose_kernel(q, k, None) in set(KERNELS) - {"plain"}


class Record(Control):
    """Reads the probabilities and multiplies them by a number."""

    factor: Any = 1.0
    names: tuple = struct.field(pytree_node=False, default=("a",))

    def wants(self, site):
        return site.name in self.names

    def __call__(self, probs, site):
        return probs * self.factor, probs


def site(name):
    return Site(name, "self", "down", 0, 20, 15, 2)


def test_a_rule_sees_probabilities_and_replaces_them():
    q, k, v = draw()
    y, read = attention(q, k, v, scale=0.35, control=Record(factor=2.0), site=site("a"))
    assert read.shape == (2, 2, 300, 77) and read.dtype == jnp.float32
    np.testing.assert_allclose(read.sum(-1), 1.0, rtol=1e-5)
    assert relative(y, 2 * exact(q, k, v, 0.35)) < 2e-6


def test_a_rule_that_does_not_want_the_site_is_not_asked():
    q, k, v = draw()
    y, read = attention(q, k, v, scale=0.35, control=Record(factor=2.0), site=site("b"))
    assert read is None
    assert relative(y, exact(q, k, v, 0.35)) < 2e-6
