"""Noise recorded while encoding a picture, mixed into what is predicted on the way back."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..core import Transform


class Inject(Transform):
    """eps <- eps + amount (recorded_i - eps) on the first `until` rows, after guidance.

    `amount` 1 on every row retraces the recorded path; 0 leaves the prediction alone. The last link
    of a chain: it must see the guided prediction.

    Source: the code of Elarabawy et al. 2022, Direct Inversion (2211.07825).
    """

    recorded: Any  # [steps, *rows, h, w, c] noise for each row of the sampling table
    amount: Any  # [], or per row [*rows, 1, 1, 1]: lambda, 0 to 1
    until: Any  # like amount, int32: how many of the rows that are walked are mixed

    def denoise(self, inner, state):
        def ask(x, step, cond, control=None):
            said = inner(x, step, cond, control)
            amount = jnp.where(step.walked < self.until, self.amount, 0.0)
            return said.with_eps(said.eps + amount * (self.recorded[step.index] - said.eps))

        return ask
