"""Distances of pixels: MSE, PSNR, SSIM, of whole pictures or of a part of them.

A mask says what counts: 1 where pixels are compared, 0 where they are not. The part that an edit
must not change is `1 - edited`. What a mask does is the choice `over`:

  "mask"     the mean runs over the pixels that count;
  "picture"  both pictures are multiplied by the mask and the mean runs over the whole picture, so
             that the result depends on how large the mask is. PIE-Bench's tables are made so.

Source: torchmetrics image/psnr.py, image/ssim.py; cure-lab/PnPInversion
evaluation/matrics_calculator.py for "picture".
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffedit_jax.errors import UserError
from diffedit_jax.metrics.pictures import Mask, Pictures, pair, weights

OVER = ("mask", "picture")
WINDOWS = ("gaussian", "uniform")
BORDERS = ("keep", "crop")


def mse(a: Any, b: Any, mask: Any = None, *, over: str = "mask") -> Float[Array, "*n"]:
    """Mean squared error, mean over pixels and channels of (a - b)^2.

    Args:
      a, b: pictures [..., h, w, c], uint8 (scaled to [0, 1]) or floats.
      mask: [..., h, w] or [..., h, w, 1], 1 where pixels count; booleans, uint8 or floats in
        [0, 1]. Shared by all pictures when it has fewer axes.
      over: "mask" or "picture", see the module.

    Returns: [...]; NaN for an empty mask with "mask". PIE-Bench prints it times 10^4.
    Raises: UserError for pictures or masks that do not fit each other.

        mse(np.zeros((8, 8, 3)), np.ones((8, 8, 3)))    # 1.0
    """
    a, b = pair(a, b)
    count, total = _counted(jnp.square(a - b), mask, over)
    return total / count


def psnr(
    a: Any, b: Any, mask: Any = None, *, data_range: float = 1.0, over: str = "mask"
) -> Float[Array, "*n"]:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / mse); see `mse`.

    Returns: [...]; infinity for equal pictures.

        psnr(result, source, mask=1 - edited)           # the part that must not change
    """
    return 10 * jnp.log10(data_range**2 / mse(a, b, mask, over=over))


def ssim(
    a: Any,
    b: Any,
    mask: Any = None,
    *,
    window: str = "gaussian",
    size: int = 11,
    sigma: float = 1.5,
    border: str = "keep",
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
    over: str = "mask",
) -> Float[Array, "*n"]:
    """Structural similarity, the mean over pixels and channels of `ssim_map`; 1 for equal pictures.

    Args:
      a, b, mask, over: as for `mse`. With "mask", windows reach beyond the part that counts.
      window: "gaussian" of the given sigma, 2 int(3.5 sigma + 0.5) + 1 pixels wide (11 for 1.5),
        or "uniform" of `size` pixels (odd).
      border: "keep" averages over the whole map, whose edge saw reflected pixels (torchmetrics
        since 1.4.2); "crop" leaves out half a window on each side (torchmetrics before, and what
        PIE-Bench's published table presumably used).
      data_range: of the pictures' values; C1 = (k1 L)^2, C2 = (k2 L)^2.

    Returns: [...] in [-1, 1].
    Raises: UserError for pictures smaller than the window, and for unknown choices.
    Source: Wang et al. 2004, eq. 13; torchmetrics functional/image/ssim.py.

        ssim(result, truth)
        ssim(result, source, mask=1 - edited, over="picture")    # PIE-Bench
    """
    _check("border", border, BORDERS)
    taps = _taps(window, size, sigma)
    a, b = pair(a, b)
    if mask is not None and over == "picture":
        keep = weights(mask, a.shape)
        a, b, mask = a * keep, b * keep, None
    found = _ssim_map(a, b, taps, float(k1 * data_range) ** 2, float(k2 * data_range) ** 2)
    edge = len(taps) // 2 if border == "crop" else 0
    if edge:
        _refuse_small(a.shape, 2 * edge + 1)
        found = _cropped(found, edge)
        mask = None if mask is None else _cropped(weights(mask, a.shape), edge)
    count, total = _counted(found, mask, over)
    return total / count


