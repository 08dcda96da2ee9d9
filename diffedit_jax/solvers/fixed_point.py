"""A step that is its own reverse's exact inverse: the DDIM equation solved for the noisier end."""

from __future__ import annotations

from typing import Any

import jax

from .ddim import DDIM
from .moves import landing, moved, pulled_score


class FixedPoint(DDIM):
    """x_t = step(x_s, eps(x_t, t)), iterated from x_t = step(x_s, eps(x_s, told)).

    A DDIM step back from t to s asks at x_t; a plain inversion asks at x_s instead, which is where
    its error comes from. Each iteration asks at the x_t found so far and steps again from x_s, so
    the limit is undone exactly by the sampler. It converges where the step is short enough.
    A pull shifts the score, as in DDIM.

    Attributes:
      iterations: questions asked after the first, 1 to 3 are usual; a number, not a shape.

    Source: the implicit form of Pan et al. 2023 (AIDI, 2309.04907) and Garibi et al. 2024 (ReNoise,
    2403.14602), without their averaging.
    """

    iterations: Any = 1  # []

    def evaluations(self, count: int) -> int:
        return count * (1 + int(self.iterations))

    def step(self, denoise, x, memory, step):
        def again(_, carry):
            at = landing(step)
            said = pulled_score(denoise(carry[0], at))
            # asked at level t, used as the constant eps of a step that leaves x_s
            said = said.replace(x=x, alpha=step.alpha, sigma=step.sigma).with_eps(said.eps)
            return moved(said, at.alpha, at.sigma), said

        first = pulled_score(denoise(x, step))
        carry = moved(first, step.alpha_next, step.sigma_next), first
        x_next, used = jax.lax.fori_loop(0, self.iterations, again, carry)
        return x_next, memory, used
