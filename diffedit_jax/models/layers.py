"""Linear, convolution and norm layers that choose operand and storage precision separately."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffedit_jax.models.convolution import convolve

torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class Compute:
    """How a network does its arithmetic.

    dtype: what activations are stored as between layers (float32 or bfloat16).
    operands: what matrix products and convolutions read; None means `dtype`. Sums are always
    float32, so `Compute(jnp.float32, jnp.bfloat16)` is "bfloat16 operands, float32 accumulation".
    attention: "auto", or one of the names in `models.attention.KERNELS`.
    """

    dtype: Any = jnp.float32
    operands: Any = None
    attention: str = "auto"

    @property
    def operand_dtype(self) -> Any:
        """The element type that products read."""
        return self.dtype if self.operands is None else self.operands


class Linear(nn.Module):
    """y = x W + b over the last axis; W is [in, out], the sum is float32."""

    features: int
    compute: Compute = Compute()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*rows d_in"]) -> Float[Array, "*rows d_out"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", torch_uniform, shape, jnp.float32)
        operand = self.compute.operand_dtype
        y = jnp.matmul(
            x.astype(operand), jnp.asarray(kernel, operand), preferred_element_type=jnp.float32
        )
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y.astype(self.compute.dtype)


class Conv(nn.Module):
    """A 2-D convolution; `padding` is ((top, bottom), (left, right)) zeros, or an int for all."""

    features: int
    size: int = 3
    stride: int = 1
    padding: Any = 1
    compute: Compute = Compute()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c_in"]) -> Float[Array, "n h2 w2 c_out"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", torch_uniform, shape, jnp.float32)
        pad = self.padding
        pad = ((pad, pad), (pad, pad)) if isinstance(pad, int) else pad
        operand = self.compute.operand_dtype
        y = convolve(x.astype(operand), jnp.asarray(kernel, operand), self.stride, pad)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y.astype(self.compute.dtype)


class GroupNorm(nn.Module):
    """y = (x - mean_g) / sqrt(var_g + eps) * scale + bias, statistics per group of channels.

    Sums are taken of x - s with s the group's mean at the first pixel: the result does not depend
    on s, but one pass over x then gives a variance without cancellation when |mean| >> std.
    `activation` is applied in the same pass. Arithmetic is float32.
    """

    groups: int = 32
    eps: float = 1e-5
    silu: bool = False
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        gain, shift = group_affine(x, self.groups, self.eps, scale, bias)
        y = x.astype(jnp.float32) * gain[:, None, None] + shift[:, None, None]
        y = jax.nn.silu(y) if self.silu else y
        return y.astype(self.compute.dtype)


def group_affine(
    x: Float[Array, "n h w c"],
    groups: int,
    eps: float,
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
) -> tuple[Float[Array, "n c"], Float[Array, "n c"]]:
    """The per-channel gain and shift for which group norm is x * gain + shift."""
    n, h, w, channels = x.shape
    width = channels // groups
    x = x.astype(jnp.float32)
    corner = jax.lax.stop_gradient(x[:, 0, 0].reshape(n, groups, width).mean(-1))
    centred = x - jnp.repeat(corner, width, axis=-1)[:, None, None]
    first = centred.mean((1, 2)).reshape(n, groups, width).mean(-1)
    second = jnp.square(centred).mean((1, 2)).reshape(n, groups, width).mean(-1)
    inverse = jax.lax.rsqrt(jnp.maximum(second - jnp.square(first), 0.0) + eps)
    gain = jnp.repeat(inverse, width, axis=-1) * scale
    return gain, bias - jnp.repeat(corner + first, width, axis=-1) * gain


class LayerNorm(nn.Module):
    """y = (x - mean) / sqrt(var + eps) * scale + bias over the last axis, in float32."""

    eps: float = 1e-5
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (width,), jnp.float32)
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + self.eps) * scale + bias
        return y.astype(self.compute.dtype)


def timestep_embedding(
    t: Float[Array, "n"],
    width: int,
    flip_sin_to_cos: bool = True,
    freq_shift: float = 0.0,
) -> Float[Array, "n width"]:
    """[cos(t f_i) | sin(t f_i)] with f_i = 10000^(-i / (width/2 - freq_shift)); float32.

    Without `flip_sin_to_cos` the halves are swapped; an odd width gets a last column of zeros.
    Source: diffusers models/embeddings.py get_timestep_embedding.
    """
    half = width // 2
    exponent = np.arange(half, dtype=np.float32) * np.float32(-math.log(10000.0))
    frequency = np.exp(exponent / np.float32(half - freq_shift)).astype(np.float32)
    angle = t.astype(jnp.float32)[:, None] * frequency
    halves = [jnp.cos(angle), jnp.sin(angle)]
    rows = jnp.concatenate(halves if flip_sin_to_cos else halves[::-1], axis=-1)
    return jnp.pad(rows, ((0, 0), (0, width - 2 * half)))


class EmbeddingMLP(nn.Module):
    """linear_2(silu(linear_1(x))): the head of the time embedding and of added embeddings."""

    features: int
    compute: Compute = Compute()

    def setup(self):
        self.linear_1 = Linear(self.features, self.compute)
        self.linear_2 = Linear(self.features, self.compute)

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n features"]:
        return self.linear_2(jax.nn.silu(self.linear_1(x)))
