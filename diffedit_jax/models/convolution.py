"""The one door to 2-D convolution: NHWC pictures, HWIO kernels, float32 sums."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]
Picture = Float[Array, "n h w c_in"]
Kernel = Float[Array, "kh kw c_in c_out"]
Result = Float[Array, "n h2 w2 c_out"]

# From this many input channels on, products of rows outrun XLA's CPU convolution in bfloat16.
ROW_CHANNELS = 256


def convolve(x: Picture, kernel: Kernel, stride: int, padding: Padding) -> Result:
    """y[p] = sum_k x[stride p + k - pad] kernel[k]; returns float32.

    A 1x1 kernel is a matrix product. XLA has no bfloat16 convolution on the CPU, only bfloat16
    matrix products, so wide layers with 16-bit operands become products there.
    """
    if kernel.shape[:2] == (1, 1) and stride == 1 and padding == ((0, 0), (0, 0)):
        return jnp.matmul(x, kernel[0, 0], preferred_element_type=jnp.float32)
    native = functools.partial(_native, stride=stride, padding=padding)
    if x.dtype == jnp.float32:
        return native(x, kernel)
    rows = functools.partial(convolve_rows, padding=padding)
    cpu = rows if stride == 1 and x.shape[-1] >= ROW_CHANNELS else functools.partial(_wide, native)
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=native)


def _native(x: Picture, kernel: Kernel, stride: int, padding: Padding) -> Result:
    """XLA's convolution; with 16-bit operands it rounds its float32 sums once, to 16 bits."""
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.astype(jnp.float32)


def _wide(native, x: Picture, kernel: Kernel) -> Result:
    """The products of 16-bit operands are exact in float32."""
    return native(x.astype(jnp.float32), kernel.astype(jnp.float32))


def convolve_rows(x: Picture, kernel: Kernel, padding: Padding) -> Result:
    """Stride 1 as one matrix product per row of the kernel.

    The taps of a kernel row lie side by side in the channels: y = sum_i X[i : i + h] K[i], with
    X[., w] = [x[., w], ..., x[., w + kw - 1]]. Few copies, and long sums inside the product.
    """
    kh, kw, c_in, c_out = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    taps = jnp.concatenate([x[:, :, j : j + width] for j in range(kw)], axis=-1)
    weights = kernel.reshape(kh, kw * c_in, c_out)
    rows = (
        jnp.matmul(taps[:, i : i + height], weights[i], preferred_element_type=jnp.float32)
        for i in range(kh)
    )
    return functools.reduce(jnp.add, rows)
