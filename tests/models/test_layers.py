"""Norms and embeddings against closed forms and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.models.convolution import convolve, convolve_rows
from diffedit_jax.models.layers import Compute, Conv, GroupNorm, LayerNorm, timestep_embedding
from diffedit_jax.models.resnet import double

from .reference import nhwc, relative


def test_group_norm_gives_each_group_zero_mean_and_unit_variance():
    x = 7 + 3 * jax.random.normal(jax.random.key(0), (2, 9, 7, 12))
    norm = GroupNorm(groups=3)
    y = norm.apply(norm.init(jax.random.key(0), x), x).reshape(2, 63, 3, 4)
    np.testing.assert_allclose(y.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 3)), 1, rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_group_norm_matches_torch_even_far_from_zero(offset):
    torch = pytest.importorskip("torch")
    x = offset + np.random.default_rng(0).normal(size=(2, 8, 16, 16)).astype(np.float32)
    exact = torch.nn.functional.group_norm(torch.from_numpy(x).double(), 4, eps=1e-6)
    norm = GroupNorm(groups=4, eps=1e-6)
    ours = norm.apply(norm.init(jax.random.key(0), nhwc(x)), nhwc(x))
    assert relative(ours, nhwc(exact)) < (2e-6 if offset == 0 else 2e-4)


def test_group_norm_of_a_constant_is_its_bias():
    norm = GroupNorm(groups=2, silu=False)
    x = jnp.full((1, 4, 4, 4), 3.0)
    params = {"params": {"scale": jnp.full(4, 2.0), "bias": jnp.arange(4.0)}}
    np.testing.assert_allclose(norm.apply(params, x), np.broadcast_to(np.arange(4.0), x.shape))


def test_group_norm_gradient_matches_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(2, 2, 8, 5, 6)).astype(np.float32)
    leaf = torch.from_numpy(x).requires_grad_()
    y = torch.nn.functional.silu(torch.nn.functional.group_norm(leaf, 4))
    (y * torch.from_numpy(weight)).sum().backward()
    norm = GroupNorm(groups=4, silu=True)
    params = norm.init(jax.random.key(0), nhwc(x))
    ours = jax.grad(lambda x: (norm.apply(params, x) * nhwc(weight)).sum())(nhwc(x))
    assert relative(ours, nhwc(leaf.grad)) < 1e-5


def test_layer_norm_matches_torch():
    torch = pytest.importorskip("torch")
    x = jnp.asarray(50 + np.random.default_rng(0).normal(size=(3, 5, 16)), jnp.float32)
    exact = torch.nn.functional.layer_norm(torch.from_numpy(np.asarray(x)).double(), (16,))
    norm = LayerNorm()
    assert relative(norm.apply(norm.init(jax.random.key(0), x), x), exact.numpy()) < 1e-5


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("width", [32, 320, 33])
def test_timestep_embedding_matches_diffusers(flip, width):
    torch = pytest.importorskip("torch")
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    t = np.array([0.0, 1.0, 401.5, 999.0], np.float32)
    theirs = embeddings.get_timestep_embedding(
        torch.from_numpy(t), width, flip_sin_to_cos=flip, downscale_freq_shift=0
    )
    ours = timestep_embedding(jnp.asarray(t), width, flip)
    assert np.abs(np.asarray(ours) - theirs.numpy()).max() < 2e-4  # 999 radians in float32


@pytest.mark.parametrize("size", [(13, 11), (14, 12), (13, 12)])
def test_doubling_is_nearest_resizing_to_odd_sizes_too(size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 6)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(x), size=size, mode="nearest")
    np.testing.assert_array_equal(double(jnp.asarray(nhwc(x)), size), nhwc(theirs))


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 1, 0), (8, 8, 0)]
)
@pytest.mark.parametrize("operands", [None, jnp.bfloat16])
def test_convolution_and_its_gradients_match_torch(size, stride, padding, operands):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 6, 16, 24)).astype(np.float32)
    conv = Conv(5, size, stride, padding, Compute(operands=operands))
    params = conv.init(jax.random.key(0), nhwc(x))
    kernel = np.array(params["params"]["kernel"]).transpose(3, 2, 0, 1)
    leaves = [torch.from_numpy(part.copy()).requires_grad_() for part in (x, kernel)]
    theirs = torch.nn.functional.conv2d(*leaves, stride=stride, padding=padding)
    theirs.square().sum().backward()
    ours = conv.apply(params, nhwc(x))
    bound = 2e-6 if operands is None else 2e-2
    assert ours.dtype == jnp.float32 and relative(ours, nhwc(theirs)) < bound
    loss = lambda p, x: jnp.square(conv.apply(p, x)).sum()  # noqa: E731
    to_kernel, to_x = jax.grad(loss, argnums=(0, 1))(params, jnp.asarray(nhwc(x)))
    assert relative(to_x, nhwc(leaves[0].grad)) < 2 * bound
    kernel_grad = leaves[1].grad.numpy().transpose(2, 3, 1, 0)
    assert relative(to_kernel["params"]["kernel"], kernel_grad) < 2 * bound


@pytest.mark.parametrize("size", [3, 5])
def test_rows_of_products_are_the_convolution(size):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, 9, 7, 4))
    kernel = jax.random.normal(keys[1], (size, size, 4, 6))
    padding = ((size // 2, size // 2), (1, 2))
    ours = convolve_rows(x, kernel, padding)
    assert relative(ours, convolve(x, kernel, 1, padding)) < 2e-6


def test_sixteen_bit_convolution_sums_in_float32():
    """A long sum of equal terms would stall at 256 if it were kept in bfloat16."""
    x = jnp.ones((1, 4, 4, 256), jnp.bfloat16)
    for width in (8, 256):
        kernel = jnp.ones((3, 3, width, 2), jnp.bfloat16)
        y = convolve(x[..., :width], kernel, 1, ((0, 0), (0, 0)))
        np.testing.assert_array_equal(y, 9.0 * width)
        slope = jax.grad(lambda x, k=kernel: convolve(x, k, 1, ((0, 0), (0, 0))).sum())
        assert slope(x[..., :width]).dtype == jnp.bfloat16
