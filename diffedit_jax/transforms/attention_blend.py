"""Edits that stay local: outside a region the targets keep the source row's latent."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from ..core import Transform
from .attention import ReadWords

_POOL = 3  # side of the maximum filter on the maps of the words that may change


class LocalBlend(Transform):
    """x_target <- x_source outside the region that some words attend to, after every step.

    S = sum over steps, layers and heads of the words' attention at layers of size `grid`;
    region = upsampled(pooled S) / max > threshold, of the source or of the target, and not where
    the words that must not change pass their own threshold (unpooled). Sums are kept, not maps.
    Where no word is named the region is empty and the target is the source.

    Source: Hertz et al. 2022 section 4, "local editing"; the null-text notebook's LocalBlend
    (start, two thresholds, substruct_words).
    """

    select: Any  # [rows, 2, tokens] words that may change, words that must not
    threshold: Any  # [2] of the two
    start: Any  # [] int32, steps before it acts; 0 acts from the first
    grid: tuple = struct.field(pytree_node=False)  # (height, width) of the layers that are read
    tag: str = struct.field(pytree_node=False, default="local_blend")

    @property
    def _read(self) -> ReadWords:
        return ReadWords(select=self.select, grid=self.grid, tag=self.tag)

    def init(self, x):
        return self._read.init(x)

    def denoise(self, inner, state):
        return self._read.denoise(inner, state)

    def settle(self, move, totals):
        x_next, totals = self._read.settle(move, totals)
        walked = move.step.index if move.step.walked is None else move.step.walked
        waiting = walked + 1 <= self.start

        def local(x):
            return only_inside(self.region(totals, x.shape[-3:-1]) | waiting, x)

        return jax.tree.map(local, x_next), totals

    def region(
        self, totals: Float[Array, "rows 2 gh gw"], size: tuple[int, int]
    ) -> Bool[Array, "rows h w 1"]:
        """Where each row may differ from the source, at a latent's size."""
        may = self._above(_pooled(totals[:, 0]), size, self.threshold[0])
        must_not = self._above(totals[:, 1], size, self.threshold[1])
        return (may & ~must_not)[..., None]

    def _above(self, maps, size, threshold):
        maps = _nearest(maps, size)
        highest = maps.max(axis=(-2, -1), keepdims=True)
        above = maps / jnp.where(highest > 0, highest, 1) > threshold
        return above[:1] | above


class KeepOutside(Transform):
    """x_target <- x_source outside a given mask, after every step; soft masks mix the two."""

    mask: Any  # [h, w, 1] in [0, 1], 1 where the targets may differ from the source row

    def settle(self, move, state):
        def keep(x):
            return jnp.where(self.mask == 1, x, x[:1] + self.mask * (x - x[:1]))

        return jax.tree.map(keep, move.x_next), state


def only_inside(
    region: Bool[Array, "rows h w 1"], x: Float[Array, "rows h w c"]
) -> Float[Array, "rows h w c"]:
    """Each row inside its region, row 0 elsewhere."""
    return jnp.where(region, x, x[:1])


def _pooled(maps: Float[Array, "rows h w"]) -> Float[Array, "rows h w"]:
    """Maximum over each cell's 3 x 3 neighbourhood."""
    window = (1, _POOL, _POOL)
    return jax.lax.reduce_window(maps, -jnp.inf, jax.lax.max, window, (1, 1, 1), "SAME")


def _nearest(maps: Float[Array, "rows gh gw"], size: tuple[int, int]) -> Float[Array, "rows h w"]:
    """Nearest neighbour, cell floor(i * grid / size), as torch's interpolate."""
    rows, columns = (np.arange(n) * g // n for n, g in zip(size, maps.shape[1:], strict=True))
    return maps[:, rows][:, :, columns]
