"""What every metric accepts as pictures and masks, checked once."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffedit_jax.errors import UserError

Pictures = Float[Array, "*n h w c"]
Mask = Float[Array, "*n h w 1"]


def unit(pictures: Any, name: str = "the pictures") -> Pictures:
    """uint8 [..., h, w, c] as float32 in [0, 1]; floats pass as float32, unscaled.

    Raises: UserError for other kinds of numbers, and for arrays without height, width, channels.
    """
    pictures = pictures if hasattr(pictures, "dtype") else np.asarray(pictures)
    if pictures.ndim < 3 or 0 in pictures.shape[-3:]:
        raise UserError(f"{name} have the shape {list(pictures.shape)}; give [..., h, w, channels]")
    if pictures.dtype == np.uint8:
        return jnp.asarray(pictures, jnp.float32) / 255
    if not jnp.issubdtype(pictures.dtype, jnp.floating):
        raise UserError(f"{name} are {pictures.dtype}; give uint8, or floats in [0, 1]")
    return jnp.asarray(pictures, jnp.float32)


def pair(a: Any, b: Any) -> tuple[Pictures, Pictures]:
    """Two stacks of pictures of one shape, as `unit` gives them.

    Raises: UserError when the shapes differ (nothing is broadcast or resized in silence).
    """
    a, b = unit(a, "the first pictures"), unit(b, "the second pictures")
    if a.shape != b.shape:
        raise UserError(
            f"pictures of {list(a.shape)} and {list(b.shape)} cannot be compared; make their "
            "sizes equal"
        )
    return a, b


def weights(mask: Any, shape: tuple[int, ...]) -> Mask:
    """A mask [..., h, w] or [..., h, w, 1] as float32 [..., h, w, 1] beside pictures of `shape`.

    Leading axes that the mask lacks are shared: one mask serves a stack of pictures.
    Raises: UserError when it does not fit.
    """
    mask = mask if hasattr(mask, "dtype") else np.asarray(mask)
    whole = mask.ndim >= 3 and mask.shape[-1] == 1 and mask.shape[-3:-1] == shape[-3:-1]
    if not whole and mask.shape[-2:] != shape[-3:-1]:
        raise UserError(f"a mask of {list(mask.shape)} does not fit pictures of {list(shape)}")
    scale = 255 if mask.dtype == np.uint8 else 1
    found = jnp.asarray(mask, jnp.float32) / scale
    found = found if whole else found[..., None]
    if found.ndim > len(shape):
        raise UserError(f"a mask of {list(mask.shape)} does not fit pictures of {list(shape)}")
    try:
        return jnp.broadcast_to(found, (*shape[:-1], 1))
    except ValueError:
        raise UserError(
            f"a mask of {list(mask.shape)} does not fit pictures of {list(shape)}"
        ) from None
