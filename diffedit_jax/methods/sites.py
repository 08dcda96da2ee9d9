"""Where a network has cross attention, found by asking it for shapes only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ..core import Control, Site, row, table
from ..errors import UserError

_FOUND: dict[Any, tuple[Site, ...]] = {}


class _Look(Control):
    """Notes every site that is offered and wants none."""

    seen: list = struct.field(pytree_node=False)

    def wants(self, site: Site) -> bool:
        self.seen.append(site)
        return False


def cross_sites(model, shape: tuple[int, int, int]) -> tuple[Site, ...]:
    """The cross attention layers for latents of shape (h, w, c), in the order of the network.

    Nothing is computed: the network is traced once for abstract arrays, and the answer is kept.
    """
    key = (getattr(model.denoiser, "module", type(model.denoiser)), shape)
    if key not in _FOUND:
        step = row(table([1, 1], [0.5, 0.5], [0.5, 0.5]), 0)
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        look = _Look(seen=[])
        jax.eval_shape(lambda x, c: model.denoiser(x, step, c, look), x, model.condition([""]))
        _FOUND[key] = tuple(s for s in look.seen if s.kind == "cross")
    return _FOUND[key]


def most_cells(height: int, width: int) -> int:
    """Cells of the layers where layout lives: 16 x 16, or a quarter of a larger latent's sides."""
    return max(256, (height // 4) * (width // 4))


def reading_grid(model, shape: tuple[int, int, int], resolution=None) -> tuple[int, int]:
    """The grid (height, width) of the cross attention that words are located with.

    Args:
      shape: of the latent.
      resolution: height of the grid; None takes the finest grid of at most `most_cells`.
    Raises: UserError, naming the grids there are.
    """
    grids = sorted({(s.height, s.width) for s in cross_sites(model, shape)})
    if resolution is None:
        fitting = [g for g in grids if g[0] * g[1] <= most_cells(*shape[:2])]
        fitting = fitting or grids[:1]
    else:
        fitting = [g for g in grids if g[0] == resolution]
    if not fitting:
        known = ", ".join(f"{h} x {w}" for h, w in grids) or "none"
        raise UserError(f"no cross attention with {resolution} rows of cells; there are: {known}")
    return fitting[-1]
