"""Masks: outside the mask the latent is put back onto a known path after every step."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..core import Transform


class Blend(Transform):
    """x' <- mask x' + (1 - mask) (alpha' x0 + sigma' noise), after every step.

    The kept part is the source at the level that the step has reached, and x0 itself after the
    last step (where a schedule's own last level may still be a little noisy).
    Source: Avrahami et al. 2022 (blended diffusion); the masked loop of SDEdit (2108.01073).
    """

    mask: Any  # [h, w, 1] in [0, 1], 1 where the picture may change
    x0: Any  # [*rows, h, w, c] the source's latent
    noise: Any  # [*rows, h, w, c] the noise that carries it along the path

    def settle(self, move, state):
        step = move.step
        path = step.alpha_next * self.x0 + step.sigma_next * self.noise
        kept = jnp.where(step.last, self.x0, path)
        return self.mask * move.x_next + (1 - self.mask) * kept, state
