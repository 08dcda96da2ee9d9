"""Resizing as two small matrices, equal to PIL's or torch's resampling as asked for.

Source: Pillow src/libImaging/Resample.c (antialias); torch aten UpSampleKernel.cpp (without).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

KEYS = {"antialias": -0.5, "plain": -0.75}  # the parameter of the cubic kernel, in PIL and torch


def resize(
    x: Float[Array, "*n h w c"],
    size: tuple[int, int],
    method: str = "bicubic",
    *,
    antialias: bool = True,
    step: tuple[float, float] | None = None,
) -> Float[Array, "*n h2 w2 c"]:
    """Pictures at another size; pixel centres at i + 1/2 (align_corners False).

    Args:
      size: (height, width) of the result.
      method: "bicubic" or "bilinear".
      antialias: widen the kernel when shrinking and leave out what lies outside (PIL, and torch
        with antialias); without it, torch's: 2 or 4 neighbours, edges repeated.
      step: input pixels per output pixel where that is not the ratio of the sizes (torch's
        scale_factor without recomputation); only without antialias.
    """
    for axis, length in zip((-3, -2), size, strict=True):
        ratio = x.shape[axis] / length if step is None else step[axis + 3]
        matrix = jnp.asarray(_matrix(x.shape[axis], length, method, antialias, ratio))
        form = "ij,...jwc->...iwc" if axis == -3 else "ij,...hjc->...hic"
        x = jnp.einsum(form, matrix, x, precision=jax.lax.Precision.HIGHEST)
    return x


def resize_bytes(x: Float[Array, "*n h w c"], size: tuple[int, int]) -> Float[Array, "*n h2 w2 c"]:
    """Bicubic resizing of [0, 1] pictures as Pillow does it on bytes, rounded to 1/255.

    Width first, then height, rounded and clipped after each. That is Pillow's order where
    proportions are kept; since version 13 it may take the other where they are not, which moves
    some values by a byte's step or a few.
    """
    for shape in ((x.shape[-3], size[1]), size):
        if shape != x.shape[-3:-1]:
            x = jnp.round(jnp.clip(resize(x, shape), 0, 1) * 255) / 255
    return x


@functools.lru_cache(maxsize=64)
def _matrix(length: int, out: int, method: str, antialias: bool, ratio: float) -> np.ndarray:
    """float32 [out, length]: how much each old pixel gives to each new one."""
    kernel, reach = _kernel(method, antialias)
    centres = (np.arange(out) + 0.5) * ratio
    if antialias:
        wide = max(ratio, 1.0)
        places = np.arange(length)[None] + 0.5 - centres[:, None]
        near = np.abs(places) < reach * wide
        found = np.where(near, kernel(places / wide), 0.0)
        return (found / found.sum(1, keepdims=True)).astype(np.float32)
    if method == "bilinear":
        centres = np.maximum(centres, 0.5)
    first = np.floor(centres - 0.5).astype(int) - (reach - 1)
    found = np.zeros((out, length))
    for offset in range(2 * reach):
        old = first + offset
        weight = kernel(old + 0.5 - centres)
        np.add.at(found, (np.arange(out), np.clip(old, 0, length - 1)), weight)
    return found.astype(np.float32)


def _kernel(method: str, antialias: bool):
    """(the kernel, how many pixels it reaches to either side)."""
    if method == "bilinear":
        return lambda x: np.maximum(1 - np.abs(x), 0), 1
    a = KEYS["antialias" if antialias else "plain"]

    def cubic(x):
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))

    return cubic, 2


def shorter_side(shape: tuple[int, ...], short: int, longest: int | None = None) -> tuple[int, int]:
    """(height, width) with the shorter side `short`, the other int(short * long / short side).

    With `longest`, a longer side beyond it is cut to it and the shorter follows.
    Source: torchvision transforms.functional.resize; transformers' get_resize_output_image_size.
    """
    height, width = shape[-3:-1]
    least, most = min(height, width), max(height, width)
    new = (short, int(short * most / least))
    if longest is not None and new[1] > longest:
        new = (int(longest * new[0] / new[1]), longest)
    return new if height <= width else new[::-1]


def centre_crop(x: Float[Array, "*n h w c"], size: int, *, whole: bool) -> Array:
    """The middle size x size; an odd margin is split up by rounding, or down when `whole`.

    Rounding is torchvision's int(round(margin / 2)), `whole` transformers' margin // 2.
    Pictures smaller than that are surrounded by zeros.
    """
    missing = [max(0, size - n) for n in x.shape[-3:-1]]
    if any(missing):
        pads = [(m // 2, m - m // 2) for m in missing]
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + pads + [(0, 0)])
    margins = [n - size for n in x.shape[-3:-1]]
    top, left = (m // 2 if whole else math.floor(_half_even(m)) for m in margins)
    return x[..., top : top + size, left : left + size, :]


def _half_even(margin: int) -> int:
    return round(margin / 2)
