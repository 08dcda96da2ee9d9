"""Keeping to a recorded path: what the mask keeps is put back onto it after every step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core import Transform


class Follow(Transform):
    """x' <- mask x' + (1 - mask) path_i after row i of the table.

    The path is what inversion passed through (`methods.inversion.passed`), so what the mask keeps
    arrives at the source's own latent. A mask over rows instead of cells resets whole rows: (0, 1)
    puts the source row of [source, target] back onto its path. A latent that is a pair follows a
    pair of paths.

    Source: Couairon et al. 2023, DiffEdit (2210.11427) step 3; Ju et al. 2024, PnP Inversion
    (2310.01506) algorithm 1, whose added offset x*_{t-1} - x'_{t-1} is this with the mask 0.
    """

    mask: Any  # broadcasts over [*rows, h, w, c], in [0, 1], 1 where the picture may change
    path: Any  # [steps, *rows, h, w, c], or a pytree of those like the latent

    def settle(self, move, state):
        def one(x_next, path):
            kept = path[move.step.index]
            # where, not a product: what is kept is kept to the bit, and NaN does not leak through
            mixed = self.mask * x_next + (1 - self.mask) * kept
            return jnp.where(self.mask == 0, kept, mixed).astype(x_next.dtype)

        return jax.tree.map(one, move.x_next, self.path), state
