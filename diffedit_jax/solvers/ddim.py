"""DDIM (Song et al. 2021): deterministic at eta 0, ancestral at eta 1."""

from __future__ import annotations

from typing import Any

from flax import struct

from ..core import Solver
from .grids import timestep_table
from .moves import clipped, moved, pulled_score, renoised


class DDIM(Solver):
    """x' = alpha' x0 + sqrt(sigma'^2 - u^2) eps + u z.

    u = eta (sigma' / sigma) sqrt(1 - alpha^2 / alpha'^2). A pull shifts the score,
    eps <- eps - sigma * pull, and x0 follows.
    Source: Song et al. 2021 (2010.02502) eq. 12 and 16; diffusers' DDIMScheduler.

    Attributes:
      eta: 0 deterministic .. 1 as noisy as DDPM; None draws no noise at all.
      clip: x0 is clipped to [-clip, clip] (pixel models); None leaves it.
      recompute_eps: after clipping, eps follows the clipped x0.
      compat: "diffusers" for its t - T // N rule on every grid.
    """

    eta: Any = None  # []
    clip: Any = None  # []
    recompute_eps: bool = struct.field(pytree_node=False, default=False)
    compat: str = struct.field(pytree_node=False, default="")

    @property
    def draws(self) -> bool:
        return self.eta is not None

    def steps(self, schedule, count, *, spacing=None, start=0):
        return timestep_table(schedule, count, spacing, start, self.compat)

    def step(self, denoise, x, memory, step):
        prediction = pulled_score(denoise(x, step))
        used = clipped(prediction, self.clip)
        if self.recompute_eps:
            used = prediction.with_x0(used.x0)
        if self.eta is None:
            return moved(used, step.alpha_next, step.sigma_next), memory, prediction
        return renoised(used, step, self.eta), memory, prediction
