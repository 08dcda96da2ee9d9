"""What Euler, Heun and LMS share: their grid, and where a run from pure noise starts."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from ..core import Solver
from .grids import chosen, final_sigma, fractional_grid, sigma_table


class SigmaSolver(Solver):
    """A solver of dx_k/ds = eps in x_k = x / alpha, s = sigma / alpha.

    Attributes:
      karras: sigmas spaced by Karras et al. 2022 between the grid's ends.
      final: "zero" ends at the clean latent, "sigma_min" at the lowest trained level.
    """

    karras: bool = struct.field(pytree_node=False, default=False)
    final: str = struct.field(pytree_node=False, default="zero")

    def steps(self, schedule, count, *, spacing=None, start=0):
        spacing = chosen(schedule, count, spacing, "linspace")
        t, s = fractional_grid(schedule, count, spacing, self.karras)
        end = final_sigma(schedule, self.final)
        steps = sigma_table(t, s, end, start, self._columns(s, end))
        scale = steps.alpha**0 if spacing == "leading" else steps.sigma
        return steps.replace(more={**steps.more, "begin": scale})

    def _columns(self, s, end: float) -> dict:
        """Columns of the table that one solver needs, from its levels and the end."""
        return {}

    def begin(self, steps, noise):
        """x_k = s_max noise on linspace and trailing grids, sqrt(s_max^2 + 1) noise on leading.

        In variance-preserving units sigma * noise and noise, as diffusers' init_noise_sigma.
        """
        return jnp.ravel(jnp.asarray(steps.more["begin"]))[0].astype(noise.dtype) * noise
