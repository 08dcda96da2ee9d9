"""An exact denoiser: data that is Gaussian has a score in closed form."""

from typing import Any

from flax import struct

from diffedit_jax.core import Prediction


class Gaussian(struct.PyTreeNode):
    """x0 ~ N(mean, spread^2): eps = sigma (x - alpha mean) / (alpha^2 spread^2 + sigma^2)."""

    mean: Any = 0.0
    spread: Any = 1.0

    def __call__(self, x, step, cond, control=None):
        variance = step.alpha**2 * self.spread**2 + step.sigma**2
        mean = self.mean if cond.text is None else cond.text
        eps = step.sigma * (x - step.alpha * mean) / variance
        x0 = mean + step.alpha * self.spread**2 * (x - step.alpha * mean) / variance
        return Prediction(x=x, x0=x0, eps=eps, alpha=step.alpha, sigma=step.sigma)

    def flow(self, x, alpha, sigma, alpha_next, sigma_next):
        """Where the probability-flow ODE takes x between two noise levels, exactly."""
        now = (alpha**2 * self.spread**2 + sigma**2) ** 0.5
        after = (alpha_next**2 * self.spread**2 + sigma_next**2) ** 0.5
        return alpha_next * self.mean + after / now * (x - alpha * self.mean)
