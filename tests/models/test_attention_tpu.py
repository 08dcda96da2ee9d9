"""The TPU kernel, interpreted on the CPU, against the plain form."""

import functools

import jax
import jax.numpy as jnp
import pytest

from diffedit_jax.models import attention_tpu as kernel
from diffedit_jax.models.attention import plain


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that a few dozen tokens meet every branch of the kernel."""
    monkeypatch.setattr(kernel, "QUERY_TILE", 16)
    monkeypatch.setattr(kernel, "KEY_TILE", 8)
    monkeypatch.setattr(kernel, "RESIDENT_BYTES", 2048)


def draw(n, queries, keys, heads, width):
    """Queries, keys and values of one layer."""
    parts = jax.random.split(jax.random.key(0), 3)
    sizes = (queries, keys, keys)
    return [
        jax.random.normal(part, (n, size, heads, width))
        for part, size in zip(parts, sizes, strict=True)
    ]


def interpreted(q, k, v):
    """The kernel, run on this machine."""
    return kernel.attention_tpu(q, k, v, q.shape[-1] ** -0.5, q.dtype, interpret=True)


def reference(q, k, v):
    """All scores at once."""
    return plain(q, k, v, q.shape[-1] ** -0.5, None, q.dtype)


def distance(a, b):
    """Largest difference, relative to the largest value."""
    return float(jnp.abs(a - b).max() / jnp.abs(b).max())


@pytest.mark.parametrize(
    "shape",
    [
        (2, 32, 11, 2, 5),  # one block of keys: a whole tile and a rest
        (1, 20, 24, 2, 24),  # queries that do not fill their tiles; two blocks that do
        (1, 16, 29, 2, 24),  # the last block of keys is partly padding
    ],
)
def test_kernel_is_attention(small_tiles, shape):
    q, k, v = draw(*shape)
    assert distance(jax.jit(interpreted)(q, k, v), reference(q, k, v)) < 2e-6


def test_gradient(small_tiles):
    parts = draw(1, 20, 11, 2, 5)
    ours, theirs = (
        jax.jit(jax.grad(lambda *p, f=f: jnp.sum(jnp.sin(f(*p))), argnums=(0, 1, 2)))(*parts)
        for f in (interpreted, reference)
    )
    assert all(distance(a, b) < 2e-6 for a, b in zip(ours, theirs, strict=True))


def test_large_scores_stay_finite(small_tiles):
    q, k, v = draw(1, 16, 11, 1, 4)
    assert distance(jax.jit(interpreted)(300 * q, k, v), reference(300 * q, k, v)) < 1e-4


def test_vmap_folds_into_rows(small_tiles):
    q, k, v = draw(2, 16, 11, 1, 4)
    twice = jnp.stack([q, -q])
    together = jax.jit(jax.vmap(functools.partial(interpreted, k=k, v=v)))(twice)
    assert together.shape == twice.shape
    assert distance(together[1], reference(-q, k, v)) < 2e-6


def test_rows_split_over_devices():
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
    assert kernel.row_axes(mesh, 8) == ("data", "model")
    assert kernel.row_axes(mesh, 4) == ("data",)
    assert kernel.row_axes(mesh, 3) == ()


def test_blocks_cover_all_keys():
    assert kernel.key_block(4096, 320, jnp.bfloat16) == 4096
    block = kernel.key_block(16384, 640, jnp.bfloat16)
    assert block * 640 * 2 <= kernel.RESIDENT_BYTES and block % kernel.KEY_TILE == 0
    assert -(-16384 // block) * block - 16384 < kernel.KEY_TILE * -(-16384 // block)
