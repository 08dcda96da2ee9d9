"""Optimisers and learning rates, in torch's and diffusers' conventions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from ..errors import UserError


def make_optimiser(config: Any) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW or Adam at the rate of the schedule.

    torch's AdamW is optax's with torch's numbers: weight decay 1e-2, not 1e-4.
    Source: torch.optim.AdamW; torch.nn.utils.clip_grad_norm_.
    """
    if config.optimiser not in ("adamw", "adam"):
        raise UserError(f"optimiser={config.optimiser!r} is not known; use adamw or adam")
    (first, second), decay = config.betas, config.decay if config.optimiser == "adamw" else 0.0
    weights = optax.adamw(
        rates(config), b1=first, b2=second, eps=config.epsilon, weight_decay=decay
    )
    return optax.chain(optax.clip_by_global_norm(config.clip), weights) if config.clip else weights


def rates(config: Any) -> Callable[[Any], Any]:
    """The learning rate by the number of updates before: rate * factor(n), w = warmup.

    constant: 1 (a warm-up is ignored, as in diffusers);  else n / w for n < w, and then, with
    p = (n - w) / (steps - w),  constant_with_warmup: 1;  linear: 1 - p;
    cosine: (1 + cos pi p) / 2;  cosine_with_restarts: the same of (cycles p mod 1);
    polynomial: 1e-7 + (rate - 1e-7) (1 - p)^power, not as a factor;
    settle: 1, and over the last share `settle` of the steps a cosine down to 0.02.
    A long run with "settle" can be cut short by going on with fewer steps before its fall begins.

    Source: diffusers optimization.py.
    """
    shapes = {"constant_with_warmup": _hold, "linear": _linear, "cosine": _cosine,
              "cosine_with_restarts": _restarts, "polynomial": _polynomial}  # fmt: skip
    if config.schedule == "constant":
        return optax.constant_schedule(config.rate)
    if config.schedule == "settle":
        return _settle(config)
    if config.schedule not in shapes:
        known = ", ".join(["constant", "settle", *shapes])
        raise UserError(f"schedule={config.schedule!r} is not known; use one of {known}")
    shape, warmup = shapes[config.schedule], config.warmup

    def rate(n):
        p = (n - warmup) / max(1, config.steps - warmup)
        return config.rate * jnp.where(n < warmup, n / max(1, warmup), shape(p, config))

    return rate


def _hold(p, config):
    return jnp.ones_like(p)


def _linear(p, config):
    return jnp.maximum(0.0, 1 - p)


def _cosine(p, config):
    """Half a cosine; beyond the end it rises again, as diffusers' does."""
    return jnp.maximum(0.0, 0.5 * (1 + jnp.cos(jnp.pi * p)))


def _restarts(p, config):
    return jnp.where(p >= 1, 0.0, 0.5 * (1 + jnp.cos(jnp.pi * ((config.cycles * p) % 1.0))))


def _polynomial(p, config):
    least = 1e-7 / config.rate
    fall = (1 - least) * jnp.maximum(1 - p, 0.0) ** config.power + least
    return jnp.where(p > 1, least, fall)


def _settle(config):
    rate, steps, warmup = config.rate, config.steps, config.warmup
    fall = max(min(int(config.settle * steps), steps - warmup), 1)
    pieces = [
        optax.linear_schedule(0.0, rate, warmup),
        optax.constant_schedule(rate),
        optax.cosine_decay_schedule(rate, fall, 0.02),
    ]
    return optax.join_schedules(pieces, [warmup, max(steps - fall, warmup)])
