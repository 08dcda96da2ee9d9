"""UniPC (Zhao et al. 2023): a multistep predictor, and a corrector that costs no extra question."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from flax import struct

from ..core import Solver
from ..errors import UserError
from .grids import chosen, final_sigma, log_snr, rounded_grid, sigma_table
from .moves import no_past, pulled_score, remembered, weighted


class UniPC(Solver):
    """x' = (sigma' / sigma) x - alpha' B (m0 + sum_k rho_k (m_k - m0) / r_k),  B = e^-h - 1.

    m_k: clean estimates, newest first; r_k = (lambda_{i-k} - lambda_i) / h; rho solves
    sum_k rho_k r_k^(j-1) = j! phi_j(-h) / B (1/2 at order 2). The next step's answer m' corrects x'
    before it predicts on: the same sum with r = 1 for m' - m0 (rho 1/2 at order 1). Only the
    difference of the two sums is added, so that what an edit changed in between is kept.
    The order grows from 1 at the first row walked, and falls to 1 in the last.
    A pull shifts the score, eps <- eps - sigma * pull, and m0 follows.
    Source: Zhao et al. 2023 (2302.04867) algorithms 5 to 8, B_2;
    diffusers' UniPCMultistepScheduler.

    Attributes:
      order: 1 to 3.
      karras: sigmas spaced by Karras et al. 2022 over the whole schedule.
      final: "zero" ends at the clean latent, "sigma_min" at the lowest trained level.
    """

    order: int = struct.field(pytree_node=False, default=2)
    karras: bool = struct.field(pytree_node=False, default=False)
    final: str = struct.field(pytree_node=False, default="zero")

    def steps(self, schedule, count, *, spacing=None, start=0):
        if not 1 <= self.order <= 3:
            raise UserError(f"order must be 1, 2 or 3, not {self.order}")
        spacing = chosen(schedule, count, spacing, "linspace")
        t, s = rounded_grid(schedule, count, spacing, self.karras)
        end = final_sigma(schedule, self.final)
        more = _weights(np.append(s, end), self.order)
        return sigma_table(t, s, end, start, more)

    def init(self, x):
        return no_past(x, self.order)

    def step(self, denoise, x, past, step):
        prediction = pulled_score(denoise(x, step))
        known = (prediction.x0, *past)
        age = jnp.minimum(step.walked, self.order)
        x = x + weighted(step.more["correct"][age], known)
        predict = step.more["predict"][jnp.minimum(age, self.order - 1)]
        x_next = step.sigma_next / step.sigma * x + weighted(predict, known[: self.order])
        return x_next, remembered(prediction.x0, past), prediction


def _weights(s: np.ndarray, order: int) -> dict:
    """The sums' weights for each row and each number of rows walked before it.

    predict [n, order, order]: of (m0, m1, ...). correct [n, order + 1, order + 1]: of
    (m', m0, ...), corrector minus predictor of the row before; zero where no row was
    walked.
    """
    count = len(s) - 1
    alpha, lam = 1 / np.sqrt(1 + s**2), log_snr(s)
    predict = np.zeros((count, order, order))
    correct = np.zeros((count, order + 1, order + 1))
    for i in range(count):
        for age in range(order):
            p = min(age + 1, i + 1, count - i)
            h = lam[i + 1] - lam[i]
            ratios = (lam[i - p + 1 : i][::-1] - lam[i]) / h if h else np.zeros(p - 1)
            predict[i, age, :p] = alpha[i + 1] * _predictor(h, ratios)
            if i + 1 < count:
                correct[i + 1, age + 1, : p + 1] = alpha[i + 1] * _corrector(h, ratios)
                correct[i + 1, age + 1, 1:] -= predict[i, age]
    return {"predict": predict.astype(np.float32), "correct": correct.astype(np.float32)}


def _predictor(h: float, ratios: np.ndarray) -> np.ndarray:
    """[p] weights of (m0, m1, ...) in the prediction, in units of alpha'."""
    if h == 0 or len(ratios) == 0:
        return np.array([-np.expm1(-h)] + [0.0] * len(ratios))
    rho = np.array([0.5]) if len(ratios) == 1 else _solved(h, ratios)
    slopes = rho / ratios
    return -np.expm1(-h) * np.array([1 - slopes.sum(), *slopes])


def _corrector(h: float, ratios: np.ndarray) -> np.ndarray:
    """[p + 1] weights of (m', m0, m1, ...) in the correction, in units of alpha'."""
    if h == 0:
        return np.zeros(len(ratios) + 2)
    rho = np.array([0.5]) if len(ratios) == 0 else _solved(h, np.append(ratios, 1.0))
    slopes = rho[:-1] / ratios
    return -np.expm1(-h) * np.array([rho[-1], 1 - slopes.sum() - rho[-1], *slopes])


def _solved(h: float, ratios: np.ndarray) -> np.ndarray:
    """rho with sum_k rho_k r_k^(j-1) = j! phi_j / B for j = 1 .. len(r).

    phi_1 = B / (-h) - 1, phi_{j+1} = phi_j / (-h) - 1 / (j+1)!, B = e^-h - 1.
    """
    powers = np.stack([ratios**j for j in range(len(ratios))])
    phi, right = np.expm1(-h) / -h - 1, []
    for j in range(1, len(ratios) + 1):
        right.append(phi * math.factorial(j) / np.expm1(-h))
        phi = phi / -h - 1 / math.factorial(j + 1)
    return np.linalg.solve(powers, np.array(right))
