"""DPM-Solver++ 2M (Lu et al. 2022): an exponential integrator that remembers one clean estimate."""

from __future__ import annotations

import numpy as np
from flax import struct

from ..core import Solver
from ..errors import UserError
from .grids import chosen, final_sigma, log_snr, rounded_grid, sigma_table
from .moves import for_age, no_past, pulled_score, remembered, weighted

_FEW = 15  # below this many steps the last one is always of order 1
RULES = ("midpoint", "heun")


class DPMpp2M(Solver):
    """x' = (sigma' / sigma) x - alpha' (e^-h - 1) (m0 + D / 2),  D = (m0 - m1) / r.

    m0, m1: this and the last clean estimate; lambda = log(alpha / sigma), h = lambda' - lambda,
    r = h_before / h. "heun" weighs D by alpha' ((e^-h - 1) / h + 1) instead. Order 1 in the first
    row walked and, where it ends at the clean latent or runs fewer than 15 steps, in the last.
    A pull shifts the score, eps <- eps - sigma * pull, and m0 follows.
    Source: Lu et al. 2022 (2211.01095) algorithm 2; diffusers' DPMSolverMultistepScheduler.

    Attributes:
      karras: sigmas spaced by Karras et al. 2022 over the whole schedule.
      final: "zero" ends at the clean latent, "sigma_min" at the lowest trained level.
      rule: "midpoint" or "heun".
    """

    karras: bool = struct.field(pytree_node=False, default=False)
    final: str = struct.field(pytree_node=False, default="zero")
    rule: str = struct.field(pytree_node=False, default="midpoint")

    def steps(self, schedule, count, *, spacing=None, start=0):
        if self.rule not in RULES:
            raise UserError(f"rule must be one of {', '.join(RULES)}, not {self.rule!r}")
        spacing = chosen(schedule, count, spacing, "linspace")
        t, s = rounded_grid(schedule, count, spacing, self.karras)
        end = final_sigma(schedule, self.final)
        weights = _weights(np.append(s, end), self.rule)
        return sigma_table(t, s, end, start, {"weights": weights})

    def init(self, x):
        return no_past(x, 1)

    def step(self, denoise, x, past, step):
        prediction = pulled_score(denoise(x, step))
        change = weighted(for_age(step.more["weights"], step), (prediction.x0, *past))
        x_next = step.sigma_next / step.sigma * x + change
        return x_next, remembered(prediction.x0, past), prediction


def _weights(s: np.ndarray, rule: str) -> np.ndarray:
    """[n, 2, 2]: for each row and order, what (m0, m1) add to (sigma' / sigma) x."""
    count = len(s) - 1
    alpha, lam = 1 / np.sqrt(1 + s**2), log_snr(s)
    weights = np.zeros((count, 2, 2))
    for i in range(count):
        h = lam[i + 1] - lam[i]
        first = -alpha[i + 1] * np.expm1(-h)
        weights[i, :] = [first, 0]
        last_is_low = i == count - 1 and (count < _FEW or s[-1] == 0)
        if i == 0 or last_is_low or h == 0:
            continue
        slope = first / 2 if rule == "midpoint" else alpha[i + 1] * (np.expm1(-h) / h + 1)
        slope *= h / (lam[i] - lam[i - 1])
        weights[i, 1] = [first + slope, -slope]
    return weights.astype(np.float32)
