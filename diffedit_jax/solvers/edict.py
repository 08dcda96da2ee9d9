"""EDICT (Wallace et al. 2023): two coupled latents whose every step can be undone exactly."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from ..core import Solver, Step, reverse
from ..errors import UserError
from .grids import abar_at, timestep_table, whole_timesteps
from .moves import pulled_score

_LEVEL = ("t", "alpha", "sigma")
Latent = Float[Array, "*rows h w c"]


class EDICT(Solver):
    """Affine couplings of a pair (x, y): each half of a step asks about the other member.

    down:  x' = a x + b eps(y);  y' = a y + b eps(x');  x <- p x' + (1-p) y';  y <- p y' + (1-p) x
    up:    y' = (y - (1-p) x) / p;  x' = (x - (1-p) y') / p;  y = (y' - b eps(x')) / a;
           x = (x' - b eps(y)) / a
    a = sqrt(abar'/abar),  b = sqrt(1 - abar') - a sqrt(1 - abar); eps is asked with the time and
    the level of the noisier end, both ways. With `leapfrog` x leads in the even rows of sampling
    and y in the odd ones; rows count from the noisiest that is walked, both ways, so the way up
    undoes the way down for odd and even counts. A mix contracts x - y by p^2, undoing it dilates.

    Direction is a column of the table, so one program walks both ways. The latent is a tuple of two
    arrays; in float64, which `methods.run.walk` gives it, the round trip is exact to 1e-12 over a
    float32 network, because the same rounded question gets the same answer. A pull shifts the
    score, as in DDIM.

    Source: 2211.12446 equations 9 to 15; salesforce/EDICT, edict_functions.py.
    """

    float64 = True

    mix: Any = 0.93  # [] p, 0 < p <= 1
    leapfrog: bool = struct.field(pytree_node=False, default=True)
    asked: str = struct.field(pytree_node=False, default="float32")  # dtype of the question

    def evaluations(self, count: int) -> int:
        return 2 * count

    def steps(self, schedule, count, *, spacing=None, start=0):
        t = whole_timesteps(schedule, count, spacing)
        now, after = schedule.abar[t], abar_at(schedule, np.append(t[1:], -1), schedule.final_abar)
        return coupled(timestep_table(schedule, count, spacing, start), now, after, start)

    def step(self, denoise, x, memory, step):
        up, a, b = (step.more[name] for name in ("up", "a", "b"))
        at = _noisier(step)

        def eps(z):
            said = pulled_score(denoise(z.astype(self.asked), at))
            return said.eps.astype(z.dtype), said

        pair = _chosen(up, self.unmixed(*x), x)
        leads = up ^ (step.more["even"] | (not self.leapfrog))  # whether x moves first
        one, other = _chosen(leads, pair, pair[::-1])
        gain, push = jnp.where(up, 1 / a, a), jnp.where(up, -b / a, b)
        one = gain * one + push * eps(other)[0]
        answer, said = eps(one)
        other = gain * other + push * answer
        pair = _chosen(leads, (one, other), (other, one))
        return _chosen(up, pair, self.mixed(*pair)), memory, said

    def mixed(self, x: Latent, y: Latent) -> tuple[Latent, Latent]:
        """(p x + (1 - p) y, p y + (1 - p) x_new): contracts x - y by p^2."""
        x = self.mix * x + (1 - self.mix) * y
        return x, self.mix * y + (1 - self.mix) * x

    def unmixed(self, x: Latent, y: Latent) -> tuple[Latent, Latent]:
        """The inverse of `mixed`."""
        y = (y - (1 - self.mix) * x) / self.mix
        return (x - (1 - self.mix) * y) / self.mix, y


def coupled(steps: Step, now, after, start: int = 0) -> Step:
    """A timestep table with the coefficients of the couplings, in float64.

    Args:
      steps: as sampling walks it.
      now, after: [n] float64, signal powers abar before and after each row.
      start: the first row that is walked, where the order of the pair begins.
    """
    if np.any(np.asarray(now) <= 0):
        raise UserError("edict cannot undo a step that begins without signal; use strength below 1")
    a = np.sqrt(np.float64(after) / np.float64(now))
    b = np.sqrt(1 - np.float64(after)) - a * np.sqrt(1 - np.float64(now))
    even = (np.arange(len(a)) - start) % 2 == 0
    return steps.replace(more=dict(a=a, b=b, even=even, up=np.zeros(len(a), bool)))


def turned(steps: Step) -> Step:
    """A coupled table walked the other way."""
    flipped = reverse(steps)
    return flipped.replace(more=flipped.more | {"up": ~flipped.more["up"]})


def _noisier(step: Step) -> Step:
    """The row as both directions ask: at the time and level of its noisier end."""
    up = step.more["up"]
    ends = {name: (getattr(step, f"{name}_next"), getattr(step, name)) for name in _LEVEL}
    return step.replace(**{name: jnp.where(up, *pair) for name, pair in ends.items()})


def _chosen(which, yes: tuple, no: tuple) -> tuple:
    return tuple(jnp.where(which, a, b) for a, b in zip(yes, no, strict=True))
