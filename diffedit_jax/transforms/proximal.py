"""Proximal guidance: guidance only where the prompts clearly disagree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from ..core import Transform


class Proximal(Transform):
    """eps = sum_b base_b eps_b + s prox(d), d = eps_-1 - eps_-2, in the place of Combine.

    The last branch is the prompt's and the one before it the source prompt's: of (source, prompt)
    the base is (1, 0); of (null, source, prompt) it is (1 - s, s, 0), the guided source, so that
    without prox this is guidance from null to prompt, and where prox drops everything the source's.

    prox keeps what exceeds the threshold, the given quantile of |d| over the picture:
    "l0" as it is (hard), "l1" shrunk by the threshold (soft). Where nothing exceeds it, and below
    the time `until`, x0 is pulled towards the source: x0 <- x0 - rate (x0 - z0) outside the
    exceeding cells, which are dilated by `dilate`.

    Source: Han et al. 2024, ProxEdit (2306.05414) section 3.3. The published code differs: its "l0"
    is the soft threshold and its "l1" applies it twice (here the names mean what the paper says);
    its quantile is taken over source and target rows together, of which the source's are 0, so that
    0.7 there drops about 0.4 of the target's entries; its pulled cells are those that exceed the
    threshold still after they were shrunk by it.
    """

    scale: Any  # []
    base: Any  # [branches] weights of what the kept differences are added to
    quantile: Any  # [] in [0, 1]; 1 drops all
    source: Any  # [*rows, h, w, c] z0
    rate: Any  # [] 0 leaves x0 alone
    until: Any  # [] time below which x0 is pulled
    kind: str = struct.field(pytree_node=False, default="l0")
    dilate: int = struct.field(pytree_node=False, default=1)

    def denoise(self, inner, state):
        def ask(x, step, cond, control=None):
            every = inner(jnp.broadcast_to(x, (len(self.base), *x.shape)), step, cond, control)
            kept, exceeds = self.proximal(every.eps[-1] - every.eps[-2])
            mixed = every.combined(self.base)
            mixed = mixed.with_eps(mixed.eps + self.scale * kept)
            quiet = 1 - self._dilated(exceeds)
            pull = jnp.where(step.t < self.until, self.rate, 0.0) * quiet
            # as in a clipped DDIM step, eps stays what it was
            return mixed.replace(x0=mixed.x0 - pull * (mixed.x0 - self.source))

        return ask

    def proximal(self, d: Float[Array, "*rows h w c"]):
        """(what is kept of d, 1 where it exceeds the threshold)."""
        size = jnp.abs(d)
        threshold = jnp.quantile(size, self.quantile, axis=(-3, -2, -1), keepdims=True)
        exceeds = (size > threshold).astype(d.dtype)
        shrunk = threshold * jnp.sign(d) if self.kind == "l1" else 0.0
        return (d - shrunk) * exceeds, exceeds

    def _dilated(self, mask):
        window = (*(1 for _ in mask.shape[:-3]), 2 * self.dilate + 1, 2 * self.dilate + 1, 1)
        return jax.lax.reduce_window(mask, 0.0, jax.lax.max, window, (1,) * mask.ndim, "SAME")
