"""Losses and gradients far above those of the last batches: such a batch can be left out."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

WINDOW = 128  # batches that say what is usual


def fresh_window() -> Float[Array, "window 2"]:
    """Nothing seen yet."""
    return jnp.full((WINDOW, 2), jnp.nan)


def is_spike(
    recent: Float[Array, "window 2"], now: Float[Array, "2"], sigmas: float
) -> Bool[Array, ""]:
    """Whether loss or gradient norm lies above mean + sigmas * deviation of a full window.

    Source: OLMo-core's and Levanter's skipped steps (the rule, the window, and 6 deviations).
    """
    full = jnp.isfinite(recent).all()
    most = recent.mean(0) + sigmas * recent.std(0)
    return full & (now > most).any()


def seen(
    recent: Float[Array, "window 2"], now: Float[Array, "2"], step: Any
) -> Float[Array, "window 2"]:
    """The window with a batch in the oldest one's place, if it is finite.

    Spikes count too, so that a level that has changed for good is the usual one after a while.
    """
    moved = recent.at[step % WINDOW].set(now)
    return jnp.where(jnp.isfinite(now).all(), moved, recent)
