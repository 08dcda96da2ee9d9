"""The one door to 2-D convolution: NHWC pictures, HWIO kernels, float32 sums."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    x: Float[Array, "n h w c_in"],
    kernel: Float[Array, "kh kw c_in c_out"],
    stride: int,
    padding: Padding,
) -> Float[Array, "n h2 w2 c_out"]:
    """y[p] = sum_k x[stride p + k - pad] kernel[k]; returns float32.

    A 1x1 kernel is a matrix product.
    """
    if kernel.shape[:2] == (1, 1) and stride == 1 and padding == ((0, 0), (0, 0)):
        return jnp.matmul(x, kernel[0, 0], preferred_element_type=jnp.float32)
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.astype(jnp.float32)
