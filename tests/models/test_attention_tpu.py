"""The TPU kernel, interpreted on the CPU, against the plain form."""

import functools

import jax
import jax.numpy as jnp
import pytest

from diffedit_jax.models import attention_kernels as kernels
from diffedit_jax.models import attention_tpu as kernel
from diffedit_jax.models.attention import plain

SHAPES = [
    (2, 32, 11, 2, 5),  # one block of keys: a whole tile and a rest
    (1, 20, 24, 2, 24),  # queries that do not fill their tiles; two blocks that do
    (1, 16, 29, 2, 24),  # the last block of keys is partly padding
]


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that a few dozen tokens meet every branch of the kernel."""
    monkeypatch.setattr(kernels, "QUERY_TILE", 16)
    monkeypatch.setattr(kernels, "KEY_TILE", 8)
    monkeypatch.setattr(kernels, "RESIDENT_BYTES", 2048)


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


def gradients(attend, parts):
    """By queries, keys and values, of a function of the result that no symmetry makes zero."""
    return jax.jit(jax.grad(lambda *p: jnp.sum(jnp.sin(attend(*p))), argnums=(0, 1, 2)))(*parts)


def distance(a, b):
    """Largest difference, relative to the largest value."""
    return float(jnp.abs(a - b).max() / jnp.abs(b).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_is_attention(small_tiles, shape):
    q, k, v = draw(*shape)
    assert distance(jax.jit(interpreted)(q, k, v), reference(q, k, v)) < 2e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient(small_tiles, shape):
    ours, theirs = (gradients(f, draw(*shape)) for f in (interpreted, reference))
    assert all(distance(a, b) < 2e-6 for a, b in zip(ours, theirs, strict=True))


def test_gradient_of_each_member_of_a_batch(small_tiles):
    q, k, v = draw(2, 20, 11, 2, 5)
    parts = jnp.stack([q, -q]), k, v
    ours, theirs = (
        gradients(jax.vmap(f, (0, None, None)), parts) for f in (interpreted, reference)
    )
    assert all(distance(a, b) < 2e-6 for a, b in zip(ours, theirs, strict=True))


def test_gradient_of_16_bit_operands(small_tiles):
    half = [a.astype(jnp.bfloat16) for a in draw(1, 20, 24, 2, 24)]
    ours = gradients(interpreted, half)
    theirs = gradients(reference, [a.astype(jnp.float32) for a in half])
    assert [a.dtype for a in ours] == [jnp.bfloat16] * 3
    assert all(distance(a, b) < 2e-2 for a, b in zip(ours, theirs, strict=True))


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
    assert kernels.key_block(4096, 320, jnp.bfloat16) == 4096
    block = kernels.key_block(16384, 640, jnp.bfloat16)
    assert block * 640 * 2 <= kernels.RESIDENT_BYTES and block % kernels.KEY_TILE == 0
    assert -(-16384 // block) * block - 16384 < kernels.KEY_TILE * -(-16384 // block)
