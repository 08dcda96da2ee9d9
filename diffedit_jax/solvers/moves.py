"""Arithmetic that several solvers share: where a prediction leads, and what the past weighs.

A solver of an ODE goes from level (alpha, sigma) to (alpha', sigma') along the straight line of a
constant eps: x' = alpha' x0 + sigma' eps. Euler's rule in sigma space, x_k' = x_k + (s' - s) eps
with x_k = x / alpha and s = sigma / alpha, is the same thing written in other units.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Prediction, Step

Latent = Float[Array, "*rows h w c"]


def pulled_score(prediction: Prediction) -> Prediction:
    """The rule of the deterministic solvers: a pull shifts the score, eps - sigma * pull."""
    if isinstance(prediction.pull, float):  # nobody pulled
        return prediction
    return prediction.with_eps(prediction.eps - prediction.sigma * prediction.pull)


def moved(prediction: Prediction, alpha, sigma) -> Latent:
    """x' = alpha' x0 + sigma' eps, for the level (alpha', sigma')."""
    return alpha * prediction.x0 + sigma * prediction.eps


def renoised(prediction: Prediction, step: Step, eta) -> Latent:
    """x' = alpha' x0 + sqrt(sigma'^2 - u^2) eps + u z.

    u = eta (sigma' / sigma) sqrt(1 - alpha^2 / alpha'^2), z standard normal from the row;
    eta 1 is ancestral sampling: in sigma space u_k^2 = s'^2 (s^2 - s'^2) / s^2, Euler ancestral.
    """
    kept = jnp.clip(1 - (step.alpha / step.alpha_next) ** 2, 0)
    spread = eta * step.sigma_next / step.sigma * jnp.sqrt(kept)
    left = jnp.sqrt(jnp.clip(step.sigma_next**2 - spread**2, 0))
    return moved(prediction, step.alpha_next, left) + spread * step.normal(prediction.x)


def clipped(prediction: Prediction, bound) -> Prediction:
    """x0 within [-bound, bound], eps as it was; nothing happens where bound is None."""
    if bound is None:
        return prediction
    return prediction.replace(x0=jnp.clip(prediction.x0, -bound, bound))


def landing(step: Step) -> Step:
    """The row as seen from where it leads: for rules that ask a second time in one step."""
    return step.replace(t=step.t_next, alpha=step.alpha_next, sigma=step.sigma_next)


def no_past(x: Latent, length: int) -> tuple:
    """An empty memory of `length` values, at least in float32."""
    return (jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)),) * length


def remembered(value: Latent, past: tuple) -> tuple:
    """The memory with one more value in front and the oldest one gone."""
    return (value.astype(past[0].dtype), *past[:-1]) if past else past


def weighted(weights: Float[Array, "k"], values: tuple) -> Latent:
    """sum_j weights[j] values[j], newest first."""
    return sum(weights[j] * value for j, value in enumerate(values))


def for_age(weights: Float[Array, "orders k"], step: Step) -> Float[Array, "k"]:
    """The weights of the highest order that the memory allows: row w after w rows were walked."""
    return weights[jnp.minimum(step.walked, weights.shape[0] - 1)]
