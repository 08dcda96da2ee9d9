"""A network applied to overlapping tiles of a picture, one at a time, and blended."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def tile_starts(length: int, tile: int, overlap: int, multiple: int = 1) -> np.ndarray:
    """Offsets of tiles that cover `length`, all whole, at least `overlap` apart from the edge.

    Offsets are multiples of `multiple`; the last tile ends at the end.
    """
    step = max(tile - overlap, 1)
    count = 1 + max(0, -(-(length - tile) // step))
    spread = np.linspace(0, (length - tile) // multiple, count)
    return np.round(spread).astype(np.int32) * multiple


def ramp(tile: int, overlap: int) -> np.ndarray:
    """Weights along one axis: 1 inside, falling linearly to 1/(overlap+1) at both ends."""
    distance = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 1
    return np.minimum(distance / (overlap + 1), 1.0).astype(np.float32)


def blend_tiles(
    apply: Callable,
    x: Float[Array, "n h w c"],
    tile: int,
    overlap: int,
    grow: int,
    shrink: int,
) -> Float[Array, "n h2 w2 c2"]:
    """sum_i weight_i apply(tile_i) / sum_i weight_i.

    tile, overlap: in cells of x, rounded down to multiples of `shrink`. The result is `grow`
    times larger and `shrink` times smaller than x. All tiles have one shape, so one program
    serves them; memory is that of one tile.
    """
    n, h, w, _ = x.shape
    size = tuple(min(tile // shrink * shrink, side) for side in (h, w))
    starts = [tile_starts(a, b, overlap, shrink) for a, b in zip((h, w), size, strict=True)]
    corners = np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 2)
    if len(corners) == 1:
        return apply(x)
    edge = max(overlap * grow // shrink, 1)
    rows, columns = (ramp(side * grow // shrink, edge) for side in size)
    weight = (rows[:, None] * columns)[..., None]
    shape = jax.eval_shape(apply, jax.ShapeDtypeStruct((n, *size, x.shape[-1]), x.dtype)).shape
    canvas = jnp.zeros((n, h * grow // shrink, w * grow // shrink, shape[-1] + 1), jnp.float32)

    def add(canvas, corner):
        part = jax.lax.dynamic_slice(x, (0, *corner, 0), (n, *size, x.shape[-1]))
        part = jnp.concatenate([apply(part), jnp.ones((*shape[:-1], 1))], axis=-1) * weight
        at = (0, *(corner * grow // shrink), 0)
        old = jax.lax.dynamic_slice(canvas, at, part.shape)
        return jax.lax.dynamic_update_slice(canvas, old + part, at), None

    canvas, _ = jax.lax.scan(add, canvas, jnp.asarray(corners))
    return canvas[..., :-1] / canvas[..., -1:]
