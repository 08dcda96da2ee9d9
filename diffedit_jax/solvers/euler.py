"""Euler's method in sigma space, deterministic and ancestral (Karras et al. 2022)."""

from __future__ import annotations

from typing import Any

from .moves import moved, pulled_score, renoised
from .sigma_space import SigmaSolver


class Euler(SigmaSolver):
    """x_k' = x_k + (s' - s) eps, that is x' = alpha' x0 + sigma' eps.

    Order 1. A pull shifts the score, eps <- eps - sigma * pull, and x0 follows.
    Source: Karras et al. 2022 (2206.00364) algorithm 1; diffusers' EulerDiscreteScheduler.
    """

    def step(self, denoise, x, memory, step):
        prediction = pulled_score(denoise(x, step))
        return moved(prediction, step.alpha_next, step.sigma_next), memory, prediction


class EulerAncestral(SigmaSolver):
    """x_k' = x_k + (s_down - s) eps + s_up z.

    s_up^2 = s'^2 (s^2 - s'^2) / s^2, s_down^2 = s'^2 - s_up^2: DDIM at eta 1 on this grid. A pull
    shifts the score, eps <- eps - sigma * pull, and x0 follows.
    Source: k-diffusion's sample_euler_ancestral; diffusers' EulerAncestralDiscreteScheduler.
    """

    eta: Any = 1.0  # [] share of the ancestral noise

    draws = True

    def step(self, denoise, x, memory, step):
        prediction = pulled_score(denoise(x, step))
        return renoised(prediction, step, self.eta), memory, prediction