def ssim_map(a: Pictures, b: Pictures, taps: tuple[float, ...], c1: float, c2: float) -> Pictures:
    """SSIM of every pixel and channel, windows reflected at the border.

    (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2)), with m, s the
    means, variances and covariance under the window `taps` (applied along both axes); variances
    below 0, which rounding makes, count as 0. Second moments are taken about the mean of each
    picture, which changes nothing but the rounding.
    Raises: UserError for pictures that the window cannot be reflected in.
    """
    _refuse_small(a.shape, len(taps) // 2 + 1)
    centre_a, centre_b = (jax.lax.stop_gradient(x.mean((-3, -2), keepdims=True)) for x in (a, b))
    x, y = a - centre_a, b - centre_b
    mx, my, xx, yy, xy = _blurred(jnp.stack([x, y, x * x, y * y, x * y]), taps)
    variances = jnp.maximum(xx - mx**2, 0) + jnp.maximum(yy - my**2, 0)
    mean_a, mean_b = mx + centre_a, my + centre_b
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return light * (2 * (xy - mx * my) + c2) / (variances + c2)


_ssim_map = jax.jit(ssim_map, static_argnames=("taps", "c1", "c2"))


def _blurred(x: Pictures, taps: tuple[float, ...]) -> Pictures:
    """The window along height, then width; sums of shifted copies stay float32 on every device."""
    half = len(taps) // 2
    for axis in (-3, -2):
        pad = [(0, 0)] * x.ndim
        pad[axis] = (half, half)
        padded, length = jnp.pad(x, pad, "reflect"), x.shape[axis]
        shifted = (jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(len(taps)))
        x = sum(w * part for w, part in zip(taps, shifted, strict=True))
    return x


def _taps(window: str, size: int, sigma: float) -> tuple[float, ...]:
    _check("window", window, WINDOWS)
    if window == "uniform":
        if size < 1 or size % 2 == 0:
            raise UserError(f"ssim: a window of {size} pixels has no centre; use an odd size")
        return (1 / size,) * size
    half = int(3.5 * sigma + 0.5)
    gauss = np.exp(-0.5 * np.square(np.arange(-half, half + 1) / sigma))
    return tuple(float(g) for g in gauss / gauss.sum())


def _counted(values: Pictures, mask: Any, over: str) -> tuple[Array, Array]:
    """(how many values count, their sum) per picture; "picture" needs values that the mask scales.

    The squared error of masked pictures is mask^2 (a - b)^2.
    """
    _check("over", over, OVER)
    size = float(np.prod(values.shape[-3:]))
    if mask is None:
        return jnp.asarray(size), _sum(values)
    keep = weights(mask, values.shape)
    if over == "picture":
        return jnp.asarray(size), _sum(jnp.square(keep) * values)
    return _sum(keep) * values.shape[-1], _sum(keep * values)


@jax.jit
def _sum(values: Pictures) -> Float[Array, "*n"]:
    """The sum of each picture, by halves: a running sum of 10^6 float32 loses three digits."""
    flat = values.reshape(*values.shape[:-3], -1)
    while (count := flat.shape[-1]) > 1:
        half = count // 2
        rest = flat[..., 2 * half :]
        flat = flat[..., :half] + flat[..., half : 2 * half]
        flat = flat.at[..., :1].add(rest) if count % 2 else flat
    return flat[..., 0]


def _cropped(x: Pictures | Mask, edge: int) -> Pictures | Mask:
    return x[..., edge:-edge, edge:-edge, :]


def _refuse_small(shape: tuple[int, ...], least: int) -> None:
    if min(shape[-3:-1]) < least:
        raise UserError(
            f"ssim: pictures of {shape[-3]}x{shape[-2]} are smaller than the window allows "
            f"({least}); use a smaller window"
        )


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{name} is {' or '.join(known)}, not {value!r:.40}")
