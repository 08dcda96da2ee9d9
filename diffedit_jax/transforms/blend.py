"""Masks: outside the mask the latent is put back onto a known path after every step."""

from __future__ import annotations

from typing import Any

from ..core import Transform


class Blend(Transform):
    """x' <- mask x' + (1 - mask) (alpha' x0 + sigma' noise), after every step.

    The kept part is the source at the level that the step has reached, so at the end of the table
    it is the source's latent itself (up to the schedule's last level).
    Source: Avrahami et al. 2022 (blended diffusion); the masked loop of SDEdit (2108.01073).
    """

    mask: Any  # [h, w, 1] in [0, 1], 1 where the picture may change
    x0: Any  # [*rows, h, w, c] the source's latent
    noise: Any  # [*rows, h, w, c] the noise that carries it along the path

    def settle(self, move, state):
        kept = move.step.alpha_next * self.x0 + move.step.sigma_next * self.noise
        return self.mask * move.x_next + (1 - self.mask) * kept, state
