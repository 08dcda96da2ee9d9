"""DDIM (Song et al. 2021): deterministic at eta 0, ancestral at eta 1."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from ..core import Prediction, Schedule, Solver, Step, grid, levels, table


def timestep_table(schedule: Schedule, count: int, spacing: str | None, start: int,
                   compat: str = "") -> Step:  # fmt: skip
    """The table of the solvers that walk whole training timesteps (DDIM, DDPM).

    The level after a row is the next row's; `compat="diffusers"` takes t - T // N instead, which
    differs where the grid's stride is not T // N (linspace, trailing that does not divide T).
    """
    t = np.round(grid(schedule.train_steps, count, spacing or schedule.spacing or "leading",
                      schedule.steps_offset)).astype(int)  # fmt: skip
    after = t - schedule.train_steps // count if compat == "diffusers" else np.append(t[1:], -1)
    abar_after = np.where(after < 0, schedule.final_abar, schedule.abar[np.maximum(after, 0)])
    alpha, sigma = levels(np.append(schedule.abar[t], abar_after[-1]))
    steps = table(np.append(t, max(after[-1], 0)), alpha, sigma, start=start)
    alpha_next, sigma_next = (a.astype(np.float32) for a in levels(abar_after))
    t_next = np.maximum(after, 0).astype(np.float32)
    return steps.replace(t_next=t_next, alpha_next=alpha_next, sigma_next=sigma_next)


class DDIM(Solver):
    """x' = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s z.

    s = eta (sigma' / sigma) sqrt(1 - alpha^2 / alpha'^2). A pull shifts the score,
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

    def steps(self, schedule, count, *, spacing=None, start=0):
        return timestep_table(schedule, count, spacing, start, self.compat)

    def step(self, denoise, x, memory, step):
        prediction = pulled_score(denoise(x, step))
        x0, eps = self._clipped(prediction)
        noise, spread = 0.0, 0.0
        if self.eta is not None:
            kept = jnp.clip(1 - (step.alpha / step.alpha_next) ** 2, 0)
            spread = self.eta * step.sigma_next / step.sigma * jnp.sqrt(kept)
            noise = spread * step.normal(x)
        left = jnp.sqrt(jnp.clip(step.sigma_next**2 - spread**2, 0))
        return step.alpha_next * x0 + left * eps + noise, memory, prediction

    def _clipped(self, prediction):
        if self.clip is None:
            return prediction.x0, prediction.eps
        x0 = jnp.clip(prediction.x0, -self.clip, self.clip)
        return x0, prediction.with_x0(x0).eps if self.recompute_eps else prediction.eps


def pulled_score(prediction: Prediction) -> Prediction:
    """The rule of the deterministic solvers: a pull shifts the score, eps - sigma * pull."""
    if isinstance(prediction.pull, float):  # nobody pulled
        return prediction
    return prediction.with_eps(prediction.eps - prediction.sigma * prediction.pull)
