"""Heun's method in sigma space: an Euler step, asked again where it lands (Karras et al. 2022)."""

from __future__ import annotations

import jax

from .moves import landing, moved, pulled_score
from .sigma_space import SigmaSolver


class Heun(SigmaSolver):
    """x_k' = x_k + (s' - s) (eps(x_k, s) + eps(x_k + (s' - s) eps, s')) / 2.

    Order 2, asks twice a step; once in the last step, where s' = 0. A pull shifts each score,
    eps <- eps - sigma * pull. The prediction of a step is the averaged one, seen from x.
    Source: Karras et al. 2022 (2206.00364) algorithm 1; diffusers' HeunDiscreteScheduler.
    """

    def evaluations(self, count: int) -> int:
        return 2 * count - (self.final == "zero")

    def step(self, denoise, x, memory, step):
        prediction = pulled_score(denoise(x, step))

        def averaged(eps):
            there = moved(prediction, step.alpha_next, step.sigma_next).astype(x.dtype)
            return (eps + pulled_score(denoise(there, landing(step))).eps).astype(eps.dtype) / 2

        eps = jax.lax.cond(step.sigma_next > 0, averaged, lambda eps: eps, prediction.eps)
        # the change of eps moves x0 too; adding it to Euler's step keeps the digits of x0
        stretch = step.sigma_next - step.alpha_next * step.sigma / step.alpha
        x_next = moved(prediction, step.alpha_next, step.sigma_next)
        return x_next + stretch * (eps - prediction.eps), memory, prediction.with_eps(eps)
