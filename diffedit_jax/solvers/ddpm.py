"""DDPM (Ho et al. 2020): ancestral sampling from the posterior, with fixed or learned variance."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from ..core import Solver
from ..errors import UserError
from .grids import timestep_table
from .moves import clipped

VARIANCES = ("fixed_small", "fixed_large", "learned_range")


class DDPM(Solver):
    """x' = alpha' b / sigma^2 x0 + sqrt(a) sigma'^2 / sigma^2 x + var * pull + sqrt(var) z.

    a = alpha^2 / alpha'^2, b = 1 - a. fixed_small: var = b sigma'^2 / sigma^2 (at least 1e-20);
    fixed_large: var = b; learned_range: log var = f log b + (1 - f) log(small), f = (v + 1) / 2
    from the network's second half. A pull shifts the mean by its variance (classifier guidance,
    Dhariwal & Nichol 2021, algorithm 1). The last row leads to the clean latent and draws nothing.
    Source: Ho et al. 2020 (2006.11239) eq. 7; Nichol & Dhariwal 2021 eq. 15; DDPMScheduler.

    Attributes:
      clip: x0 is clipped to [-clip, clip] (pixel models); None leaves it.
      variance: one of `VARIANCES`.
      compat: "diffusers" also draws in the last row unless its time is 0.
    """

    clip: Any = None  # []
    variance: str = struct.field(pytree_node=False, default="fixed_small")
    compat: str = struct.field(pytree_node=False, default="")

    draws = True

    def steps(self, schedule, count, *, spacing=None, start=0):
        if self.variance not in VARIANCES:
            raise UserError(f"variance must be one of {', '.join(VARIANCES)}")
        steps = timestep_table(schedule, count, spacing, start, final_abar=1.0)
        return steps.replace(more=_posterior(schedule, steps, self.compat))

    def step(self, denoise, x, memory, step):
        prediction = denoise(x, step)
        x0 = clipped(prediction, self.clip).x0
        log_variance = self._log_variance(prediction, step.more)
        mean = step.more["of_x0"] * x0 + step.more["of_x"] * x
        mean = mean + jnp.exp(log_variance) * prediction.pull
        spread = step.more["noisy"] * jnp.exp(log_variance / 2)
        return mean + spread * step.normal(x), memory, prediction

    def _log_variance(self, prediction, more):
        if self.variance == "learned_range":
            if prediction.log_variance is None:
                raise UserError("variance 'learned_range' needs a network that predicts it")
            share = (prediction.log_variance + 1) / 2
            return share * more["log_large"] + (1 - share) * more["log_small"]
        return more["log_large" if self.variance == "fixed_large" else "log_small"]


def _posterior(schedule, steps, compat: str) -> dict:
    """The coefficients of each row in float64, since 1 - a loses digits between close levels."""
    abar = schedule.abar[steps.t.astype(int)].astype(np.float64)
    after = np.append(abar[1:], 1.0)
    a = abar / after
    small = (1 - after) / (1 - abar) * (1 - a)
    columns = dict(
        of_x0=np.sqrt(after) * (1 - a) / (1 - abar),
        of_x=np.sqrt(a) * (1 - after) / (1 - abar),
        log_small=np.log(np.maximum(small, 1e-20)),
        log_large=np.log(1 - a),
        noisy=steps.t > 0 if compat == "diffusers" else ~steps.last,
    )
    return {name: column.astype(np.float32) for name, column in columns.items()}
