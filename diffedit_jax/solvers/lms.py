"""Linear multistep in sigma space (Adams-Bashforth on an uneven grid), order 4."""

from __future__ import annotations

import numpy as np
from flax import struct

from .moves import for_age, moved, no_past, pulled_score, remembered, weighted
from .sigma_space import SigmaSolver

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)  # exact up to degree 7


class LMS(SigmaSolver):
    """x_k' = x_k + sum_j c_j eps_j over the last `order` steps, as Euler's step and a bend.

    c_j = integral over [s, s'] of the Lagrange basis of the sigmas already walked, made on the
    host. The order grows from 1 at the first row walked. A pull shifts the score, which is then
    remembered.
    Source: Liu et al. 2022 (2202.09778) sec. 3; k-diffusion's sample_lms; LMSDiscreteScheduler.
    """

    order: int = struct.field(pytree_node=False, default=4)

    def _columns(self, s, end):
        return {"weights": _coefficients(np.append(s, end), self.order)}

    def init(self, x):
        return no_past(x, self.order - 1)

    def step(self, denoise, x, past, step):
        prediction = pulled_score(denoise(x, step))
        bend = weighted(for_age(step.more["weights"], step), (prediction.eps, *past))
        x_next = moved(prediction, step.alpha_next, step.sigma_next) + step.alpha_next * bend
        return x_next, remembered(prediction.eps, past), prediction


def _coefficients(s: np.ndarray, order: int) -> np.ndarray:
    """[n, order, order]: for each row and age of the memory, c_j - (s' - s) [j = 0], newest first.

    Only the difference from Euler's step, which leaves x0 without subtracting large numbers.
    """
    count = len(s) - 1
    weights = np.zeros((count, order, order))
    for i in range(count):
        for age in range(order):
            known = s[max(i - age, 0) : i + 1][::-1]
            weights[i, age, : len(known)] = _integrals(known, s[i], s[i + 1])
            weights[i, age, 0] -= s[i + 1] - s[i]
    return weights.astype(np.float32)


def _integrals(known: np.ndarray, begin: float, end: float) -> np.ndarray:
    """[k] integral from begin to end of each Lagrange basis polynomial of the nodes `known`."""
    at = begin + (end - begin) * (_NODES + 1) / 2
    basis = np.ones((len(known), len(at)))
    for j, node in enumerate(known):
        for other in np.delete(known, j):
            basis[j] *= (at - other) / (node - other)
    return (end - begin) / 2 * basis @ _WEIGHTS
